"""Plots: what is drawn, that it is harmless, and that it is the same each time."""

import itertools
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes

from pipeline.report.plots import (
    CostPoint,
    ScoreRow,
    plot_cost,
    plot_curve,
    plot_scores,
    spread,
)
from pipeline.report.results import HeldOut, Point, Training
from pipeline.report.svg import ACCENT, draw_svg

HOSTILE = '<script>alert(1)</script>"&$x^2$'
CURVE = Training(
    curve=[Point(step=step, tokens=100 * step, loss=8 / step) for step in range(1, 9)],
    held_out=[HeldOut(step=8, tokens=800, loss=1.1)],
    tokens=800,
)


def texts(svg: str) -> list[str]:
    """Return all texts of a drawing, in order."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.text]


def draw_line(axes: Axes) -> None:
    axes.plot([1, 2], [3, 4], color=ACCENT, marker="o", label=HOSTILE)
    axes.legend()


def test_text_stays_text_and_is_escaped() -> None:
    svg = draw_svg(draw_line, (3, 2), HOSTILE)
    assert HOSTILE in texts(svg)
    assert ElementTree.fromstring(svg).get("aria-label") == HOSTILE
    assert "<script" not in svg and "<style" not in svg and "<metadata" not in svg


def test_colours_and_fonts_are_left_to_the_page() -> None:
    svg = draw_svg(draw_line, (3, 2), "line")
    assert "var(--accent)" in svg and "#0102" not in svg and "font-family" not in svg
    root = ElementTree.fromstring(svg)
    assert root.get("viewBox") == "0 0 216 144"
    assert root.get("width") is None and root.get("role") == "img"


def test_same_figures_same_bytes_whatever_matplotlib_is_set_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import matplotlib

    first = plot_curve(CURVE, "tiny")
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 20)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    assert plot_curve(CURVE, "tiny") == first
    assert matplotlib.rcParams["font.size"] == 20
    assert not re.search(r"20\d\d-\d\d-\d\d", first)


def test_ids_of_two_plots_differ_and_all_are_used() -> None:
    both = plot_curve(CURVE, "one") + plot_curve(CURVE, "two")
    ids = re.findall(r' id="([^"]+)"', both)
    assert ids and len(set(ids)) == len(ids)
    assert all(f"#{name}" in both for name in ids)


def test_undefined_losses_leave_a_gap_and_no_nan_in_the_path() -> None:
    curve = [*CURVE.curve, Point(step=9, tokens=900, loss=math.nan)]
    svg = plot_curve(CURVE.model_copy(update={"curve": curve}), "tiny")
    assert "nan" not in svg.lower()
    assert {"training", "held out", "tokens", "loss (nats)"} <= set(texts(svg))


def test_a_row_for_each_recipe_with_its_gain() -> None:
    rows = [
        ScoreRow("lstm", [80.0, 81.0], [84.0, 85.0], 4.0, [(86.5, False), (79.0, True)]),
        ScoreRow("bert", [], [79.0], None),
        ScoreRow("gru", [80.0], [78.5], -1.5),
    ]
    found = texts(plot_scores(rows, "accuracy", "reviews"))
    assert {"lstm", "bert", "gru", "+4.00", "\N{MINUS SIGN}1.50", "accuracy (%)"} <= set(found)


def test_costs_far_apart_and_unknown_random_starts_are_drawn() -> None:
    points = [
        CostPoint("small", 1e4, 80.0, 0.4, 79.0),
        CostPoint("large", 1e8, 85.0, 0.0, None),
        CostPoint("a_very_long_name_that_does_not_fit_there", 2e8, 85.01, 0.1, 80.0),
    ]
    found = texts(plot_cost(points, "accuracy", "tokens", "reviews"))
    assert {"small", "large", "a_very_long_name_that…", "pre-training (tokens)"} <= set(found)
    assert not any("$" in text for text in found)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8).map(sorted))
def test_names_are_spread_apart_within_the_axes(values: list[float]) -> None:
    places = spread(values, 10.0, 0.0, 100.0)
    assert all(after - before >= 10 - 1e-9 for before, after in itertools.pairwise(places))
    assert places[0] >= 5 - 1e-9 and places[-1] <= 95 + 1e-9


def test_a_crowd_stays_where_it_is() -> None:
    assert spread([48.0, 50.0, 52.0], 10.0, 0.0, 100.0) == [40.0, 50.0, 60.0]


def test_names_that_are_apart_stay_where_they_are() -> None:
    assert spread([20.0, 50.0, 80.0], 10.0, 0.0, 100.0) == [20.0, 50.0, 80.0]
