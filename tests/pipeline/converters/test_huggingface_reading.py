"""Hugging Face directories as others publish them: old names, other settings, parts that differ."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.pipeline.converters.conftest import (
    BERT,
    MakeModel,
    Outcome,
    assert_same_bits,
    metadata_of,
    no_trace,
    tensors_of,
)


@pytest.fixture
def exported(
    convert: Callable[..., Outcome], make_model: MakeModel, vocab: Path, tmp_path: Path
) -> Path:
    """A directory as others publish it: without our record."""
    out = tmp_path / "exported"
    assert convert("native", "huggingface", make_model(), out, "--vocab", vocab).code == 0
    (out / "conversion.json").unlink()
    return out


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.unlink()
    path.write_text(json.dumps(value))


def rewrite_weights(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = {k: v.clone() for k, v in load_file(folder / "model.safetensors").items()}
    change(tensors)
    (folder / "model.safetensors").unlink()
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")


def test_old_names_and_missing_prefixes_come_in(
    convert: Callable[..., Outcome], exported: Path, tmp_path: Path
) -> None:
    convert("huggingface", "native", exported, tmp_path / "first")

    def age(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            tensors[old.replace("LayerNorm.bias", "LayerNorm.beta")] = tensors.pop(name)
        del tensors["cls.predictions.bias"]  # decoder.bias is the same
        tensors["bert.embeddings.position_ids"] = torch.arange(512)

    rewrite_weights(exported, age)
    assert convert("huggingface", "native", exported, tmp_path / "second").code == 0
    assert_same_bits(tensors_of(tmp_path / "second"), tensors_of(tmp_path / "first"))


def test_a_softmax_said_to_be_tied_must_be(
    convert: Callable[..., Outcome], exported: Path, tmp_path: Path
) -> None:
    rewrite(exported / "config.json", lambda config: config.pop("tie_word_embeddings"))
    done = convert("huggingface", "native", exported, tmp_path / "out")
    assert done.code == 65
    assert "cls.predictions.decoder.weight differs from the one it is said to be" in done.lines[1]


@pytest.mark.parametrize(
    ("key", "value", "code", "message"),
    [
        ("model_type", "gpt2", 78, "model_type: gpt2; only BERT-shaped networks are read"),
        ("position_embedding_type", "relative_key", 78, "position_embedding_type: relative_key"),
        ("type_vocab_size", 4, 78, "type_vocab_size: 4"),
        ("hidden_act", "mish", 78, "hidden_act: mish; known: gelu"),
        ("hidden_size", "8", 65, "config.json: hidden_size: input should be a valid integer"),
        ("num_hidden_layers", 12, 65, "holds 2 layers, its configuration says 12"),
    ],
)
def test_settings_that_are_not_those_of_the_weights(
    key: str,
    value: Any,
    code: int,
    message: str,
    convert: Callable[..., Outcome],
    exported: Path,
    tmp_path: Path,
) -> None:
    rewrite(exported / "config.json", lambda config: config.update({key: value}))
    done = convert("huggingface", "native", exported, tmp_path / "out")
    assert (done.code, message in done.only_line) == (code, True), done
    assert no_trace(tmp_path / "out")


def test_a_spec_may_repeat_and_not_contradict(
    convert: Callable[..., Outcome], exported: Path, tmp_path: Path
) -> None:
    architecture = {"embedding": "bert", "encoder": {**BERT, "dropout": 0.3}}
    spec = json.dumps({"architecture": architecture})
    done = convert("huggingface", "native", exported, tmp_path / "out", "--spec", spec)
    assert done.code == 0
    stated = metadata_of(tmp_path / "out")["architecture"]
    assert stated == {
        "embedding": {"name": "bert"},
        "encoder": architecture["encoder"],
        "subencoder": None,
    }
    spec = json.dumps({"architecture": {**architecture, "encoder": {**BERT, "num_heads": 4}}})
    done = convert("huggingface", "native", exported, tmp_path / "no", "--spec", spec)
    assert (done.code, "encoder.num_heads: 2 -> 4" in done.only_line) == (78, True)
    done = convert("huggingface", "native", exported, tmp_path / "no", "--set", "lowercase=false")
    assert (done.code, "says True" in done.only_line) == (78, True)


def test_a_head_has_a_place_or_is_left_out_by_name(
    convert: Callable[..., Outcome], exported: Path, tmp_path: Path
) -> None:
    rewrite_weights(
        exported, lambda tensors: tensors.update({"qa_outputs.weight": torch.ones(2, 8)})
    )
    done = convert("huggingface", "native", exported, tmp_path / "out")
    assert (done.code, len(done.lines)) == (65, 2)
    assert "qa_outputs.weight is not one of the model; `ignore` leaves it out" in done.lines[1]
    done = convert(
        "huggingface", "native", exported, tmp_path / "out", "--set", 'ignore=["qa_outputs.*"]'
    )
    assert done.code == 0
    assert any("left out as asked: qa_outputs.weight" in line for line in done.lines)


def test_a_tokenizer_of_another_kind_is_refused(
    convert: Callable[..., Outcome], exported: Path, tmp_path: Path
) -> None:
    rewrite(exported / "tokenizer.json", lambda value: value["model"].update({"type": "BPE"}))
    done = convert("huggingface", "native", exported, tmp_path / "out")
    assert (done.code, "only WordPiece" in done.only_line) == (78, True)


def test_the_vocabulary_may_stand_in_the_tokenizer(
    convert: Callable[..., Outcome], exported: Path, vocab: Path, tmp_path: Path
) -> None:
    (exported / "vocab.txt").unlink()
    assert convert("huggingface", "native", exported, tmp_path / "out").code == 0
    assert (tmp_path / "out" / "vocab.txt").read_bytes() == vocab.read_bytes()


def test_weights_as_torch_saved_them_come_in_through_the_child(
    convert: Callable[..., Outcome], exported: Path, tmp_path: Path
) -> None:
    convert("huggingface", "native", exported, tmp_path / "first")
    torch.save(load_file(exported / "model.safetensors"), exported / "pytorch_model.bin")
    (exported / "model.safetensors").unlink()
    done = convert("huggingface", "native", exported, tmp_path / "second")
    assert done.code == 0
    assert done.lines[-1].endswith("not compared: only model.safetensors is handed to transformers")
    assert_same_bits(tensors_of(tmp_path / "second"), tensors_of(tmp_path / "first"))
