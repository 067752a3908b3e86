"""Which input cells the windows of a convolution or pool cover, and which they leave out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cnnjax.explain import _style as style
from cnnjax.explain._table import FAINT, MARK, PADDED, Sheet, fitted, scale
from cnnjax.explain.sizes import size_formula
from cnnjax.ops import _arguments as arguments
from cnnjax.ops import shapes
from cnnjax.ops._arguments import Padding

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARGIN = 0.6
_DROPPED = {"facecolor": "#fbe3d6", "edgecolor": "#f0b797", "hatch": "////", "linewidth": 0.8}


class _Axis(NamedTuple):
    """One axis, in padded cells."""

    n: int
    low: int
    length: int
    taps: np.ndarray  # (windows, k)
    formula: str

    @property
    def counts(self) -> np.ndarray:
        """How many windows see each padded cell."""
        return np.bincount(self.taps.ravel(), minlength=self.length)

    @property
    def dropped(self) -> list[int]:
        """The input cells that no window sees."""
        return np.flatnonzero(self.counts[self.low : self.low + self.n] == 0).tolist()


def plot_coverage(
    n: int | Sequence[int],
    k: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> "Figure":
    """Draw which input cells each window covers, so that one sees what VALID drops and what SAME adds.

    Along one axis every window has a row of its own. Of a picture, every cell says how many windows see it.
    Orange, hatched cells are seen by none; cells with a dashed edge are padding.

    Args:
        n: input size, an int, or (H, W) for a picture.
        k: size of kernel or window: an int, or one an axis.
        stride: step of the window, at least 1: an int, or one an axis; a pool's is usually k.
        padding: as in `ops.shapes.padding_amounts` for one axis, as in `ops.conv2d` for two.
        dilation: distance between neighbouring taps, at least 1: an int, or one an axis.
        ceil_mode: round the output size up, as pools may.

    Returns:
        A matplotlib Figure.

    Raises:
        TypeError: sizes that are not integers.
        ValueError: a window that does not fit, or more than 40 cells or 24 windows along an axis.
        ImportError: matplotlib is missing.

    Example:
        >>> texts = [text.get_text() for text in plot_coverage(8, 3, stride=2).axes[0].texts]
        >>> texts[-2:]
        ['output size = floor((8 + 2·0 − 3) / 2) + 1 = 3', 'seen by no window: cell 7']

    Source:
        Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", figures 2.5 to 2.7.
    """
    sizes = (n,) if isinstance(n, int) else arguments.per_axis("plot_coverage", "n", n, 2)
    axes = _axes(sizes, k, stride, padding, dilation, ceil_mode)
    for axis in axes:
        if axis.length > 40 or len(axis.taps) > 24:
            raise ValueError(
                f"plot_coverage: at most 40 cells and 24 windows an axis can be seen, got {axis.length} and"
                f" {len(axis.taps)}. Use a smaller n."
            )
    shown = [f"stride {stride}"]
    shown += [f"dilation {dilation}"] if dilation != 1 else []
    shown += [f"padding {padding.upper() if isinstance(padding, str) else padding}"]
    shown += ["rounded up"] if ceil_mode else []
    title = f"Window of {k}, {', '.join(shown)}"
    return _staircase(axes[0], title) if len(axes) == 1 else _grid(axes, title)


def _axes(
    sizes: Sequence[int],
    k: int | Sequence[int],
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
    ceil_mode: bool,
) -> list[_Axis]:
    rank = len(sizes)
    window, strides, dilations = (
        arguments.per_axis("plot_coverage", name, value, rank)
        for name, value in (("k", k), ("stride", stride), ("dilation", dilation))
    )
    if rank == 1:
        pairs = [shapes.padding_amounts(sizes[0], window[0], padding=padding, stride=strides[0], dilation=dilations[0])]  # pyright: ignore[reportArgumentType]
    else:
        modes = tuple(mode for mode in shapes.PAD_MODES if mode != "CAUSAL")
        pairs = arguments.padding_pairs("plot_coverage", padding, sizes, window, strides, dilations, modes)
    axes = []
    for n, size, s, d, (low, high) in zip(sizes, window, strides, dilations, pairs, strict=True):
        amounts = padding if isinstance(padding, str) else (low, high)
        formula = size_formula(n, size, stride=s, padding=amounts, dilation=d, ceil_mode=ceil_mode)
        count = shapes.pool_output_size(n, size, stride=s, padding=(low, high), dilation=d, ceil_mode=ceil_mode)
        taps = np.arange(count)[:, None] * s + np.arange(size) * d
        axes.append(_Axis(n, low, max(n + low + high, int(taps.max()) + 1), taps, formula))
    return axes


def _cells(name: str, cells: Sequence[int]) -> str:
    if len(cells) == 1:
        return f"{name} {cells[0]}"
    return f"{name}s " + (", ".join(map(str, cells)) if len(cells) < 9 else f"{cells[0]} to {cells[-1]}")


def _staircase(axis: _Axis, title: str) -> "Figure":
    high = 0.62
    left = _MARGIN + 2.2 * scale(axis.length + 4)
    width = max(left + axis.length + _MARGIN, 15)
    big = scale(width)
    top = 1.2 * big
    under = top + 1.35 + high * len(axis.taps) + 0.4 * big
    notes = [f"output size = {axis.formula}"]
    dropped = axis.dropped
    if dropped:
        notes.append(f"seen by no window: {_cells('cell', dropped)}")
    notes = fitted(notes, width - 2 * _MARGIN, 0.29 * big)
    sheet = Sheet(width, under + (0.44 * len(notes) + 0.2) * big)
    sheet.heading(_MARGIN, 0.6 * big, title, width - 2 * _MARGIN)
    sheet.text(left - 0.3, top + 0.5, "input", ha="right", size=0.3 * big)
    for cell in range(axis.length):
        number = cell - axis.low
        if not 0 <= number < axis.n:
            sheet.box(left + cell, top, 1, 1, facecolor=tuple(PADDED), edgecolor="#b4b4b4", linestyle=(0, (2, 2)))
            continue
        sheet.box(left + cell, top, 1, 1, **(_DROPPED if number in dropped else {}))
        sheet.text(left + cell + 0.5, top + 0.5, str(number), size=0.38)
    for number, taps in enumerate(axis.taps.tolist()):
        y = top + 1.35 + high * number
        sheet.text(left - 0.3, y + 0.25, f"output {number}", ha="right", size=0.27 * big)
        sheet.box(left + taps[0], y, taps[-1] - taps[0] + 1, 0.5, facecolor="#e4eff6", linewidth=0)
        for tap in taps:
            sheet.box(left + tap, y, 1, 0.5, facecolor=style.BLUE, edgecolor="white", linewidth=1)
    _notes(sheet, notes, under, big)
    return sheet.figure


def _grid(axes: Sequence[_Axis], title: str) -> "Figure":
    rows, columns = axes
    width = max(2 * _MARGIN + columns.length, 15)
    big = scale(width)
    top = 1.3 * big
    under = top + rows.length + 0.6 * big
    formulas = [f"output size {name} = {axis.formula}" for name, axis in zip("HW", axes, strict=True)]
    named = (("row", rows), ("column", columns))
    dropped = [f"seen by no window: {_cells(name, axis.dropped)}" for name, axis in named if axis.dropped]
    legend = ["numbers: how many windows see the cell", "outlined: the first window and the last"]
    notes = fitted([*legend, *formulas, *dropped], width - 2 * _MARGIN, 0.29 * big)
    sheet = Sheet(width, under + (0.44 * len(notes) + 0.1) * big)
    sheet.heading(_MARGIN, 0.6 * big, title, width - 2 * _MARGIN)
    counts = np.multiply.outer(rows.counts, columns.counts)
    most = counts.max()
    for (y, x), count in np.ndenumerate(counts):
        inside = rows.low <= y < rows.low + rows.n and columns.low <= x < columns.low + columns.n
        corner = (_MARGIN + x, top + y)
        if not inside:
            sheet.padding(*corner, float(count), fill=tuple(PADDED), size=0.36)
        elif count == 0:
            sheet.box(*corner, 1, 1, **_DROPPED)
            sheet.text(corner[0] + 0.5, corner[1] + 0.5, "0", size=0.36)
        else:
            sheet.cell(*corner, float(count), fill=_blue(count / most), size=0.36)
    for start, end in ((0, 0), (-1, -1)):
        y, x = int(rows.taps[start, 0]), int(columns.taps[end, 0])
        span = int(rows.taps[0, -1]) + 1, int(columns.taps[0, -1]) + 1
        sheet.mark(_MARGIN + x, top + y, span[1], span[0], edgecolor=style.INK, linewidth=2)
    _notes(sheet, notes, under, big)
    return sheet.figure


def _blue(share: float) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return tuple(1 - 0.45 * share * (1 - one) for one in to_rgb(style.BLUE))


def _notes(sheet: Sheet, notes: Sequence[str], top: float, big: float) -> None:
    for row, note in enumerate(notes):
        sheet.text(
            _MARGIN, top + 0.44 * row * big, note, size=0.29 * big, ha="left", family="monospace",
            color=MARK if note.startswith("seen") else FAINT,
        )  # fmt: skip
