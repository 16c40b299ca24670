"""Means, spreads, gains and verdicts, by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.scores import (
    best,
    difference,
    in_words,
    judge,
    signed,
    stands_clear,
    summarize,
)


def test_mean_and_sample_deviation_in_points() -> None:
    summary = summarize([0.80, 0.82, 0.84])
    assert summary.mean == pytest.approx(82.0)
    assert summary.spread == pytest.approx(2.0)
    assert (summary.count, summary.expected, summary.undefined) == (3, 3, 0)


def test_missing_runs_are_left_out_and_counted() -> None:
    summary = summarize([0.5, None])
    assert (summary.mean, summary.spread) == (50.0, None)
    assert (summary.count, summary.expected) == (1, 2)


def test_no_run_has_no_mean() -> None:
    summary = summarize([None, None])
    assert (summary.mean, summary.spread, summary.count) == (None, None, 0)
    assert in_words(summary) == "missing"


def test_one_undefined_score_makes_the_mean_undefined() -> None:
    summary = summarize([0.9, math.nan])
    assert summary.mean is not None and math.isnan(summary.mean)
    assert (summary.count, summary.undefined) == (2, 1)
    assert in_words(summary) == "NaN"


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_the_mean_lies_among_the_scores(scores: list[float]) -> None:
    summary = summarize(scores)
    assert summary.mean is not None and summary.spread is not None
    assert 100 * min(scores) - 1e-9 <= summary.mean <= 100 * max(scores) + 1e-9
    assert 0 <= summary.spread <= 100


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (80.2, "reproduced"),
        (81.2, "reproduced"),
        (79.2, "reproduced"),
        (81.2049, "reproduced"),
        (81.21, "above"),
        (79.19, "below"),
        (math.nan, "undefined"),
        (None, "not run"),
    ],
)
def test_verdicts_at_the_edge_of_one_point(measured: float | None, verdict: str) -> None:
    assert judge(measured, 80.2, 1.0) == verdict


def test_an_undefined_or_missing_mean_is_never_the_best() -> None:
    assert best([None, math.nan, 81.0, 80.0]) == 81.0
    assert best([None, math.nan]) is None


def test_ranges_that_touch_are_not_clear_of_one_another() -> None:
    low, high = summarize([0.80, 0.82]), summarize([0.86, 0.88])
    assert stands_clear(high, low)
    assert not stands_clear(low, high)
    assert not stands_clear(summarize([0.82, 0.84]), low)
    assert not stands_clear(summarize([0.9]), low)
    assert not stands_clear(summarize([math.nan, 0.9]), low)


def test_differences_in_words() -> None:
    assert difference(82.0, 80.5) == 1.5
    assert difference(None, 80.5) is None
    assert [signed(value) for value in (1.5, -0.25, None, math.nan)] == [
        "+1.50",
        "-0.25",
        "",
        "NaN",
    ]
    assert in_words(summarize([0.8312, 0.8275])) == "82.94 ± 0.26"
    assert in_words(summarize([0.8312])) == "83.12"
