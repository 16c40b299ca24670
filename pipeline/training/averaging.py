"""The mean of several models, exact to one rounding and free of order."""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from pipeline.errors import ConfigError, DataError


def average_tensors(paths: list[Path]) -> dict[str, Tensor]:
    """Return the mean of the tensors of several files, in their type.

    Summed in float64 over sorted values of each element's models, so that no order of the files
    shows in the bits; one tensor of all models is in memory at a time. Raises ConfigError for
    other names or shapes, DataError for values that are not finite.
    """
    files = [safe_open(path, framework="pt") for path in paths]
    names = sorted(files[0].keys())
    for path, file in zip(paths, files, strict=True):
        if different := set(names) ^ set(file.keys()):
            raise ConfigError(f"{path}: not a model of the same shape: {min(different)}")
    return {name: _mean(name, paths, [file.get_tensor(name) for file in files]) for name in names}


def _mean(name: str, paths: list[Path], tensors: list[Tensor]) -> Tensor:
    for path, tensor in zip(paths, tensors, strict=True):
        if tensor.shape != tensors[0].shape or tensor.dtype != tensors[0].dtype:
            raise ConfigError(
                f"{path}: {name} is {tensor.dtype} {list(tensor.shape)}, in {paths[0]} "
                f"{tensors[0].dtype} {list(tensors[0].shape)}"
            )
        if bad := int((~torch.isfinite(tensor)).sum()):
            raise DataError(f"{path}: {name} holds {bad} values that are not finite")
    if len(tensors) == 1:
        return tensors[0]
    ordered = torch.stack(tensors).double().sort(dim=0).values
    return (ordered.sum(0) / len(tensors)).to(tensors[0].dtype)
