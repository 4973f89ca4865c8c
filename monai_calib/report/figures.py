"""Figures of the report: a plot, its data as CSV, and a description in words for those who do not see it."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from .tables import csv_text

__all__ = [
    "COLOURS",
    "NEUTRAL",
    "Figure",
    "axis",
    "figure_csv",
    "figure_json",
    "new_plot",
    "p_text",
    "pack",
    "plain",
    "style",
    "swatch",
    "transparent",
]

# Told apart by the colour-blind; each has a contrast of 3:1 or more on the page's light and dark grounds.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#2A95CE", "#C48600", "#8E63B8", "#7F7F7F")
_SYMBOLS = (
    *("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star"),
    *("hexagon", "pentagon", "diamond-tall", "triangle-left", "triangle-right", "bowtie", "hourglass", "hexagram"),
)
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
NEUTRAL = "#808080"
_NO_MARKUP = bytes.maketrans(b"&<>", b".,:")


@dataclass(frozen=True)
class Figure:
    """A Plotly figure as plain values (``data``, ``layout``) with what a page needs around it.

    ``caption`` says how to read it, ``alt`` what it shows. Where every combination of some names is a row of ``csv``,
    ``grid`` has the names of each column but the last; that holds the numbers ``x`` of the traces, one after the other,
    and need not be on the page twice.
    """

    key: str
    title: str
    caption: str
    alt: str
    plot: dict[str, Any]
    csv: str
    grid: tuple[tuple[str, ...], ...] = ()

    @property
    def height(self) -> int:
        return int(self.plot["layout"]["height"])

    @property
    def wide(self) -> bool:
        """Whether it needs the whole width of the page; on a phone it scrolls in its place."""
        return "narrowest" in self.plot["layout"]["meta"]


def style(place: tuple[int, int]) -> dict[str, Any]:
    """Line and marker of a method, see :class:`~.comparison.Method`: the training has the colour and the symbol, what
    was fitted afterwards opens the symbol and dashes the line."""
    training, fitted = place
    colour = COLOURS[training % len(COLOURS)]
    symbol = _SYMBOLS[training % len(_SYMBOLS)] + ("-open" if fitted else "")
    dash = _DASHES[(2 * (training // len(COLOURS)) + fitted) % len(_DASHES)]
    return {
        "line": {"color": colour, "width": 2, "dash": dash},
        "marker": {"color": colour, "symbol": symbol, "size": 8, "line": {"color": colour, "width": 1.5}},
    }


def transparent(place: tuple[int, int], alpha: float) -> str:
    """The method's colour for a band behind its line."""
    colour = COLOURS[place[0] % len(COLOURS)]
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def plain(text: str) -> str:
    """Text from files for Plotly, which reads a subset of HTML in labels."""
    return escape(text, quote=False)


def new_plot(
    height: float, tallest: float | None = None, narrowest: int | None = None, **layout: Any
) -> dict[str, Any]:
    """An empty figure in the page's style; the page itself sets the colours of ground, text and grid.

    ``tallest`` is the largest height over width, so that a figure does not stand upright on a narrow page;
    ``narrowest`` the width in pixels below which it cannot be read.
    """
    limits = {"tallest": tallest, "narrowest": narrowest}
    return {
        "data": [],
        "layout": {
            "meta": {name: limit for name, limit in limits.items() if limit is not None},
            "height": round(height),
            "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
            "hoverlabel": {"namelength": -1},
            "legend": {"orientation": "h", "x": 0, "yref": "container", "yanchor": "bottom", "y": 0},
            **layout,
        },
    }


def swatch(place: tuple[int, int]) -> str:
    """CSS of a method's mark beside its name: round past the last colour, open for what was fitted afterwards."""
    colour = COLOURS[place[0] % len(COLOURS)]
    filling = f"box-shadow: inset 0 0 0 .2em {colour}" if place[1] else f"background: {colour}"
    return f"{filling}; border-radius: 50%" if place[0] // len(COLOURS) % 2 else filling


def axis(title: str, **settings: Any) -> dict[str, Any]:
    """An axis with a title."""
    return {"title": {"text": title}, **settings}


def figure_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The data of a figure, to five digits: more than a figure shows, and half the size of all."""
    return csv_text(columns, ([_short(value) for value in row] for row in rows))


def figure_json(figure: Figure) -> str:
    """Plot and CSV as JSON."""
    content = {"csv": figure.csv, "plot": _short(figure.plot)}
    if figure.grid:
        cells = [csv_text(["name"], [[name] for name in names]).splitlines()[1:] for names in figure.grid]
        content |= {"csv": figure.csv.splitlines()[0], "grid": cells}
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def pack(text: str) -> str:
    """Text for the page to unpack; the same text gives the same result.

    Five letters stand for four bytes, as in Python's base 85, which is 6 % shorter than base64; ``.,:`` replace what
    HTML would read as markup.
    """
    letters = base64.b85encode(gzip.compress(text.encode("utf-8"), 9, mtime=0))
    return letters.translate(_NO_MARKUP).decode("ascii")


def _short(value: Any) -> Any:
    """Numbers to four digits, those that are not finite as null, arrays as lists."""
    if isinstance(value, Mapping):
        return {key: _short(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_short(inner) for inner in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def p_text(p_value: float) -> str:
    """A p value as journals print it.

    Example:
        >>> p_text(0.0004), p_text(0.0312), p_text(float("nan"))
        ('< 0.001', '= 0.031', 'not available')
    """
    if not math.isfinite(p_value):
        return "not available"
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"
