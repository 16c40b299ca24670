"""Exact repeats among any number of texts, found by digest in bounded memory."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import xxhash

# 24 or 32 bytes each; beyond this they are spread over files by digest.
MAX_IN_MEMORY = 1_000_000
_BUCKET_BITS = 7
_RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("label", "<u8"), ("text", "<u8")])


class Repeats:
    """Collects texts in order, and tells which repeat an earlier one.

    scratch: an empty folder for files, where there are more than MAX_IN_MEMORY texts.
    """

    def __init__(self, scratch: Path):
        self._scratch = scratch
        self._pending: list[np.ndarray] = []
        self._pending_texts = 0
        self._texts = 0
        self._spilled = False

    def add(self, texts: Sequence[bytes], labels: Iterable[bytes] | None = None) -> None:
        """Add texts, with their labels where repeats with different labels matter."""
        records = np.zeros(len(texts), _RECORD)
        digests = b"".join(map(xxhash.xxh3_128_digest, texts))
        records["high"], records["low"] = np.frombuffer(digests, ">u8").reshape(-1, 2).T
        if labels is not None:
            records["label"] = np.fromiter(
                map(xxhash.xxh3_64_intdigest, labels), np.uint64, len(texts)
            )
        records["text"] = np.arange(self._texts, self._texts + len(texts))
        self._texts += len(texts)
        self._pending.append(records)
        self._pending_texts += len(texts)
        if self._pending_texts > MAX_IN_MEMORY:
            self._spill()

    def find(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of texts that repeat an earlier one, and of those in conflict.

        Both are ascending int64 and have no text in common. In conflict are all copies of a text
        whose labels differ.
        """
        found = []
        if self._spilled:
            self._spill()
            buckets = sorted(self._scratch.glob("bucket_*"))
            found = [_compare(np.fromfile(path, _RECORD)) for path in buckets]
        elif self._pending:
            found = [_compare(np.concatenate(self._pending))]
        empty = np.zeros(0, np.int64)
        repeats, conflicts = zip(*found, strict=True) if found else ((empty,), (empty,))
        return np.sort(np.concatenate(repeats)), np.sort(np.concatenate(conflicts))

    def _spill(self) -> None:
        """Append what is pending to one file for each range of digests."""
        self._spilled = True
        records = np.concatenate(self._pending) if self._pending else np.zeros(0, _RECORD)
        self._pending, self._pending_texts = [], 0
        buckets = (records["high"] >> np.uint64(64 - _BUCKET_BITS)).astype(np.int64)
        order = np.argsort(buckets, kind="stable")
        bounds = np.searchsorted(buckets[order], np.arange((1 << _BUCKET_BITS) + 1))
        for bucket in range(1 << _BUCKET_BITS):
            with (self._scratch / f"bucket_{bucket:03d}").open("ab") as file:
                records[order[bounds[bucket] : bounds[bucket + 1]]].tofile(file)


def _compare(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of repeats and of conflicts among records that have all copies."""
    records = records[np.lexsort((records["text"], records["low"], records["high"]))]
    same = np.zeros(len(records), bool)
    high, low = records["high"], records["low"]
    same[1:] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    group = np.cumsum(~same) - 1
    first = records["label"][~same][group]
    torn = np.bincount(group, records["label"] != first, len(records)) > 0
    conflicts = torn[group]
    numbers = records["text"].astype(np.int64)
    return numbers[same & ~conflicts], numbers[conflicts]
