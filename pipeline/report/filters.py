"""Figures as text: what the templates and plots write numbers with."""

import json
import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from pipeline.errors import printable

MINUS = "\N{MINUS SIGN}"
MAX_TEXT = 140


def figure(value: float | None, places: int = 2) -> Markup:
    """Return a number for a cell: a dash where it is missing, a marked NaN where undefined."""
    if value is None:
        return Markup('<span class="gap" title="missing">–</span>')
    if math.isnan(value):
        return Markup('<strong class="nan">NaN</strong>')
    return escape(f"{value:.{places}f}".replace("-", MINUS))


def as_printed(value: float, places: int = 2) -> Markup:
    """Return a published figure with the decimals it has, set under those of `figure`."""
    text = f"{value:.{places}f}"
    kept = f"{value:g}"
    return escape(kept) + Markup('<span class="pad">{}</span>').format(text[len(kept) :])


def signed(value: float | None, places: int = 2) -> Markup:
    """Return a difference with its sign."""
    if value is None or math.isnan(value):
        return figure(value)
    return escape(f"{value:+.{places}f}".replace("-", MINUS))


def count(value: int | None) -> Markup:
    """Return a whole number with its thousands apart."""
    return figure(None) if value is None else escape(f"{value:,}")


def duration(seconds: float) -> str:
    """Return a time: 45 s, 12 min 5 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def marked(text: str, word: str) -> Markup:
    """Return a text in which the first occurrence of a word stands out."""
    before, found, after = printable(text, MAX_TEXT).partition(printable(word))
    return escape(before) + (Markup("<strong>{}</strong>").format(found) if found else "") + after


def pretty(value: Mapping[str, Any]) -> str:
    """Return settings as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def short_count(value: float) -> str:
    """Return a number for a tick or a sentence: 950, 12 k, 3.4 M, 2.1 G."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 0.9995:
            return f"{value / limit:.3g}\N{NARROW NO-BREAK SPACE}{unit}"
    return f"{value:.3g}"


FILTERS = {
    "as_printed": as_printed,
    "count": count,
    "duration": duration,
    "figure": figure,
    "marked": marked,
    "plain": printable,
    "pretty": pretty,
    "short": short_count,
    "signed": signed,
}
