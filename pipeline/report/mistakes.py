"""Misjudged rows from the predictions file of the stage evaluate."""

import csv
from pathlib import Path

from pipeline.errors import printable
from pipeline.report.results import Mistake

MAX_CHARACTERS = 140
NEEDED = {"gold", "predicted"}


def read_mistakes(path: Path, count: int) -> list[Mistake]:
    """Return the `count` most confident misjudgements in a predictions file, in that order.

    Rows of equal confidence stay in the order of the file. Empty where the file is missing, or
    where its task does not judge whole rows (no columns gold and predicted).
    """
    if not path.exists() or not count:
        return []
    csv.field_size_limit(1 << 24)
    with path.open(encoding="utf-8", newline="\n") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if not set(reader.fieldnames or ()) >= NEEDED:
            return []
        wrong = [row for row in reader if row["gold"] != row["predicted"]]
    wrong.sort(key=lambda row: -_confidence(row))
    return [_mistake(row) for row in wrong[:count]]


def _confidence(row: dict[str, str]) -> float:
    try:
        return float(row.get("probability") or 0)
    except ValueError:
        return 0.0


def _mistake(row: dict[str, str]) -> Mistake:
    texts = [row[name] for name in ("text_a", "text_b") if row.get(name)]
    return Mistake(
        text=printable(" | ".join(texts), MAX_CHARACTERS),
        gold=printable(row["gold"]),
        predicted=printable(row["predicted"]),
        confidence=_confidence(row),
    )
