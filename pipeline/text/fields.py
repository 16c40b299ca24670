"""Lines of tab-separated fields: corpora of labelled or parallel text."""

from collections.abc import Callable, Iterator

from pipeline.errors import DataError, printable
from pipeline.text.corpus import Block
from pipeline.text.ledger import Ledger

MAX_LABELS = 100_000


def iter_fields(
    block: Block, problem: Callable[[list[str]], tuple[str, str] | None], skip: bool, ledger: Ledger
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line of the block, fields) of each well-formed line; blank lines are counted.

    problem: fields -> None, or (reason, message) of a malformed line, which is counted and left out
    (skip) or raises DataError.
    """
    ledger.count("blank_lines", 0)
    for number, line in enumerate(block.text.split("\n")[:-1]):
        if not line.strip(" \t"):
            ledger.count("blank_lines")
            continue
        fields = line.split("\t")
        found = problem(fields)
        if found is None:
            yield number, fields
        elif skip:
            ledger.drop(found[0])
        else:
            raise DataError(f"{block.place(number)}: {found[1]}")


def labelled_problem(fields: list[str]) -> tuple[str, str] | None:
    """Return what is wrong with the fields of a labelled line: label, text [, second text]."""
    if len(fields) not in (2, 3):
        return (
            "wrong number of fields",
            f"{len(fields)} tab-separated fields; needed are label, text and perhaps a second text",
        )
    label = fields[0]
    if not (label.isascii() and label.isdecimal() and int(label) < MAX_LABELS):
        return (
            "label is not a number",
            f"label '{printable(label, 40)}' is not an integer in 0..{MAX_LABELS - 1}",
        )
    return None


def parallel_problem(fields: list[str]) -> tuple[str, str] | None:
    """Return what is wrong with the fields of a parallel line: source, target."""
    if len(fields) == 2:
        return None
    return (
        "wrong number of fields",
        f"{len(fields)} tab-separated fields; needed are source and target",
    )
