"""How the tables of a sliding window lie beside each other: in a row for pictures, in rows for series and volumes."""

from typing import TYPE_CHECKING

from cnnjax.explain._film import Film, draw_input, draw_middle, draw_output, draw_weights, spread, wrapped
from cnnjax.explain._slide import times
from cnnjax.explain._table import FAINT, Sheet, columns, fitted, scale
from cnnjax.ops._arguments import AXES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In cells: height of a label over its table, of the lane for the arrow, sizes of text, margin.
_LABEL, _LANE, _SUM, _NOTE, _MARGIN = 0.62, 0.42, 0.3, 0.27, 0.7


def frames(film: Film) -> list["Figure"]:
    """Draw every stop of the window."""
    layout = {1: _series, 2: _picture, 3: _volume}[film.rank]
    return [layout(film, frame) for frame in range(len(film.slide.stops))]


def _labels(film: Film) -> tuple[str, str, str, str]:
    slide, first = film.slide, 3 - film.rank
    padded = "" if slide.inside.all() else f", padded to {times(slide.padded.shape[first:])}"
    middle = "window" if film.weights is None else "window · filter"
    return (
        f"input, {times(slide.spatial[first:])}{padded}",
        f"filter, {times(slide.window[first:])}",
        middle,
        f"output, {times(slide.output.shape[first:])}",
    )


def _notes(film: Film) -> list[str]:
    """The output size of every axis, those that agree in one line."""
    names: dict[str, list[str]] = {}
    for axis, formula in zip(AXES[film.rank], film.slide.formulas, strict=True):
        names.setdefault(formula, []).append(axis)
    lines = [f"output size{'' if film.rank == 1 else ' ' + ', '.join(axes)} = {text}" for text, axes in names.items()]
    if not film.slide.covered[film.slide.inside].all():
        lines.append("hatched: no window covers these cells")
    return lines


def _page(film: Film, frame: int, width: float, body: float) -> tuple[Sheet, float]:
    """A sheet with the title, and below the body the sum and the output size; and where the body begins."""
    big = scale(width)
    fit = columns(width - 2 * _MARGIN, _SUM * big)
    sums = [wrapped(pieces, fit) for pieces in film.sums]
    notes = fitted(_notes(film), width - 2 * _MARGIN, _NOTE * big)
    most = max(map(len, sums))
    top = 1.15 * big
    under = top + body + 0.52 * big
    sheet = Sheet(width, under + (0.5 * most + 0.44 * len(notes) + 0.1) * big)
    sheet.heading(_MARGIN, 0.6 * big, film.title, width - 2 * _MARGIN)
    for row, line in enumerate(sums[frame]):
        sheet.line(_MARGIN, under + 0.5 * big * row, line, size=_SUM * big)
    for row, note in enumerate(notes):
        y = under + (0.5 * most + 0.08 + 0.44 * row) * big
        sheet.line(_MARGIN, y, [(note, {"color": FAINT})], size=_NOTE * big)
    return sheet, top


def _gather(sheet: Sheet, film: Film, start: float, end: float, y: float) -> None:
    """An arrow from the products, or the pool's window, to the output."""
    sheet.arrow((start, y), (end, y), color=FAINT)
    sheet.text((start + end) / 2, y - 0.3 * sheet.scale, film.verb, size=_NOTE * sheet.scale, color=FAINT)


