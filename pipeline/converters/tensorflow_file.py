"""Tensors out of and into TensorFlow checkpoints; TensorFlow itself runs in a child process.

It stays out of ours because it takes seconds to import and TensorBoard would then use it too.
"""

import tempfile
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.converters.child import run_limited
from pipeline.converters.tensor_files import require_file, what_is
from pipeline.errors import ConfigError, DataError, MissingError, printable

# TensorFlow alone maps 1.4 GB.
BASE_BYTES = 6 << 30
# The last bytes of the table of contents (`.index`).
MAGIC = bytes.fromhex("57fb808b247547db")


def require_tensorflow() -> None:
    """Raise ConfigError where TensorFlow is not installed."""
    if find_spec("tensorflow") is None:
        raise ConfigError(
            "format google needs TensorFlow, which is not installed; "
            "`pip install pretrain-zoo[tensorflow]`"
        )


def read_checkpoint(prefix: Path) -> dict[str, Tensor]:
    """Return the variables of a checkpoint by name; prefix: `bert_model.ckpt`, without .index.

    Raises MissingError, DataError (damaged, or no checkpoint), ConfigError (no TensorFlow).
    """
    index = prefix.with_name(prefix.name + ".index")
    require_file(index)
    if index.read_bytes()[-8:] != MAGIC:
        raise DataError(
            f"{index}: {index.stat().st_size} bytes, {what_is(index)}; not the table of contents "
            "of a TensorFlow checkpoint"
        )
    parts = sorted(prefix.parent.glob(f"{prefix.name}.data-?????-of-?????"))
    if not parts:
        raise MissingError(f"{prefix}.data-00000-of-00001: no such file; the weights are in it")
    require_tensorflow()
    size = sum(part.stat().st_size for part in parts)
    with tempfile.TemporaryDirectory(prefix="tensors-") as folder:
        out = Path(folder) / "tensors.safetensors"
        function = "pipeline.converters.tensorflow_file:extract"
        run_limited(function, [str(prefix), str(out)], prefix, size, BASE_BYTES)
        return {name: tensor.clone() for name, tensor in load_file(out).items()}


def write_checkpoint(prefix: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint of named variables. Raises ConfigError without TensorFlow."""
    require_tensorflow()
    with tempfile.TemporaryDirectory(prefix="tensors-") as folder:
        source = Path(folder) / "tensors.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, source)
        function = "pipeline.converters.tensorflow_file:pack"
        size = source.stat().st_size
        run_limited(function, [str(source), str(prefix)], prefix, size, BASE_BYTES)


def extract(prefix: str, out: str) -> None:
    """Write the variables of a checkpoint to a safetensors file. Runs in the child."""
    tensorflow: Any = import_module("tensorflow")
    try:
        reader = tensorflow.train.load_checkpoint(prefix)
        arrays = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except (tensorflow.errors.OpError, RuntimeError, ValueError, TypeError) as error:
        detail = printable(str(error).partition("\n")[0])
        raise DataError(
            f"{prefix}: TensorFlow cannot read it, damaged or cut off ({detail})"
        ) from None
    text = [name for name, array in arrays.items() if array.dtype.kind not in "fiub"]
    save_arrays(
        {name: np.ascontiguousarray(a) for name, a in arrays.items() if name not in text}, out
    )


def pack(source: str, prefix: str) -> None:
    """Write the tensors of a safetensors file as a checkpoint. Runs in the child."""
    tensorflow: Any = import_module("tensorflow")
    arrays = load_arrays(source)
    tensorflow.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=sorted(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=[tensorflow.constant(arrays[name]) for name in sorted(arrays)],
    )
