"""How the tables of a sliding window lie beside each other: in a row for pictures, in rows for series and volumes."""

from typing import TYPE_CHECKING

from cnnjax.explain._film import (
    BETWEEN,
    Film,
    draw_input,
    draw_middle,
    draw_output,
    draw_weights,
    spread,
    wrapped,
)
from cnnjax.explain._table import FAINT, Sheet, columns
from cnnjax.ops._arguments import AXES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In cells: height of a label over its table, of the lane for the arrow, sizes of text, margin.
_LABEL, _LANE, _SUM, _NOTE, _MARGIN = 0.62, 0.42, 0.3, 0.27, 0.7


def frames(film: Film) -> list["Figure"]:
    """Draw every stop of the window."""
    layout = {1: _series, 2: _picture, 3: _volume}[film.rank]
    return [layout(film, number) for number in range(len(film.slide.stops))]


def _times(shape: tuple[int, ...], rank: int) -> str:
    return " × ".join(map(str, shape[3 - rank :]))


def _labels(film: Film) -> tuple[str, str, str, str]:
    slide, rank = film.slide, film.rank
    padded = "" if slide.inside.all() else " with padding"
    middle = "window" if film.weights is None else "window · filter"
    return (
        f"input{padded}, {_times(slide.padded.shape, rank)}",
        f"filter, {_times(slide.window, rank)}",
        middle,
        f"output, {_times(slide.output.shape, rank)}",
    )


def _notes(film: Film) -> list[str]:
    """The output size of every axis, those that agree in one line."""
    names: dict[str, list[str]] = {}
    for axis, formula in zip(AXES[film.rank], film.slide.formulas, strict=True):
        names.setdefault(formula, []).append(axis)
    lines = [f"output size{'' if film.rank == 1 else ' ' + ', '.join(axes)} = {text}" for text, axes in names.items()]
    if not film.slide.covered()[film.slide.inside].all():
        lines.append("hatched: no window covers these cells, they are dropped")
    return lines


def _foot(film: Film, width: float) -> float:
    """The height that sum and notes need, the same in every frame."""
    fit = columns(width - 2 * _MARGIN, _SUM)
    return max(len(wrapped(pieces, fit)) for pieces in film.sums) * 0.5 + len(_notes(film)) * 0.44 + 0.75


def _write(sheet: Sheet, film: Film, number: int, width: float, top: float) -> None:
    """The title, and below the tables the sum and the output size."""
    sheet.text(_MARGIN, 0.6, film.title, size=0.36, ha="left", weight="bold")
    lines = wrapped(film.sums[number], columns(width - 2 * _MARGIN, _SUM))
    most = max(len(wrapped(pieces, columns(width - 2 * _MARGIN, _SUM))) for pieces in film.sums)
    for row, line in enumerate(lines):
        sheet.line(_MARGIN, top + 0.5 + 0.5 * row, line, size=_SUM)
    for row, note in enumerate(_notes(film)):
        sheet.line(_MARGIN, top + 0.6 + 0.5 * most + 0.44 * row, [(note, {"color": "#777777"})], size=_NOTE)


def _picture(film: Film, number: int) -> "Figure":
    slide, stop = film.slide, film.slide.stops[number]
    labels = _labels(film)
    (_, high, wide), (_, kh, kw), (_, oh, ow) = slide.padded.shape, slide.window, slide.output.shape
    middle = kh if film.weights is None else 2 * kh + 0.4 + _LABEL
    content = max(high + _LANE, middle, oh) + _LABEL
    x_middle = _MARGIN + wide + 1.6
    x_output = x_middle + max(kw, 3) + 1.6
    width = x_output + max(ow, 3) + _MARGIN
    top, foot = 1.15, _foot(film, width)
    sheet = Sheet(width, top + content + foot)

    y = top + (content + _LABEL + _LANE - high) / 2
    sheet.text(_MARGIN + wide / 2, y - _LANE - 0.3, labels[0])
    draw_input(sheet, film, number, _MARGIN, y)
    x, y = x_middle + (max(kw, 3) - kw) / 2, top + (content + _LABEL - middle) / 2
    if film.weights is not None:
        sheet.text(x + kw / 2, y - 0.3, labels[1])
        draw_weights(sheet, film.weights, x, y)
        y += kh + 0.4 + _LABEL
    sheet.text(x + kw / 2, y - 0.3, labels[2])
    draw_middle(sheet, film, stop, x, y)
    between = y + kh / 2
    x, y = x_output + (max(ow, 3) - ow) / 2, top + (content + _LABEL - oh) / 2
    sheet.text(x + ow / 2, y - 0.3, labels[3])
    draw_output(sheet, film, number, x, y)
    _write(sheet, film, number, width, top + content)
    return sheet.figure


def _series(film: Film, number: int) -> "Figure":
    slide, stop = film.slide, film.slide.stops[number]
    words = _labels(film)
    left, length = _MARGIN + 4.4, slide.padded.shape[2]
    width, top = left + max(length, slide.output.shape[2], 8) + _MARGIN, 1.15 + _LANE
    sheet = Sheet(width, top + 5.5 + _foot(film, width))
    start = left + slide.start(stop)[2]
    for row, label in enumerate(words):
        sheet.text(left - 0.5, top + 0.5 + 1.5 * row, label, ha="right")
    draw_input(sheet, film, number, left, top)
    spread = [start + slide.dilation[2] * tap for tap in range(slide.window[2])]
    if film.weights is not None:
        draw_weights(sheet, film.weights, start, top + 1.5, step=slide.dilation[2])
    draw_middle(sheet, film, stop, start, top + 3, step=slide.dilation[2])
    for x in spread:
        sheet.text(x + 0.5, top + 1.25, "·", color=FAINT, weight="bold")
        sheet.text(x + 0.5, top + 2.75, "=", color=FAINT)
    draw_output(sheet, film, number, left, top + 4.5)
    centre = (spread[0] + spread[-1] + 1) / 2
    sheet.ax.plot([centre, left + stop[2] + 0.5], [top + 4.05, top + 4.42], color=FAINT, linewidth=1)
    _write(sheet, film, number, width, top + 5.5)
    return sheet.figure


def _volume(film: Film, number: int) -> "Figure":
    slide, stop = film.slide, film.slide.stops[number]
    labels = _labels(film)
    window, output = spread(slide.window), spread(slide.output.shape)
    columns_at = [_MARGIN, _MARGIN + max(window, 3) + 1.2, _MARGIN + 2 * max(window, 3) + 2.6]
    width = max(columns_at[2] + max(output, 3), _MARGIN + spread(slide.padded.shape)) + _MARGIN
    top = 1.15 + _LABEL + _LANE
    below = top + slide.padded.shape[1] + 0.5 + _LABEL
    bottom = below + max(slide.window[1], slide.output.shape[1])
    sheet = Sheet(width, bottom + _foot(film, width))
    sheet.text(_MARGIN, top - _LANE - 0.3, labels[0], ha="left")
    draw_input(sheet, film, number, _MARGIN, top)
    for x, label in zip(columns_at, labels[1:], strict=True):
        sheet.text(x, below - 0.3, label, ha="left")
    if film.weights is not None:
        draw_weights(sheet, film.weights, columns_at[0], below)
    draw_middle(sheet, film, stop, columns_at[1], below)
    draw_output(sheet, film, number, columns_at[2], below)
    _write(sheet, film, number, width, bottom)
    return sheet.figure
