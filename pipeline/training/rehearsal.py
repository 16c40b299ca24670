"""Rehearse a few training steps on made-up rows of given lengths: speed and memory beforehand.

The rows stand in for an instance set that may not exist yet; the steps are the trainer's own. What
other programs take of the processor meanwhile does not count.
"""

import contextlib
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from pipeline.errors import Resumable
from pipeline.model import build_model, initialize
from pipeline.spec import FinetuneSpec, PretrainSpec
from pipeline.text.rows import Ragged, Rows
from pipeline.text.shards import InstanceSet
from pipeline.text.vocabulary import TokenIds
from pipeline.training.batching import make_batch
from pipeline.training.distributed import Ranks
from pipeline.training.inference import fixed_width
from pipeline.training.launcher import Place
from pipeline.training.loop import find_device, prepare_torch
from pipeline.training.pretraining import Pretraining
from pipeline.training.resume import ResumePoints
from pipeline.training.shared import SharedSum

WARM_UP_STEPS = 2
REHEARSED_BATCHES = 16
SPECIAL_TOKENS = 5


@dataclass(frozen=True)
class Rehearsal:
    """What was measured: tokens a second (real ones, all ranks), and one process's peak."""

    tokens_per_second: float
    peak_bytes: int


class _MadeUpRows:
    """Rows of random tokens with the columns of every instance kind."""

    held_out = None

    def __init__(self, lengths: np.ndarray, vocab_size: int, seq_length: int):
        self.lengths = np.clip(lengths, 4, seq_length).astype(np.int64)
        self.num_rows = len(self.lengths)
        self.manifest = {"seq_length": seq_length}
        self.vocab_size = vocab_size

    def rows(self, indices: np.ndarray) -> Rows:
        """Return the rows `indices`."""
        lengths = self.lengths[indices]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        values = np.random.default_rng(int(indices[0])).integers(
            SPECIAL_TOKENS, self.vocab_size, offsets[-1]
        )
        ids = Ragged(values, offsets)
        zeros = np.zeros(len(indices), np.int64)
        columns = {"token_ids": ids, "target_ids": ids, "first_length": lengths // 2}
        return Rows(indices, {**columns, "is_random": indices % 2, "label": zeros})


class _OneOfSeveral(Ranks):
    """A rank alone: it does its own share of the work and of the sums, and waits for nobody."""

    def __init__(self, size: int, device: torch.device):
        super().__init__(Place(0, 1, "nobody"), device)
        self.size = size
        if size > 1 and device.type == "cpu":
            self._shared = SharedSum(os.memfd_create("rehearsal"), 0, size, lambda: None)

    def add_gradients(self, gradients: list[torch.Tensor]) -> None:
        """Do its part of the addition, where that is in memory."""
        if self._shared:
            super().add_gradients(gradients)

    def sum_integers(self, values: list[int]) -> list[int]:
        """Return its own."""
        return values

    def fill_slots(self, slots: torch.Tensor) -> torch.Tensor:
        """Return its own."""
        return slots

    def require_equal(self, named_digests: dict[str, str], what: str) -> None:
        """There is nothing to compare."""


class _NoPoints:
    def save(self, *arguments: object) -> None:
        """Keep nothing."""


def rehearse_pretraining(
    spec: PretrainSpec,
    lengths: Sequence[int],
    vocab_size: int,
    seq_length: int,
    seconds: float,
    ranks: int = 1,
) -> Rehearsal:
    """Return speed of all ranks together, from one that trains for about `seconds`, and its memory.

    lengths: tokens of sample rows; they are drawn from as often as batches need. What ranks wait
    for one another is not in it, nor on an accelerator what they send.
    """
    plan = spec.optimization
    never = 1 << 30
    changes: dict[str, object] = {
        "reduction": "tree",  # DDP would want the other ranks
        **dict.fromkeys(("report_steps", "resume_steps", "digest_steps"), never),
    }
    spec = spec.model_copy(update={"optimization": plan.model_copy(update=changes)})
    rows = np.resize(np.asarray(lengths), max(len(lengths), plan.batch_size))
    device = _device()
    training = Pretraining(
        spec,
        cast(InstanceSet, _MadeUpRows(rows, vocab_size, seq_length)),
        _token_ids(vocab_size),
        _OneOfSeveral(ranks, device),
    )

    def train(to: int, stop: Callable[[], bool]) -> None:
        with contextlib.suppress(Resumable):
            training.run(to, cast(ResumePoints, _NoPoints()), stop, lambda line: None)

    train(WARM_UP_STEPS, lambda: False)
    tokens, clock = training.tokens, _clock(device)
    began, ends = clock(), time.perf_counter() + seconds
    train(never, lambda: time.perf_counter() > ends)
    return _measured(training.tokens - tokens, clock() - began)


def rehearse_finetuning(
    spec: FinetuneSpec, lengths: Sequence[int], vocab_size: int, seconds: float
) -> Rehearsal:
    """Return speed and memory of updates of the network alone; a task's head costs little more.

    lengths: tokens of sample rows. Takes at least twice `seconds`.
    """
    assert spec.architecture is not None
    device = _device()
    model = build_model(spec.architecture, _token_ids(vocab_size), reference=spec.reference)
    initialize(model, spec.seed, spec.reference)
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batches = _batches_by_length(lengths, vocab_size, spec)
    width = fixed_width(spec)
    steps = tokens = 0

    def train(rows: Rows) -> None:
        nonlocal steps, tokens
        batch = make_batch(rows, width, 0)
        model.encode({k: v.to(device) for k, v in batch.items()}).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        steps, tokens = steps + 1, tokens + int(rows.lengths.sum())

    # The first batch of a length also makes its kernels, which hardly counts in a whole run: so
    # those that were met are gone through again, as a whole, for a true mixture of lengths.
    _take(lambda: train(batches[steps % REHEARSED_BATCHES]), seconds, device)
    met, tokens = batches[:steps], 0

    def go_through() -> None:
        for rows in met:
            train(rows)

    taken = _take(go_through, seconds, device)
    return _measured(tokens, taken)


def _batches_by_length(lengths: Sequence[int], vocab_size: int, spec: FinetuneSpec) -> list[Rows]:
    """Return batches of rows alike in length, as training cuts them; short and long ones mixed."""
    rng = np.random.default_rng(spec.seed)
    drawn = np.sort(rng.choice(lengths, REHEARSED_BATCHES * spec.batch_size))
    rows = _MadeUpRows(drawn, vocab_size, spec.seq_length)
    parts = np.arange(len(drawn)).reshape(REHEARSED_BATCHES, spec.batch_size)
    return [rows.rows(part) for part in rng.permutation(parts)]


def _take(step: Callable[[], None], seconds: float, device: torch.device) -> float:
    """Repeat a step for about `seconds`; return what it took."""
    clock = _clock(device)
    began, ends = clock(), time.perf_counter() + seconds
    step()
    while time.perf_counter() < ends:
        step()
    return clock() - began


def _clock(device: torch.device) -> Callable[[], float]:
    """Return a clock of the processor where that does the work."""
    return time.process_time if device.type == "cpu" else time.perf_counter


def _device() -> torch.device:
    device = find_device("auto")
    prepare_torch(device)
    return device


def _token_ids(vocab_size: int) -> TokenIds:
    return TokenIds(vocab_size, pad=0, unk=1, cls=2, sep=3, mask=4)


def _measured(tokens: int, seconds: float) -> Rehearsal:
    peak_kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Rehearsal(tokens / seconds, peak_kilobytes * 1024)
