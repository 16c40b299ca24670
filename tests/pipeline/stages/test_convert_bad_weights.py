"""Sound files whose tensors are not those of the model they are said to be."""

# Fixtures are imported by name.
# ruff: noqa: F401, F811

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.pipeline.converters.conftest import (
    MakeModel,
    Outcome,
    convert,
    make_model,
    no_trace,
    tensors_of,
    vocab,
)
from tests.pipeline.stages.checkpoints import SPEC, canary, refuse, weights

Change = Callable[[Callable[[dict[str, Tensor]], Any]], Outcome]
LINEAR = "encoder.transformer.0.feed_forward.linear_1.weight"


@pytest.fixture
def change(
    weights: dict[str, Tensor], refuse: Callable[[bytes], Outcome], tmp_path: Path
) -> Change:
    """Run the stage on changed weights."""

    def run(edit: Callable[[dict[str, Tensor]], Any]) -> Outcome:
        edit(weights)
        path = tmp_path / "changed"
        save_file(weights, path)
        return refuse(path.read_bytes())

    return run


def test_keys_that_are_missing_or_too_many_are_listed(change: Change, tmp_path: Path) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors["encoder.transformer.0.ff.weight"] = tensors.pop(LINEAR)

    done = change(edit)
    where = tmp_path / "weights.bin"
    assert (done.code, done.lines) == (
        65,
        [
            f"error: {where}: 2 tensors do not fit the architecture; all in turn:",
            f"error: {where}: tensor {LINEAR} is missing",
            f"error: {where}: tensor encoder.transformer.0.ff.weight is not one of the model; "
            "`ignore` leaves it out",
        ],
    )


def test_a_long_list_is_cut(change: Change) -> None:
    done = change(lambda tensors: [tensors.pop(k) for k in list(tensors) if "transformer.1." in k])
    assert (done.code, len(done.lines)) == (65, 12)
    assert "error: " in done.lines[0]
    assert done.lines[-1].endswith("and 6 more")


def test_shapes_are_named(change: Change) -> None:
    done = change(lambda tensors: tensors.update({LINEAR: torch.ones(16, 9)}))
    assert done.code == 65
    assert f"tensor {LINEAR} has shape [16, 9], the architecture asks for [16, 8]" in done.lines[1]


def test_rows_of_another_vocabulary(change: Change) -> None:
    name = "embedding.word_embedding.weight"
    done = change(lambda tensors: tensors.update({name: torch.ones(30, 8)}))
    assert (done.code, "has 30 rows, the vocabulary 24 tokens" in done.only_line) == (78, True)


def test_whole_numbers_are_no_weights(change: Change) -> None:
    done = change(lambda tensors: tensors.update({LINEAR: torch.ones(16, 8, dtype=torch.int64)}))
    assert (done.code, f"{LINEAR} is int64; weights must be" in done.only_line) == (65, True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_must_be_finite(value: float, change: Change) -> None:
    done = change(lambda tensors: tensors[LINEAR][0, :3].fill_(value))
    assert (done.code, f"{LINEAR} holds 3 values that are" in done.only_line) == (65, True)


def test_other_float_types_become_float32(
    weights: dict[str, Tensor],
    convert: Callable[..., Outcome],
    vocab: Path,
    tmp_path: Path,
) -> None:
    for kind, rule in (
        (torch.float16, "made float32 without loss"),
        (torch.bfloat16, "made float32 without loss"),
        (torch.float64, "rounded to float32"),
    ):
        save_file({k: v.to(kind) for k, v in weights.items()}, tmp_path / "w.bin")
        out = tmp_path / str(kind)
        more = ("--vocab", vocab, "--spec", SPEC)
        done = convert("uer", "native", tmp_path / "w.bin", out, *more)
        assert done.code == 0
        assert f"{len(weights)} tensors were {str(kind)[6:]}, {rule}" in done.lines[0]
        found = tensors_of(out)["encoder.layers.0.feed_forward.up.weight"]
        assert torch.equal(found, weights[LINEAR].to(kind).float())


def test_one_flipped_bit_is_seen_where_a_digest_is_known(
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    convert("native", "huggingface", make_model(), out, "--vocab", vocab)
    path = out / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.unlink()
    path.write_bytes(content)
    done = convert("huggingface", "native", out, tmp_path / "no")
    assert (done.code, "conversion.json says" in done.only_line) == (76, True)
    (out / "conversion.json").unlink()
    done = convert("huggingface", "native", out, tmp_path / "back")
    assert done.code == 0
    assert "no digest is known, the weights are not verified" in done.lines[0]


@pytest.fixture
def parts(
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> Path:
    """A Hugging Face directory whose weights are in two files."""
    out = tmp_path / "parts"
    convert("native", "huggingface", make_model(), out, "--vocab", vocab)
    (out / "conversion.json").unlink()
    tensors = load_file(out / "model.safetensors")
    (out / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, chosen in halves.items():
        save_file({name: tensors[name] for name in chosen}, out / file)
    places = {name: file for file, chosen in halves.items() for name in chosen}
    index = json.dumps({"metadata": {}, "weight_map": places})
    (out / "model.safetensors.index.json").write_text(index)
    return out


def test_weights_in_parts_come_in(
    convert: Callable[..., Outcome],
    parts: Path,
    tmp_path: Path,
) -> None:
    done = convert("huggingface", "native", parts, tmp_path / "out")
    assert done.code == 0
    assert done.lines[-1].endswith("not compared: only model.safetensors is handed to transformers")
    assert tensors_of(tmp_path / "out")["embedding.word.weight"].shape == (24, 8)


@pytest.mark.parametrize(
    ("file", "code", "message"),
    [
        ("../../secret.safetensors", 77, "../../secret.safetensors is not a file of this"),
        ("/etc/passwd", 77, "/etc/passwd is not a file of this directory"),
        ("three.safetensors", 66, "names three.safetensors, which is not there"),
        ("two.safetensors", 65, "stands here; the index says"),
    ],
)
def test_an_index_stays_in_its_directory(
    file: str,
    code: int,
    message: str,
    convert: Callable[..., Outcome],
    parts: Path,
    tmp_path: Path,
) -> None:
    index = parts / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    name = next(k for k, v in content["weight_map"].items() if v == "one.safetensors")
    content["weight_map"][name] = file
    index.write_text(json.dumps(content))
    done = convert("huggingface", "native", parts, tmp_path / "out")
    assert (done.code, message in done.only_line) == (code, True), done
    assert no_trace(tmp_path / "out")


def test_a_tensor_in_two_parts(
    convert: Callable[..., Outcome],
    parts: Path,
    tmp_path: Path,
) -> None:
    one, two = (load_file(parts / f"{name}.safetensors") for name in ("one", "two"))
    first = min(one)
    save_file({**two, first: one[first]}, parts / "two.safetensors")
    done = convert("huggingface", "native", parts, tmp_path / "out")
    assert done.code == 65
    assert f"two.safetensors: tensor {first} stands here; the index says one" in done.only_line


def test_two_vocabularies_must_be_one(
    convert: Callable[..., Outcome], parts: Path, vocab: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text(vocab.read_text().replace("的", "地"))
    done = convert("huggingface", "native", parts, tmp_path / "out", "--vocab", other)
    assert (done.code, "24 tokens, not those of" in done.only_line) == (78, True)
    assert convert("huggingface", "native", parts, tmp_path / "out", "--vocab", vocab).code == 0
