"""A sheet to draw tables of numbers on, measured in cells, so that nothing is clipped and all tables align."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cnnjax.explain import _style as style
from cnnjax.explain._slide import number

# Inches: notebook width, and a cell that is large enough for a two-digit number.
_WIDTH, _CELL = 8.18, 0.5
_MONO = 0.602  # width over height of the monospaced font
MARK = style.ORANGE
FAINT = "#9a9a9a"


class Sheet:
    """A white figure of width x height cells, with y downwards."""

    def __init__(self, width: float, height: float):
        inches = min(_CELL, _WIDTH / width)
        self.figure, (self.ax,) = style.axes(size=(width * inches, height * inches))
        self.figure.set_layout_engine("none")
        self.ax.set_position((0, 0, 1, 1))
        self.ax.set_axis_off()
        self.ax.set_xlim(0, width)
        self.ax.set_ylim(height, 0)
        self.unit = inches * 72

    def text(self, x: float, y: float, text: str, *, size: float = 0.3, **options: Any) -> None:
        """Write at a point; the size is a share of a cell."""
        options = {"ha": "center", "va": "center_baseline", **options}
        self.ax.text(x, y, text, size=size * self.unit, **options)

    def line(self, x: float, y: float, pieces: Iterable[tuple[str, dict[str, Any]]], *, size: float = 0.3) -> None:
        """Write pieces of monospaced text one after another, each in its own way."""
        for text, options in pieces:
            self.text(x, y, text, size=size, ha="left", family="monospace", **options)
            x += len(text) * size * _MONO

    def box(self, left: float, top: float, width: float, height: float, **options: Any) -> None:
        """Draw a rectangle."""
        from matplotlib.patches import Rectangle

        options = {"facecolor": "none", "edgecolor": "#c8c8c8", "linewidth": 0.8, **options}
        self.ax.add_patch(Rectangle((left, top), width, height, **options))

    def mark(self, left: float, top: float, width: float, height: float, **options: Any) -> None:
        """Outline a window, with a white edge that sets it off any colour."""
        self.box(left, top, width, height, edgecolor="white", linewidth=5.5, zorder=3)
        self.box(left, top, width, height, **{"edgecolor": MARK, "linewidth": 3, "zorder": 4, **options})

    def cell(self, left: float, top: float, value: float | None, *, fill: Any = "white", size: float = 0.38) -> None:
        """Draw a number in its cell; None leaves it empty."""
        self.box(left, top, 1, 1, facecolor=fill)
        if value is not None:
            self.text(left + 0.5, top + 0.5, number(value), size=size, color=_ink(fill))

    def padding(self, left: float, top: float, value: float, *, size: float = 0.38) -> None:
        """Draw a number that is not in the input."""
        self.box(left, top, 1, 1, facecolor="#f3f3f3", edgecolor="#b4b4b4", linestyle=(0, (2, 2)))
        self.text(left + 0.5, top + 0.5, number(value), size=size * 0.85, color=FAINT, style="italic")

    def arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Draw an arrow between two points."""
        options = {"arrowstyle": "-|>", "color": MARK, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
        self.ax.annotate("", end, start, arrowprops={**options, "mutation_scale": self.unit * 0.25})


def columns(width: float, size: float) -> int:
    """How many monospaced characters fit a width."""
    return int(width / (size * _MONO))


def digits(*tables: np.ndarray) -> float:
    """The size at which the longest number of some tables fits its cell."""
    longest = max(len(number(value)) for table in tables for value in table.ravel().tolist())
    return min(0.4, 0.86 / (longest * 0.62))


def shades(values: np.ndarray, *, signed: bool) -> np.ndarray:
    """A colour (R, G, B) for every value: red and blue about zero, or grey from zero; pale enough to write on."""
    import matplotlib

    finite = np.where(np.isfinite(values), values, 0)
    limit = max(float(np.abs(finite).max()), 1e-12)
    if signed:
        return matplotlib.colormaps[style.SIGNED](0.5 + 0.3 * finite / limit)[..., :3]
    return matplotlib.colormaps["Greys"](0.45 * np.clip(finite / limit, 0, 1))[..., :3]


def tint(fill: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    """A colour with a breath of the window's."""
    from matplotlib.colors import to_rgb

    return tuple(0.8 * one + 0.2 * mark for one, mark in zip(to_rgb(tuple(fill)), to_rgb(MARK), strict=True))


def _ink(fill: Any) -> str:
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(fill)
    return style.INK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
