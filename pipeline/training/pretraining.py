"""A pre-training run: instances in, checkpoints out, the same bytes for any number of ranks.

Source: the 2020 reference's trainer. Differs: losses are sums over the global batch, batches are
cut by padded tokens, every draw is a function of (seed, epoch, instance) or (seed, step, part).
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.artifacts import crash_point, digest_bytes, first_difference
from pipeline.errors import ConfigError, DataError, Resumable
from pipeline.model import build_model, initialize
from pipeline.registry import TARGETS
from pipeline.spec import PretrainSpec
from pipeline.subencoders import Characters
from pipeline.text.order import RowRandom
from pipeline.text.shards import InstanceSet
from pipeline.text.vocabulary import TokenIds, Vocabulary
from pipeline.training.batching import cut_micro_batches, global_batch, make_batch
from pipeline.training.checkpoint import (
    load_tensors,
    load_weights,
    model_file,
    require_vocabulary,
)
from pipeline.training.distributed import Ranks
from pipeline.training.loop import Learner, MicroBatch, autocast, output_sums
from pipeline.training.optimizer import moments, restore_moments, schedule_factor
from pipeline.training.resume import ResumePoints
from pipeline.training.segments import Checkpoint

# Held-out rows meet the same masks at every checkpoint: those of an epoch that training never has.
HELD_OUT_EPOCH = 1 << 40

Reporter = Callable[[dict[str, Any]], None]


class Pretraining:
    """The state of one run on this rank: model, optimiser, position, sums not yet reported."""

    def __init__(
        self,
        spec: PretrainSpec,
        instances: InstanceSet,
        token_ids: TokenIds,
        ranks: Ranks,
        characters: Characters | None = None,
    ):
        self.spec, self.plan, self.instances, self.ranks = spec, spec.optimization, instances, ranks
        if instances.num_rows < self.plan.batch_size:
            raise DataError(
                f"instances: {instances.num_rows} rows are fewer than one batch of "
                f"{self.plan.batch_size}; lower batch_size or give more text"
            )
        self.model = build_model(
            spec.architecture, token_ids, spec.targets, spec.reference, characters
        )
        initialize(self.model, self.plan.seed, spec.reference)
        self.model.to(ranks.device)
        objective: nn.Module = self.model
        if self.plan.compile:
            objective = torch.compile(objective)  # type: ignore[assignment]
        self.learner = Learner(
            objective, self.plan, ranks, list(self.model.targets), reduction=self.plan.reduction
        )
        self.pad = token_ids.pad
        self.width = instances.manifest["seq_length"] if spec.reference != "none" else None
        self.step = 0
        self.window = Window()
        self.curve: list[dict[str, Any]] = []
        self.tokens = 0
        self.seconds = 0.0

    def close(self) -> None:
        """Let go of the ranks, before they part."""
        self.learner.close()

    # State ------------------------------------------------------------------------------------

    def restore(
        self, step: int, weights: Mapping[str, Tensor], slots: Mapping[str, Tensor]
    ) -> None:
        """Continue after `step` updates with these weights and AdamW moments."""
        load_weights(self.model, weights, f"checkpoint at step {step}", ("",))
        named = list(self.model.named_parameters())
        restore_moments(self.learner.optimizer, named, dict(slots), step)
        self.step = step

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return (weights, moments) by name."""
        named = list(self.model.named_parameters())
        return dict(self.model.state_dict()), moments(self.learner.optimizer, named)

    def save_point(self, points: ResumePoints) -> None:
        """Publish a resume point (all ranks call; rank 0 writes)."""
        pending = self.window.pending(self.ranks)
        if self.ranks.rank:
            return
        weights, slots = self.tensors()
        tensors = {f"weights.{k}": v for k, v in weights.items()} | slots | {"window": pending}
        progress = {
            "curve": self.curve,
            "tokens": self.tokens,
            "columns": self.learner.columns,
            "counts": self.window.counts,
            "window_tokens": self.window.tokens,
        }
        points.save(self.step, tensors, progress)

    def resume(self, step: int, tensors: dict[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Continue from what `save_point` published."""
        weights = {
            k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")
        }
        self.restore(step, weights, tensors)
        self.curve, self.tokens = list(progress["curve"]), progress["tokens"]
        self.learner.columns = list(progress["columns"])
        self.window = Window(list(tensors["window"]), progress["counts"], progress["window_tokens"])

    # Training ---------------------------------------------------------------------------------

    def run(
        self,
        to: int,
        points: ResumePoints,
        stop: Callable[[], bool],
        report: Reporter,
    ) -> None:
        """Train up to step `to`. Raises Resumable after saving if any rank wants to stop."""
        while self.step < to:
            batches, counts, stopping = self._next_batches(stop())
            began = time.perf_counter()
            rate = self.plan.learning_rate * schedule_factor(
                self.step, self.plan.total_steps, self.plan.warmup, self.plan.schedule
            )
            sums = self.learner.update(self.step, batches, counts, rate)
            self.window.add(self._slots(sums, self.plan.micro_batches), counts)
            self.step += 1
            crash_point(f"step-{self.ranks.rank}")
            self.seconds += time.perf_counter() - began
            if self.step % self.plan.report_steps == 0 or self.step == to:
                report(self._report(rate))
            if self.step % self.plan.digest_steps == 0 or self.step == to:
                self._compare_replicas()
            if self.step < to and (stopping or self.step % self.plan.resume_steps == 0):
                self.save_point(points)
            if self.step < to and stopping:
                raise Resumable(
                    f"stopped at step {self.step} of {self.plan.total_steps}, saved; the same "
                    "command continues"
                )

    def _next_batches(self, stop: bool) -> tuple[list[MicroBatch], list[int], bool]:
        """Return this rank's micro-batches, the global unit counts, and whether any rank stops."""
        began = time.perf_counter()
        plan = self.plan
        epochs, indices = global_batch(
            self.step, plan.batch_size, self.instances.num_rows, plan.seed
        )
        lengths = self.instances.lengths[indices]
        parts = cut_micro_batches(lengths, plan.micro_batches)
        share = plan.micro_batches // self.ranks.size
        first = self.ranks.rank * share
        batches = [
            self.collate(number, indices[part], epochs[part])
            for number, part in enumerate(parts[first : first + share], first)
        ]
        own = np.sum([batch.counts for batch in batches], axis=0).tolist()
        *counts, stopping = self.ranks.sum_integers([*own, int(stop)])
        self.window.tokens += (tokens := int(lengths.sum()))
        self.tokens += tokens
        self.seconds += time.perf_counter() - began
        return batches, counts, bool(stopping)

    def collate(
        self, number: int, indices: np.ndarray, epochs: np.ndarray, held_out: bool = False
    ) -> MicroBatch:
        """Return micro-batch `number` of these rows, (B,) int64 each, as their epochs draw it."""
        source = self.instances.held_out if held_out else self.instances
        assert source is not None
        rows = source.rows(indices)
        tensors = make_batch(rows, self.width, self.pad)
        rng = RowRandom(self.plan.seed, epochs, indices)
        return MicroBatch(number, tensors, self.model.collate(rows, tensors, rng))

    def _slots(self, sums: Tensor, parts: int) -> Tensor:
        """Return (parts, columns): this rank's sums in its slots, zeros in the others'."""
        slots = torch.zeros(parts, sums.shape[1], dtype=torch.float64)
        first = self.ranks.rank * len(sums)
        slots[first : first + len(sums)] = sums
        return slots

    def _compare_replicas(self) -> None:
        if self.ranks.size == 1:
            return
        digests = {
            name: digest_bytes(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
            for name, tensor in self.model.named_parameters()
        }
        self.ranks.require_equal(digests, f"step {self.step}")

    # Figures ----------------------------------------------------------------------------------

    def _report(self, rate: float) -> dict[str, Any]:
        """Return the line of metrics of the window that ends here, and begin a new window."""
        window, self.window = self.window, Window()
        figures = self._figures(window.pending(self.ranks).sum((0, 1)), window.counts)
        line = {"step": self.step, **figures, "learning_rate": rate, "tokens": self.tokens}
        self.curve.append(line)
        seconds, self.seconds = self.seconds, 0.0
        return {**line, "tokens_per_second": round(window.tokens / max(seconds, 1e-9), 1)}

    def _figures(self, sums: Tensor, counts: list[int]) -> dict[str, float]:
        """Return mean losses and accuracies from column sums and unit counts."""
        values = dict(zip(self.learner.columns, sums.tolist(), strict=True))
        targets = list(self.model.targets)
        losses = {
            f"{name}_loss": values[f"{name}.loss"] / max(1, count)
            for name, count in zip(targets, counts, strict=True)
        }
        accuracies = {
            f"{name.removesuffix('.correct')}_accuracy": value
            / max(1.0, values[name.removesuffix("correct") + "total"])
            for name, value in values.items()
            if name.endswith(".correct")
        }
        return {"loss": sum(losses.values()), **losses, **accuracies}

    @torch.no_grad()
    def held_out(self) -> dict[str, Any] | None:
        """Return losses and accuracies on the held-out rows, or None where there are none.

        Batches are fixed and summed in order, so any number of ranks gives the same bits.
        """
        source = self.instances.held_out
        if source is None or source.num_rows == 0:
            return None
        self.learner.objective.eval()
        order = np.argsort(source.lengths, kind="stable")
        size = max(1, self.plan.batch_size // self.plan.micro_batches)
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        slots = torch.zeros(len(parts), len(self.learner.columns), dtype=torch.float64)
        counts = np.zeros(len(self.model.targets), np.int64)
        for number in range(self.ranks.rank, len(parts), self.ranks.size):
            epochs = np.full(len(parts[number]), HELD_OUT_EPOCH)
            batch = self.collate(number, parts[number], epochs, held_out=True)
            tensors = {k: v.to(self.ranks.device) for k, v in batch.tensors.items()}
            with autocast(self.ranks.device, self.plan.precision):
                slots[number] = output_sums(self.learner.objective(tensors))
            counts += batch.counts
        sums = self.ranks.fill_slots(slots).sum(0)
        figures = self._figures(sums, self.ranks.sum_integers(counts.tolist()))
        return {"rows": source.num_rows, **figures}

    def checkpoint(self, stamp: Mapping[str, Any]) -> Checkpoint:
        """Return everything at this step, with the record of the segment that ends here.

        Held-out figures are computed here, by all ranks together.
        """
        weights, slots = self.tensors()
        last = self.curve[-1] if self.curve else {}
        record = {
            "stamp": dict(stamp),
            "step": self.step,
            "total_steps": self.plan.total_steps,
            "loss": last.get("loss"),
            "metrics": {k: v for k, v in last.items() if k.endswith("_accuracy")},
            "held_out": self.held_out(),
            "tokens": self.tokens,
            "instances": self.step * self.plan.batch_size,
            "epoch": self.step * self.plan.batch_size / self.instances.num_rows,
            "learning_rate": last.get("learning_rate"),
            "curve": self.curve,
        }
        return Checkpoint(weights, slots, record)


def check_instances(spec: PretrainSpec, kind: str, where: str) -> None:
    """Raise ConfigError unless every target can learn from instances of this kind."""
    for target in spec.targets:
        kinds = sorted(TARGETS.get(target.name).instance_kinds)
        if kind not in kinds:
            raise ConfigError(
                f"{where}: instances of kind {kind}; target {target.name} needs "
                f"{' or '.join(kinds)}"
            )


def start_from(training: Pretraining, path: Path, vocabulary: str) -> str:
    """Copy another model's weights into the run; return the digest of what was read.

    Embedding, subencoder and encoder must be there and alike; a target's head is taken where both
    have it. Raises ConfigError for another vocabulary or architecture.
    """
    tensors, metadata = load_tensors(model_file(path))
    require_vocabulary(metadata, vocabulary, str(path))
    ours = training.spec.architecture.model_dump(mode="json")
    if different := first_difference(ours, metadata["architecture"], "architecture"):
        raise ConfigError(f"{path}: made with another architecture: {different}")
    shared = {
        name
        for name in training.model.targets
        if any(key.startswith(f"targets.{name}.") for key in tensors)
    }
    prefixes = ("embedding.", "subencoder.", "encoder.", *(f"targets.{n}." for n in sorted(shared)))
    load_weights(training.model, tensors, str(path), prefixes)
    return str(metadata["weights"])


def model_metadata(
    spec: PretrainSpec, stamp: Mapping[str, Any], instances: InstanceSet, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return what travels with the weights, so that later stages never ask again."""
    settings = instances.manifest["stamp"].get("settings", {})
    return {
        "stamp": dict(stamp),
        "architecture": spec.architecture.model_dump(mode="json"),
        "targets": [target.section() for target in spec.targets],
        "reference": spec.reference,
        "tokenizer": instances.manifest["tokenizer"],
        "lowercase": instances.manifest["lowercase"],
        "special_tokens": settings.get("special_tokens", instances.kind != "lines"),
        "vocabulary": vocabulary.digest,
        "token_ids": asdict(vocabulary.token_ids),
    }


class Window:
    """Sums of the steps since the last line of metrics; other ranks' slots come on demand."""

    def __init__(
        self, filled: list[Tensor] | None = None, counts: list[int] | None = None, tokens: int = 0
    ):
        self._filled = filled or []
        self._own: list[Tensor] = []
        self.counts = counts or []
        self.tokens = tokens

    def add(self, slots: Tensor, counts: list[int]) -> None:
        """Add a step: this rank's slots (parts, columns) and the global unit counts."""
        self._own.append(slots)
        before = self.counts or [0] * len(counts)
        self.counts = [a + b for a, b in zip(before, counts, strict=True)]

    def pending(self, ranks: Ranks) -> Tensor:
        """Return (steps, parts, columns) with all ranks' slots; all ranks call."""
        if self._own:
            self._filled += list(ranks.fill_slots(torch.stack(self._own)))
            self._own = []
        return torch.stack(self._filled) if self._filled else torch.zeros(0, 0, 0).double()
