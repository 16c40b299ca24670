"""Check any artefacts: every byte against its digest, every stamp against those of its inputs.

Takes files and folders; a folder is searched. Prints what each file is and how it is, and fails if
one is damaged, missing, or made from something else than stands beside it.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    MissingError,
    PipelineError,
    UnsafeError,
    printable,
)
from pipeline.report.verification import Finding, verify

# What decides the exit code where several things are wrong.
GRAVITY: tuple[type[PipelineError], ...] = (
    UnsafeError,
    ArtifactError,
    ConfigError,
    DataError,
    MissingError,
)
STYLES = {"whole": "green", "unknown": "dim", "no digest": "dim"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="files and folders")


def run(args: argparse.Namespace) -> None:
    """Print a table of findings; raise the gravest kind of error with a line for each file."""
    if absent := [path for path in args.paths if not path.exists()]:
        raise MissingError(*(f"{path}: no such file or folder" for path in absent))
    findings = verify(args.paths)
    if not any(finding.kind for finding in findings):
        where = ", ".join(str(path) for path in args.paths)
        raise MissingError(f"{where}: no file of this pipeline among {len(findings)}")
    _print(findings)
    errors = [finding.error for finding in findings if finding.error]
    if errors:
        kinds = [kind for kind in GRAVITY if any(isinstance(error, kind) for error in errors)]
        kind = kinds[0] if kinds else type(errors[0])
        raise kind(*dict.fromkeys(problem for error in errors for problem in error.problems))


def _print(findings: Sequence[Finding]) -> None:
    """Print a line for each file, then the sum; with colour on a terminal."""
    if sys.stdout.isatty():
        table = Table("state", "kind", "digest", "file", box=None)
        for finding in findings:
            cells = (
                finding.state,
                finding.kind or "?",
                finding.digest[:12],
                printable(finding.path),
            )
            table.add_row(*cells, style=STYLES.get(finding.state, "bold red"))
        Console(highlight=False, markup=False).print(table)
    else:
        for finding in findings:
            kind = finding.kind or "unknown kind"
            path = printable(finding.path, 1000)
            print(f"{finding.state:<9}  {kind:<19}  {finding.digest[:12]:<12}  {path}")
    counts = Counter(finding.state for finding in findings)
    print(", ".join(f"{number} {state}" for state, number in sorted(counts.items())))
