"""One look for all pictures: colours that the colour-blind can tell apart, a sentence as the title, room for labels.

Nothing global is set, neither pyplot nor rcParams: pictures may be drawn in several threads.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

WIDTH, HEIGHT, DPI = 8.0, 5.2, 110
TITLE_CHARACTERS = 74
"""As many as a line of the title has room for."""
NAME_CHARACTERS = 28
INK, FAINT, GRID = "#222222", "#666666", "#DDDDDD"
MODEL_STYLES: Mapping[str, dict[str, Any]] = {
    "challenger": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "champion": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    "training": {"color": "#E69F00", "linestyle": "--", "marker": "s"},
    "validation": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
}
"""Colour, dashes and marker differ: any one of them is enough to tell the lines apart (Okabe and Ito's palette)."""
CLASS_STYLES = tuple(
    zip(("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"), ("-", "--", "-.", ":", "-"), strict=True)
)
CURVE_POINTS = 400
"""Points drawn of a curve that has one for every row: more than the picture has pixels for are of no use."""
COUNTS = ListedColormap(colormaps["Blues"](np.linspace(0.35, 1, 256)))
"""Colours for how many rows are in a cell, from one on: the first is dark enough to be seen on white."""
FEW_ROWS = 400
LEAST_ENTRIES = 4
"""Room that horizontal entries take at least: fewer would be thick blocks."""
TITLE_SIZE, TEXT_SIZE, SMALL_SIZE = 12.5, 11, 9.5


def new_figure(title: str, subtitle: str = "", *, height: float = HEIGHT, **panels: Any) -> tuple[Figure, Any]:
    """A figure with its axes (as Figure.subplots gives them); the title says in a sentence what one sees."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    lines = textwrap.wrap(title, TITLE_CHARACTERS)
    figure.suptitle(plain("\n".join(lines)), x=0.01, ha="left", fontsize=TITLE_SIZE, fontweight="bold", color=INK)
    axes = figure.subplots(**panels)
    for panel in np.ravel(axes):
        _tidy(panel)
    if subtitle:
        figure.supxlabel(plain(subtitle), x=0.99, ha="right", fontsize=SMALL_SIZE, color=FAINT)
    return figure, axes


def png(figure: Figure) -> bytes:
    """The picture's file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name may be in a script that the font does not have: boxes in a picture are no reason to fail.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def plain(text: str) -> str:
    """The text, never as a formula."""
    return text.replace("$", r"\$")


def short(text: str, most: int = NAME_CHARACTERS) -> str:
    """A name of the user's in as much room as there is."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def label_axes(panel: Axes, across: str, up: str) -> None:
    """What the axes measure, with units."""
    panel.set_xlabel(plain(across), fontsize=TEXT_SIZE, color=INK)
    panel.set_ylabel(plain(up), fontsize=TEXT_SIZE, color=INK)


def percent_axes(panel: Axes, *, across: bool = True, up: bool = True) -> None:
    """Shares of one as percentages."""
    for axis, wanted in ((panel.xaxis, across), (panel.yaxis, up)):
        if wanted:
            axis.set_major_formatter(PercentFormatter(1.0))


def legend(panel: Axes, **options: Any) -> None:
    """What the lines are."""
    lines, names = panel.get_legend_handles_labels()
    panel.legend(
        lines,
        [plain(name) for name in names],
        fontsize=SMALL_SIZE + 0.5,
        frameon=True,
        framealpha=0.9,
        edgecolor=GRID,
        labelcolor=INK,
        **options,
    )


def unit_square(panel: Axes) -> None:
    """Both axes from 0 to 1, with a little room so that lines on the edge are seen."""
    panel.set_xlim(-0.02, 1.02)
    panel.set_ylim(-0.02, 1.02)


def thinned(*arrays: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """The arrays [N] at the same CURVE_POINTS places, the ends included."""
    rows = len(arrays[0])
    if rows <= CURVE_POINTS:
        return list(arrays)
    places = np.unique(np.linspace(0, rows - 1, CURVE_POINTS).astype(np.intp))
    return [array[places] for array in arrays]


def cells(rows: int, most: int) -> int:
    """Into how many cells a side is divided: few rows would be lost in small ones."""
    return most if rows > FEW_ROWS else most // 3


def name_rows(panel: Axes, names: Sequence[str]) -> None:
    """Horizontal entries from the top down, each with its name at the left."""
    panel.set_yticks(range(len(names)), [plain(short(name)) for name in names], fontsize=TEXT_SIZE - 0.5)
    spare = max(0, LEAST_ENTRIES - len(names)) / 2
    panel.set_ylim(len(names) - 0.5 + spare, -0.5 - spare)
    panel.grid(visible=False, axis="y")


def _tidy(panel: Axes) -> None:
    panel.grid(color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=SMALL_SIZE + 0.5, labelcolor=INK, length=3, color=FAINT)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        panel.spines[side].set_color(FAINT)
