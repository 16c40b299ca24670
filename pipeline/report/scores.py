"""Scores over seeds: mean, spread, gain over the random start, verdict on published figures.

Scores are fractions of one, as metrics files hold them; differences are in points (hundredths).
"""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["reproduced", "above", "below", "undefined", "not run"]


@dataclass(frozen=True)
class Summary:
    """Mean and spread of the scores of some seeds, in points."""

    count: int
    """Runs that have a score, undefined ones (NaN) included."""
    expected: int
    """Runs asked for."""
    undefined: int
    """Runs whose score is NaN."""
    mean: float | None
    """Mean in points; NaN if one of the scores is, None without runs."""
    spread: float | None
    """Sample standard deviation in points, None for fewer than two runs."""


def summarize(scores: Iterable[float | None]) -> Summary:
    """Return mean and sample standard deviation of scores; None stands for a missing run.

    One NaN makes the mean NaN: a broken run is never hidden behind good ones.
    """
    wanted = list(scores)
    found = [100 * score for score in wanted if score is not None]
    undefined = sum(map(math.isnan, found))
    mean = spread = None
    if found:
        mean = math.nan if undefined else statistics.fmean(found)
    if len(found) > 1:
        spread = math.nan if undefined else statistics.stdev(found)
    return Summary(len(found), len(wanted), undefined, mean, spread)


def difference(ours: float | None, theirs: float | None) -> float | None:
    """Return ours - theirs, None where one is missing."""
    return None if ours is None or theirs is None else ours - theirs


def stands_clear(higher: Summary, lower: Summary) -> bool:
    """Return whether the ranges mean +- spread of two summaries do not touch, `higher` above."""
    if None in (higher.mean, lower.mean, higher.spread, lower.spread):
        return False
    return higher.mean - higher.spread > lower.mean + lower.spread  # type: ignore[operator]


def judge(measured: float | None, published: float, tolerance: float) -> Verdict:
    """Return the verdict on a measured mean beside a published figure, all in points.

    Rounded to hundredths, as printed, so that a difference shown as the tolerance is within it.
    """
    if measured is None:
        return "not run"
    if math.isnan(measured):
        return "undefined"
    distance = round(measured - published, 2)
    if abs(distance) <= tolerance:
        return "reproduced"
    return "above" if distance > 0 else "below"


def best(means: Iterable[float | None]) -> float | None:
    """Return the highest mean; missing and undefined ones are never the best."""
    return max((m for m in means if m is not None and not math.isnan(m)), default=None)


def in_words(summary: Summary) -> str:
    """Return mean and spread as text: `83.15 ± 0.42`, `NaN`, `missing`."""
    if summary.mean is None:
        return "missing"
    if math.isnan(summary.mean):
        return "NaN"
    return f"{summary.mean:.2f}" + ("" if summary.spread is None else f" ± {summary.spread:.2f}")


def signed(value: float | None) -> str:
    """Return a difference as text, empty where it is missing."""
    return "" if value is None else "NaN" if math.isnan(value) else f"{value:+.2f}"
