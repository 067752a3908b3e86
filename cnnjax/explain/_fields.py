"""What each primitive of a jaxpr does to what the positions of its operands see of the input."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core

from cnnjax.explain import _jaxpr
from cnnjax.explain._field import NOTHING, Field, View, hull, merge, of_everything, slide
from cnnjax.explain._windows import shape_of, windows


def propagate(eqn: core.JaxprEqn, views: Sequence[View | None], spatial: Sequence[int]) -> list[View]:
    """The view of each result; `views` has that of each operand, None for what does not depend on the input."""
    outputs = [shape_of(var) for var in eqn.outvars]
    name = eqn.primitive.name
    if name == "split":
        ends = np.cumsum(eqn.params["sizes"])
        starts = ends - eqn.params["sizes"]
        return [
            _union([_map(views[0] or (), _cut(eqn.params["axis"], a, b))]) for a, b in zip(starts, ends, strict=True)
        ]
    if _control_flow(eqn):
        return [_union([*(v for v in views if v is not None), of_everything(spatial)])] * len(outputs)
    if name in ("conv_general_dilated", "dot_general", "concatenate"):
        return [{"conv_general_dilated": _conv, "dot_general": _dot, "concatenate": _concatenate}[name](eqn, views)]
    if name == "reshape":
        views = [view and _apart(view, shape_of(eqn.invars[0]), outputs[0]) for view in views]
    moved = [
        _map(view, functools.partial(_moved, eqn, shape_of(atom), outputs[0]))
        for atom, view in zip(eqn.invars, views, strict=True)
        if view is not None
    ]
    return [_union(moved)] * len(outputs)


def _control_flow(eqn: core.JaxprEqn) -> bool:
    return eqn.primitive.name in ("scan", "while", "cond")


def _map(view: View, function: Any) -> View:
    return tuple(map(function, view))


def _union(views: Sequence[View]) -> View:
    return functools.reduce(lambda a, b: tuple(map(merge, a, b)), views)


def _cut(axis: int, start: int, stop: int, stride: int = 1) -> Any:
    def cut(field: Field) -> Field:
        if field.axis != axis:
            return field
        return slide(field, -(-(stop - start) // stride), stride=stride, low=-start)

    return cut


def _moved(eqn: core.JaxprEqn, shape: tuple[int, ...], out: tuple[int, ...], field: Field) -> Field:
    """The field behind a primitive of one relevant operand."""
    name, params, axis = eqn.primitive.name, eqn.params, field.axis
    if axis is None:
        return field
    if _jaxpr.elementwise(eqn):
        return field if len(shape) == len(out) and shape[axis] == out[axis] else hull(field)
    match name:
        case "transpose":
            return field._replace(axis=params["permutation"].index(axis))
        case "broadcast_in_dim":
            to = params["broadcast_dimensions"][axis]
            return field._replace(axis=to) if out[to] == shape[axis] else hull(field)
        case "reshape":
            return _reshaped(field, shape, out)
        case "squeeze":
            return _without(field, [d % len(shape) for d in params["dimensions"]])
        case "slice":
            steps = params["strides"] or (1,) * len(shape)
            return _cut(axis, params["start_indices"][axis], params["limit_indices"][axis], steps[axis])(field)
        case "rev":
            ends = field.first[::-1], field.last[::-1]
            return field._replace(first=ends[0], last=ends[1]) if axis in params["dimensions"] else field
        case "pad":
            low, _, interior = params["padding_config"][axis]
            return slide(field, out[axis], low=low, holes=interior + 1)
    if name.startswith("reduce_window"):
        return slide(
            field,
            out[axis],
            size=params["window_dimensions"][axis],
            stride=params["window_strides"][axis],
            low=params["padding"][axis][0],
            dilation=params["window_dilation"][axis],
            holes=params["base_dilation"][axis],
        )
    if name.startswith(("reduce_", "arg")) and "axes" in params:
        return _without(field, params["axes"])
    if name.startswith("cum"):
        return hull(field) if axis == params["axis"] else field
    if name in ("sort", "top_k"):
        return hull(field) if axis == params.get("dimension", len(shape) - 1) else field
    return hull(field)


def _without(field: Field, removed: Sequence[int]) -> Field:
    if field.axis in removed:
        return hull(field)
    return field._replace(axis=_rank(field.axis, removed))


def _rank(axis: int | None, removed: Sequence[int]) -> int | None:
    return None if axis is None else axis - sum(other < axis for other in removed)


def _reshaped(field: Field, shape: tuple[int, ...], out: tuple[int, ...]) -> Field:
    """Follow an axis through a reshape that only splits it or merges it with axes that it is stored next to."""
    group, result = next((pair for pair in _groups(shape, out) if field.axis in pair[0]), ([], []))
    if field.axis is None or not group:
        return hull(field)
    sizes = [shape[a] for a in group]
    position = np.unravel_index(np.arange(math.prod(sizes)), sizes)[group.index(field.axis)]
    position = position.reshape([out[a] for a in result])
    step = math.prod(sizes[group.index(field.axis) + 1 :])
    varying = [a for a in range(position.ndim) if np.any(np.diff(position, axis=a))]
    if not varying:
        return hull(field)
    # Of the axes that a split leaves, the first tells where; the others lie within.
    kept = varying[0]
    others = tuple(a for a in range(position.ndim) if a != kept)
    low, high = position.min(others), position.max(others)
    stride = math.prod(out[a] for a in result[kept + 1 :])
    # The last axis is for features: pixels that are laid out there are read by all that follows.
    if np.any(np.diff(low) < 0) or (len(group) > 1 and result[kept] == len(out) - 1):
        return hull(field)
    # The extremes suffice: what lies between them in a block is seen too.
    spans = [range(a, b + 1) for a, b in zip(low, high, strict=True)]
    return Field(
        result[kept],
        field.size + math.ceil(int(high[0] - low[0]) * field.jump),
        field.jump * stride / step,
        field.start,
        np.array([field.first[span].min() for span in spans]),
        np.array([field.last[span].max() for span in spans]),
    )


def _apart(view: View, shape: tuple[int, ...], out: tuple[int, ...]) -> View:
    """The view without the axes of which a reshape makes one: a row of pixels has no row and column of its own."""
    groups = [set(group) for group, _ in _groups(shape, out)]
    axes = [field.axis for field in view]
    shared = [group for group in groups if sum(axis in group for axis in axes) > 1]
    return tuple(hull(field) if any(field.axis in group for group in shared) else field for field in view)


def _groups(shape: tuple[int, ...], out: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of axes with equal products: ((2, 3, 4), (6, 4)) gives ([0, 1], [0]) and ([2], [1])."""
    left, right = [a for a, n in enumerate(shape) if n != 1], [a for a, n in enumerate(out) if n != 1]
    groups = []
    while left and right:
        group, result = [left.pop(0)], [right.pop(0)]
        while (a := math.prod(shape[i] for i in group)) != (b := math.prod(out[i] for i in result)):
            if a < b:
                group.append(left.pop(0))
            else:
                result.append(right.pop(0))
        groups.append((group, result))
    return groups


