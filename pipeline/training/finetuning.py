"""Fine-tuning: a task head and the network under it, trained by epochs, chosen on dev.

Every random choice is a pure function of seed, epoch and step, so a run that was killed ends with
the bytes of one that was not.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from pipeline.artifacts import crash_point
from pipeline.errors import Resumable
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
from pipeline.training.resume import ResumePoints

Reporter = Callable[[dict[str, Any]], None]


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


@dataclass(frozen=True)
class Best:
    """The best model so far."""

    score: float
    learning_rate: float
    epoch: int

    def beaten_by(self, score: float, rate: float) -> bool:
        """Return whether a model is better: a higher score, or as high at a smaller rate."""
        return (score, -rate) > (self.score, -self.learning_rate)


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


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


class Finetuning:
    """For each learning rate one training run, scored on dev after each epoch; the best is kept.

    build: () -> a model with its head, in the state in which every run starts.
    """

    def __init__(
        self,
        spec: FinetuneSpec,
        task: Task,
        build: Callable[[], Model],
        train: Rows,
        dev: LabelledSet,
        ranks: Ranks,
    ):
        self.spec, self.task, self.build = spec, task, build
        self.train, self.dev, self.ranks = train, dev, ranks
        self.width = fixed_width(task.settings)
        rates = spec.learning_rate
        self.rates = sorted(set(rates)) if isinstance(rates, list) else [rates]
        self.steps_per_epoch = -(-len(train) // spec.batch_size)
        self.steps_per_run = self.steps_per_epoch * spec.epochs
        self.history: list[dict[str, Any]] = []
        self.best: Best | None = None
        self.best_tensors: dict[str, Tensor] = {}
        self.run_number = self.tokens = 0
        self._begin_run()

    @property
    def position(self) -> int:
        """Updates made so far; a run that stopped early counts in full."""
        return self.run_number * self.steps_per_run + self.step

    @property
    def total_steps(self) -> int:
        """Updates of all runs if none stops early."""
        return len(self.rates) * self.steps_per_run

    # State ------------------------------------------------------------------------------------

    def _begin_run(self) -> None:
        """Put model and optimiser where the run of the next learning rate starts."""
        self.model = self.build().to(self.ranks.device)
        objective = Objective(self.model, self.spec.freeze)
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        depths = layer_depths([name for name, _ in self.model.named_parameters()])
        decay = self.spec.layer_decay
        optimizer = build_optimizer(named, self.spec, lambda name: decay ** depths[name])
        self.learner = Learner(objective, self.spec, self.ranks, [self.task.name], optimizer)
        self.step = 0
        self.loss_sum, self.loss_count = 0.0, 0
        self.seconds = 0.0
        self._epoch: tuple[int, list[np.ndarray]] = (-1, [])

    def save_point(self, points: ResumePoints) -> None:
        """Publish a resume point."""
        tensors = {f"weights.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= moments(self.learner.optimizer, self.model.named_parameters())
        tensors |= {f"best.{k}": v for k, v in self.best_tensors.items()}
        progress = {
            "run": self.run_number,
            "step": self.step,
            "tokens": self.tokens,
            "loss": [self.loss_sum, self.loss_count],
            "history": self.history,
            "best": asdict(self.best) if self.best else None,
        }
        points.save(self.position, tensors, progress)

    def resume(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Continue from what `save_point` published."""
        self.run_number, self.step = progress["run"], progress["step"]
        self.tokens, self.history = progress["tokens"], list(progress["history"])
        self.loss_sum, self.loss_count = progress["loss"]
        self.best = Best(**progress["best"]) if progress["best"] else None
        self.best_tensors = _part(tensors, "best.")
        load_weights(self.model, _part(tensors, "weights."), "resume point", ("",))
        named = self.model.named_parameters()
        restore_moments(self.learner.optimizer, named, dict(tensors), self.step)

    # Training ---------------------------------------------------------------------------------

    def run(
        self, points: ResumePoints, stop: Callable[[], bool], report: Reporter, save_seconds: float
    ) -> None:
        """Train all runs; raise Resumable after saving when `stop` says so.

        report: receives a line of metrics after each epoch. A point is saved every save_seconds.
        """
        saved = time.monotonic()
        while self.run_number < len(self.rates):
            while self.step < self.steps_per_run and not self._stops_early():
                line = self._advance()
                if line is not None:
                    report(line)
                stopping = stop()
                if stopping or time.monotonic() - saved > save_seconds:
                    self.save_point(points)
                    saved = time.monotonic()
                if stopping:
                    raise Resumable(
                        f"stopped at step {self.position} of {self.total_steps}, saved; the same "
                        "command continues"
                    )
            self.run_number += 1
            if self.run_number < len(self.rates):
                self._begin_run()

    def _stops_early(self) -> bool:
        """Return whether the last epochs of this run brought no better score."""
        if self.spec.patience is None or self.step % self.steps_per_epoch:
            return False
        scores = [line["score"] for line in self.history if line["run"] == self.run_number]
        return bool(scores) and len(scores) - 1 - int(np.argmax(scores)) >= self.spec.patience

    def _advance(self) -> dict[str, Any] | None:
        """Make one update; at the end of an epoch score dev and return the line of metrics."""
        began = time.perf_counter()
        rows = self.train.take(self._batch())
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
        crash_point("finetune-step")
        self.seconds += time.perf_counter() - began
        return self._close_epoch() if self.step % self.steps_per_epoch == 0 else None

    def _batch(self) -> np.ndarray:
        """Return the row positions of the next update."""
        spec = self.spec
        epoch, number = divmod(self.step, self.steps_per_epoch)
        if self._epoch[0] != epoch:
            if spec.reference == "uer-2020":
                shuffle = self.task.name != "tag"
                batches = fixed_batches(len(self.train), spec.batch_size, spec.seed, shuffle)
            else:
                batches = epoch_batches(self.train.lengths, spec.batch_size, spec.seed, epoch)
            self._epoch = (epoch, batches)
        return self._epoch[1][number]

    def _collate(self, index: int, rows: Rows) -> MicroBatch:
        batch = make_batch(rows, self.width, self.task.settings.token_ids.pad)
        return MicroBatch(index, batch, [self.task.collate(rows, batch)])

    def _rate(self) -> float:
        horizon = self.steps_per_run
        if self.spec.reference == "uer-2020":
            horizon = len(self.train) * self.spec.epochs // self.spec.batch_size + 1
        factor = schedule_factor(self.step, horizon, self.spec.warmup, self.spec.schedule)
        return self.rates[self.run_number] * factor

    def _close_epoch(self) -> dict[str, Any]:
        """Score dev, keep the model if it is the best so far, return the line of metrics."""
        scores = self.score(self.dev)
        epoch = self.step // self.steps_per_epoch
        rate = self.rates[self.run_number]
        score = next(iter(scores.metrics.values()))
        line = {
            "run": self.run_number,
            "learning_rate": rate,
            "epoch": epoch,
            "loss": self.loss_sum / max(1, self.loss_count),
            "score": score,
            "dev": scores.metrics,
        }
        self.history.append(line)
        self.loss_sum, self.loss_count = 0.0, 0
        if self.best is None or self.best.beaten_by(score, rate):
            self.best = Best(score, rate, epoch)
            state = self.model.state_dict()
            self.best_tensors = {name: tensor.cpu().clone() for name, tensor in state.items()}
        seconds, self.seconds = self.seconds, 0.0
        tokens = int(self.train.lengths.sum())
        return {
            "step": self.position,
            **line,
            **{f"dev_{name}": value for name, value in scores.metrics.items()},
            "tokens": self.tokens,
            "tokens_per_second": round(tokens / max(seconds, 1e-9), 1),
        }

    def score(self, data: LabelledSet) -> Scores:
        """Return the scores of the model as it stands."""
        ranks = self.ranks
        outcomes = infer(
            self.model, self.task, data.rows, ranks.device, self.spec.precision, self.width
        )
        return self.task.score(data.examples, self.task.predict(data.examples, data.rows, outcomes))

    def record(self) -> dict[str, Any]:
        """Return what was chosen on dev and all that was tried, as JSON values."""
        assert self.best is not None, "every run closes at least one epoch"
        metric = next(iter(self.history[0]["dev"]))
        return {"metric": metric, **asdict(self.best), "history": self.history}
