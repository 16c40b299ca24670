"""Checkpoints of the kinds that the stage convert must refuse, and what all refusals share."""

# Fixtures are imported by name.
# ruff: noqa: F401, F811

import io
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.registry import CONVERTERS
from tests.pipeline.converters.conftest import (
    BERT,
    MakeModel,
    Outcome,
    convert,
    make_model,
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


@pytest.fixture
def weights(make_model: MakeModel, tmp_path: Path) -> dict[str, Tensor]:
    """Tensors of a model by the reference's names, which fit SPEC."""
    converter = CONVERTERS.get("uer")()
    model = make_model(targets=["mlm"])
    return {converter.place(k, {}).name: v for k, v in tensors_of(model).items()}
