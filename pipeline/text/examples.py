"""Labelled texts and pairs of texts: one record for each good row of a file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.text.tables import RowLedger, iter_records


@dataclass(frozen=True)
class TextExample:
    """One text or pair. label is None where the file has none; group: the question it answers."""

    line: int
    id: str
    text_a: str
    text_b: str | None = None
    label: str | None = None
    group: str | None = None

    @property
    def content(self) -> str:
        """Return what makes two examples the same: the texts, not the label."""
        return self.text_a if self.text_b is None else f"{self.text_a}\t{self.text_b}"

    @property
    def texts(self) -> tuple[str, ...]:
        """Return each text by itself, as it may stand in a corpus."""
        return (self.text_a,) if self.text_b is None else (self.text_a, self.text_b)


def iter_text_examples(
    source: Path | BinaryIO,
    ledger: RowLedger,
    required: tuple[str, ...],
    optional: tuple[str, ...],
    json_lines: bool = False,
) -> Iterator[TextExample]:
    """Yield a TextExample for each good row, from its columns text_a, text_b, label, qid and id.

    Raises DataError (65) for empty texts, by the ledger's policy, and for an id that stands twice.
    """
    pairs: bool | None = None
    for line, fields in iter_records(source, required, optional, ledger, json_lines):
        blank = [n for n in ("text_a", "text_b") if n in fields and not fields[n].strip()]
        if blank:
            ledger.refuse(line, "empty text", f"{blank[0]} is empty; expected text")
            continue
        pairs = "text_b" in fields if pairs is None else pairs
        if pairs != ("text_b" in fields):
            problem = f"text_b is {'missing' if pairs else 'there'}, unlike in the rows before"
            ledger.refuse(line, "wrong fields", problem)
            continue
        label = fields.get("label")
        if label is not None and not label.strip():
            ledger.refuse(line, "empty label", "label is empty; expected a name or a number")
            continue
        if "id" in fields:
            ledger.claim_id(fields["id"], line)
        name = fields.get("id", str(line))
        yield TextExample(
            line, name, fields["text_a"], fields.get("text_b"), label, fields.get("qid")
        )
