"""One training run over labelled rows: a model, its optimiser and its place in the epochs.

Every random choice is a pure function of seed, epoch and step, so a run that was killed ends with
the bytes of one that was not.
"""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from pipeline.artifacts import crash_point
from pipeline.layers import TargetOutput
from pipeline.model import Model
from pipeline.spec import FinetuneSpec
from pipeline.tasks import Scores, Task
from pipeline.text.rows import Rows
from pipeline.training.batching import cut_micro_batches, make_batch
from pipeline.training.checkpoint import load_weights
from pipeline.training.distributed import Ranks
from pipeline.training.epochs import epoch_batches, fixed_batches
from pipeline.training.inference import HEAD, fixed_width, infer
from pipeline.training.labelled import LabelledSet
from pipeline.training.loop import Learner, MicroBatch
from pipeline.training.optimizer import (
    build_optimizer,
    moments,
    restore_moments,
    schedule_factor,
)


class Objective(nn.Module):
    """A model under its head: tensors of a batch -> [loss and accuracy]."""

    def __init__(self, model: Model, freeze: str):
        super().__init__()
        self.model = model
        self.still = {"none": (), "embedding": ("embedding", "subencoder")}.get(
            freeze, ("embedding", "subencoder", "encoder")
        )
        for part in self._still_parts():
            part.requires_grad_(False)

    def _still_parts(self) -> list[nn.Module]:
        parts = [getattr(self.model, name) for name in self.still]
        return [part for part in parts if part is not None]

    def train(self, mode: bool = True) -> "Objective":
        """Set the mode; frozen parts never drop out, so that what they give stays the same."""
        super().train(mode)
        for part in self._still_parts():
            part.eval()
        return self

    def forward(self, tensors: dict[str, Tensor]) -> list[TargetOutput]:
        """Return the head's output alone."""
        _, output = self.model.head(self.model.encode(tensors), tensors)  # type: ignore[operator]
        assert output is not None, "a training batch has gold"
        return [output]


def layer_depths(names: Sequence[str]) -> dict[str, int]:
    """Return parameter name -> distance from the head: head 0, last layer 1, ..., embedding last.

    A layer is the number after `layers.`, or after `_l` in recurrent weights; what has none
    (a final norm) counts with the last layer.
    """
    layers = {name: _layer(name) for name in names}
    deepest = max((layer for layer in layers.values() if layer is not None), default=0)
    depths = {}
    for name, layer in layers.items():
        if name.startswith(HEAD):
            depths[name] = 0
        elif name.startswith("encoder."):
            depths[name] = 1 if layer is None else deepest - layer + 1
        else:
            depths[name] = deepest + 2
    return depths


def _layer(name: str) -> int | None:
    found = re.search(r"\.layers\.(\d+)\.|_l(\d+)(?:_reverse)?$", name)
    if not found or not name.startswith("encoder."):
        return None
    return int(found[1] or found[2])


class TrainingRun:
    """A model trained on some rows at one peak rate, update by update."""

    def __init__(
        self,
        spec: FinetuneSpec,
        task: Task,
        model: Model,
        rows: Rows,
        learning_rate: float,
        ranks: Ranks,
    ):
        self.spec, self.task, self.rows, self.ranks = spec, task, rows, ranks
        self.learning_rate = learning_rate
        self.model = model.to(ranks.device)
        self.width = fixed_width(task.settings)
        self.steps_per_epoch = -(-len(rows) // spec.batch_size)
        self.total_steps = self.steps_per_epoch * spec.epochs
        objective = Objective(model, spec.freeze)
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        depths = layer_depths([name for name, _ in model.named_parameters()])
        optimizer = build_optimizer(named, spec, lambda name: spec.layer_decay ** depths[name])
        self.learner = Learner(objective, spec, ranks, [task.name], optimizer)
        self.step = self.tokens = 0
        self.loss_sum, self.loss_count = 0.0, 0
        self.seconds = 0.0
        self._batches: tuple[int, list[np.ndarray]] = (-1, [])

    @property
    def epoch_ends(self) -> bool:
        """Whether the last update was an epoch's last."""
        return self.step > 0 and self.step % self.steps_per_epoch == 0

    def tensors(self) -> dict[str, Tensor]:
        """Return weights and moments, as `resume` takes them."""
        weights = {f"weights.{k}": v for k, v in self.model.state_dict().items()}
        return weights | moments(self.learner.optimizer, self.model.named_parameters())

    def progress(self) -> dict[str, Any]:
        """Return the rest of the state as JSON values."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "loss": [self.loss_sum, self.loss_count],
        }

    def resume(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Continue from `tensors` and `progress`."""
        self.step, self.tokens = progress["step"], progress["tokens"]
        self.loss_sum, self.loss_count = progress["loss"]
        weights = part_of(tensors, "weights.")
        load_weights(self.model, weights, "resume point", ("",))
        named = self.model.named_parameters()
        restore_moments(self.learner.optimizer, named, dict(tensors), self.step)

    def advance(self) -> None:
        """Make one update."""
        began = time.perf_counter()
        rows = self.rows.take(self._batch())
        # The tree of gradients needs a power of two of parts, also for a short last batch.
        parts = min(self.spec.micro_batches, 1 << (len(rows).bit_length() - 1))
        cuts = cut_micro_batches(rows.lengths, parts) if parts > 1 else [np.arange(len(rows))]
        micro = [self._collate(index, rows.take(cut)) for index, cut in enumerate(cuts)]
        count = sum(batch.counts[0] for batch in micro)
        sums = self.learner.update(self.step, micro, [count], self._rate())
        self.loss_sum += float(sums[:, 0].sum())
        self.loss_count += count
        self.tokens += int(rows.lengths.sum())
        self.step += 1
        self.seconds += time.perf_counter() - began
        crash_point("finetune-step")

    def _batch(self) -> np.ndarray:
        """Return the row positions of the next update."""
        spec = self.spec
        epoch, number = divmod(self.step, self.steps_per_epoch)
        if self._batches[0] != epoch:
            if spec.reference == "uer-2020":
                shuffle = self.task.name != "tag"
                batches = fixed_batches(len(self.rows), spec.batch_size, spec.seed, shuffle)
            else:
                batches = epoch_batches(self.rows.lengths, spec.batch_size, spec.seed, epoch)
            self._batches = (epoch, batches)
        return self._batches[1][number]

    def _collate(self, index: int, rows: Rows) -> MicroBatch:
        batch = make_batch(rows, self.width, self.task.settings.token_ids.pad)
        return MicroBatch(index, batch, [self.task.collate(rows, batch)])

    def _rate(self) -> float:
        horizon = self.total_steps
        if self.spec.reference == "uer-2020":
            horizon = len(self.rows) * self.spec.epochs // self.spec.batch_size + 1
        factor = schedule_factor(self.step, horizon, self.spec.warmup, self.spec.schedule)
        return self.learning_rate * factor

    def close_epoch(self) -> dict[str, float]:
        """Return the mean loss since the last call, and the real tokens a second."""
        figures = {
            "loss": self.loss_sum / max(1, self.loss_count),
            "tokens_per_second": round(self.rows.lengths.sum() / max(self.seconds, 1e-9), 1),
        }
        self.loss_sum, self.loss_count, self.seconds = 0.0, 0, 0.0
        return figures

    def score(self, data: LabelledSet) -> Scores:
        """Return the scores of the model as it stands."""
        outcomes = infer(
            self.model, self.task, data.rows, self.ranks.device, self.spec.precision, self.width
        )
        found = self.task.predict(data.examples, data.rows, outcomes)
        return self.task.score(data.examples, found)


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
