"""A sheet to draw tables of numbers on, measured in cells, so that nothing is clipped and all tables align."""

import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np

from cnnjax.explain import _style as style
from cnnjax.explain._slide import number

# Inches: notebook width, and a cell that is large enough for a two-digit number.
_WIDTH, _CELL = 8.18, 0.5
_MONO = 0.602  # width over height of the monospaced font
MARK = style.ORANGE
FAINT, PADDED = "#767676", np.full(3, 0.94)
# Width over height of the characters that are no digits.
_ADVANCE = {".": 0.318, "−": 0.838, "∞": 0.833}


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
        self.scale = scale(width)

    def text(self, x: float, y: float, text: str, *, size: float = 0.3, **options: Any) -> None:
        """Write at a point; the size is a share of a cell."""
        options = {"ha": "center", "va": "center_baseline", "color": style.INK, "zorder": 5, **options}
        self.ax.text(x, y, text, size=size * self.unit, **options)

    def heading(self, x: float, y: float, text: str, width: float) -> None:
        """Write a title that fits a width."""
        size = min(0.36 * self.scale, width / (len(text) * 0.68))
        self.text(x, y, text, size=size, ha="left", weight="bold")

    def line(self, x: float, y: float, pieces: Iterable[tuple[str, dict[str, Any]]], *, size: float = 0.3) -> None:
        """Write pieces of monospaced text one after another, each in its own way."""
        for text, options in pieces:
            self.text(x, y, text, size=size, ha="left", family="monospace", **options)
            x += len(text) * size * _MONO

    def box(self, left: float, top: float, width: float, height: float, **options: Any) -> None:
        """Draw a rectangle."""
        from matplotlib.patches import Rectangle

        options = {"facecolor": "none", "edgecolor": "#c8c8c8", "linewidth": 0.8, **options}
        # Not add_patch, which works out new limits of the axes for every cell.
        self.ax.add_artist(Rectangle((left, top), width, height, clip_on=False, **options))

    def mark(self, left: float, top: float, width: float, height: float, **options: Any) -> None:
        """Outline a window, with a white edge that sets it off any colour."""
        self.box(left, top, width, height, edgecolor="white", linewidth=5.5, zorder=3)
        self.box(left, top, width, height, **{"edgecolor": MARK, "linewidth": 3, "zorder": 4, **options})

    def cell(self, left: float, top: float, value: float | None, *, fill: Any, size: float, **options: Any) -> None:
        """Draw a number in its cell; None leaves it empty."""
        self.box(left, top, 1, 1, facecolor=fill, **options)
        if value is not None:
            self.text(left + 0.5, top + 0.5, number(value), size=size)

    def padding(self, left: float, top: float, value: float, *, fill: Any, size: float, **options: Any) -> None:
        """Draw a number that is not in the input."""
        self.box(left, top, 1, 1, facecolor=fill, edgecolor="#b4b4b4", linestyle=(0, (2, 2)), **options)
        self.text(left + 0.5, top + 0.5, number(value), size=size * 0.9, color=FAINT)

    def arrow(self, start: tuple[float, float], end: tuple[float, float], *, color: str = MARK) -> None:
        """Draw an arrow between two points."""
        options = {"arrowstyle": "-|>", "color": color, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
        self.ax.annotate("", end, start, arrowprops={**options, "mutation_scale": 9.5})


def scale(width: float) -> float:
    """By how much to enlarge words, which keep their size where many cells make each of them small."""
    return max(1.0, width / 17)


def columns(width: float, size: float) -> int:
    """How many monospaced characters fit a width."""
    return int(width / (size * _MONO))


def fitted(texts: Iterable[str], width: float, size: float) -> list[str]:
    """Monospaced texts, broken where they are wider than a width."""
    return [line for text in texts for line in textwrap.wrap(text, columns(width, size), subsequent_indent="  ")]


def digits(values: np.ndarray) -> float:
    """The size at which the longest number of a table fits its cell."""
    texts = {number(value) for value in values.ravel().tolist()}
    return min(0.4, 0.74 / max(sum(_ADVANCE.get(one, 0.636) for one in text) for text in texts))


def limit(values: np.ndarray) -> float:
    """The magnitude that takes the strongest colour."""
    return max(float(np.abs(values[np.isfinite(values)]).max(initial=0)), 1e-12)


def shades(values: np.ndarray, *, signed: bool, limit: float) -> np.ndarray:
    """A colour (R, G, B) for every value: red and blue about zero, or grey from zero; pale enough to write on."""
    import matplotlib

    finite = np.where(np.isfinite(values), values, 0)
    if signed:
        colours = matplotlib.colormaps[style.SIGNED](0.5 + 0.24 * finite / limit)[..., :3]
        # The map's middle is a light grey.
        return np.where(finite[..., None] == 0, 1, colours)
    return matplotlib.colormaps["Greys"](0.45 * np.clip(finite / limit, 0, 1))[..., :3]


def tint(fill: np.ndarray) -> np.ndarray:
    """A colour with a breath of the window's."""
    from matplotlib.colors import to_rgb

    return 0.82 * fill + 0.18 * np.array(to_rgb(MARK))
