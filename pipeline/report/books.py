"""The books of a ledger: what went in, came out, was kept out or dropped; do they balance?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import printable


@dataclass(frozen=True)
class Entry:
    """A line of the books."""

    what: str
    count: int
    share: float
    """Of what went in."""


@dataclass(frozen=True)
class Books:
    """What became of the documents (or sentences, rows) that went in."""

    unit: str
    count_in: int
    dropped: Sequence[Entry]
    held_out: Entry | None
    out: Entry
    balanced: bool


def books_of(ledger: Mapping[str, Any]) -> list[Books]:
    """Return the books of every unit of a ledger: keys `{unit}_in` and `{unit}_out`.

    Documents are dropped under `dropped`, other units under `dropped_{unit}`, each by reason.
    """
    units = [key.removesuffix("_in") for key in ledger if key.endswith("_in")]
    return [_books(ledger, unit) for unit in units if f"{unit}_out" in ledger]


def _books(ledger: Mapping[str, Any], unit: str) -> Books:
    count_in, count_out = ledger[f"{unit}_in"], ledger[f"{unit}_out"]
    reasons = ledger.get(
        f"dropped_{unit}", ledger.get("dropped", {}) if unit == "documents" else {}
    )
    kept_out = ledger.get("held_out", 0) if unit == "documents" else 0

    def entry(what: str, number: int) -> Entry:
        return Entry(what, number, number / count_in if count_in else 0.0)

    by_size = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return Books(
        unit=unit,
        count_in=count_in,
        dropped=[entry(reason, number) for reason, number in by_size if number],
        held_out=entry("held out", kept_out) if kept_out else None,
        out=entry("out", count_out),
        balanced=count_in == count_out + kept_out + sum(reasons.values()),
    )


def notes_of(ledger: Mapping[str, Any]) -> dict[str, int]:
    """Return the other counts of a ledger, by name for people."""
    booked = {"held_out"} | {
        f"{books.unit}_{side}" for books in books_of(ledger) for side in ("in", "out")
    }
    return {
        name.replace("_", " "): value
        for name, value in ledger.items()
        if name not in booked and isinstance(value, int) and not isinstance(value, bool)
    }


MAX_LABELS = 8


def label_counts(part: Mapping[str, Any]) -> str:
    """Return how often each label stands in a part, the frequent ones where there are many."""
    counts = part.get("labels", {})
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = sorted(ranked[:MAX_LABELS]) if len(ranked) <= MAX_LABELS else ranked[:MAX_LABELS]
    rest = f", and {len(ranked) - MAX_LABELS} labels more" if len(ranked) > MAX_LABELS else ""
    return ", ".join(f"{printable(label)}: {number:,}" for label, number in shown) + rest
