"""Checkpoints from elsewhere that are malformed, malicious or not what they seem.

One line each on stderr, the right exit code, nothing executed, nothing left behind.
"""

# The fixtures of tests/pipeline/converters are imported by name.
# ruff: noqa: F401, F811

import argparse
import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.registry import CONVERTERS
from tests.pipeline.converters.conftest import (
    BERT,
    MakeModel,
    Outcome,
    convert,
    make_model,
    metadata_of,
    no_trace,
    tensors_of,
    vocab,
)

SPEC = json.dumps({"architecture": {"embedding": "bert", "encoder": BERT}, "targets": ["mlm"]})


class Canary:
    """An object whose unpickling runs a command."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that appears if anything from a checkpoint is executed."""
    return tmp_path / "canary"


def saved(value: Any, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def safetensors_file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(shape: list[int], start: int, end: int, kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


@pytest.fixture
def refuse(
    convert: Callable[..., Outcome],
    vocab: Path,
    canary: Path,
    tmp_path: Path,
) -> Callable[[bytes], Outcome]:
    """Give the stage a file of the reference's format; check what every refusal has in common."""

    def run(content: bytes) -> Outcome:
        source = tmp_path / "weights.bin"
        source.write_bytes(content)
        out = tmp_path / "out"
        done = convert("uer", "native", source, out, "--vocab", vocab, "--spec", SPEC)
        assert done.code != 0
        assert all(line.startswith("error: ") for line in done.lines)
        assert not canary.exists()
        assert no_trace(out)
        assert source.read_bytes() == content
        return done

    return run


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_by_name(
    zipped: bool, refuse: Callable[[bytes], Outcome], canary: Path
) -> None:
    done = refuse(saved({"a": torch.ones(2), "b": Canary(canary)}, zipped))
    assert done.code == 77
    assert "refused, because reading it would use posix.system" in done.only_line


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"args": argparse.Namespace(a=1)}, "argparse.Namespace"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"step": np.float64(1)}, "numpy._core.multiarray.scalar"),
    ],
)
def test_anything_but_tensors_is_refused_by_name(
    value: Any, name: str, refuse: Callable[[bytes], Outcome]
) -> None:
    done = refuse(saved(value))
    assert (done.code, f"would use {name};" in done.only_line) == (77, True)
    assert "torch.save(model.state_dict(), path)" in done.only_line


def test_a_bare_pickle_is_refused(refuse: Callable[[bytes], Outcome], canary: Path) -> None:
    import pickle

    done = refuse(pickle.dumps({"a": Canary(canary)}))
    assert (done.code, "refused" in done.only_line) == (77, True)


def test_a_harmless_legacy_file_comes_in(
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    model = make_model(targets=["mlm"])
    convert("native", "uer", model, tmp_path / "out", "--vocab", vocab)
    tensors = torch.load(tmp_path / "out" / "model.bin", weights_only=True)
    (tmp_path / "legacy.bin").write_bytes(saved(tensors, zipped=False))
    more = ("--vocab", vocab, "--spec", SPEC, "--set", "reference=none")
    done = convert("uer", "native", tmp_path / "legacy.bin", tmp_path / "back", *more)
    assert done.code == 0
    assert "no digest is known, the weights are not verified" in done.lines[0]
    before, after = tensors_of(model), tensors_of(tmp_path / "back")
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes, empty"),
        (b"PK\x03\x04" + b"rubbish" * 50, "354 bytes of a zip archive, damaged or cut off"),
        (b"just some words\n" * 9, "144 bytes, a text file"),
        (b"\n<!DOCTYPE html><p>404", "22 bytes, an HTML page, perhaps the error message"),
        (b"version https://git-lfs.github.com/spec/v1\n", "43 bytes, a Git LFS pointer, not"),
        (b"\x1f\x8b\x08" + b"\0" * 99, "a gzip file"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "an HDF5 (Keras) file"),
        (bytes(range(200, 256)), "56 bytes, a file of unknown kind"),
    ],
)
def test_other_files_are_named(
    content: bytes, message: str, refuse: Callable[[bytes], Outcome]
) -> None:
    done = refuse(content)
    assert (done.code, message in done.only_line) == (65, True), done


