"""Matplotlib drawings as elements of a page, which take their colours from its style sheet."""

from __future__ import annotations

import functools
import io
import re
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..subjects import FAMILIES

COLOURS = {
    "ink": "#010203",
    "muted": "#010204",
    "rule": "#010205",
    "strong-rule": "#010207",
    "paper": "#010206",
    **{f"family-{name}": f"#0a0b{number:02x}" for number, name in enumerate((*FAMILIES, "other"))},
}
"""Stand-ins that become the style sheet's variables, so that the plot follows the page's colour scheme."""

MARKERS: dict[str, str] = dict(zip((*FAMILIES, "other"), "osD^v*PXh", strict=True))

SYMBOLS: dict[str, str] = dict(
    zip(
        (*FAMILIES, "other"),
        ["circle", "square", "diamond", "triangle-up", "triangle-down", "star", "cross", "x", "hexagon"],
        strict=True,
    )
)
"""The same shapes by Plotly's names."""

_STYLE_SHEET = Path(__file__).parent.parent / "static" / "board.css"


@functools.cache
def light_colours() -> dict[str, str]:
    """The style sheet's colours on paper by the names that `COLOURS` has them by."""
    root = re.search(r":root \{(.*?)\}", _STYLE_SHEET.read_text("utf-8"), re.DOTALL)
    assert root is not None
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", root[1]))


def style() -> AbstractContextManager[None]:
    """Settings under which a figure is made and written; the same figure gives the same text."""
    return mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "peftmark",
            "text.parse_math": False,
            "font.size": 9,
            "axes.linewidth": 0.8,
        }
    )


def plain_axes(axes: Axes) -> None:
    """Quiet lines, at the left and the bottom only."""
    axes.grid(axis="y", color=COLOURS["rule"], linewidth=0.6)
    axes.tick_params(which="both", colors=COLOURS["muted"], length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(COLOURS["rule"])


def inline(drawing: Figure) -> str:
    """Matplotlib's file as an element for a page: no prolog, no fixed size, no ids but those referred to."""
    buffer = io.StringIO()
    drawing.savefig(
        buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")), transparent=True
    )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    names = {colour: name for name, colour in COLOURS.items()}
    return re.sub("|".join(names), lambda match: f"var(--{names[match[0]]})", svg)
