"""Lines: each line is a document of plain token ids; targets mlm, lm and bilm read it."""

from typing import Literal

import numpy as np

from pipeline.instances import BuildSettings, InstanceKind, Table
from pipeline.registry import INSTANCES, ComponentConfig
from pipeline.text.corpus import Block
from pipeline.text.inputs import join_pieces, keep_first
from pipeline.text.ledger import Ledger
from pipeline.text.rows import Ragged


@INSTANCES.register("lines")
class LinesInstances(InstanceKind):
    """A row for each line, or for each `seq_length` tokens of a longer one.

    Source: the reference's lm, mlm and bilm instances. Differs: long lines are split by default
    rather than cut off; lines without tokens make no row.
    """

    class Config(ComponentConfig):
        """Options of the kind."""

        long_documents: Literal["split", "truncate"] = "split"
        """A line over seq_length becomes several rows, or loses its end (the reference)."""
        special_tokens: bool = False
        """Put [CLS] before and [SEP] behind each row; they count for seq_length."""

    config: Config

    def __init__(self, config: Config, settings: BuildSettings):
        super().__init__(config, settings)
        self._room = settings.seq_length - (2 if config.special_tokens else 0)

    def build(self, block: Block, ledger: Ledger) -> Table:
        """Return the rows of a block of lines."""
        lines = self.settings.tokenizer.encode_lines(block.text)
        _count(lines, block, ledger)
        if self.config.long_documents == "truncate":
            rows = keep_first(lines, np.minimum(lines.lengths, self._room))
            ledger.count("tokens_cut", len(lines.values) - len(rows.values))
            documents = np.flatnonzero(rows.lengths)
            rows = rows.take(documents)
        else:
            rows, documents = split_rows(lines, self._room)
        if self.config.special_tokens:
            ids = self.settings.token_ids
            rows = join_pieces([ids.cls, rows, ids.sep])
        return Table({"token_ids": rows}, documents, block.lines)


def _count(lines: Ragged, block: Block, ledger: Ledger) -> None:
    """Count the lines of a block: documents, blank lines, and those without any token."""
    empty = np.flatnonzero(lines.lengths == 0).tolist()
    contents = block.lines() if empty else []
    blank = sum(not contents[line].strip(b" \t") for line in empty)
    ledger.count("blank_lines", blank)
    ledger.count("documents_in", len(lines) - len(empty))
    ledger.drop("no tokens", len(empty) - blank)


def split_rows(lines: Ragged, room: int) -> tuple[Ragged, np.ndarray]:
    """Return rows of at most `room` tokens and, (R,) int64, the line of each."""
    counts = -(-lines.lengths // room)
    documents = np.repeat(np.arange(len(lines)), counts)
    inside = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = lines.offsets[documents] + inside * room
    return Ragged(lines.values, np.append(starts, lines.offsets[-1])), documents
