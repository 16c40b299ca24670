"""Parallel: a source and a target text a line; target s2s reads it."""

from typing import ClassVar

import numpy as np

from pipeline.instances import InstanceKind, Table
from pipeline.registry import INSTANCES
from pipeline.spec import CorpusFormat
from pipeline.text.corpus import Block
from pipeline.text.fields import iter_fields, parallel_problem
from pipeline.text.inputs import keep_first
from pipeline.text.ledger import Ledger
from pipeline.text.manifest import ColumnType
from pipeline.text.rows import Column


@INSTANCES.register("parallel")
class ParallelInstances(InstanceKind):
    """Rows of plain ids: `token_ids` of the source, `target_ids` of the target.

    A line is source, tab, target; each is cut off at seq_length.
    Source: the reference's s2s instances of 2019. Differs: texts may hold spaces.
    """

    formats: ClassVar[tuple[CorpusFormat, ...]] = ("parallel",)
    columns: ClassVar[dict[str, ColumnType]] = {"token_ids": "ids", "target_ids": "ids"}

    def build(self, block: Block, ledger: Ledger) -> Table:
        """Return the rows of a block of lines."""
        lines = list(iter_fields(block, parallel_problem, self.settings.skip_bad_rows, ledger))
        texts = [
            self.settings.tokenizer.encode([fields[side] for _, fields in lines]) for side in (0, 1)
        ]
        kept = np.flatnonzero((texts[0].lengths > 0) & (texts[1].lengths > 0))
        ledger.count("documents_in", len(kept))
        ledger.drop("no tokens", len(lines) - len(kept))
        columns: dict[str, Column] = {}
        for name, text in zip(self.columns, (text.take(kept) for text in texts), strict=True):
            rows = keep_first(text, np.minimum(text.lengths, self.settings.seq_length))
            ledger.count("tokens_cut", len(text.values) - len(rows.values))
            columns[name] = rows
        documents = np.array([number for number, _ in lines], np.int64)[kept]
        return Table(columns, documents, block.lines)
