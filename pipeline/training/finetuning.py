"""Fine-tuning: a task head and the network under it, several rates tried, the best on dev kept.

Cross-validation is the same, done over: each round leaves a fold of the training rows out and
scores it; the last round trains on all rows and is the one that is published.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.errors import Resumable
from pipeline.model import Model
from pipeline.spec import FinetuneSpec
from pipeline.tasks import Task
from pipeline.text.rows import Rows
from pipeline.training.checkpoint import load_weights
from pipeline.training.distributed import Ranks
from pipeline.training.labelled import LabelledSet
from pipeline.training.resume import ResumePoints
from pipeline.training.runs import TrainingRun, part_of

Reporter = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Round:
    """Rows to train on, and the fold that was left out of them, if any."""

    rows: Rows
    left_out: LabelledSet | None = None


@dataclass(frozen=True)
class Best:
    """The best model so far."""

    score: float
    learning_rate: float
    epoch: int

    def beaten_by(self, score: float, rate: float) -> bool:
        """Return whether a model is better: a higher score, or as high at a smaller rate."""
        return (score, -rate) > (self.score, -self.learning_rate)


class Finetuning:
    """In each round a run for each learning rate, scored on dev after each epoch.

    build: () -> a model with its head, in the state in which every run starts. The last round has
    no fold left out.
    """

    def __init__(
        self,
        spec: FinetuneSpec,
        task: Task,
        build: Callable[[], Model],
        rounds: Sequence[Round],
        dev: LabelledSet,
        ranks: Ranks,
    ):
        self.spec, self.task, self.build = spec, task, build
        self.rounds, self.dev, self.ranks = rounds, dev, ranks
        rates = spec.learning_rate
        self.rates = sorted(set(rates)) if isinstance(rates, list) else [rates]
        self.fold_scores: list[dict[str, float]] = []
        self.finished_steps = 0
        self._begin_round(0)

    @property
    def position(self) -> int:
        """Updates made so far; a run that stopped early counts in full."""
        return self.finished_steps + self.current.step

    @property
    def total_steps(self) -> int:
        """Updates of all runs if none stops early."""
        size = self.spec.batch_size
        epochs = sum(-(-len(part.rows) // size) for part in self.rounds)
        return epochs * self.spec.epochs * len(self.rates)

    # State ------------------------------------------------------------------------------------

    def _begin_round(self, number: int) -> None:
        self.round_number = number
        self.best: Best | None = None
        self.best_tensors: dict[str, Tensor] = {}
        self.history: list[dict[str, Any]] = []
        self._begin_run(0)

    def _begin_run(self, number: int) -> None:
        self.run_number = number
        rows, rate = self.rounds[self.round_number].rows, self.rates[number]
        self.current = TrainingRun(self.spec, self.task, self.build(), rows, rate, self.ranks)

    def save_point(self, points: ResumePoints) -> None:
        """Publish a resume point."""
        best = {f"best.{name}": tensor for name, tensor in self.best_tensors.items()}
        progress = {
            "round": self.round_number,
            "run": self.run_number,
            "current": self.current.progress(),
            "finished_steps": self.finished_steps,
            "fold_scores": self.fold_scores,
            "history": self.history,
            "best": asdict(self.best) if self.best else None,
        }
        points.save(self.position, self.current.tensors() | best, progress)

    def resume(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Continue from what `save_point` published."""
        self.round_number = progress["round"]
        self._begin_run(progress["run"])
        self.current.resume(tensors, progress["current"])
        self.finished_steps = progress["finished_steps"]
        self.fold_scores, self.history = list(progress["fold_scores"]), list(progress["history"])
        self.best = Best(**progress["best"]) if progress["best"] else None
        self.best_tensors = part_of(tensors, "best.")

    # Training ---------------------------------------------------------------------------------

    def run(
        self, points: ResumePoints, stop: Callable[[], bool], report: Reporter, save_seconds: float
    ) -> None:
        """Train all runs of all rounds; raise Resumable after saving when `stop` says so.

        report: receives a line of metrics after each epoch. A point is saved every save_seconds.
        """
        saved = time.monotonic()
        while True:
            while self.current.step < self.current.total_steps and not self._stops_early():
                self.current.advance()
                if self.current.epoch_ends:
                    report(self._close_epoch())
                stopping = stop()
                if stopping or time.monotonic() - saved > save_seconds:
                    self.save_point(points)
                    saved = time.monotonic()
                if stopping:
                    raise Resumable(
                        f"stopped at step {self.position} of {self.total_steps}, saved; the same "
                        "command continues"
                    )
            if not self._next():
                return

    def _stops_early(self) -> bool:
        """Return whether the last epochs of this run brought no better score."""
        if self.spec.patience is None or not self.current.epoch_ends:
            return False
        rate = self.current.learning_rate
        scores = [line["score"] for line in self.history if line["learning_rate"] == rate]
        return len(scores) - 1 - int(np.argmax(scores)) >= self.spec.patience

    def _close_epoch(self) -> dict[str, Any]:
        """Score dev, keep the model if it is the best so far, return the line of metrics."""
        run = self.current
        scores = run.score(self.dev)
        figures = run.close_epoch()
        epoch, rate = run.step // run.steps_per_epoch, run.learning_rate
        score = next(iter(scores.metrics.values()))
        line = {
            "learning_rate": rate,
            "epoch": epoch,
            "loss": figures["loss"],
            "score": score,
            "dev": scores.metrics,
        }
        self.history.append(line)
        if self.best is None or self.best.beaten_by(score, rate):
            self.best = Best(score, rate, epoch)
            state = run.model.state_dict()
            self.best_tensors = {name: tensor.cpu().clone() for name, tensor in state.items()}
        left_out = self.rounds[self.round_number].left_out
        return {
            "step": self.position,
            **({} if left_out is None else {"fold": self.round_number + 1}),
            **line,
            **{f"dev_{name}": value for name, value in scores.metrics.items()},
            "tokens": run.tokens,
            "tokens_per_second": figures["tokens_per_second"],
        }

    def _next(self) -> bool:
        """Begin the next run, or close the round and begin the next; False: all are done."""
        self.finished_steps += self.current.total_steps
        if self.run_number + 1 < len(self.rates):
            self._begin_run(self.run_number + 1)
            return True
        left_out = self.rounds[self.round_number].left_out
        if left_out is None:
            return False
        load_weights(self.current.model, self.best_tensors, "best model", ("",))
        self.fold_scores.append(self.current.score(left_out).metrics)
        self._begin_round(self.round_number + 1)
        return True

    def record(self) -> dict[str, Any]:
        """Return what was chosen on dev, all that was tried, and the folds' scores if any.

        JSON values under `dev` and `cross_validation`: scores, their mean and sample deviation.
        """
        assert self.best is not None, "every run closes at least one epoch"
        metric = next(iter(self.history[0]["dev"]))
        dev = {"metric": metric, **asdict(self.best), "history": self.history}
        if not self.fold_scores:
            return {"dev": dev}
        columns = {name: [fold[name] for fold in self.fold_scores] for name in self.fold_scores[0]}
        validation = {
            "folds": self.fold_scores,
            "mean": {name: fmean(values) for name, values in columns.items()},
            "deviation": {name: stdev(values) for name, values in columns.items()},
        }
        return {"dev": dev, "cross_validation": validation}
