"""The parts of the frames of a sliding window: input, filter, products and output as tables, one frame an output."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnjax.explain._slide import Slide, exact, factor, number
from cnnjax.explain._table import FAINT, MARK, PADDED, Sheet, digits, limit, shades, tint

Pieces = list[tuple[str, dict[str, Any]]]
BETWEEN = 0.7  # cells between the slices of a volume


@dataclass(frozen=True)
class Film:
    """What all frames share. Every table has the axes (D, H, W), of length 1 where there are fewer."""

    title: str
    verb: str  # what makes one output of a window
    slide: Slide
    rank: int
    weights: np.ndarray | None  # a pool has none
    sums: list[Pieces]  # a stop

    def shades(self, values: np.ndarray) -> np.ndarray:
        """The colours of the input's values, and of what a pool takes from them."""
        inner = self.slide.padded[self.slide.inside]
        return shades(values, signed=bool((inner < 0).any()), limit=limit(inner))

    @functools.cached_property
    def middles(self) -> np.ndarray:
        """What lies between input and output at every stop: the products, or the pool's window."""
        windows = np.stack([self.slide.padded[self.slide.taps(stop)] for stop in self.slide.stops])
        return windows if self.weights is None else windows * self.weights


def conv_sum(values: np.ndarray, weights: np.ndarray, result: float) -> Pieces:
    """The products written out, what adds nothing in grey."""
    pieces: Pieces = []
    for value, weight in zip(values.ravel().tolist(), weights.ravel().tolist(), strict=True):
        plus = " + " if pieces else ""
        pieces.append((f"{plus}{factor(value)}·{factor(weight)}", {} if value * weight else {"color": FAINT}))
    return [*pieces, _result([values, weights, result], result)]


def pool_sum(values: np.ndarray, result: float, kind: str) -> Pieces:
    """The maximum or mean written out."""
    flat = values.ravel().tolist()
    if kind == "max":
        first = flat.index(max(flat))
        pieces: Pieces = [("max(", {})]
        for place, value in enumerate(flat):
            pieces += [(", ", {"color": FAINT})] if place else []
            pieces.append((number(value), {"weight": "bold"} if place == first else {"color": FAINT}))
        return [*pieces, (")", {}), _result([values, result], result)]
    pieces = [(f"{' + ' if place else '('}{factor(value)}", {}) for place, value in enumerate(flat)]
    return [*pieces, (f") / {len(flat)}", {}), _result([values, result], result)]


def _result(shown: Sequence[Any], result: float) -> tuple[str, dict[str, Any]]:
    equals = "=" if all(map(exact, shown)) else "≈"
    return f" {equals} {number(result)}", {"weight": "bold", "color": MARK}


def wrapped(pieces: Pieces, width: int) -> list[Pieces]:
    """The pieces on lines of at most so many characters."""
    lines: list[Pieces] = [[]]
    for text, options in pieces:
        if lines[-1] and sum(len(t) for t, _ in lines[-1]) + len(text) > width:
            lines.append([])
        lines[-1].append((text if lines[-1] or len(lines) == 1 else "  " + text.lstrip(), options))
    return lines


def spread(shape: Sequence[int]) -> float:
    """The width of a volume's slices side by side."""
    return shape[0] * shape[2] + BETWEEN * (shape[0] - 1)


def _cells(
    shape: Sequence[int], left: float, top: float, step: int = 1
) -> Iterator[tuple[tuple[int, ...], float, float]]:
    for d, h, w in np.ndindex(*shape):
        yield (d, h, w), left + d * (shape[2] + BETWEEN) + w * step, top + h


def draw_input(sheet: Sheet, film: Film, frame: int, left: float, top: float) -> None:
    """The padded input, with the window, where it came from, and what no window sees."""
    slide = film.slide
    stop = slide.stops[frame]
    fills = np.where(slide.inside[..., None], film.shades(slide.padded), PADDED)
    size, seen = digits(slide.padded), slide.covered
    under = np.zeros(slide.padded.shape, bool)
    under[slide.taps(stop)] = True
    for at, x, y in _cells(slide.padded.shape, left, top):
        # Where the window came from is drawn between the cells under the window and the others.
        fill, order = (tint(fills[at]), 2.6) if under[at] else (fills[at], 1)
        draw = sheet.cell if slide.inside[at] else sheet.padding
        draw(x, y, float(slide.padded[at]), fill=fill, size=size, zorder=order)
        if slide.inside[at] and not seen[at]:
            sheet.box(x, y, 1, 1, hatch="///", edgecolor="#c4c4c4", linewidth=0)
    if frame:
        _jump(sheet, slide, slide.stops[frame - 1], stop, left, top)
    _window(sheet, slide, stop, left, top)