def test_a_file_cut_off_is_damaged(refuse: Callable[[bytes], Outcome]) -> None:
    whole = {"a": torch.ones(1000)}
    content = saved(whole)
    done = refuse(content[: len(content) // 2])
    assert (done.code, "damaged or cut off" in done.only_line) == (65, True)
    legacy = saved(whole, zipped=False)
    done = refuse(legacy[: len(legacy) // 2])
    assert (done.code, "damaged or cut off" in done.only_line) == (65, True)


def test_bombs_are_refused(refuse: Callable[[bytes], Outcome]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    done = refuse(buffer.getvalue())
    assert (done.code, "unpack to 10000000" in done.only_line) == (77, True)
    done = refuse(saved({"a": torch.ones(1).expand(1 << 20, 1 << 20)}))
    assert (done.code, "would become 4398046511104 bytes" in done.only_line) == (77, True)


def test_other_contents_are_named(refuse: Callable[[bytes], Outcome]) -> None:
    done = refuse(saved({"model": {"a": torch.ones(1)}, "step": 3}))
    assert done.code == 65
    assert "2 of 2 entries are no tensors, the first 'model' a dict" in done.only_line
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", b"<xml/>")
    done = refuse(buffer.getvalue())
    assert (done.code, "without data.pkl" in done.only_line) == (65, True)


DATA = b"\0" * 8
BAD_SAFETENSORS: list[tuple[bytes, int, str]] = [
    (safetensors_file({"a": one([2], 0, 8)}, DATA, 1 << 40), 65, "cut off"),
    (safetensors_file({"a": one([2], 0, 8)}, DATA[:4]), 65, "4 bytes of tensors, its header prom"),
    (safetensors_file({"a": one([2], 0, 8)}, DATA + b"\0"), 65, "bytes are left over"),
    (safetensors_file({"a": one([2], 0, 8), "b": one([2], 4, 12)}, DATA * 2), 65, "left over"),
    (safetensors_file({"a": one([1], 0, 4), "b": one([2], 0, 8)}, DATA), 65, "not a sound"),
    (safetensors_file({"a": one([1 << 62, 8], 0, 8)}, DATA), 65, "not a sound"),
    (safetensors_file({"a": one([3], 0, 8)}, DATA), 65, "not a sound"),
    (safetensors_file({"a": one([2], 0, 8, "F99")}, DATA), 65, "not a sound"),
    (safetensors_file({"a": {"dtype": "F32", "shape": [2]}}, DATA), 65, "without data_offsets"),
    (safetensors_file(b'{"a":{},"a":{}}'), 65, "key 'a' stands twice"),
    (safetensors_file({"../../etc/x": one([2], 0, 8)}, DATA), 65, "'../../etc/x' is not a tensor"),
    (safetensors_file(b"{" * 80 + b"}" * 80), 77, "nested 80 deep"),
    (safetensors_file(b"{" + b" " * (9 << 20) + b"}"), 77, "a header of 9437186 bytes; at most"),
    (
        safetensors_file({f"t{i}": one([0], 0, 0) for i in range(20_001)}),
        77,
        "20001 tensors; at most 20000",
    ),
]


@pytest.mark.parametrize(("content", "code", "message"), BAD_SAFETENSORS)
def test_malformed_headers(
    content: bytes, code: int, message: str, refuse: Callable[[bytes], Outcome]
) -> None:
    done = refuse(content)
    assert (done.code, message in done.only_line) == (code, True), done


@pytest.fixture
def weights(make_model: MakeModel, tmp_path: Path) -> dict[str, Tensor]:
    """Tensors of a model by the reference's names, which fit SPEC."""
    converter = CONVERTERS.get("uer")()
    model = make_model(targets=["mlm"])
    return {converter.place(k, {}).name: v for k, v in tensors_of(model).items()}


@pytest.fixture
def change(
    weights: dict[str, Tensor], refuse: Callable[[bytes], Outcome], tmp_path: Path
) -> Callable[[Callable[[dict[str, Tensor]], Any]], Outcome]:
    """Run the stage on changed weights."""

    def run(edit: Callable[[dict[str, Tensor]], Any]) -> Outcome:
        edit(weights)
        path = tmp_path / "changed"
        save_file(weights, path)
        return refuse(path.read_bytes())

    return run


Change = Callable[[Callable[[dict[str, Tensor]], Any]], Outcome]
LINEAR = "encoder.transformer.0.feed_forward.linear_1.weight"


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


@pytest.mark.parametrize("origin", ["uer", "huggingface"])
def test_a_distributed_checkpoint_is_refused(
    origin: str,
    convert: Callable[..., Outcome],
    vocab: Path,
    canary: Path,
    tmp_path: Path,
) -> None:
    import pickle

    source = tmp_path / "distributed"
    source.mkdir()
    (source / ".metadata").write_bytes(pickle.dumps(Canary(canary)))
    (source / "__0_0.distcp").write_bytes(saved({}))
    done = convert(origin, "native", source, tmp_path / "out", "--vocab", vocab, "--spec", SPEC)
    assert (done.code, "convert it where you trust it" in done.only_line) == (77, True)
    assert not canary.exists()
    assert no_trace(tmp_path / "out")


@pytest.mark.parametrize(
    ("origin", "goal", "code", "message"),
    [
        ("uerr", "native", 78, "--from: no converter 'uerr'; did you mean 'uer'? known: google,"),
        ("uer", "onnx", 78, "--to: no converter 'onnx'"),
        ("uer", "native", 66, "missing.bin: no such file"),
        ("huggingface", "native", 66, "missing.bin: no such directory"),
        ("native", "uer", 66, "missing.bin: no such model"),
    ],
)
def test_wrong_names(
    origin: str,
    goal: str,
    code: int,
    message: str,
    convert: Callable[..., Outcome],
    vocab: Path,
    tmp_path: Path,
) -> None:
    done = convert(origin, goal, tmp_path / "missing.bin", tmp_path / "out", "--vocab", vocab)
    assert (done.code, message in done.only_line) == (code, True), done
    assert no_trace(tmp_path / "out")


def test_a_directory_with_other_things_is_left_alone(
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    out, model = tmp_path / "out", make_model()
    assert convert("native", "native", model, out, "--vocab", vocab).code == 0
    assert convert("native", "native", model, out, "--vocab", vocab).code == 0
    (out / "notes.txt").write_text("mine")
    done = convert("native", "native", model, out, "--vocab", vocab)
    assert (done.code, "holds notes.txt" in done.only_line) == (64, True)
    done = convert("native", "native", model, model, "--vocab", vocab)
    assert (done.code, "is a file; a directory is written" in done.only_line) == (64, True)


def test_a_model_of_ours_is_copied_bit_for_bit(
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    model, out = make_model(), tmp_path / "out"
    assert convert("native", "native", model, out, "--vocab", vocab).lines == []
    assert (out / "model.safetensors").read_bytes() == model.read_bytes()
    names = sorted(path.name for path in out.iterdir())
    assert names == ["architecture.yaml", "model.safetensors", "vocab.txt"]
    architecture = metadata_of(out)["architecture"]
    same = json.dumps({"architecture": architecture, "reference": "none"})
    assert convert("native", "native", out, tmp_path / "same", "--spec", same).code == 0
    done = convert("native", "native", out, tmp_path / "no", "--set", "lowercase=false")
    assert (done.code, "lowercase: True -> False" in done.only_line) == (78, True)
    done = convert("native", "uer", model, tmp_path / "no")
    assert (done.code, "--vocab is missing" in done.only_line) == (64, True)


def test_two_vocabularies_must_be_one(
    convert: Callable[..., Outcome], parts: Path, vocab: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text(vocab.read_text().replace("的", "地"))
    done = convert("huggingface", "native", parts, tmp_path / "out", "--vocab", other)
    assert (done.code, "24 tokens, not those of" in done.only_line) == (78, True)
    assert convert("huggingface", "native", parts, tmp_path / "out", "--vocab", vocab).code == 0


def test_a_full_disk_leaves_nothing(
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    """Files are limited to fewer bytes than the model needs."""
    model = make_model()
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import torch; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from pipeline.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["convert", "--from", "native", "--to", "native", "--in", str(model)]
    arguments += ["--vocab", str(vocab), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 74, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert no_trace(tmp_path / "out")


def test_a_converted_model_is_one_that_stages_take(
    convert: Callable[..., Outcome],
    weights: dict[str, Tensor],
    vocab: Path,
    tmp_path: Path,
) -> None:
    from pipeline.training.pretrained import open_pretrained

    save_file(weights, tmp_path / "w.bin")
    more = ("--vocab", vocab, "--spec", SPEC)
    assert convert("uer", "native", tmp_path / "w.bin", tmp_path / "model", *more).code == 0
    opened = open_pretrained(tmp_path / "model", None, torch.device("cpu"))
    assert list(opened.model.targets) == ["mlm"]
    assert metadata_of(tmp_path / "model")["stamp"]["settings"]["from"] == "uer"
