"""Interval arithmetic: what every position of a value sees of the input, one spatial axis at a time.

A `View` of a value has one `Field` an input axis. It keeps two answers. The textbook's, (size, jump, start), goes on
into the padding as if the picture did, and is the same for all units. The exact one, (first, last) for every
position, counts pixels alone, so that units near an edge see less.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

# Beyond any pixel: a position that sees nothing has first > last.
NOTHING = 2**40


class Field(NamedTuple):
    """What the positions along one axis of a value see; axis None: all of them the same, (first, last) of length 1."""

    axis: int | None
    size: int
    jump: Fraction
    start: int
    first: np.ndarray
    last: np.ndarray


View = tuple[Field, ...]


def of_input(spatial: Sequence[int]) -> View:
    """The view of the input (N, *spatial, C) itself: every pixel sees itself."""
    return tuple(Field(axis, 1, Fraction(1), 0, np.arange(n), np.arange(n)) for axis, n in enumerate(spatial, start=1))


def of_everything(spatial: Sequence[int]) -> View:
    """The view of what may see all of the input."""
    return tuple(Field(None, n, Fraction(0), 0, np.array([0]), np.array([n - 1])) for n in spatial)


def closed(field: Field) -> tuple[int, int | Fraction, int]:
    """The textbook's (size, jump, start), the jump an int where it is whole."""
    return field.size, int(field.jump) if field.jump.denominator == 1 else field.jump, field.start


def hull(field: Field) -> Field:
    """Everything that any of the positions sees."""
    if field.axis is None:
        return field
    reach = math.ceil((len(field.first) - 1) * field.jump)
    first, last = field.first.min(keepdims=True), field.last.max(keepdims=True)
    return Field(None, field.size + reach, Fraction(0), field.start, first, last)


def merge(a: Field, b: Field) -> Field:
    """What a unit sees that sees both."""
    if a.axis is not None and b.axis is not None and a.axis != b.axis:
        a, b = hull(a), hull(b)
    if a.axis is None and b.axis is not None:
        a, b = b, a
    if a.jump == b.jump:
        start, jump = min(a.start, b.start), a.jump
        size = max(a.start + a.size, b.start + b.size) - start
    else:
        steps = len(a.first) - 1
        start, jump = min(a.start, b.start), Fraction(0)
        size = max(math.ceil(f.start + f.size + steps * f.jump) for f in (a, b)) - start
    return Field(a.axis, size, jump, start, np.minimum(a.first, b.first), np.maximum(a.last, b.last))


def slide(
    field: Field, n_out: int, *, size: int = 1, stride: int = 1, low: int = 0, dilation: int = 1, holes: int = 1
) -> Field:
    """Slide a window along a field's axis, padded with `low` before it and with holes - 1 zeros between positions."""
    n = len(field.first)
    at = np.arange(n_out)[:, None] * stride - low + np.arange(size) * dilation
    real = (at % holes == 0) & (at >= 0) & (at <= (n - 1) * holes)
    index = np.where(real, at // holes, 0)
    return Field(
        field.axis,
        field.size + math.ceil(dilation * (size - 1) // holes * field.jump),
        field.jump * stride / holes,
        field.start + math.floor(-(low // holes) * field.jump),
        np.where(real, field.first[index], NOTHING).min(1, initial=NOTHING),
        np.where(real, field.last[index], -NOTHING).max(1, initial=-NOTHING),
    )
