"""Sums over the ranks of one machine through memory that they share.

Every rank lays its gradients down, adds one share of all ranks' and takes the whole sum up again:
reduce-scatter and all-gather (Rabenseifner 2004), each addition in the place that the tree of
distributed.py gives it. Several times as fast as sockets of the same machine, for any number of
ranks two copies of the gradients instead of one for each level of the tree.
"""

import mmap
import os
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

# Of one rank, at a time: 16 MB, so that what is laid down is still in the cache when it is added.
WINDOW_ELEMENTS = 1 << 22


class SharedSum:
    """A window of memory for each rank, and one for the sum of all."""

    def __init__(self, descriptor: int, rank: int, size: int, barrier: Callable[[], None]):
        """descriptor: of an empty file that all ranks have open. barrier: returns when all call."""
        length = (size + 1) * WINDOW_ELEMENTS * 4
        os.ftruncate(descriptor, length)
        memory = torch.frombuffer(mmap.mmap(descriptor, length), dtype=torch.float32)
        *self._windows, self._sum = memory.view(size + 1, WINDOW_ELEMENTS)
        self._rank, self._size, self._barrier = rank, size, barrier

    def add(self, gradients: Iterable[Tensor]) -> None:
        """Replace float32 gradients by their sums over ranks; all ranks call, with equal shapes."""
        for gradient in gradients:
            assert gradient.dtype == torch.float32, gradient.dtype
        for pieces in _windows(gradients):
            self._add(pieces)

    def _add(self, pieces: list[Tensor]) -> None:
        count = sum(piece.numel() for piece in pieces)
        torch.cat(pieces, out=self._windows[self._rank][:count])
        self._barrier()
        begin, end = (count * rank // self._size for rank in (self._rank, self._rank + 1))
        parts = [window[begin:end] for window in self._windows]
        while len(parts) > 2:
            parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=True)]
        torch.add(*parts, out=self._sum[begin:end])
        # Only now is every window free again; the sum is, once all have come to the next barrier.
        self._barrier()
        lengths = [piece.numel() for piece in pieces]
        torch._foreach_copy_(pieces, list(self._sum[:count].split(lengths)))


def _windows(gradients: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """Yield flat pieces of the gradients, at most a window of them together."""
    pieces: list[Tensor] = []
    room = WINDOW_ELEMENTS
    for gradient in gradients:
        rest = gradient.view(-1)
        while len(rest) > room:
            yield [*pieces, rest[:room]]
            pieces, rest, room = [], rest[room:], WINDOW_ELEMENTS
        pieces.append(rest)
        room -= len(rest)
    yield pieces
