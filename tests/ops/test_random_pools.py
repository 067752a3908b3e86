"""Random pools against loops: the value and the gradient, element by element."""

import functools
import itertools
import math
from typing import Any

import jax
import numpy as np
import pytest
import reference
from comparison import close, drawn
from hypothesis import given
from hypothesis import strategies as st
from ops_helpers import normal, value_and_grads, weights_of

from cnnjax import ops

MAX_POOL: dict[int, Any] = {1: ops.max_pool1d, 2: ops.max_pool2d, 3: ops.max_pool3d}
AVG_POOL: dict[int, Any] = {1: ops.avg_pool1d, 2: ops.avg_pool2d, 3: ops.avg_pool3d}

# Of the largest number; gradients add up several windows.
TOLERANCES = {"float64": 1e-14, "float32": 1e-6, "bfloat16": 1.5e-2, "float16": 2e-3}


@st.composite
def configurations(draw):
    """The shape of x, the window and the options, which need not be possible."""
    rank = draw(st.integers(1, 3))

    def each(low, high):
        return st.integers(low, high) | st.tuples(*[st.integers(low, high)] * rank)

    spatial = draw(st.lists(st.integers(1, (12, 7, 4)[rank - 1]), min_size=rank, max_size=rank))
    window = draw(each(1, (6, 4, 3)[rank - 1]))
    possible = draw(st.integers(0, 9)) > 0  # mostly
    most = min(reference.each_axis(window, rank)) // 2 + (0 if possible else 2)
    amounts = each(0, most) | st.tuples(*[st.tuples(st.integers(0, most), st.integers(0, most))] * rank)
    named = st.sampled_from(["SAME", "SAME_LOWER", "VALID"])
    options = {
        "stride": draw(st.none() | each(1, 4)),
        "padding": draw(named if draw(st.booleans()) else amounts),
        "dilation": draw(st.just(1) | each(1, 3)),
        "ceil_mode": draw(st.booleans()),
    }
    if possible:
        axes = per_axis(spatial, window, options)
        spatial = [max(n, d * (k - 1) + 1 - sum(reference.pair(n, k, p, s or k, d))) for n, k, s, p, d in axes]
    shape = draw(st.sampled_from([1, 2, 1, 2, 3, 0])), *spatial, draw(st.integers(1, 3))
    return shape, window, options, draw(st.integers(0, 2**16))


def per_axis(spatial, window, options):
    """Of every axis: the size, the window, the stride, the padding as `ops.shapes` takes it, and the dilation."""
    rank, stride, padding = len(spatial), options["stride"], options["padding"]
    return list(
        zip(
            spatial,
            reference.each_axis(window, rank),
            (None,) * rank if stride is None else reference.each_axis(stride, rank),
            (padding,) * rank if isinstance(padding, str | int) else padding,
            reference.each_axis(options["dilation"], rank),
            strict=True,
        )
    )


def placed(pool, shape, window, options):
    """The taps of every window along every axis and the padding; nothing where the pool refuses, as it should."""
    spatial = shape[1:-1]
    order = "stride", "padding", "dilation", "ceil_mode"
    windows, margin = reference.pool_windows(spatial, window, *(options[name] for name in order))
    sizes = [
        ops.shapes.pool_output_size(n, k, stride=s, padding=p, dilation=d, ceil_mode=options["ceil_mode"])
        for n, k, s, p, d in per_axis(spatial, window, options)
    ]
    x = jax.ShapeDtypeStruct(shape, "float32")
    # Only with ceil_mode and more padding than window are there sizes with windows that the loops leave out.
    if sizes == [len(axis) for axis in windows] and reference.legal(windows, spatial):
        assert jax.eval_shape(pool, x).shape == (shape[0], *sizes, shape[-1])
        return windows, margin
    with pytest.raises(ValueError, match=r"does not fit the padded input|every window must see a pixel"):
        jax.eval_shape(pool, x)
    return None


@drawn
@given(
    configurations(), st.sampled_from([*TOLERANCES, "int32"]), st.sampled_from(["numbers", "equals", "NaN, infinities"])
)
def test_random_max_pools(configuration, dtype, values):
    """Equal maxima give the gradient to the first; where NaN and infinities give it is left open."""
    shape, window, options, seed = configuration
    pool = functools.partial(MAX_POOL[len(shape) - 2], window=window, **options)
    if placed(pool, shape, window, options) is None:
        return
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) if values == "numbers" else rng.integers(-2, 3, shape)
    if values == "NaN, infinities" and dtype != "int32":
        x = rng.choice([np.nan, np.inf, -np.inf, 1.0, 2.0], shape, p=[0.1, 0.1, 0.4, 0.2, 0.2])
    x = (10 * x).astype(dtype)
    exact = x.astype("float64")
    if values == "NaN, infinities" or dtype == "int32":
        with jax.enable_x64(True):
            y = np.asarray(jax.jit(pool)(x))
        close(f"max_pool {values}", y, reference.max_pool(exact, window, **options), 0)
    else:
        y, (gradient,) = value_and_grads(pool, x)
        close(f"max_pool {values}", y, reference.max_pool(exact, window, **options), 0)
        weights = weights_of(y.shape).astype(dtype).astype("float64")
        expected = reference.max_pool(exact, window, **options, weights=weights)
        assert gradient.dtype == dtype
        close(f"max_pool's gradient {dtype}", gradient, expected, TOLERANCES[dtype])
    assert y.dtype == dtype


def avg_pool_gradient(shape, windows, margin, weights, count_include_pad):
    """The gradient of the weighted sum of the averages, one window at a time."""
    gradient = np.zeros(shape)
    for place in np.ndindex(*map(len, windows)):
        taps = [axis[p] for axis, p in zip(windows, place, strict=True)]
        around = margin if count_include_pad else [(0, 0)] * len(taps)
        counted = [
            sum(-low <= i < n + high for i in axis)
            for axis, n, (low, high) in zip(taps, shape[1:-1], around, strict=True)
        ]
        inside = [[i for i in axis if 0 <= i < n] for axis, n in zip(taps, shape[1:-1], strict=True)]
        for at in itertools.product(*inside):
            gradient[(slice(None), *at)] += weights[(slice(None), *place)] / math.prod(counted)
    return gradient


@drawn
@given(configurations(), st.sampled_from(list(TOLERANCES)), st.booleans(), st.booleans())
def test_random_avg_pools(configuration, dtype, count_include_pad, with_nan):
    shape, window, options, seed = configuration
    pool = functools.partial(AVG_POOL[len(shape) - 2], window=window, count_include_pad=count_include_pad, **options)
    places = placed(pool, shape, window, options)
    if places is None:
        return
    x = normal(seed, *shape).astype(dtype)
    if with_nan and x.size:
        x.reshape(-1)[seed % x.size] = np.nan
    y, (gradient,) = value_and_grads(pool, x)
    assert y.dtype == gradient.dtype == dtype
    expected = reference.avg_pool(x.astype("float64"), window, count_include_pad=count_include_pad, **options)
    close(f"avg_pool {dtype}", y, expected, TOLERANCES[dtype])
    weights = weights_of(y.shape).astype(dtype).astype("float64")
    expected = avg_pool_gradient(shape, *places, weights, count_include_pad)
    close(f"avg_pool's gradient {dtype}", gradient, expected, TOLERANCES[dtype])
