"""Files that are malformed, malicious or no checkpoint at all.

One line each on stderr, the right exit code, nothing executed, nothing left behind.
"""

# Fixtures are imported by name.
# ruff: noqa: F401, F811

import argparse
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.pipeline.converters.conftest import (
    Outcome,
    convert,
    make_model,
    no_trace,
    vocab,
)
from tests.pipeline.stages.checkpoints import (
    SPEC,
    Canary,
    canary,
    one,
    refuse,
    safetensors_file,
    saved,
)


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
