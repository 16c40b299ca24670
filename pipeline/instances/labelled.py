"""Labelled: a label and one or two texts a line; target cls reads it."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from pipeline.instances import InstanceKind, Table
from pipeline.registry import INSTANCES
from pipeline.spec import CorpusFormat
from pipeline.text.corpus import Block
from pipeline.text.fields import iter_fields, labelled_problem
from pipeline.text.inputs import build_inputs
from pipeline.text.ledger import Ledger
from pipeline.text.manifest import ColumnType
from pipeline.text.rows import Column, concatenate_columns


@INSTANCES.register("labelled")
class LabelledInstances(InstanceKind):
    """Rows [CLS] text [SEP] or [CLS] A [SEP] B [SEP] with `first_length` and `label`.

    A line is label, tab, text [, tab, second text]; labels are whole numbers from 0 on. What is
    over seq_length is cut off, of a pair off the longer text.
    Source: the reference's cls instances. Differs: single texts end in [SEP]; pairs work.
    """

    formats: ClassVar[tuple[CorpusFormat, ...]] = ("labelled",)
    columns: ClassVar[dict[str, ColumnType]] = {
        "token_ids": "ids",
        "first_length": "uint16",
        "label": "uint32",
    }

    def build(self, block: Block, ledger: Ledger) -> Table:
        """Return the rows of a block of lines: single texts first, then pairs."""
        lines = list(iter_fields(block, labelled_problem, self.settings.skip_bad_rows, ledger))
        tables, documents = [], []
        for size in (2, 3):
            group = [(number, fields) for number, fields in lines if len(fields) == size]
            columns, kept = self._rows([fields for _, fields in group], ledger)
            tables.append(columns)
            documents += [group[row][0] for row in kept.tolist()]
        columns = concatenate_columns(tables)
        return Table(columns, np.array(documents, np.int64), block.lines)

    def _rows(
        self, lines: Sequence[Sequence[str]], ledger: Ledger
    ) -> tuple[dict[str, Column], np.ndarray]:
        """Return the columns of lines with equally many fields, and which lines made a row."""
        texts = [self.settings.tokenizer.encode(texts) for texts in zip(*lines, strict=True)][1:]
        texts = texts or [self.settings.tokenizer.encode([])]
        kept = np.flatnonzero(np.all([text.lengths > 0 for text in texts], axis=0))
        ledger.count("documents_in", len(kept))
        ledger.drop("no tokens", len(lines) - len(kept))
        first, *second = (text.take(kept) for text in texts)
        columns, cut = build_inputs(
            first,
            second[0] if second else None,
            self.settings.token_ids,
            self.settings.seq_length,
            reference="none",
        )
        ledger.count("rows_cut", int(np.count_nonzero(cut)))
        labels = np.array([int(line[0]) for line in lines], np.int64)[kept]
        for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
            ledger.count(f"label {label}", int(count))
        columns.setdefault("first_length", columns["token_ids"].lengths)  # type: ignore[union-attr]
        return {**columns, "label": labels}, kept

    def problem(self, ledger: Ledger) -> str | None:
        """Return why the whole set is of no use: there is only one label."""
        labels = [name for name in ledger.counts if name.startswith("label ")]
        if len(labels) > 1:
            return None
        return f"every line has {labels[0]}; target cls needs at least two labels"
