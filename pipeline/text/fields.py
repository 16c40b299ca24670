"""Lines of tab-separated fields: corpora of labelled or parallel text."""

from collections.abc import Callable, Iterator

from pipeline.errors import DataError
from pipeline.text.corpus import Block
from pipeline.text.ledger import Ledger


def iter_fields(
    block: Block, problem: Callable[[list[str]], tuple[str, str] | None], skip: bool, ledger: Ledger
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line of the block, fields) of each well-formed line; blank lines are counted.

    problem: fields -> None, or (reason, message) of a malformed line, which is counted and left out
    (skip) or raises DataError.
    """
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
