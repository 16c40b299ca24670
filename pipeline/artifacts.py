"""Files that explain themselves: written whole or not at all, stamped, digested, checked when read.

A stamp says what determined the content (stage, format, inputs, settings, seed, versions) and
nothing else: no host, path, time or number of processes, so that equal content is equal bytes.
"""

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import xxhash

from pipeline import __version__
from pipeline.errors import (
    ArtifactError,
    ConfigError,
    LockedError,
    MissingError,
    from_os_error,
    printable,
)
from pipeline.strict import canonical_json, parse_json, read_json

FORMAT_VERSION = 1
READ_BYTES = 1 << 20
MAX_TENSOR_HEADER_BYTES = 8 << 20
TEMPORARY_MARK = ".tmp-"
SCRATCH_MARK = ".work-"
# One key for all: safetensors writes several in random order, and equal content is equal bytes.
TENSOR_METADATA = "pretrain_zoo"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well it becomes `path`, read-only.

    Flushed to disk, renamed, folder flushed. After an error nothing is left behind. Leftovers of
    killed writers of the same file are removed first. Raises StorageError when the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        temporary = path.with_name(
            f".{path.name}{TEMPORARY_MARK}{os.getpid()}-{secrets.token_hex(4)}"
        )
        try:
            yield temporary
            os.chmod(temporary, 0o444)
            sync(temporary)
            crash_point("renaming")
            os.replace(temporary, path)
            crash_point("renamed")
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise from_os_error(error, path) from error


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`, removed afterwards like those of killed runs.

    After an error the folders that were made for `path` are removed too, where they are empty.
    Raises StorageError when the disk refuses.
    """
    mark = f".{path.name}{SCRATCH_MARK}"
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    folder = path.parent / f"{mark}{os.getpid()}"
    try:
        for old in path.parent.glob(f"{mark}*"):
            if not _is_alive(old.name.removeprefix(mark)):
                shutil.rmtree(old, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        for empty in made:
            with contextlib.suppress(OSError):
                empty.rmdir()
        if isinstance(error, OSError):
            raise from_os_error(error, path) from error
        raise
    shutil.rmtree(folder)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files that dead processes of this machine left for `path`."""
    for leftover in path.parent.glob(f".{path.name}{TEMPORARY_MARK}*"):
        pid = leftover.name.rpartition(TEMPORARY_MARK)[2].partition("-")[0]
        if not _is_alive(pid):
            leftover.unlink(missing_ok=True)


def _is_alive(pid: str) -> bool:
    """Return whether a process of this machine runs; one that is only not yet buried does not."""
    try:
        state = Path(f"/proc/{int(pid)}/stat").read_bytes().rpartition(b") ")[2][:1]
    except (OSError, ValueError):
        return False
    return state not in b"ZX"


def sync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def crash_point(name: str) -> None:
    """Die here if the fault tests ask for it (`PIPELINE_CRASH_AT=name:n`, n-th passage)."""
    wanted = os.environ.get("PIPELINE_CRASH_AT", "")
    if wanted.partition(":")[0] != name:
        return
    _passages[name] = _passages.get(name, 0) + 1
    if _passages[name] == int(wanted.partition(":")[2] or 1):
        os.kill(os.getpid(), 9)


_passages: dict[str, int] = {}


def digest_bytes(data: Any) -> str:
    """Return the xxh3-128 of a bytes-like object, in 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(data)


def digest_file(path: Path, algorithm: str = "xxh3_128") -> str:
    """Return a file's digest: xxh3_128 (against accidents) or sha256 (against anyone)."""
    state = xxhash.xxh3_128() if algorithm == "xxh3_128" else hashlib.new(algorithm)
    try:
        with path.open("rb") as file:
            while block := file.read(READ_BYTES):
                state.update(block)
    except OSError as error:
        raise from_os_error(error, path) from None
    return state.hexdigest()


def digest_value(value: Any) -> str:
    """Return the digest of a JSON value's canonical text."""
    return digest_bytes(canonical_json(value).encode())


def make_stamp(
    stage: str, settings: Mapping[str, Any], inputs: Mapping[str, Any], *packages: str
) -> dict[str, Any]:
    """Return the stamp of an artefact: what determines its content, ready for JSON.

    inputs: role -> digest (or list of digests). packages: those whose version changes the bytes.
    """
    versions = {"pretrain-zoo": __version__}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package).partition("+")[0]
    return {
        "stage": stage,
        "format": FORMAT_VERSION,
        "settings": dict(settings),
        "inputs": dict(inputs),
        "versions": versions,
    }


def check_stamp(found: Mapping[str, Any], stage: str, path: Path) -> None:
    """Raise ConfigError unless the stamp is one of `stage` in a format this version reads."""
    if found.get("format", 0) > FORMAT_VERSION:
        raise ConfigError(
            f"{path}: format {found['format']}, made by a newer version; this one reads up to "
            f"{FORMAT_VERSION}"
        )
    if found.get("stage") != stage:
        raise ConfigError(
            f"{path}: made by stage {printable(found.get('stage'))!r}; expected one of {stage!r}"
        )


def first_difference(ours: Any, theirs: Any, key: str = "") -> str | None:
    """Return `key: old -> new` of the first leaf in which two JSON values differ, else None."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for name in sorted({*ours, *theirs}):
            place = f"{key}.{name}" if key else str(name)
            if found := first_difference(ours.get(name), theirs.get(name), place):
                return found
        return None
    return None if ours == theirs else f"{key}: {printable(theirs)} -> {printable(ours)}"


def write_text(path: Path, text: str) -> None:
    """Publish a UTF-8 text file."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Publish a JSON object with the digest of its content under `digest`, indented for people."""
    content = {key: item for key, item in value.items() if key != "digest"}
    content["digest"] = digest_value(content)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)


def read_json_artifact(path: Path, stage: str | None = None) -> dict[str, Any]:
    """Return an object that `write_json` published, its digest checked (and removed).

    Raises MissingError, ArtifactError (torn or edited), ConfigError (other stage, newer format).
    """
    value = read_json(path, ArtifactError)
    if not isinstance(value, dict) or "digest" not in value:
        raise ArtifactError(f"{path}: no digest; not a file of this pipeline, or a damaged one")
    stated = value.pop("digest")
    if stated != digest_value(value):
        raise ArtifactError(
            f"{path}: content has digest {digest_value(value)}, its own record says "
            f"{printable(stated)}; edited or damaged, build it again"
        )
    if stage is not None:
        check_stamp(value.get("stamp", {}), stage, path)
    return value


def tensor_header(path: Path) -> tuple[dict[str, Any], dict[str, str], int]:
    """Return (tensors, metadata, start of data) of a safetensors file, its layout checked.

    tensors: name -> {dtype, shape, data_offsets}. Raises ArtifactError if header and size disagree.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_TENSOR_HEADER_BYTES):
                raise ArtifactError(f"{path}: not a safetensors file, or a truncated one")
            text = file.read(length).decode("utf-8", "replace")
    except OSError as error:
        raise from_os_error(error, path) from None
    header = parse_json(text, f"{path}: header", ArtifactError)
    try:
        metadata = dict(header.pop("__metadata__", {}))
        parts = [(item["dtype"], item["shape"], item["data_offsets"]) for item in header.values()]
        ends = [int(end) for _, _, (_, end) in parts]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ArtifactError(f"{path}: header is not that of a safetensors file") from None
    if size != 8 + length + (end := max(ends, default=0)):
        raise ArtifactError(f"{path}: {size} bytes, its header promises {8 + length + end}")
    return header, metadata, 8 + length


def digest_tensors(path: Path) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of a safetensors file, by name.

    Equal weights have equal digests whatever the metadata say.
    """
    header, _, start = tensor_header(path)
    state = hashlib.sha256()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for name in sorted(header):
            begin, end = header[name]["data_offsets"]
            state.update(
                canonical_json([name, header[name]["dtype"], header[name]["shape"]]).encode()
            )
            with memoryview(data) as view, view[start + begin : start + end] as part:
                state.update(part)
    return state.hexdigest()


def tensor_metadata(values: Mapping[str, Any]) -> str:
    """Return the text that stands under TENSOR_METADATA: the values and their digest."""
    return canonical_json({**values, "digest": digest_value(values)})


def read_tensor_stamp(path: Path, verify: bool = True) -> dict[str, Any]:
    """Return the metadata (as JSON values) of a safetensors file of ours, bytes checked.

    Raises ArtifactError if the metadata's digest or the weights' SHA-256 is not the recorded one,
    ConfigError for a file of another program, MissingError.
    """
    if not path.exists():
        raise MissingError(f"{path}: no such file")
    _, metadata, _ = tensor_header(path)
    if TENSOR_METADATA not in metadata:
        raise ConfigError(f"{path}: carries no stamp of this pipeline; bring it in with `convert`")
    values = parse_json(metadata[TENSOR_METADATA], f"{path}: metadata", ArtifactError)
    values.pop("digest", None)
    if metadata[TENSOR_METADATA] != tensor_metadata(values):
        raise ArtifactError(f"{path}: metadata are not what their digest says; build it again")
    if verify and (found := digest_tensors(path)) != values["weights"]:
        raise ArtifactError(
            f"{path}: weights have SHA-256 {found[:12]}..., recorded {values['weights'][:12]}...; "
            "damaged, build it again"
        )
    return values


@contextlib.contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold `folder`/.writer.lock: one writer at a time. Raises LockedError naming the holder.

    A kernel lock ends with its process, so it never goes stale. Raises StorageError when the disk
    refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".writer.lock").open("a+")
    except OSError as error:
        raise from_os_error(error, folder) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = printable(file.read().strip()) or "unknown"
            raise LockedError(f"{folder}: another process writes here ({holder})") from None
        file.truncate(0)
        job = os.environ.get("SLURM_JOB_ID", "none")
        note = f"process {os.getpid()} on {socket.gethostname()}, job {job}\n"
        with contextlib.suppress(OSError):  # for people; the lock is the kernel's
            os.write(file.fileno(), note.encode())
        yield