def _corner(slide: Slide, start: Sequence[int], left: float, top: float) -> tuple[float, float]:
    return left + start[0] * (slide.padded.shape[2] + BETWEEN) + start[2], top + start[1]


def _span(slide: Slide, axis: int) -> int:
    return slide.dilation[axis] * (slide.window[axis] - 1) + 1


def _window(sheet: Sheet, slide: Slide, stop: tuple[int, ...], left: float, top: float) -> None:
    for d in slide.taps(stop)[0].ravel().tolist():
        if max(slide.dilation[1:]) == 1:
            corner = _corner(slide, (d, *slide.start(stop)[1:]), left, top)
            sheet.mark(*corner, _span(slide, 2), _span(slide, 1))
            continue
        for h in slide.taps(stop)[1].ravel().tolist():
            for w in slide.taps(stop)[2].ravel().tolist():
                sheet.mark(*_corner(slide, (d, h, w), left, top), 1, 1, linewidth=2)


def _jump(sheet: Sheet, slide: Slide, before: tuple[int, ...], stop: tuple[int, ...], left: float, top: float) -> None:
    """Where the window came from, and an arrow of the stride's length."""
    ghost = {"edgecolor": MARK, "linewidth": 1.2, "linestyle": (0, (3, 2)), "zorder": 2.5}
    old, new = slide.start(before), slide.start(stop)
    height, width = _span(slide, 1), _span(slide, 2)
    for d in slide.taps(before)[0].ravel().tolist():
        sheet.box(*_corner(slide, (d, *old[1:]), left, top), width, height, **ghost)
    (x0, y0), (x1, y1) = _corner(slide, old, left, top), _corner(slide, new, left, top)
    if old[0] == new[0] and old[1] != new[1]:
        sheet.arrow((left - 0.25, y0 + height / 2), (left - 0.25, y1 + height / 2))
    else:
        sheet.arrow((x0 + width / 2, top - 0.25), (x1 + width / 2, top - 0.25))


def draw_weights(sheet: Sheet, weights: np.ndarray, left: float, top: float, *, step: int = 1) -> None:
    """The filter, its columns `step` apart."""
    fills, size = shades(weights, signed=True, limit=limit(weights)), digits(weights)
    for at, x, y in _cells(weights.shape, left, top, step):
        sheet.cell(x, y, float(weights[at]), fill=fills[at], size=size)


def draw_middle(sheet: Sheet, film: Film, frame: int, left: float, top: float, *, step: int = 1) -> None:
    """The products or the pool's window; its colours are the same in every frame."""
    every, values = film.middles, film.middles[frame]
    size = digits(every)
    fills = film.shades(values) if film.weights is None else shades(values, signed=True, limit=limit(every))
    for at, x, y in _cells(values.shape, left, top, step):
        sheet.cell(x, y, float(values[at]), fill=fills[at], size=size)
        if film.verb == "max" and at == np.unravel_index(values.argmax(), values.shape):
            sheet.mark(x, y, 1, 1, linewidth=2)


def draw_output(sheet: Sheet, film: Film, frame: int, left: float, top: float) -> None:
    """What has been computed so far, the newest outlined."""
    output, stops = film.slide.output, film.slide.stops
    size = digits(output)
    fills = film.shades(output) if film.weights is None else shades(output, signed=True, limit=limit(output))
    for place, (at, x, y) in enumerate(_cells(output.shape, left, top)):
        known = place <= frame
        sheet.cell(x, y, float(output[at]) if known else None, fill=fills[at] if known else "white", size=size)
        if at == stops[frame]:
            sheet.mark(x, y, 1, 1)
