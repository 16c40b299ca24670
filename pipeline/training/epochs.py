"""Passes over labelled rows: which rows make which batch, as pure functions of seed and epoch."""

import numpy as np

from pipeline.text.order import permute

# Batches are cut from pools of this many, sorted by length: little padding, and still shuffled.
POOL_BATCHES = 32
# Padded tokens in a batch of inference: enough for the matrix products, little memory.
INFERENCE_TOKENS = 8192
INFERENCE_ROWS = 256


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the row positions of each batch of an epoch; every row stands in exactly one.

    Rows are shuffled, each pool of POOL_BATCHES batches is sorted by length and cut, and the
    batches are shuffled.
    """
    count = len(lengths)
    order = permute(np.arange(count), count, seed, epoch)
    batches: list[np.ndarray] = []
    for start in range(0, count, batch_size * POOL_BATCHES):
        pool = order[start : start + batch_size * POOL_BATCHES]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += np.split(pool, range(batch_size, len(pool), batch_size))
    places = permute(np.arange(len(batches)), len(batches), seed, epoch, 1)
    return [batches[place] for place in places.tolist()]


def fixed_batches(count: int, batch_size: int, seed: int, shuffle: bool) -> list[np.ndarray]:
    """Return the batches of every epoch as the 2020 reference has them: shuffled once, or never."""
    order = np.arange(count)
    if shuffle:
        order = permute(order, count, seed)
    return np.split(order, range(batch_size, count, batch_size))


def inference_batches(lengths: np.ndarray, width: int | None = None) -> list[np.ndarray]:
    """Return row positions, shortest first, in batches of at most INFERENCE_TOKENS padded tokens.

    width: to which all rows are padded, if they are.
    """
    order = np.argsort(lengths, kind="stable")
    sizes = np.maximum(lengths[order], 1) if width is None else np.full(len(order), width)
    batches = []
    start = 0
    while start < len(order):
        # The last row of a batch is its longest, so its cost is rows * that row.
        costs = np.arange(1, INFERENCE_ROWS + 1)[: len(order) - start]
        costs = costs * sizes[start : start + INFERENCE_ROWS]
        end = start + max(1, int(np.searchsorted(costs, INFERENCE_TOKENS, side="right")))
        batches.append(order[start:end])
        start = end
    return batches
