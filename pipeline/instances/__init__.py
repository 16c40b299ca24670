"""Instance kinds: one corpus layout each, text to rows of ids; no torch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xxhash

from pipeline.registry import ComponentConfig
from pipeline.spec import CorpusFormat
from pipeline.text.corpus import BLOCK_BYTES, Block, Corpus
from pipeline.text.ledger import Ledger
from pipeline.text.manifest import ColumnType
from pipeline.text.order import name_counter
from pipeline.text.rows import Column, Ragged
from pipeline.text.tokenizers import Tokenizer
from pipeline.text.vocabulary import TokenIds

_HELD_OUT = name_counter("held_out")


@dataclass(frozen=True)
class BuildSettings:
    """What every kind needs besides its own options."""

    tokenizer: Tokenizer
    seq_length: int
    seed: int
    corpus: Corpus
    held_out: float = 0.0
    skip_bad_rows: bool = False

    @property
    def token_ids(self) -> TokenIds:
        """The vocabulary's special ids."""
        return self.tokenizer.vocabulary.token_ids


def choose_held_out(contents: Sequence[bytes], share: float) -> np.ndarray:
    """Return, (documents,) bool, which documents are kept out of training: about `share` of them.

    By digest, so that equal documents share their fate in every corpus.
    """
    limit = round(share * 2**64)
    digests = (xxhash.xxh3_64_intdigest(content, _HELD_OUT) for content in contents)
    return np.fromiter((digest < limit for digest in digests), bool, len(contents))


@dataclass(frozen=True)
class Table:
    """Rows that were built from one block.

    columns: name -> (R,) array or Ragged. documents: (R,) int64, which document of the block each
    row is from. contents: gives what the documents' digests are taken of, in their order.
    """

    columns: Mapping[str, Column]
    documents: np.ndarray
    contents: Callable[[], Sequence[bytes]]

    def held_out(self, share: float) -> np.ndarray:
        """Return (R,) bool: rows of documents that are kept out of training."""
        return choose_held_out(self.contents(), share)[self.documents]

    def take(self, rows: np.ndarray) -> dict[str, Column]:
        """Return the columns of the rows at these positions."""
        return {
            name: column.take(rows) if isinstance(column, Ragged) else column[rows]
            for name, column in self.columns.items()
        }


class InstanceKind(ABC):
    """A corpus layout: text to rows.

    documents: units are documents rather than lines. formats: of fetched corpora that it can read.
    columns: name to type; token_ids is the first. block_bytes: how much text `build` is given at
    once. What is built from a block depends on the block and the seed alone.
    """

    class Config(ComponentConfig):
        """Options of the kind."""

    documents: ClassVar[bool] = False
    formats: ClassVar[tuple[CorpusFormat, ...]] = ("lines", "documents")
    columns: ClassVar[dict[str, ColumnType]] = {"token_ids": "ids"}
    block_bytes: ClassVar[int] = BLOCK_BYTES

    def __init__(self, config: ComponentConfig, settings: BuildSettings):
        self.config = config
        self.settings = settings

    @abstractmethod
    def build(self, block: Block, ledger: Ledger) -> Table:
        """Return the rows of a block; count its documents in, and those dropped, in `ledger`."""

    def problem(self, ledger: Ledger) -> str | None:
        """Return why the whole set, whose counts `ledger` holds, is of no use, else None."""
        return None
