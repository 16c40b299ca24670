"""What a run took: times and memory of its jobs, speed of its training, and what was planned.

These are facts of one run on one machine, not content: the report shows them apart from the rest.
"""

import csv
import json
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pipeline.errors import DataError
from pipeline.report.results import Comparison, RecipeResult, Resources
from pipeline.report.settings import ReportedRecipe


def read_resources(folder: Path, recipe: ReportedRecipe) -> list[Resources]:
    """Return the benchmarks below `folder` of a recipe, its vocabulary and its instances, by path.

    Whose a job is, the first part of its path below the stage says. Raises DataError for a table
    that Snakemake did not write.
    """
    names = {recipe.name, recipe.vocabulary, recipe.instances}
    found = []
    for path in sorted(folder.glob("*/**/*.tsv")):
        stage, *job = path.relative_to(folder).with_suffix("").parts
        if job[0] in names:
            found += [_resources(path, stage, "/".join(job), row) for row in _rows(path)]
    return found


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)


def _resources(path: Path, stage: str, job: str, row: dict[str, str]) -> Resources:
    try:
        return Resources(
            stage=stage,
            job=job,
            seconds=float(row["s"]),
            peak_mb=_float(row["max_rss"]),
            cpu_seconds=_float(row["cpu_time"]),
        )
    except (KeyError, ValueError, TypeError):
        raise DataError(
            f"{path}: not a Snakemake benchmark; columns s, max_rss, cpu_time"
        ) from None


def _float(text: str) -> float:
    """Snakemake writes `-` or `NA` for what it could not sample."""
    return math.nan if text in {"-", "NA", ""} else float(text)


class Cost(Protocol):
    """What is needed of a line of a plan."""

    @property
    def stage(self) -> str:
        """Stage."""
        ...

    @property
    def jobs(self) -> int:
        """Jobs of the stage."""
        ...

    @property
    def seconds(self) -> float:
        """What they take together."""
        ...


def compare(plan: Iterable[Cost], resources: Sequence[Resources]) -> list[Comparison]:
    """Return plan beside fact for each stage of which a job has run.

    Of a stage that ran in part, the plan's part is that of as many jobs.
    """
    found = []
    for cost in plan:
        seconds = [job.seconds for job in resources if job.stage == cost.stage]
        if seconds and cost.jobs:
            predicted = cost.seconds * len(seconds) / cost.jobs
            found.append(Comparison(
                stage=cost.stage, jobs=cost.jobs, measured_jobs=len(seconds),
                predicted_seconds=predicted, seconds=sum(seconds),
            ))  # fmt: skip
    return found


def plan_beside(recipe: RecipeResult) -> list[Comparison]:
    """Return plan beside fact for a recipe, empty without a plan."""
    return compare(recipe.planned, recipe.resources)


def read_speed(folder: Path) -> float | None:
    """Return the median training speed in tokens a second over the metrics lines below `folder`."""
    speeds = []
    for path in sorted(folder.glob("**/metrics.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                speeds.append(float(json.loads(line)["tokens_per_second"]))
            except (ValueError, KeyError, TypeError):
                continue  # torn by a kill
    return statistics.median(speeds) if speeds else None
