"""Tensors out of files that torch.save wrote, read by a child process that may do little.

Such a file is a pickle. It is read with `weights_only` alone, which builds tensors and plain
containers; as a second wall the reading process has limits on memory, time and what it may write,
and hands over a safetensors file. A file that needs more is refused (exit 77), never trusted.
"""

import pickle
import re
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.converters.child import SIZE_FACTOR, run_limited
from pipeline.errors import DataError, PipelineError, UnsafeError, printable

# torch alone maps 0.7 GB.
BASE_BYTES = 3 << 30
MAX_ENTRIES = 20_000
MAX_PICKLE_BYTES = 64 << 20
PLAIN_NAME = re.compile(r"^\w+([./-]\w+)*$")

_HOW_TO_EXPORT = "export it where you trust it, as torch.save(model.state_dict(), path)"


def read_torch_file(path: Path) -> dict[str, Tensor]:
    """Return the named tensors in a file of torch.save, zip or legacy, as they are stored.

    Raises UnsafeError for anything but tensors (the class or function is named) and for bombs,
    DataError for what is damaged or is not a mapping of names to tensors.
    """
    _check_zip(path)
    with tempfile.TemporaryDirectory(prefix="tensors-") as folder:
        out = Path(folder) / "tensors.safetensors"
        run_limited(
            "pipeline.converters.torch_file:extract",
            [str(path), str(out)],
            path,
            path.stat().st_size,
            BASE_BYTES,
        )
        return {name: tensor.clone() for name, tensor in load_file(out).items()}


def _check_zip(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise DataError(
            f"{path}: {size} bytes of a zip archive, damaged or cut off ({printable(error)})"
        ) from None
    if len(entries) > MAX_ENTRIES:
        raise UnsafeError(f"{path}: {len(entries)} entries in the archive; at most {MAX_ENTRIES}")
    # torch stores its entries as they are; a compressed one could be of any size.
    unpacked = sum(entry.file_size for entry in entries)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or unpacked > size:
        raise UnsafeError(
            f"{path}: a compressed archive, {size} bytes that unpack to {unpacked}; files of "
            "torch.save are not compressed"
        )
    pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if not pickles:
        raise DataError(f"{path}: a zip archive without data.pkl; not a file of torch.save")
    if pickles[0].file_size > MAX_PICKLE_BYTES:
        raise UnsafeError(
            f"{path}: data.pkl of {pickles[0].file_size} bytes; at most {MAX_PICKLE_BYTES}"
        )


def load_plain_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of torch.save, each with memory of its own.

    Runs in the child. Raises UnsafeError and DataError as `read_torch_file`.
    """
    loaded = _load(path)
    if not isinstance(loaded, Mapping):
        raise DataError(f"{path}: holds a {type(loaded).__name__}, not tensors by name")
    wrong = [name for name, value in loaded.items() if not isinstance(value, Tensor)]
    if wrong:
        held = type(loaded[wrong[0]]).__name__
        raise DataError(
            f"{path}: {len(wrong)} of {len(loaded)} entries are no tensors, the first "
            f"{printable(repr(wrong[0]))} a {held}; {_HOW_TO_EXPORT}"
        )
    return _own_memory(path, loaded)


def _load(path: Path) -> Any:
    zipped = zipfile.is_zipfile(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from None
    except Exception as error:  # what torch raises for damaged bytes has no common class
        detail = printable(str(error).partition("\n")[0])
        raise DataError(
            f"{path}: {path.stat().st_size} bytes that torch cannot read, damaged or cut off "
            f"({type(error).__name__}: {detail})"
        ) from None


def _refusal(path: Path, message: str) -> PipelineError:
    if found := re.search(r"GLOBAL ([\w.]+)", message):
        return UnsafeError(
            f"{path}: refused, because reading it would use {printable(found[1])}; only tensors by "
            f"name are read; {_HOW_TO_EXPORT}"
        )
    detail = printable(message.rpartition("WeightsUnpickler error: ")[2].strip().partition("\n")[0])
    return UnsafeError(
        f"{path}: refused, because it holds more than tensors by name ({detail}); {_HOW_TO_EXPORT}"
    )


def _own_memory(path: Path, loaded: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    size = sum(tensor.numel() * tensor.element_size() for tensor in loaded.values())
    if size > SIZE_FACTOR * path.stat().st_size:
        raise UnsafeError(
            f"{path}: {path.stat().st_size} bytes that would become {size} bytes of tensors"
        )
    result = {}
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not PLAIN_NAME.match(name) or len(name) > 256:
            raise DataError(f"{path}: {printable(repr(name))} is not a tensor's name")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise DataError(f"{path}: {name}: sparse, quantized and empty tensors are not read")
        result[name] = tensor.detach().contiguous().clone()
    return result


def extract(source: str, out: str) -> None:
    """Write the tensors of `source` to a safetensors file."""
    save_file(load_plain_tensors(Path(source)), out)
