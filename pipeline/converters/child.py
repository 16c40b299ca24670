"""A child process that may do little: limits on memory, time and what it writes.

What comes from elsewhere is parsed there, so that a crafted file meets two walls. The child says
what is wrong as lines on stderr, and its exit code is the error's.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import DataError, PipelineError, UnsafeError

# A file is in memory as read, as copied and as written.
SIZE_FACTOR = 5
CPU_SECONDS = 900


def run_limited(function: str, arguments: list[str], path: Path, size: int, base: int) -> None:
    """Call `module:function` with strings in a child process; `path` names it in messages.

    size: bytes of the file it reads; base: bytes of memory that its libraries map. Raises the
    DataError or UnsafeError that the child raised, UnsafeError when it met a limit.
    """
    memory = base + SIZE_FACTOR * size

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    module, _, name = function.partition(":")
    code = (
        "import sys; from pipeline.converters.child import answer; "
        f"from {module} import {name}; sys.exit(answer({name}, sys.argv[1:]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=limit,
        encoding="utf-8",
        errors="replace",
    )
    try:
        _, said = child.communicate(timeout=2 * CPU_SECONDS)
    except subprocess.TimeoutExpired:
        raise UnsafeError(f"{path}: not read within {2 * CPU_SECONDS} seconds; refused") from None
    finally:
        child.kill()
        child.wait()
    _raise_for(child.returncode, said, path, memory)


def _environment() -> dict[str, str]:
    """Return what the child sees: where Python finds modules, and nothing about the user."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "LC_ALL": "C.UTF-8",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _raise_for(code: int, said: str, path: Path, memory: int) -> None:
    """Raise what the child's exit code means."""
    if code == 0:
        return
    problems = [line.removeprefix(_MARK) for line in said.splitlines() if line.startswith(_MARK)]
    for kind in (DataError, UnsafeError):
        if code == kind.exit_code and problems:
            raise kind(*problems)
    if code < 0 or "MemoryError" in said:
        raise UnsafeError(
            f"{path}: refused; the process that read it ended with {code}, at most "
            f"{memory >> 20} MiB and {CPU_SECONDS} seconds are allowed"
        )
    raise RuntimeError(f"reading {path} failed in the child process:\n{said}")


# Libraries write lines of their own to stderr.
_MARK = "problem: "


def answer(function: Callable[..., None], arguments: list[str]) -> int:
    """Call a function in the child; return the exit code, reasons on stderr."""
    try:
        function(*arguments)
    except PipelineError as error:
        for problem in error.problems:
            print(f"{_MARK}{problem}", file=sys.stderr)
        return error.exit_code
    return 0
