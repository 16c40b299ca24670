"""Randomness without state: every draw is a pure function of a seed and counters.

So the result never depends on workers, ranks, arrival order or restarts, and any position of any
epoch is there at once. Mixing: the finaliser of SplitMix64 (Steele et al. 2014, OOPSLA).
"""

from dataclasses import dataclass

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MASK = (1 << 64) - 1
_FEISTEL_ROUNDS = 6


def _mix(value: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))


def hash_counters(*counters: int | np.ndarray) -> np.ndarray:
    """Return uint64 hashes of integer counters, broadcast against one another."""
    state: np.ndarray = np.zeros(1, np.uint64)
    with np.errstate(over="ignore"):
        for counter in counters:
            number = np.uint64(counter & _MASK) if isinstance(counter, int) else counter
            state = _mix((state + _GOLDEN) ^ _mix(np.asarray(number).astype(np.uint64) + _GOLDEN))
    return state


def seed_of(*counters: int) -> int:
    """Return a seed in 0..2^63-1 for other generators, from integer counters."""
    return int(hash_counters(*counters).item() >> np.uint64(1))


def name_counter(name: str) -> int:
    """Return a counter that stands for a stream's name."""
    return int.from_bytes(name.encode()[:8].ljust(8, b"\0"), "little")


def uniform(*counters: int | np.ndarray) -> np.ndarray:
    """Return float64 in [0, 1) for counters, broadcast against one another."""
    return (hash_counters(*counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permute(positions: np.ndarray, size: int, *key: int | np.ndarray) -> np.ndarray:
    """Return where a keyed permutation of 0..size-1 sends `positions` (int64), in O(1) memory.

    A Feistel network over the next even power of two; values that fall outside walk on until they
    are inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    low = np.uint64((1 << int(half)) - 1)
    keys = np.broadcast_to(hash_counters(*key), positions.shape)
    result = positions.astype(np.uint64)
    outside = np.ones(result.shape, bool)
    while outside.any():
        left, right = result[outside] >> half, result[outside] & low
        for turn in range(_FEISTEL_ROUNDS):
            left, right = right, left ^ (hash_counters(keys[outside], turn, right) & low)
        result[outside] = (left << half) | right
        outside = result >= size
    return result.astype(np.int64)


@dataclass(frozen=True)
class RowRandom:
    """Draws for the rows of a batch; each row's are its own, wherever the row stands.

    seed: of the run. epochs, instances: (B,) int64, which pass over which instance a row is.
    """

    seed: int
    epochs: np.ndarray
    instances: np.ndarray

    def uniform(self, stream: str, width: int) -> np.ndarray:
        """Return (B, width) float64 in [0, 1); equal columns for any larger width."""
        columns = np.arange(width, dtype=np.uint64)[None, :]
        return uniform(
            self.seed,
            name_counter(stream),
            self.epochs[:, None],
            self.instances[:, None],
            columns,
        )

    def take(self, rows: np.ndarray) -> "RowRandom":
        """Return the draws of some rows."""
        return RowRandom(self.seed, self.epochs[rows], self.instances[rows])