def _picture(film: Film, frame: int) -> "Figure":
    slide = film.slide
    labels = _labels(film)
    (_, high, wide), (_, kh, kw), (_, oh, ow) = slide.padded.shape, slide.window, slide.output.shape
    left = _MARGIN + max(3 - wide, 0) / 2
    middle = left + wide + 1.6 + max(3 - kw, 0) / 2
    right = middle + max(kw, 3 - (3 - kw) / 2) + 1.6 + max(3 - ow, 0) / 2
    width = right + max(ow, 3 - (3 - ow) / 2) + _MARGIN
    stack, step = (kh, 0) if film.weights is None else (2 * kh + 0.4 + _LABEL, kh + 0.4 + _LABEL)
    body = max(high + _LANE, stack, oh) + _LABEL
    sheet, top = _page(film, frame, width, body)
    centre = top + (body + _LABEL) / 2

    y = max(centre - high / 2, top + _LABEL + _LANE)
    sheet.text(left + wide / 2, y - _LANE - 0.3, labels[0])
    draw_input(sheet, film, frame, left, y)
    y = centre - stack / 2
    if film.weights is not None:
        sheet.text(middle + kw / 2, y - 0.3, labels[1])
        draw_weights(sheet, film.weights, middle, y)
    sheet.text(middle + kw / 2, y + step - 0.3, labels[2])
    draw_middle(sheet, film, frame, middle, y + step)
    _gather(sheet, film, middle + kw + 0.4, right - 0.4, y + step + kh / 2)
    sheet.text(right + ow / 2, centre - oh / 2 - 0.3, labels[3])
    draw_output(sheet, film, frame, right, centre - oh / 2)
    return sheet.figure


def _series(film: Film, frame: int) -> "Figure":
    slide, stop, step = film.slide, film.slide.stops[frame], film.slide.dilation[2]
    left = _MARGIN + 4.4 * scale(_MARGIN * 2 + 4.4 + slide.padded.shape[2])
    width = left + max(slide.padded.shape[2], slide.output.shape[2], 8) + _MARGIN
    sheet, top = _page(film, frame, width, _LANE + 5.5)
    top += _LANE
    start = left + slide.start(stop)[2]
    for row, label in enumerate(_labels(film)):
        sheet.text(left - 0.5, top + 0.5 + 1.5 * row, label, ha="right", size=0.3 * sheet.scale)
    draw_input(sheet, film, frame, left, top)
    if film.weights is not None:
        draw_weights(sheet, film.weights, start, top + 1.5, step=step)
    draw_middle(sheet, film, frame, start, top + 3, step=step)
    taps = [start + step * tap + 0.5 for tap in range(slide.window[2])]
    for x in taps:
        sheet.text(x, top + 1.25, "×", color=FAINT)
        sheet.text(x, top + 2.75, "=", color=FAINT)
    sheet.arrow(((taps[0] + taps[-1]) / 2, top + 4.05), (left + stop[2] + 0.5, top + 4.42), color=FAINT)
    draw_output(sheet, film, frame, left, top + 4.5)
    return sheet.figure


def _volume(film: Film, frame: int) -> "Figure":
    slide = film.slide
    labels = _labels(film)
    window, output = max(spread(slide.window), 4.5), max(spread(slide.output.shape), 4.5)
    places = [_MARGIN, _MARGIN + window + 1.2, _MARGIN + 2 * window + 3.2]
    width = max(places[2] + output, _MARGIN + spread(slide.padded.shape)) + _MARGIN
    big = scale(width)
    head = _LABEL * big + _LANE
    below = head + slide.padded.shape[1] + 0.4 + _LABEL * big
    sheet, top = _page(film, frame, width, below + max(slide.window[1], slide.output.shape[1]))
    sheet.text(_MARGIN, top + 0.3 * big, labels[0], ha="left", size=0.3 * big)
    draw_input(sheet, film, frame, _MARGIN, top + head)
    for x, label in zip(places, labels[1:], strict=True):
        sheet.text(x, top + below - 0.3 * big, label, ha="left", size=0.3 * big)
    if film.weights is not None:
        draw_weights(sheet, film.weights, places[0], top + below)
    draw_middle(sheet, film, frame, places[1], top + below)
    start = places[1] + spread(slide.window) + 0.4
    _gather(sheet, film, start, places[2] - 0.4, top + below + slide.window[1] / 2)
    draw_output(sheet, film, frame, places[2], top + below)
    return sheet.figure
