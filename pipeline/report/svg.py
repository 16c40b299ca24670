"""Drawings as inline SVG: same bytes for same figures, colours and font taken from the page.

Colours are placeholders while a plot is drawn and variables of the style sheet afterwards, so one
plot serves light, dark and print. Text stays text.
"""

import io
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Drawn with these, shown with the variables of style.css.
INK, MUTED, GRID, ACCENT, PAPER = "#010203", "#010204", "#010205", "#010206", "#010207"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    ACCENT: "var(--accent)",
    PAPER: "var(--paper)",
}
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "none",
}


def draw_svg(
    draw: Callable[[Axes], None],
    size: tuple[float, float],
    label: str,
    left: float = 0.62,
    right: float = 0.14,
) -> Markup:
    """Return what `draw` puts on a pair of axes as an SVG element; size and margins in inches.

    label: what is to be seen, for those who cannot; no two drawings of a page have the same.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # The salt makes the ids of clip paths and markers, which must differ between drawings.
        matplotlib.rcParams.update({**_SETTINGS, "svg.hashsalt": label})
        figure = Figure(figsize=size)
        width, height = size
        bottom, top = 0.42, 0.12
        place = (
            left / width,
            bottom / height,
            1 - (left + right) / width,
            1 - (bottom + top) / height,
        )
        draw(figure.add_axes(place))
        buffer = io.BytesIO()
        # Without a date: same figures, same bytes.
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _fit(buffer.getvalue(), label)


def _fit(svg: bytes, label: str) -> Markup:
    """Return a drawing for the page: described, without size, fonts, blanks and unused names."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            # A style element would rule the whole page.
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    used = set(re.findall(rb'(?:url\(#|href="#)([^)"]+)', svg))
    for element in root.iter():
        element.tail = None
        if not (element.text or "").strip():
            element.text = None
        if element.get("id", "").encode() not in used:
            element.attrib.pop("id", None)
        if style := element.get("style"):
            element.set("style", _fit_style(style))
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", label)
    # Safe to paste: matplotlib escapes the text it is given, ElementTree all that it writes.
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _fit_style(style: str) -> str:
    style = re.sub(r" ?font-family: [^;]*;", "", style)
    return re.sub(r"#01020\d", lambda found: _VARIABLES[found[0]], style)
