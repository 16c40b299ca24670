"""Speeds that a benchmark measured, from a committed file, and how they compare between models.

`python -m tests.benchmarks.bench_models --json` writes it: a stamped record whose `speeds` hold one
item for each measurement, all keys required:

    {"model": "bert_tiny",            a name in config/architectures
     "machine": "2 cores of ...",     what it ran on, for people
     "ranks": 2,                      processes that shared the work, at least 1
     "what": "train",                 train: forward, backward, update; infer: forward only
     "tokens_per_second": 1234.5,     real tokens, without padding: the mean over repetitions
     "spread": 12.3,                  sample standard deviation over the repetitions, same unit
     "command": "python -m ..."}      what to type to measure it again

A model is listed once for each machine, ranks and what.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from pipeline.artifacts import read_json_artifact
from pipeline.errors import DataError
from pipeline.registry import describe
from pipeline.report.settings import ReportedRatio
from pipeline.spec import Count, Name, NonNegative, Positive, Settings


class MeasuredSpeed(Settings):
    """One measurement."""

    model: Name
    """Name in config/architectures."""
    machine: str
    """What it ran on."""
    ranks: Count
    """Processes that shared the work."""
    what: Literal["train", "infer"]
    """Forward, backward and update, or forward only."""
    tokens_per_second: Positive
    """Mean over repetitions, padding left out."""
    spread: NonNegative
    """Sample standard deviation over repetitions."""
    command: str
    """What to type to measure it again."""

    @property
    def setting(self) -> tuple[str, int, str]:
        """What two measurements must share to be compared."""
        return self.machine, self.ranks, self.what


def read_speeds(path: Path) -> list[MeasuredSpeed]:
    """Return the measurements of a file in its order.

    Raises MissingError, ArtifactError (damaged or edited), ConfigError (something else), and
    DataError with one line for each wrong item.
    """
    items = read_json_artifact(path, "bench_models").get("speeds")
    if not isinstance(items, list):
        raise DataError(f"{path}: no list of speeds; see pipeline/report/speeds.py")
    speeds: list[MeasuredSpeed] = []
    problems: list[str] = []
    for position, item in enumerate(items):
        where = f"{path}: speeds.{position}"
        if not isinstance(item, dict):
            problems.append(f"{where}: not an object")
            continue
        try:
            speeds.append(MeasuredSpeed(**item))
        except ValidationError as error:
            problems += describe(error, where, MeasuredSpeed)
    if problems:
        raise DataError(*problems)
    _refuse_repeats(speeds, path)
    return speeds


def _refuse_repeats(speeds: Sequence[MeasuredSpeed], path: Path) -> None:
    seen = set()
    for speed in speeds:
        if (key := (speed.model, *speed.setting)) in seen:
            raise DataError(
                f"{path}: {speed.model}, {speed.what}, {speed.ranks} ranks on {speed.machine}: "
                "listed twice"
            )
        seen.add(key)


@dataclass(frozen=True)
class RatioRow:
    """How many times as fast as another model a model is: as published, and as measured."""

    published: ReportedRatio
    measured: float | None = None
    """None where nothing was measured."""
    setting: tuple[str, int, str] | None = None
    """Machine, ranks and work of both."""


def ratio_rows(
    published: Sequence[ReportedRatio], speeds: Sequence[MeasuredSpeed]
) -> list[RatioRow]:
    """Return a row for each published ratio and each setting in which both models were measured."""
    by_setting = {(speed.model, speed.setting): speed.tokens_per_second for speed in speeds}
    rows: list[RatioRow] = []
    for ratio in published:
        found = [
            RatioRow(ratio, fast / by_setting[ratio.than, setting], setting)
            for (model, setting), fast in by_setting.items()
            if model == ratio.model and (ratio.than, setting) in by_setting
        ]
        rows += found or [RatioRow(ratio)]
    return rows
