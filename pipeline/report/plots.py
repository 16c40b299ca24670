"""The plots of a report: learning curves, scores of all runs, scores against cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.report.filters import MINUS, short_count
from pipeline.report.results import Training
from pipeline.report.svg import ACCENT, GRID, INK, MUTED, PAPER, draw_svg

NAME_INCHES = 0.17
MAX_NAME = 22


@dataclass(frozen=True)
class ScoreRow:
    """A recipe in a plot of scores; all figures in points."""

    name: str
    random: Sequence[float]
    pretrained: Sequence[float]
    gain: float | None
    published: Sequence[tuple[float, bool]] = ()
    """(figure, whether it is of the random start)."""


@dataclass(frozen=True)
class CostPoint:
    """A recipe in a plot of scores against cost; scores in points."""

    name: str
    cost: float
    mean: float
    spread: float
    random: float | None
    """Mean of the random start, if it is known."""


def plot_curve(training: Training, name: str) -> Markup:
    """Return training and held-out loss over tokens."""

    def draw(axes: Axes) -> None:
        curve = [point for point in training.curve if math.isfinite(point.loss)]
        tokens, losses = [point.tokens for point in curve], [point.loss for point in curve]
        axes.plot(tokens, losses, color=ACCENT, linewidth=1.2, alpha=0.6, label="training")
        if held_out := [point for point in training.held_out if math.isfinite(point.loss)]:
            tokens, losses = [p.tokens for p in held_out], [p.loss for p in held_out]
            (line,) = axes.plot(tokens, losses, color=INK, linewidth=1, label="held out")
            line.set(marker="o", markersize=4, markerfacecolor=PAPER)
        axes.set_xlim(left=0)
        axes.set_xlabel("tokens")
        axes.set_ylabel("loss (nats)")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.legend(loc="upper right")

    label = f"Loss of {name} over {short_count(training.tokens)} tokens, training and held out"
    return draw_svg(draw, (4.3, 2.5), label)


def plot_scores(rows: Sequence[ScoreRow], metric: str, dataset: str) -> Markup:
    """Return every run's score, a row for each recipe: hollow random start, filled pre-trained."""

    def draw(axes: Axes) -> None:
        for place, row in enumerate(rows):
            _score_row(axes, -place, row)
        axes.set_ylim(-len(rows) + 0.55, 0.75)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.1)
        axes.xaxis.set_major_locator(MaxNLocator(7))
        axes.set_xlabel(f"{metric} (%)")

    label = f"{metric} of every run on {dataset}, one row for each recipe"
    return draw_svg(draw, (4.6, 0.62 + 0.5 * len(rows)), label, left=0.1, right=0.5)


def _score_row(axes: Axes, y: float, row: ScoreRow) -> None:
    """Draw the seeds, the step from mean to mean with its size, and published figures."""
    beside = axes.get_yaxis_transform()
    axes.text(0, y + 0.42, row.name, transform=beside, fontsize=9, color=INK, va="center")
    _hollow(axes, row.random, [y] * len(row.random))
    axes.scatter(row.pretrained, [y] * len(row.pretrained), s=26, color=ACCENT, zorder=3, alpha=0.9)
    for figure, of_random in row.published:
        colour = MUTED if of_random else ACCENT
        axes.scatter([figure], [y], marker="|", s=170, color=colour, linewidth=1.6, zorder=2)
    if row.gain is None or not math.isfinite(row.gain):
        return
    begin, end = (sum(scores) / len(scores) for scores in (row.random, row.pretrained))
    axes.plot([begin, end], [y, y], color=ACCENT, linewidth=1.6, zorder=1)
    gain = f"{row.gain:+.2f}".replace("-", MINUS)
    axes.text(1.02, y, gain, transform=beside, color=ACCENT, va="center")


def _hollow(axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    """Draw runs from a random start."""
    axes.scatter(
        x, y, s=26, facecolor=PAPER, edgecolor=MUTED, linewidth=1.1, zorder=3, clip_on=False
    )


def plot_cost(points: Sequence[CostPoint], metric: str, unit: str, dataset: str) -> Markup:
    """Return mean scores against the cost of pre-training; the random start costs nothing."""
    ranked = sorted(points, key=lambda point: (point.mean, point.name))
    costs = [point.cost for point in ranked]
    wide = max(costs) > 30 * min(costs)

    def draw(axes: Axes) -> None:
        for point in ranked:
            _cost_point(axes, point)
        axes.margins(y=0.12)
        axes.set_xlim(0, max(costs) * (1.6 if wide else 1.06))
        axes.set_xlabel(f"pre-training ({unit})")
        axes.set_ylabel(f"{metric} (%)")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        if wide:
            axes.set_xscale("symlog", linthresh=min(costs))
            powers = (10.0**power for power in range(21))
            axes.set_xticks([0.0, *(power for power in powers if min(costs) < power < max(costs))])
            axes.minorticks_off()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        _name_points(axes, ranked, height)

    height = max(2.6, 0.9 + NAME_INCHES * len(points))
    label = f"Mean {metric} on {dataset} against {unit} of pre-training"
    return draw_svg(draw, (4.6, height), label, right=1.7)


def _cost_point(axes: Axes, point: CostPoint) -> None:
    if point.random is not None:
        ends = [point.random, point.mean]
        axes.plot([0, point.cost], ends, color=MUTED, linewidth=0.9, linestyle="--", zorder=1)
        _hollow(axes, [0], [point.random])
    axes.errorbar([point.cost], [point.mean], yerr=[point.spread], color=ACCENT, capsize=2.5)
    axes.scatter([point.cost], [point.mean], s=26, color=ACCENT, zorder=3)


def _name_points(axes: Axes, ranked: Sequence[CostPoint], height: float) -> None:
    """Write the names beside the axes, from low to high, apart enough to be read."""
    low, high = axes.get_ylim()
    gap = (high - low) * NAME_INCHES / (axes.get_position().height * height)
    places = spread([point.mean for point in ranked], gap, low, high)
    for point, place in zip(ranked, places, strict=True):
        name = point.name if len(point.name) <= MAX_NAME else point.name[: MAX_NAME - 1] + "…"
        axes.annotate(
            name,
            (point.cost, point.mean),
            (1.06, (place - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            color=INK,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": GRID, "linewidth": 0.8, "shrinkB": 4},
        )


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return places for ascending values, `gap` apart at least, within low..high if they fit.

    Pushed up from below and down from above; halfway between, crowds stay about where they are.
    """
    up = _push(values, gap, low + gap / 2)
    down = [-place for place in _push([-v for v in reversed(values)], gap, gap / 2 - high)][::-1]
    upper, lower = high - gap / 2, low + gap / 2
    up = [min(place, upper - gap * (len(up) - 1 - n)) for n, place in enumerate(up)]
    down = [max(place, lower + gap * n) for n, place in enumerate(down)]
    return [(one + other) / 2 for one, other in zip(up, down, strict=True)]


def _push(values: Sequence[float], gap: float, floor: float) -> list[float]:
    """Return the values, each raised to `gap` above the one before, the first to `floor`."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + gap if places else floor))
    return places
