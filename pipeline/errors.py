"""Errors that a user can cause, each kind with the exit code that tells a workflow what to do next.

A message says where, what is wrong with the found value, and what would be right, on one line.
Several problems travel in one error, so that a user mends them all at once.
"""

import errno
import os
import shutil


class PipelineError(Exception):
    """Something the user can mend; `problems` holds one line for each.

    `__main__` prints the lines with the prefix `error: ` and exits with `exit_code`.
    """

    exit_code = 70

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems


class UsageError(PipelineError):
    """The command line itself is wrong."""

    exit_code = 64


class DataError(PipelineError):
    """The content of an input file is not what its format asks for."""

    exit_code = 65


class MissingError(PipelineError):
    """An input does not exist or cannot be fetched."""

    exit_code = 66


class CrashLoopError(PipelineError):
    """Several attempts in a row made no progress; one more would not either."""

    exit_code = 70


class LockedError(PipelineError):
    """Another process writes here."""

    exit_code = 73


class StorageError(PipelineError):
    """The disk is full, read-only or otherwise refuses to write or read."""

    exit_code = 74


class Resumable(PipelineError):
    """Stopped on purpose with its state saved; the same command continues."""

    exit_code = 75


class ArtifactError(PipelineError):
    """A file's bytes are not what its digest says."""

    exit_code = 76


class UnsafeError(PipelineError):
    """Refused because accepting it could run code or reach outside its place."""

    exit_code = 77


class ConfigError(PipelineError):
    """Settings are wrong, or an artefact was made for other settings."""

    exit_code = 78


def from_os_error(error: OSError, path: object) -> PipelineError:
    """Return the error of ours that tells what an OSError on `path` means."""
    if isinstance(error, FileNotFoundError):
        return MissingError(f"{path}: no such file")
    if isinstance(error, IsADirectoryError):
        return DataError(f"{path}: not a regular file but a directory")
    reason = {
        errno.ENOSPC: f"no space left on the disk, {_free_bytes(str(path))} bytes free",
        errno.EFBIG: "file size limit reached",
    }
    return StorageError(f"{path}: {reason.get(error.errno or 0, error.strerror or str(error))}")


def _free_bytes(path: str) -> int:
    folder = os.path.dirname(os.path.abspath(path))
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return shutil.disk_usage(folder).free


def printable(text: object, limit: int = 80) -> str:
    """Return `text` for a message or a log: control characters escaped, at most `limit` long."""
    escaped = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))
    return escaped if len(escaped) <= limit else escaped[: limit - 3] + "..."
