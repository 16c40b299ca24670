"""Rows of instances or of labelled data, in columns: what a batch is collated from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """Lists of different lengths: list i is values[offsets[i]:offsets[i + 1]]."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(B,) int64."""
        return np.diff(self.offsets).astype(np.int64)

    @classmethod
    def concatenate(cls, parts: Sequence["Ragged"]) -> "Ragged":
        """Return the lists of all parts, one part after another; each spans all its values."""
        lengths = np.concatenate([part.lengths for part in parts])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return cls(np.concatenate([part.values for part in parts]), offsets)

    def padded(self, width: int, fill: int = 0) -> np.ndarray:
        """Return (B, width) int64; what is longer is cut, the rest is `fill`."""
        columns = np.arange(width)[None, :]
        inside = columns < self.lengths[:, None]
        positions = np.where(inside, self.offsets[:-1, None] + columns, 0)
        if not len(self.values):
            return np.full((len(self), width), fill, np.int64)
        return np.where(inside, self.values[positions], fill).astype(np.int64)

    def take(self, rows: np.ndarray) -> "Ragged":
        """Return the lists `rows` (from 0 on), in that order; the cost is that of the result."""
        first = self.offsets[rows].astype(np.int64)
        lengths = self.offsets[rows + 1] - first
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        starts = np.repeat(first - offsets[:-1], lengths)
        return Ragged(self.values[starts + np.arange(offsets[-1])], offsets)


Column = np.ndarray | Ragged


def concatenate_columns(tables: Sequence[Mapping[str, Column]]) -> dict[str, Column]:
    """Return the rows of all tables, one table after another; all have the same columns."""
    if len(tables) == 1:
        return dict(tables[0])
    columns: dict[str, Column] = {}
    for name in tables[0]:
        parts: Any = [table[name] for table in tables]
        lists = isinstance(parts[0], Ragged)
        columns[name] = Ragged.concatenate(parts) if lists else np.concatenate(parts)
    return columns


@dataclass(frozen=True)
class Rows:
    """Some rows of a table.

    indices: (B,) int64, each row's number in the whole set. columns: name -> (B,) array or Ragged;
    `token_ids` is always there; `first_length` (B,), where present, is the number of tokens in
    segment 1 (the rest is segment 2).
    """

    indices: np.ndarray
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def lengths(self) -> np.ndarray:
        """(B,) int64: tokens in each row."""
        return self.ragged("token_ids").lengths

    def ragged(self, name: str) -> Ragged:
        """Return a column of lists."""
        column = self.columns[name]
        assert isinstance(column, Ragged), name
        return column

    def column(self, name: str) -> np.ndarray:
        """Return a column of numbers, (B,)."""
        column = self.columns[name]
        assert isinstance(column, np.ndarray), name
        return column

    def take(self, positions: np.ndarray) -> "Rows":
        """Return the rows at `positions`, in that order."""
        columns = {
            name: column.take(positions) if isinstance(column, Ragged) else column[positions]
            for name, column in self.columns.items()
        }
        return Rows(self.indices[positions], columns)
