"""Data stages run within this process, and what they leave behind."""

import contextlib
import io
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.__main__ import main
from pipeline.text.vocabulary import SPECIAL_TOKENS

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Outcome:
    """How a stage ended and what it said on stderr."""

    code: int
    lines: list[str]


def run(*arguments: object) -> Outcome:
    """Run a stage in this process."""
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        code = main([str(argument) for argument in arguments])
    return Outcome(code, stderr.getvalue().splitlines())


def run_apart(*arguments: object, file_limit: int | None = None, **environment: str) -> Outcome:
    """Run a stage in a process of its own, perhaps with a limit on the size of files."""

    def limit() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        preexec_fn=limit,
        check=False,
    )
    return Outcome(done.returncode, done.stderr.decode().splitlines())


def refused(outcome: Outcome, code: int, message: str) -> None:
    """Assert that a stage ended with one line, an error that says `message`."""
    assert (outcome.code, len(outcome.lines)) == (code, 1), outcome.lines
    assert outcome.lines[0].startswith("error: ") and message in outcome.lines[0]


def vocab(folder: Path, *corpora: Path, more: tuple[object, ...] = (), **spec: Any) -> Outcome:
    """Build `folder`/vocab.txt."""
    return run(
        *("vocab", "--spec", json.dumps(spec), "--corpus", *corpora),
        *("--out", folder / "vocab.txt", *more),
    )


def instances(
    out: Path, vocabulary: Path, *corpora: Path, more: tuple[object, ...] = (), **spec: Any
) -> Outcome:
    """Build an instance set in `out`."""
    spec = {"kind": "lines", **spec}
    return run(
        *("instances", "--spec", json.dumps(spec), "--corpus", *corpora),
        *("--vocab", vocabulary, "--out", out, *more),
    )


def write_vocab(path: Path, *tokens: str) -> Path:
    """Write a vocabulary with the special tokens first."""
    path.write_text("".join(f"{token}\n" for token in (*SPECIAL_TOKENS, *tokens)), encoding="utf-8")
    return path


def contents(folder: Path, pattern: str = "**/*") -> dict[str, bytes]:
    """Return the bytes of all files below a folder, by relative name, hidden ones included."""
    files = (path for path in folder.glob(pattern) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def tree(folder: Path) -> list[str]:
    """Return the names of all files and folders below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
