"""Figures as text."""

import math

import pytest

from pipeline.report.filters import as_printed, count, duration, figure, short_count, signed

MINUS = "\N{MINUS SIGN}"
THIN = "\N{NARROW NO-BREAK SPACE}"


def test_a_missing_figure_is_a_dash_and_an_undefined_one_is_marked() -> None:
    assert figure(None) == '<span class="gap" title="missing">–</span>'
    assert figure(math.nan) == '<strong class="nan">NaN</strong>'
    assert signed(None) == figure(None) and signed(math.nan) == figure(math.nan)
    assert count(None) == figure(None)


@pytest.mark.parametrize(
    ("value", "shown"), [(85.984, "85.98"), (0.0, "0.00"), (-3.418, f"{MINUS}3.42")]
)
def test_figures_have_two_decimals(value: float, shown: str) -> None:
    assert figure(value) == shown


def test_differences_have_a_sign() -> None:
    assert [signed(value) for value in (2.826, -0.1)] == ["+2.83", f"{MINUS}0.10"]


@pytest.mark.parametrize(
    ("value", "kept", "hidden"), [(87.5, "87.5", "0"), (83.0, "83", ".00"), (54.24, "54.24", "")]
)
def test_published_figures_keep_their_decimals(value: float, kept: str, hidden: str) -> None:
    assert as_printed(value) == f'{kept}<span class="pad">{hidden}</span>'


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (950, "950"), (12_345, f"12.3{THIN}k"), (4.93e6, f"4.93{THIN}M"),
     (999_960, f"1{THIN}M"), (1.28e11, f"128{THIN}G")],
)  # fmt: skip
def test_large_numbers_are_short(value: float, shown: str) -> None:
    assert short_count(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0.4 s"), (59.4, "59.4 s"), (59.6, "1 min 0 s"), (725, "12 min 5 s"),
     (12_000, "3 h 20 min")],
)  # fmt: skip
def test_times(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_counts_have_their_thousands_apart() -> None:
    assert count(13_901) == "13,901"
