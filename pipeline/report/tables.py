"""The tables of a report: rows that HTML, Markdown, JSON and the terminal show alike."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import printable
from pipeline.recipes import Published, Start
from pipeline.report.results import RecipeResult, Run
from pipeline.report.scores import (
    Summary,
    Verdict,
    best,
    difference,
    judge,
    stands_clear,
)
from pipeline.report.settings import ReportSpec
from pipeline.report.speeds import MeasuredSpeed

STARTS: tuple[Start, ...] = ("random", "pretrained")


@dataclass(frozen=True)
class Report:
    """Everything that is shown."""

    spec: ReportSpec
    recipes: Sequence[RecipeResult]
    gaps: Sequence[str] = ()
    """Files below the results folder that are missing."""
    speeds: Sequence[MeasuredSpeed] = ()
    """Measured apart from any run."""

    def datasets(self) -> list[str]:
        """Return the data sets that have runs: in the order of the spec, then by name."""
        found = {run.dataset for recipe in self.recipes for run in recipe.runs}
        listed = [dataset.name for dataset in self.spec.datasets if dataset.name in found]
        return listed + sorted(found - set(listed))

    def about(self, dataset: str) -> str:
        """Return what the spec says of a data set."""
        return next((d.description for d in self.spec.datasets if d.name == dataset), "")

    def on(self, dataset: str) -> list[RecipeResult]:
        """Return the recipes that have, or should have, runs on a data set."""
        return [r for r in self.recipes if any(run.dataset == dataset for run in r.runs)]


@dataclass(frozen=True)
class HeadlineRow:
    """A recipe on a data set: random start beside pre-trained, in points."""

    recipe: RecipeResult
    random: Summary
    pretrained: Summary
    gain: float | None
    clear: bool
    """Whether mean +- spread of both do not touch."""
    best: bool
    """Whether the pre-trained mean is the highest of the table."""


@dataclass(frozen=True)
class Headline:
    """The table of a data set."""

    dataset: str
    metric: str
    """Main metric of its task."""
    rows: Sequence[HeadlineRow]


def headlines(report: Report) -> list[Headline]:
    """Return one table for each data set."""
    return [_headline(report, dataset) for dataset in report.datasets()]


def _headline(report: Report, dataset: str) -> Headline:
    recipes = [r for r in report.on(dataset) if r.has_results or not r.recipe.unavailable]
    means = {r.recipe.name: r.summary(dataset, "pretrained") for r in recipes}
    highest = best(summary.mean for summary in means.values())
    rows = []
    for recipe in recipes:
        random, pretrained = recipe.summary(dataset, "random"), means[recipe.recipe.name]
        top = len(recipes) > 1 and highest is not None and pretrained.mean == highest
        gain = difference(pretrained.mean, random.mean)
        clear = stands_clear(pretrained, random)
        rows.append(HeadlineRow(recipe, random, pretrained, gain, clear, top))
    return Headline(dataset, main_metric(recipes, dataset), rows)


def main_metric(recipes: Sequence[RecipeResult], dataset: str) -> str:
    """Return the name of the metric that a data set is judged by, for people."""
    found = [
        run.result.main_metric
        for recipe in recipes
        for run in recipe.runs
        if run.dataset == dataset and run.result and run.result.main_metric
    ]
    return found[0].replace("_", " ") if found else "score"


@dataclass(frozen=True)
class PublishedRow:
    """A published figure beside the measured one, in points."""

    recipe: RecipeResult
    figure: Published
    measured: Summary
    difference: float | None
    tolerance: float
    verdict: Verdict


def published(report: Report) -> list[PublishedRow]:
    """Return a row for each published figure, in the order of recipes."""
    return [
        _published(report, recipe, figure)
        for recipe in report.recipes
        for figure in recipe.recipe.published
    ]


def _published(report: Report, recipe: RecipeResult, figure: Published) -> PublishedRow:
    measured = recipe.summary(figure.dataset, figure.start, figure.metric, figure.part)
    tolerance = report.spec.tolerance if figure.tolerance is None else figure.tolerance
    return PublishedRow(
        recipe,
        figure,
        measured,
        difference(measured.mean, figure.value),
        tolerance,
        judge(measured.mean, figure.value, tolerance),
    )


@dataclass(frozen=True)
class LabelTable:
    """Confusion and per-label scores of one recipe and start, summed over its seeds."""

    recipe: str
    start: Start
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]
    """(gold, predicted)."""
    recall: Sequence[float]
    precision: Sequence[float]


MAX_LABELS = 12


def label_tables(report: Report, dataset: str) -> list[LabelTable]:
    """Return the tables of a data set with few labels, the pre-trained start after the random."""
    tables = []
    for recipe in report.on(dataset):
        for start in STARTS:
            runs = [run for run in recipe.select(dataset, start) if _has_confusion(run)]
            if runs:
                tables.append(_label_table(recipe.recipe.name, start, runs))
    return tables


def _has_confusion(run: Run) -> bool:
    return bool(run.result and run.result.confusion and len(run.result.labels) <= MAX_LABELS)


def _label_table(name: str, start: Start, runs: Sequence[Run]) -> LabelTable:
    matrices = [run.result.confusion for run in runs if run.result]
    counts = [
        [sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)
    ]
    columns = [sum(column) for column in zip(*counts, strict=True)]
    labels = [str(label) for label in runs[0].result.labels] if runs[0].result else []
    diagonal = [row[place] for place, row in enumerate(counts)]
    return LabelTable(
        name,
        start,
        labels,
        counts,
        [_ratio(hits, sum(row)) for hits, row in zip(diagonal, counts, strict=True)],
        [_ratio(hits, total) for hits, total in zip(diagonal, columns, strict=True)],
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


@dataclass(frozen=True)
class StageCost:
    """What the jobs of one stage took together."""

    stage: str
    jobs: int
    seconds: float
    longest: float
    peak_mb: float
    cpu_seconds: float


def stage_costs(report: Report, order: Sequence[str]) -> list[StageCost]:
    """Return the cost of each stage here, in the order of the flow; a shared job counts once."""
    here = [recipe for recipe in report.recipes if not recipe.measured_elsewhere]
    jobs = {(job.stage, job.job): job for recipe in here for job in recipe.resources}
    stages = sorted({stage for stage, _ in jobs}, key=lambda s: (*_place(s, order), s))
    costs = []
    for stage in stages:
        own = [job for job in jobs.values() if job.stage == stage]
        costs.append(
            StageCost(
                stage,
                len(own),
                sum(job.seconds for job in own),
                max(job.seconds for job in own),
                max((job.peak_mb for job in own if not math.isnan(job.peak_mb)), default=math.nan),
                sum(job.cpu_seconds for job in own if not math.isnan(job.cpu_seconds)),
            )
        )
    return costs


def _place(stage: str, order: Sequence[str]) -> tuple[int]:
    return (order.index(stage) if stage in order else len(order),)


def pretraining_seconds(recipe: RecipeResult) -> float:
    """Return the seconds that a recipe's pre-training jobs took here, 0 if nothing is known."""
    if recipe.measured_elsewhere:  # on another machine
        return 0
    own = recipe.recipe.name
    jobs = [job for job in recipe.resources if job.stage == "pretrain"]
    return sum(job.seconds for job in jobs if job.job.split("/")[0] == own)


def row_books(report: Report, dataset: str) -> list[str]:
    """Return what became of the test rows, in words; usually one line for all runs."""
    results = [run.result for r in report.on(dataset) for run in r.runs if run.dataset == dataset]
    return sorted({_row_books(result.counts) for result in results if result})


def _row_books(counts: Mapping[str, int | dict[str, int]]) -> str:
    parts = [f"{counts.get('scored', 0):,} of {counts.get('rows', 0):,} test rows scored"]
    for name, value in counts.items():
        if isinstance(value, dict):
            told = ", ".join(f"{number:,} {printable(reason)}" for reason, number in value.items())
            parts += [f"{name}: {told}"] if told else []
        elif name not in ("rows", "scored") and value:
            parts.append(f"{value:,} {printable(name)}")
    return "; ".join(parts) + "."
