"""Tensors out of weight files of any origin, recognised by content, checked before use."""

import codecs
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.artifacts import MAX_TENSOR_HEADER_BYTES
from pipeline.converters.torch_file import MAX_ENTRIES, PLAIN_NAME, read_torch_file
from pipeline.errors import DataError, MissingError, UnsafeError, from_os_error, printable
from pipeline.strict import parse_json

_LOOK_BYTES = 512
_KINDS = {
    b"version https://git-lfs": "a Git LFS pointer, not the weights; run `git lfs pull`",
    b"\x1f\x8b": "a gzip file",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x89HDF": "an HDF5 (Keras) file",
    b"ARROW1": "an Arrow file",
    b"GGUF": "a GGUF file",
}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a safetensors or torch.save file, in their stored types.

    Raises MissingError; DataError for other kinds of files (what was found, its size) and damaged
    ones; UnsafeError for what could run code or exceeds the limits.
    """
    require_file(path)
    start = _start(path)
    if start[8:9] == b"{":
        return read_safetensors(path)
    if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] <= b"\x05"):
        return read_torch_file(path)
    raise DataError(
        f"{path}: {path.stat().st_size} bytes, {what_is(path)}; a safetensors file or one of "
        "torch.save is needed"
    )


def require_file(path: Path) -> None:
    """Raise unless `path` is a regular file that can be read."""
    if path.is_dir() and (path / ".metadata").exists():
        raise UnsafeError(
            f"{path}: a directory of torch.distributed.checkpoint, whose metadata are a pickle; "
            "convert it where you trust it"
        )
    try:
        path.stat()
        if not path.is_file():
            raise DataError(f"{path}: not a regular file")
        path.open("rb").close()
    except OSError as error:
        raise from_os_error(error, path) from None


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LOOK_BYTES)


def what_is(path: Path) -> str:
    """Return what kind of file is taken for weights by mistake, by its first bytes."""
    start = _start(path)
    if not start:
        return "empty"
    for magic, kind in _KINDS.items():
        if start.startswith(magic):
            return kind
    if start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page, perhaps the error message of a download"
    if start[257:262] == b"ustar":
        return "a tar archive"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(
            start
        )  # the last character may be cut
    except UnicodeDecodeError:
        return "a file of unknown kind"
    printing = all(character.isprintable() or character in "\t\n\r" for character in text)
    return "a text file" if printing else "a file of unknown kind"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, its header checked first."""
    _check_header(path)
    try:
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (SafetensorError, ValueError, OverflowError, RuntimeError) as error:
        raise DataError(f"{path}: not a sound safetensors file: {printable(error)}") from None


def _check_header(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise DataError(f"{path}: {size} bytes, its header alone should have {length}; cut off")
        if length > MAX_TENSOR_HEADER_BYTES:
            raise UnsafeError(
                f"{path}: a header of {length} bytes; at most {MAX_TENSOR_HEADER_BYTES}"
            )
        text = file.read(length).decode("utf-8", "replace")
    header = parse_json(text, f"{path}: header")
    if not isinstance(header, dict):
        raise DataError(f"{path}: header: not an object of tensors")
    header.pop("__metadata__", None)
    if len(header) > MAX_ENTRIES:
        raise UnsafeError(f"{path}: {len(header)} tensors; at most {MAX_ENTRIES}")
    for name in header:
        if not PLAIN_NAME.match(name) or len(name) > 256:
            raise DataError(f"{path}: {printable(repr(name))} is not a tensor's name")
    _check_size(path, header, size - 8 - length)


def _check_size(path: Path, header: Mapping[str, object], found: int) -> None:
    try:
        promised = max((int(item["data_offsets"][1]) for item in header.values()), default=0)  # type: ignore[index]
    except (KeyError, IndexError, TypeError, ValueError):
        raise DataError(f"{path}: header: a tensor without data_offsets") from None
    if promised != found:
        kind = "cut off" if found < promised else "bytes are left over"
        raise DataError(f"{path}: {found} bytes of tensors, its header promises {promised}; {kind}")


def to_float32(tensors: Mapping[str, Tensor], where: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors as finite float32, and what a person should know about the change.

    float16 and bfloat16 become float32 exactly, float64 is rounded. Raises DataError for whole
    numbers and for values that are not finite.
    """
    result, problems, changed = {}, [], dict[torch.dtype, int]()
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            problems.append(f"{where}: {name} is {_type_name(tensor)}; weights must be floats")
            continue
        if tensor.dtype != torch.float32:
            changed[tensor.dtype] = changed.get(tensor.dtype, 0) + 1
        result[name] = tensor.float()
        if bad := int((~torch.isfinite(result[name])).sum()):
            problems.append(f"{where}: {name} holds {bad} values that are not finite")
    if problems:
        raise DataError(*shorten(problems, where))
    rules = {torch.float64: "rounded to float32"}
    notes = [
        f"{where}: {count} tensors were {str(kind).removeprefix('torch.')}, "
        f"{rules.get(kind, 'made float32 without loss')}"
        for kind, count in changed.items()
    ]
    return result, notes


def _type_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def shorten(problems: list[str], where: str) -> list[str]:
    """Return the first ten problems and how many more there are."""
    rest = [f"{where}: and {len(problems) - 10} more"] if len(problems) > 10 else []
    return problems[:10] + rest


def first_existing(folder: Path, names: tuple[str, ...], needed: str) -> Path:
    """Return the first of `names` that is in a folder. Raises MissingError."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise MissingError(f"{folder}: no {' or '.join(names)}; {needed}")
