"""Predictions as lines for people and programs: TSV beside the text, or JSON lines."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.artifacts import atomic_path

STANDARD = Path("-")

# One line stays one line and a terminal stays as it was, whatever stands in a text.
ESCAPES = str.maketrans(
    {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
    | {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
)


@contextmanager
def published_output(path: Path) -> Iterator[BinaryIO]:
    """Give standard output (`-`), or a file that is published when the block ends well."""
    if path == STANDARD:
        yield sys.stdout.buffer
        return
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        yield file


def tab_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a header and a line for each row; the first row's columns are all rows' columns.

    Control characters are written as escapes.
    """
    names: list[str] | None = None
    for row in rows:
        if names is None:
            names = list(row)
            yield "\t".join(names) + "\n"
        yield "\t".join(_field(row.get(name, "")) for name in names) + "\n"


def json_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a JSON object for each row, on one line."""
    for row in rows:
        yield json.dumps(row, ensure_ascii=False) + "\n"


def _field(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.translate(ESCAPES)
