"""Which rows make a batch and how it is cut: pure functions of seed, step and lengths."""

import numpy as np
import torch
from torch import Tensor

from pipeline.text.order import permute
from pipeline.text.rows import Rows


def global_batch(
    step: int, batch_size: int, num_rows: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (epochs, indices), each (batch_size,) int64, of the batch of update `step` (from 0).

    The endless sequence of shuffled epochs is read in slices, so a batch may span two epochs.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epochs = positions // num_rows
    return epochs, permute(positions % num_rows, num_rows, seed, epochs)


def cut_micro_batches(lengths: np.ndarray, parts: int) -> list[np.ndarray]:
    """Return `parts` arrays of row positions of near-equal padded tokens, shortest rows first.

    Each part is padded to its own longest row, so its cost is rows * longest. The smallest cost
    limit for which greedy filling needs at most `parts` parts is found by bisection; then the
    most expensive parts are halved until there are exactly `parts`. Needs len(lengths) >= parts.
    """
    order = np.argsort(lengths, kind="stable")
    sizes = np.maximum(lengths[order], 1)
    low, high = int(sizes.sum()) // parts, int(sizes[-1]) * len(sizes)
    while low < high:
        middle = (low + high) // 2
        if len(_fill(sizes, middle)) <= parts:
            high = middle
        else:
            low = middle + 1
    ends = _fill(sizes, high)
    while len(ends) < parts:
        starts = [0, *ends[:-1]]
        costs = [
            (end - start) * int(sizes[end - 1]) if end - start > 1 else -1
            for start, end in zip(starts, ends, strict=True)
        ]
        widest = int(np.argmax(costs))
        ends.insert(widest, (starts[widest] + ends[widest] + 1) // 2)
    return np.split(order, ends[:-1])


def _fill(sizes: np.ndarray, limit: int) -> list[int]:
    """Return the ends of greedily filled parts; a single row may exceed the limit."""
    ends, start = [], 0
    for position, size in enumerate(sizes.tolist()):
        if position > start and (position + 1 - start) * size > limit:
            ends.append(position)
            start = position
    return [*ends, len(sizes)]


def make_batch(rows: Rows, width: int | None = None, pad: int = 0) -> dict[str, Tensor]:
    """Return token_ids, segment_ids (B, T) and lengths (B,), int64.

    T is the longest row, or `width` where given. Segments are 1, or 1 and 2 where the rows have
    `first_length`; padding is 0.
    """
    lengths = rows.lengths
    columns = np.arange(width or max(1, int(lengths.max(initial=0))))[None, :]
    inside = columns < lengths[:, None]
    segments = inside.astype(np.int64)
    if "first_length" in rows.columns:
        segments += inside & (columns >= rows.column("first_length")[:, None])
    return {
        "token_ids": torch.from_numpy(rows.ragged("token_ids").padded(columns.shape[1], pad)),
        "segment_ids": torch.from_numpy(segments),
        "lengths": torch.from_numpy(np.minimum(lengths, columns.shape[1])),
    }
