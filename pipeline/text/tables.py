"""Rows of labelled data: TSV with a header, or JSON lines; strict, and with balanced books.

TSV fields are literal: a quote is a quote, lines end at `\\n` only, columns are found by name in
any order. JSON lines hold one object a line with the same names. No row is lost silently: a bad
row stops the reader (bad_rows fail) or is counted by reason (skip).
"""

import difflib
import re
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pipeline.errors import DataError, UnsafeError, from_os_error, printable
from pipeline.strict import parse_json
from pipeline.text.encoding import not_utf8, refuse_magic

# What to do with gold answers: refuse rows without, read them where they are, or leave them alone.
Gold = Literal["required", "optional", "ignored"]

MAX_LINE_BYTES = 16 << 20
MAX_PROBLEMS = 10
SIMILAR = 0.75


def gold_columns(
    gold: Gold, required: Sequence[str], optional: Sequence[str], label: str = "label"
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (required, optional) columns with that of the gold answer where it is wanted."""
    return (
        (label, *required) if gold == "required" else tuple(required),
        (*optional, label) if gold == "optional" else tuple(optional),
    )


@dataclass
class RowLedger:
    """The books of one file's rows: read = used + skipped, by reason.

    where: the file's name in messages. policy: fail or skip.
    """

    where: str
    policy: str = "fail"
    rows: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)
    _problems: list[str] = field(default_factory=list)
    _ids: dict[str, object] = field(default_factory=dict)

    @property
    def used(self) -> int:
        """Rows read less rows skipped."""
        return self.rows - sum(self.skipped.values())

    def skip(self, reason: str) -> None:
        """Count a row left out."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    def note(self, what: str, count: int = 1) -> None:
        """Count something odd about rows that are used all the same."""
        if count:
            self.noted[what] = self.noted.get(what, 0) + count

    def refuse(self, place: object, reason: str, problem: str) -> None:
        """Leave a row out (policy skip), or keep the problem for `close` (policy fail).

        Raises DataError as soon as MAX_PROBLEMS have come together.
        """
        if self.policy == "skip":
            self.skip(reason)
            return
        self._problems.append(f"{self.where}:{place}: {problem}")
        if len(self._problems) >= MAX_PROBLEMS:
            self._problems.append(f"{self.where}: perhaps more; these are the first {MAX_PROBLEMS}")
            self.close()

    def claim_id(self, name: str, place: object) -> None:
        """Raise DataError if an example's id stands already elsewhere in the file."""
        if (first := self._ids.setdefault(name, place)) != place:
            raise DataError(
                f"{self.where}:{place}: id {printable(name)!r} stands already in {first}; ids must "
                "differ"
            )

    def close(self) -> None:
        """Raise DataError with all refused rows, one line each, if there are any."""
        if self._problems:
            raise DataError(*self._problems)

    def record(self) -> dict[str, Any]:
        """Return the books as JSON values."""
        return {
            "rows": self.rows,
            "used": self.used,
            "skipped": dict(sorted(self.skipped.items())),
            **dict(sorted(self.noted.items())),
        }


def iter_records(
    source: Path | BinaryIO,
    required: Sequence[str],
    optional: Sequence[str],
    ledger: RowLedger,
    json_lines: bool = False,
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, column -> text) of each well-formed row, in file order.

    source: a file, or an open binary stream. Only the columns named in required and optional are
    kept. Raises DataError for the header and the encoding; rows follow the ledger's policy, whose
    `close` is called at the end.
    """
    if isinstance(source, Path):
        with open_regular(source) as file:
            yield from iter_records(file, required, optional, ledger, json_lines)
        return
    lines = iter_lines(source, ledger.where)
    reader = _json_rows if json_lines else _tab_rows
    yield from reader(lines, required, optional, ledger)
    ledger.close()


def is_json_lines(path: Path) -> bool:
    """Return whether a file's name says that it holds JSON lines."""
    return path.suffix in {".jsonl", ".ndjson"}


def open_regular(path: Path) -> BinaryIO:
    """Return a regular file opened for reading. Raises MissingError, DataError, StorageError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path}: not a regular file")
        return path.open("rb")
    except OSError as error:
        raise from_os_error(error, path) from None


def standard_input() -> BinaryIO:
    """Return standard input as bytes: text is UTF-8 whatever the locale says."""
    return sys.stdin.buffer


def iter_lines(file: BinaryIO, where: str) -> Iterator[tuple[int, str]]:
    r"""Yield (line number from 1, text) without `\n` or `\r\n`; a byte order mark is dropped.

    Raises DataError for bytes that are not UTF-8 text, naming what they look like.
    """
    offset = 0
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{where}:{number}: a line of over {MAX_LINE_BYTES >> 20} MB")
        if number == 1:
            refuse_magic(line, where)
            line = line.removeprefix(b"\xef\xbb\xbf")
        yield number, _decode(line, where, number, offset)
        offset += len(line)


def _decode(line: bytes, where: str, number: int, offset: int) -> str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}:{number}: {not_utf8(line, error, offset)}") from None
    if "\0" in text:
        raise DataError(f"{where}:{number}: a NUL byte; is this a text file?")
    return text.removesuffix("\n").removesuffix("\r")


def _tab_rows(
    lines: Iterator[tuple[int, str]],
    required: Sequence[str],
    optional: Sequence[str],
    ledger: RowLedger,
) -> Iterator[tuple[int, dict[str, str]]]:
    _, header = next(lines, (1, ""))
    names = header.split("\t")
    check_columns(names, required, optional, ledger.where)
    wanted = {name: names.index(name) for name in (*required, *optional) if name in names}
    for number, line in lines:
        ledger.rows += 1
        fields = line.split("\t")
        if not line:
            ledger.skip("blank line")
        elif len(fields) != len(names):
            ledger.refuse(
                number,
                "wrong number of fields",
                f"{len(fields)} tab-separated fields; the header has {len(names)}",
            )
        else:
            yield number, {name: fields[place] for name, place in wanted.items()}


def check_columns(
    names: Sequence[str], required: Sequence[str], optional: Sequence[str], where: str
) -> None:
    """Raise DataError for a header that lacks a column, has one twice, or nearly has one."""
    shown = ", ".join(printable(name, 30) for name in names[:12])
    if missing := [name for name in required if name not in names]:
        raise DataError(
            f"{where}:1: no column {', '.join(missing)}; found {shown}; the first line must name "
            f"{', '.join(required)}"
        )
    if twice := [name for name in (*required, *optional) if names.count(name) > 1]:
        raise DataError(f"{where}:1: column {twice[0]} stands twice; found {shown}")
    absent = [name for name in optional if name not in names]
    for name in names:
        close = difflib.get_close_matches(name.lower(), absent, 1, SIMILAR)
        if close and name not in (*required, *optional):
            raise DataError(
                f"{where}:1: column {printable(name)!r} looks like {close[0]!r}; rename it"
            )


def _json_rows(
    lines: Iterator[tuple[int, str]],
    required: Sequence[str],
    optional: Sequence[str],
    ledger: RowLedger,
) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in lines:
        ledger.rows += 1
        if not line.strip():
            ledger.skip("blank line")
            continue
        try:
            value = parse_json(line, "row")
        except (DataError, UnsafeError) as error:
            # `row:1:COLUMN: ...` or `row: ...`: the line is the file's.
            _, column, problem = re.split(r"^row(?::1:(\d+))?: ", str(error), maxsplit=1)
            ledger.refuse(f"{number}:{column}" if column else number, "not JSON", problem)
            continue
        problem = _object_problem(value, required, optional)
        if problem:
            ledger.refuse(number, "wrong fields", problem)
        else:
            names = [name for name in (*required, *optional) if value.get(name) is not None]
            yield number, {name: str(value[name]) for name in names}


def _object_problem(value: Any, required: Sequence[str], optional: Sequence[str]) -> str | None:
    if not isinstance(value, Mapping):
        return f"a JSON {type(value).__name__}; expected an object with {', '.join(required)}"
    if missing := [name for name in required if value.get(name) is None]:
        shown = ", ".join(printable(name, 30) for name in list(value)[:12])
        return f"no key {', '.join(missing)}; found {shown}"
    for name in (*required, *optional):
        if isinstance(value.get(name), bool | float | list | dict):
            return f"{name} is {printable(value[name], 40)}; expected a string or a whole number"
    return None
