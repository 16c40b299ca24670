"""Test rows that were seen before: how many, where, and the scores without them."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.recipes import Start
from pipeline.report.results import Run, Seen
from pipeline.report.scores import summarize
from pipeline.report.tables import STARTS, Report

PLACES: dict[Seen, str] = {
    "without_repeats": "the training part",
    "in_corpus": "the pre-training corpus",
    "in_either": "either",
}


@dataclass(frozen=True)
class Share:
    """The rows that stand in one place, and the score without them."""

    rows: int | None
    """None: nobody looked there."""
    score: float | None
    """Mean over the seeds in points, on the other rows."""


@dataclass(frozen=True)
class OverlapRow:
    """A recipe and start on a data set."""

    recipe: str
    start: Start
    scored: int
    score: float | None
    """Mean over the seeds in points, on all rows."""
    shares: dict[Seen, Share]


def overlaps(report: Report, dataset: str) -> list[OverlapRow]:
    """Return a row for each recipe and start that was scored, the random start first."""
    rows = []
    for recipe in report.on(dataset):
        for start in STARTS:
            runs = [run for run in recipe.select(dataset, start) if run.result]
            if any(run.result.without_repeats for run in runs if run.result):
                rows.append(_row(recipe.recipe.name, start, runs))
    return rows


def _row(recipe: str, start: Start, runs: Sequence[Run]) -> OverlapRow:
    scored = max(int(run.result.counts["scored"]) for run in runs if run.result)  # type: ignore[arg-type]
    mean = summarize(run.score for run in runs).mean
    return OverlapRow(recipe, start, scored, mean, {place: _share(runs, place) for place in PLACES})


def _share(runs: Sequence[Run], place: Seen) -> Share:
    found = [apart for run in runs if (apart := run.apart(place))]
    rows = max((apart.repeats for apart in found), default=None)
    return Share(rows, summarize(run.score_apart(place) for run in runs).mean)


def corpus_note(rows: Sequence[OverlapRow]) -> str:
    """Return how many rows stand in the corpora of pre-training; empty where nobody looked."""
    counts = {row.recipe: row.shares["in_corpus"].rows for row in rows}
    known = [f"{recipe} {count:,}" for recipe, count in counts.items() if count is not None]
    return f"Test rows that stand in the pre-training corpus: {', '.join(known)}." if known else ""
