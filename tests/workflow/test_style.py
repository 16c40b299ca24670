"""Linters, formatters and the type checker find nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.zoo import ROOT

BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        "ruff check .",
        "ruff format --check .",
        "snakefmt --check Snakefile workflow",
        "mypy",
        "snakemake --lint",
    ],
)
def test_nothing_is_found(command: str) -> None:
    program, *arguments = command.split()
    done = subprocess.run(
        [str(BIN / program), *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
