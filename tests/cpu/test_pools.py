"""The formulations of pooling for CPU, called as functions, against the stock `lax` operations under jit."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnjax.cpu.max_pool import choose_max, choose_min
from cnnjax.cpu.max_pool_gradient import choose_scatter
from cnnjax.cpu.max_pool_tangent import choose_gather
from cnnjax.cpu.sum_pool import choose_sum

EXTREMES = [(lax.reduce_window_max_p, choose_max, lax.ge_p), (lax.reduce_window_min_p, choose_min, lax.le_p)]
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0])
KINDS = ("normal", "ties", "special", "floor", "ceiling")


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def windows(shape, window, stride=None, padding: Any = "VALID", base=None, dilation=None, after=1):
    """The parameters of the primitives, from those of some neighbouring axes, `after` which others follow."""
    before = len(shape) - len(window) - after
    pads = ((0, 0),)

    def every(value):
        return (1,) * before + tuple(value or [1] * len(window)) + (1,) * after

    window, stride, base, dilation = map(every, (window, stride, base, dilation))
    if isinstance(padding, str):
        dilated = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
        grown = [(n - 1) * b + 1 for n, b in zip(shape, base, strict=True)]
        padding = tuple(lax.padtype_to_pads(grown, dilated, stride, padding))
    else:
        padding = pads * before + tuple(padding) + pads * after
    return {
        "window_dimensions": window,
        "window_strides": stride,
        "padding": padding,
        "base_dilation": base,
        "window_dilation": dilation,
    }


def values(rng, shape, kind, dtype):
    """Normal numbers, few integers (so that there are ties), what IEEE 754 has besides, or mostly one infinity."""
    x = rng.standard_normal(shape)
    if kind == "ties":
        x = rng.integers(-2, 3, shape)
    elif kind == "special":
        x = rng.choice(SPECIAL, shape)
    elif kind in ("floor", "ceiling"):
        x = np.where(rng.random(shape) < 0.8, -np.inf if kind == "floor" else np.inf, x)
    return jnp.asarray(x, dtype)


def both(primitive, formulation, **params):
    """The stock operation and the formulation, compiled."""
    assert formulation is not None
    return jax.jit(functools.partial(primitive.bind, **params)), jax.jit(formulation)


def same(stock, ours, *, signs=True):
    assert (ours.shape, ours.dtype) == (stock.shape, stock.dtype)
    stock, ours = np.asarray(stock, "float64"), np.asarray(ours, "float64")
    np.testing.assert_array_equal(ours, stock)
    if signs:
        np.testing.assert_array_equal(np.signbit(ours[stock == 0]), np.signbit(stock[stock == 0]))


# shape, then the arguments of `windows`
PLAIN = [
    ((2, 8, 3), {"window": (2,), "stride": (2,)}),
    ((2, 9, 3), {"window": (3,), "stride": (2,), "padding": "SAME"}),
    ((2, 9, 3), {"window": (3,), "padding": ((2, 1),)}),
    ((2, 10, 2), {"window": (2,), "stride": (3,)}),
    ((2, 10, 2), {"window": (1,), "stride": (2,), "padding": ((1, 2),)}),
    ((2, 6, 8, 3), {"window": (2, 2), "stride": (2, 2)}),
    ((2, 7, 9, 3), {"window": (2, 2), "stride": (2, 2)}),
    ((2, 7, 8, 3), {"window": (2, 2), "stride": (2, 2), "padding": "SAME"}),
    ((2, 7, 8, 3), {"window": (3, 3), "stride": (2, 2), "padding": "SAME"}),
    ((2, 7, 8, 3), {"window": (3, 3), "stride": (2, 2), "padding": ((1, 1), (1, 1))}),
    ((2, 6, 7, 3), {"window": (3, 3), "padding": "SAME"}),
    ((2, 9, 9, 2), {"window": (5, 4), "stride": (2, 3), "padding": "SAME_LOWER"}),
    ((2, 8, 9, 2), {"window": (4, 3), "stride": (4, 3), "padding": "SAME"}),
    ((2, 7, 7, 3), {"window": (7, 7)}),
    ((1, 3, 4, 2), {"window": (5, 2), "stride": (1, 2), "padding": ((4, 4), (0, 3))}),
    ((2, 4, 5, 4, 2), {"window": (2, 2, 2), "stride": (2, 2, 2)}),
    ((1, 5, 5, 5, 2), {"window": (3, 3, 3), "stride": (2, 2, 2), "padding": "SAME"}),
    ((2, 3, 6, 7, 2), {"window": (3, 2), "stride": (2, 2), "padding": "SAME"}),  # as vmap leaves it
    ((2, 3, 6, 7), {"window": (3, 2), "stride": (2, 2), "padding": "SAME", "after": 0}),  # channels first
    ((2, 3, 7), {"window": (3,), "stride": (2,), "padding": ((1, 1),), "after": 0}),
]
DILATED = [
    ((2, 12, 3), {"window": (3,), "dilation": (3,), "stride": (2,), "padding": ((2, 3),)}),
    ((2, 9, 9, 2), {"window": (2, 3), "dilation": (2, 2), "padding": "SAME"}),
    ((2, 4, 5, 2), {"window": (3, 2), "base": (2, 3), "padding": ((2, 1), (0, 1))}),
    (
        (2, 4, 5, 2),
        {"window": (3, 3), "base": (2, 1), "stride": (2, 1), "dilation": (1, 2), "padding": ((2, 2), (2, 2))},
    ),
    ((2, 9, 8, 2), {"window": (2, 3), "padding": ((-1, 0), (2, -2))}),
    ((1, 40, 2), {"window": (31,), "padding": ((9, 9),)}),
    ((1, 40, 2), {"window": (26,), "stride": (3,), "padding": ((9, 9),)}),
    ((1, 18, 17, 2), {"window": (15, 5), "dilation": (1, 2), "padding": "SAME"}),
]


def random_case(seed):
    """A shape and the arguments of `windows` for one to three axes, channels last or first."""
    rng = np.random.default_rng(seed)
    axes = range(seed % 3 + 1)
    after = int(rng.integers(0, 2))

    def some(low, high):
        return tuple(int(rng.integers(low, high)) for _ in axes)

    shape = (2, *some(4, 9), *[3] * after)
    padding = tuple(zip(some(0, 4), some(0, 4), strict=True))
    return shape, {"window": some(1, 5), "stride": some(1, 5), "padding": padding, "after": after}


def on(cases):
    return pytest.mark.parametrize(("shape", "case"), cases, ids=[f"{s}-{tuple(c.values())}" for s, c in cases])


RANDOM = [random_case(seed) for seed in range(12)]
OTHER_DTYPES = pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
BOTH_SIDES = ((2, 7, 8, 3), {"window": (3, 3), "stride": (2, 2), "padding": ((1, 1), (1, 1))})


def extremes_on(cases):
    """The maximum and the minimum by turns: they are one formulation with another order."""
    rows = [(EXTREMES[i % 2], *case) for i, case in enumerate(cases)]
    names = [f"{('max', 'min')[i % 2]}-{s}-{tuple(c.values())}" for i, (s, c) in enumerate(cases)]
    return pytest.mark.parametrize(("extreme", "shape", "case"), rows, ids=names)


def check_extreme(extreme, shape, params, dtype="float32"):
    primitive, choose, _ = extreme
    rng = np.random.default_rng(math.prod(shape))
    formulation = choose(jax.ShapeDtypeStruct(shape, dtype), **params)
    if formulation is None:
        assert sum(k > 1 for k in params["window_dimensions"]) <= 1
        return
    stock, ours = both(primitive, formulation, **params)
    for kind in KINDS:
        x = values(rng, shape, kind, dtype)
        same(stock(x), ours(x))


def check_tangent(extreme, shape, params, dtype="float32"):
    select = {"select_prim": extreme[2]}
    rng = np.random.default_rng(math.prod(shape))
    aval = jax.ShapeDtypeStruct(shape, dtype)
    stock, ours = both(lax.select_and_gather_add_p, choose_gather(aval, aval, **select, **params), **select, **params)
    # Stock visits unevenly padded windows of several axes in orders of its own: there, nothing that has ties or NaN.
    line = sum(k > 1 for k in params["window_dimensions"]) <= 1
    for kind in KINDS if line or not any(map(any, params["padding"])) else ("normal",):
        x, t = values(rng, shape, kind, dtype), values(rng, shape, "normal", dtype)
        same(stock(t, x), ours(t, x))


def check_gradient(extreme, shape, params, dtype="float32"):
    rng = np.random.default_rng(math.prod(shape))
    operand = jax.ShapeDtypeStruct(shape, dtype)
    source = jax.eval_shape(functools.partial(lax.reduce_window_max_p.bind, **params), operand)
    params = {name: params[name] for name in ("window_dimensions", "window_strides", "padding")}
    params["select_prim"] = extreme[2]
    stock, ours = both(lax.select_and_scatter_add_p, choose_scatter(source, operand, **params), **params)
    for kind in KINDS:
        x = values(rng, shape, kind, dtype)
        g = values(rng, source.shape, "ties", dtype)  # small integers: their sums have no rounding
        same(stock(g, x), ours(g, x))
        g = values(rng, source.shape, "special", dtype)
        same(stock(g, x), ours(g, x), signs=False)


def check_sum(shape, params, dtype="float32"):
    rng = np.random.default_rng(math.prod(shape))
    formulation = choose_sum(jax.ShapeDtypeStruct(shape, dtype), **params)
    if formulation is None:
        assert sum(k > 1 for k in params["window_dimensions"]) <= 1
        return
    stock, ours = both(lax.reduce_window_sum_p, formulation, **params)
    for kind in ("ties", "special"):
        x = values(rng, shape, kind, dtype)
        same(stock(x), ours(x), signs=False)
    x = values(rng, shape, "normal", dtype)
    exact, scale = (np.asarray(stock(y.astype("float64"))) for y in (x, jnp.abs(x)))
    error = np.abs(np.asarray(ours(x), "float64") - exact)
    # Half precision has one rounding, the last; the others at most one a term.
    slack = 2 if jnp.finfo(dtype).bits == 16 else math.prod(params["window_dimensions"])
    assert (error <= slack * float(jnp.finfo(dtype).eps) * scale).all()


def transposed(shape, params):
    """The shape and the parameters of the sum that is the way back from an average pool."""
    out = jax.eval_shape(
        functools.partial(lax.reduce_window_sum_p.bind, **params), jax.ShapeDtypeStruct(shape, "float32")
    )
    axes = zip(*(params[n] for n in ("window_dimensions", "window_strides", "padding")), shape, out.shape, strict=True)
    padding = tuple((k - 1 - lo, n + lo - 1 - (m - 1) * s) for k, s, (lo, _), n, m in axes)
    ones = (1,) * len(shape)
    return out.shape, {
        "window_dimensions": params["window_dimensions"],
        "window_strides": ones,
        "padding": padding,
        "base_dilation": params["window_strides"],
        "window_dilation": ones,
    }


@extremes_on(PLAIN + DILATED + RANDOM)
def test_maxima_equal_stock(extreme, shape, case):
    check_extreme(extreme, shape, windows(shape, **case))


@extremes_on(PLAIN + DILATED[:-1] + RANDOM)  # the last window has too many places
def test_tangents_of_maxima_equal_stock(extreme, shape, case):
    check_tangent(extreme, shape, windows(shape, **case))


@extremes_on(PLAIN + RANDOM)
def test_gradients_of_maxima_equal_stock(extreme, shape, case):
    check_gradient(extreme, shape, windows(shape, **case))


@on(PLAIN + DILATED + RANDOM)
def test_sums_equal_stock(shape, case):
    check_sum(shape, windows(shape, **case))


@on(PLAIN + RANDOM)
def test_gradients_of_sums_equal_stock(shape, case):
    check_sum(*transposed(shape, windows(shape, **case)))


@OTHER_DTYPES
def test_other_precisions_equal_stock(dtype):
    shape, case = BOTH_SIDES
    params = windows(shape, **case)
    check_extreme(EXTREMES[0], shape, params, dtype)
    check_tangent(EXTREMES[0], shape, params, dtype)
    check_gradient(EXTREMES[0], shape, params, dtype)
    check_sum(shape, params, dtype)
    check_sum(*transposed(shape, params), dtype)


def test_padding_does_not_replace_a_nan_in_a_tangent():
    params = windows((1, 2, 2, 1), (3, 3), padding=((1, 1), (1, 1)))
    x = jax.ShapeDtypeStruct((1, 2, 2, 1), "float32")
    tangent = choose_gather(x, x, select_prim=lax.ge_p, **params)
    assert tangent is not None
    nan_last = jnp.array([0.0, 1, 2, jnp.nan], "float32").reshape(x.shape)
    slope = tangent(jnp.arange(1, 5, dtype="float32").reshape(x.shape), nan_last)
    np.testing.assert_array_equal(slope, jnp.full(x.shape, 4.0))


def test_tangents_agree_with_gradients_where_stock_contradicts_itself():
    shape, window = (2, 7, 8, 3), windows((2, 7, 8, 3), (3, 3), (2, 2), ((1, 1), (0, 1)))
    rng = np.random.default_rng(0)
    x = values(rng, shape, "ties", "float32")
    tangent = choose_gather(x, x, select_prim=lax.ge_p, **window)
    assert tangent is not None
    t = values(rng, shape, "ties", "float32")
    y = tangent(t, x)
    g = values(rng, y.shape, "ties", "float32")
    plain = {name: window[name] for name in ("window_dimensions", "window_strides", "padding")}
    back = lax.select_and_scatter_add_p.bind(g, x, select_prim=lax.ge_p, **plain)
    assert jnp.sum(g * y) == jnp.sum(back * t)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64"])
def test_other_numbers_keep_the_stock_rule(dtype):
    params = windows((2, 6, 6, 3), (2, 2), (2, 2))
    x = jax.ShapeDtypeStruct((2, 6, 6, 3), dtype)
    assert choose_max(x, **params) is choose_min(x, **params) is choose_sum(x, **params) is None
    assert choose_gather(x, x, select_prim=lax.ge_p, **params) is None


@pytest.mark.parametrize("shape", [(0, 6, 6, 3), (2, 1, 6, 3)], ids=["no example", "no window"])
def test_nothing_keeps_the_stock_rule(shape):
    x = jax.ShapeDtypeStruct(shape, "float32")
    params = windows(shape, (2, 2), (2, 2))
    assert choose_max(x, **params) is choose_sum(x, **params) is None


def test_gradients_of_huge_windows_keep_the_stock_rule():
    params = windows((2, 40, 40, 3), (20, 20), (20, 20))
    plain = {name: params[name] for name in ("window_dimensions", "window_strides", "padding")}
    x, g = (jax.ShapeDtypeStruct((2, n, n, 3), "float32") for n in (40, 2))
    assert choose_scatter(g, x, select_prim=lax.ge_p, **plain) is None
    assert choose_gather(x, x, select_prim=lax.ge_p, **params) is None
    assert choose_max(x, **params) is not None