def _conv(eqn: core.JaxprEqn, views: Sequence[View | None]) -> View:
    x, kernel = views
    if kernel is not None:
        return _union([_map(view, hull) for view in (x, kernel) if view is not None])
    numbers = eqn.params["dimension_numbers"]

    def through(field: Field) -> Field:
        if field.axis == numbers.lhs_spec[0]:
            return field._replace(axis=numbers.out_spec[0])
        if field.axis not in numbers.lhs_spec[2:]:
            return hull(field)
        k = numbers.lhs_spec.index(field.axis)
        w = windows(eqn)[k - 2]
        slid = slide(field, w.out, size=w.size, stride=w.stride, low=w.low, dilation=w.dilation, holes=w.holes)
        return slid._replace(axis=numbers.out_spec[k])

    return _map(x or (), through)


def _dot(eqn: core.JaxprEqn, views: Sequence[View | None]) -> View:
    contracted, batched = eqn.params["dimension_numbers"]
    ranks = [len(shape_of(atom)) for atom in eqn.invars]
    free = [[a for a in range(rank) if a not in (*contracted[side], *batched[side])] for side, rank in enumerate(ranks)]

    def through(side: int, field: Field) -> Field:
        if field.axis in batched[side]:
            return field._replace(axis=list(batched[side]).index(field.axis))
        if field.axis in free[side]:
            before = len(batched[0]) + (len(free[0]) if side else 0)
            return field._replace(axis=before + free[side].index(field.axis))
        return hull(field)

    return _union([_map(view, functools.partial(through, side)) for side, view in enumerate(views) if view is not None])


def _concatenate(eqn: core.JaxprEqn, views: Sequence[View | None]) -> View:
    """Joined along an axis that sees: the longest part lays down the textbook's answer, the others are its padding."""
    along = eqn.params["dimension"]
    lengths = [shape_of(atom)[along] for atom in eqn.invars]
    starts = np.cumsum([0, *lengths])
    kinds = next(len(view) for view in views if view is not None)
    return tuple(
        _joined([None if view is None else view[k] for view in views], along, lengths, starts) for k in range(kinds)
    )


def _joined(fields: Sequence[Field | None], along: int, lengths: Sequence[int], starts: np.ndarray) -> Field:
    present = [field for field in fields if field is not None]
    if not any(field.axis == along for field in present):
        return functools.reduce(merge, present)
    if any(field.axis not in (along, None) for field in present):
        return functools.reduce(merge, map(hull, present))
    longest = max((i for i, field in enumerate(fields) if field and field.axis == along), key=lambda i: lengths[i])
    main = fields[longest] or present[0]
    first, last = np.full(starts[-1], NOTHING), np.full(starts[-1], -NOTHING)
    for field, a, b in zip(fields, starts[:-1], starts[1:], strict=True):
        if field is not None:
            first[a:b], last[a:b] = field.first, field.last
    start = main.start - math.ceil(int(starts[longest]) * main.jump)
    return main._replace(start=start, first=first, last=last)
