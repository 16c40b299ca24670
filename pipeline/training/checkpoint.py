"""Models and training state as safetensors files that carry their own description.

All metadata are one JSON object under one key; `weights` in it is the SHA-256 over names, types,
shapes and bytes of the tensors, checked whenever a file is read.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.artifacts import (
    TENSOR_METADATA,
    atomic_path,
    crash_point,
    read_tensor_stamp,
    tensor_metadata,
)
from pipeline.errors import ConfigError, DataError, MissingError, printable
from pipeline.strict import canonical_json

_TYPE_NAMES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}


def digest_weights(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors, equal to `artifacts.digest_tensors` of their file."""
    state = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        state.update(canonical_json([name, _TYPE_NAMES[tensor.dtype], list(tensor.shape)]).encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Publish tensors with `metadata` (JSON values, a `stamp` among them); return their SHA-256."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    weights = digest_weights(plain)
    text = tensor_metadata({**metadata, "weights": weights})
    with atomic_path(path) as temporary:
        crash_point("writing")
        _write(temporary, plain, text)
        crash_point("written")
    return weights


def _write(path: Path, tensors: dict[str, Tensor], text: str) -> None:
    """Write a file; an error of the disk, which safetensors hides in its own, comes out as one."""
    try:
        save_file(tensors, path, metadata={TENSOR_METADATA: text})
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from None
        raise


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return (tensors, metadata) of a file of ours, every byte checked.

    Raises MissingError, ArtifactError (damaged) and ConfigError (not stamped by this pipeline).
    """
    metadata = read_tensor_stamp(path)
    return load_file(path), metadata


def model_file(path: Path) -> Path:
    """Return the weights file of a MODEL: the file itself, or the one in a directory."""
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.exists():
        raise MissingError(f"{path}: no such model; give a .safetensors file or a model directory")
    return path


def load_weights(
    module: torch.nn.Module, tensors: Mapping[str, Tensor], where: str, prefixes: tuple[str, ...]
) -> None:
    """Copy the tensors whose names begin with `prefixes` into a module.

    Raises DataError that lists what is missing, left over or of another shape: never a loose load.
    """
    own = {k: v for k, v in module.state_dict().items() if k.startswith(prefixes)}
    given = {k: v for k, v in tensors.items() if k.startswith(prefixes)}
    problems = [f"{where}: tensor {printable(k)} is missing" for k in sorted(own.keys() - given)]
    problems += [
        f"{where}: tensor {printable(k)} is not one of the model"
        for k in sorted(given.keys() - own)
    ]
    problems += [
        f"{where}: tensor {k} has shape {list(given[k].shape)}, the model {list(own[k].shape)}"
        for k in sorted(own.keys() & given)
        if own[k].shape != given[k].shape
    ]
    if problems:
        rest = [f"{where}: and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise DataError(*problems[:10], *rest)
    module.load_state_dict(given, strict=False)


def require_vocabulary(metadata: Mapping[str, Any], digest: str, where: str) -> None:
    """Raise ConfigError unless a model was made with the vocabulary of this digest."""
    if metadata["vocabulary"] != digest:
        raise ConfigError(
            f"{where}: made with vocabulary {printable(metadata['vocabulary'])[:12]}..., given "
            f"{digest[:12]}...; pass the vocabulary it was made with"
        )
