"""Texts and pairs of texts as rows of ids: `[CLS] A [SEP]`, `[CLS] A [SEP] B [SEP]`."""

import numpy as np

from pipeline.text.rows import Ragged, Rows
from pipeline.text.vocabulary import TokenIds


def cut_pairs(first: np.ndarray, second: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how many tokens of A and of B stay when a pair is cut to `room`, longest first.

    first, second: (B,) int64 lengths. Tokens are taken off the longer text, off B where both are
    as long, until the pair fits.
    """
    half_first, half_second = (room + 1) // 2, room // 2
    fits = first + second <= room
    kept_first = np.where(second <= half_second, room - second, np.minimum(first, half_first))
    kept_second = np.where(first <= half_first, room - first, np.minimum(second, half_second))
    return np.where(fits, first, np.minimum(first, kept_first)), np.where(
        fits, second, np.minimum(second, kept_second)
    )


def join_pieces(pieces: list[Ragged | int]) -> Ragged:
    """Return rows that are the concatenation of pieces; an int stands for one token in each row.

    A Ragged piece has all its values between its first and last offset.
    """
    rows = next(len(piece) for piece in pieces if isinstance(piece, Ragged))
    sizes = np.stack(
        [p.lengths if isinstance(p, Ragged) else np.ones(rows, np.int64) for p in pieces], 1
    )
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    starts = offsets[:-1].reshape(sizes.shape)
    values = np.empty(int(offsets[-1]), np.int64)
    for piece, begin, size in zip(pieces, starts.T, sizes.T, strict=True):
        if isinstance(piece, int):
            values[begin] = piece
        else:
            shift = np.repeat(begin - piece.offsets[:-1], size)
            values[np.arange(len(shift)) + shift] = piece.values
    return Ragged(values, offsets[:: len(pieces)])


def keep_first(lists: Ragged, lengths: np.ndarray) -> Ragged:
    """Return the first `lengths` (B,) values of each list; none may be longer than its list."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    shift = np.repeat(lists.offsets[:-1] - offsets[:-1], lengths)
    return Ragged(lists.values[shift + np.arange(len(shift))], offsets)


def build_inputs(
    first: Ragged, second: Ragged | None, ids: TokenIds, seq_length: int, reference: str
) -> tuple[dict[str, np.ndarray | Ragged], np.ndarray]:
    """Return (columns token_ids and first_length, rows that were cut (B,) bool).

    A single text is cut on the right, a pair longest first. uer-2020: a single text has no [SEP]
    and a pair is cut on the right, so that B goes first.
    """
    plain = reference == "uer-2020"
    if second is None:
        room = seq_length - (1 if plain else 2)
        kept = np.minimum(first.lengths, room)
        pieces: list[Ragged | int] = [ids.cls, keep_first(first, kept)]
        rows = join_pieces(pieces if plain else [*pieces, ids.sep])
        return {"token_ids": rows}, first.lengths > room
    lengths_a, lengths_b = first.lengths, second.lengths
    cut = lengths_a + lengths_b > seq_length - 3
    if plain:
        rows = join_pieces([ids.cls, first, ids.sep, second, ids.sep])
        rows = keep_first(rows, np.minimum(rows.lengths, seq_length))
        first_length = np.minimum(lengths_a + 2, seq_length)
    else:
        kept_a, kept_b = cut_pairs(lengths_a, lengths_b, seq_length - 3)
        rows = join_pieces(
            [ids.cls, keep_first(first, kept_a), ids.sep, keep_first(second, kept_b), ids.sep]
        )
        first_length = kept_a + 2
    return {"token_ids": rows, "first_length": first_length}, cut


def number_rows(columns: dict[str, np.ndarray | Ragged]) -> Rows:
    """Return columns as rows numbered from 0."""
    return Rows(np.arange(len(columns["token_ids"]), dtype=np.int64), columns)
