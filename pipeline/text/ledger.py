"""The conservation ledger: what went in, came out, and was left out, by named reason."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifacts import read_json_artifact
from pipeline.errors import ArtifactError, PipelineError

_DROPPED = {"documents": "dropped", "sentences": "dropped_sentences"}


class Ledger:
    """Counts of one shard or of many; they must balance before anything is published.

    `dropped` are documents, `dropped_sentences` sentences of documents, each by reason.
    """

    def __init__(self, record: Mapping[str, Any] | None = None):
        values = dict(record or {})
        self.dropped: dict[str, Counter[str]] = {
            unit: Counter(values.pop(key, {})) for unit, key in _DROPPED.items()
        }
        self.counts: Counter[str] = Counter(values)

    def count(self, what: str, number: int = 1) -> None:
        """Add to a count."""
        self.counts[what] += int(number)

    def drop(self, reason: str, number: int = 1, unit: str = "documents") -> None:
        """Count documents or sentences that come in and do not come out."""
        if number:
            self.counts[f"{unit}_in"] += int(number)
            self.dropped[unit][reason] += int(number)

    def add(self, other: "Ledger") -> None:
        """Add all counts of another ledger."""
        self.counts.update(other.counts)
        for unit, reasons in other.dropped.items():
            self.dropped[unit].update(reasons)

    def check_balance(self, where: str) -> None:
        """Raise unless what came in went out, was held out or was dropped: else a bug of ours."""
        for unit, reasons in self.dropped.items():
            held_out = self.counts["held_out"] if unit == "documents" else 0
            accounted = self.counts[f"{unit}_out"] + held_out + reasons.total()
            if self.counts[f"{unit}_in"] != accounted:
                raise PipelineError(
                    f"{where}: {self.counts[f'{unit}_in']} {unit} in, {accounted} accounted for; "
                    "nothing was published, please report this"
                )

    def record(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        dropped = {
            _DROPPED[unit]: dict(sorted(reasons.items()))
            for unit, reasons in self.dropped.items()
            if reasons or unit == "documents"
        }
        return {**dict(sorted(self.counts.items())), **dropped}


def read_fetched(corpora: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the ledgers that fetch wrote beside corpora, each with the corpus's name.

    Corpora without one are left out. Raises ArtifactError for a corpus that was changed since.
    """
    ledgers = []
    for path in corpora:
        beside = path.with_suffix(".ledger.json")
        if beside.exists():
            ledger = read_json_artifact(beside, "fetch")
            if (size := path.stat().st_size) != ledger["bytes"]:
                raise ArtifactError(
                    f"{path}: {size} bytes, {beside.name} says {ledger['bytes']}; fetch it again"
                )
            ledgers.append({"name": path.stem, **ledger})
    return ledgers
