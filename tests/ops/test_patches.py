"""The windows of `unfold`, and `fold`, which is its adjoint."""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from comparison import close, drawn
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.test_util import check_grads
from ops_helpers import assert_same, first, last, normal, torch_value_and_grads, value_and_grads, ways, weights_of
from reference import each_axis, pair, pool_windows

from cnnjax import ops
from cnnjax.ops import fold, unfold

ranks = pytest.mark.parametrize("rank", [1, 2, 3])


def axes_of(spatial, window, stride=1, padding: Any = 0, dilation=1):
    """For every axis, the positions of the taps of every window."""
    return pool_windows(spatial, window, stride, padding, dilation, False)[0]


def unfold_loops(x, window, **options):
    """One pixel at a time."""
    spatial, channels = x.shape[1:-1], x.shape[-1]
    window = each_axis(window, len(spatial))
    axes = axes_of(spatial, window, **options)
    y = np.zeros((x.shape[0], *map(len, axes), channels, *window), x.dtype)
    for place in np.ndindex(*map(len, axes)):
        for tap in np.ndindex(*window):
            at = tuple(axis[p][t] for axis, p, t in zip(axes, place, tap, strict=True))
            if all(0 <= i < n for i, n in zip(at, spatial, strict=True)):
                y[(slice(None), *place, slice(None), *tap)] = x[(slice(None), *at)]
    return y.reshape(*y.shape[: len(spatial) + 1], channels * math.prod(window))


def fold_loops(patches, spatial, window, **options):
    window = each_axis(window, len(spatial))
    axes = axes_of(spatial, window, **options)
    channels = patches.shape[-1] // math.prod(window)
    patches = patches.reshape(*patches.shape[:-1], channels, *window)
    x = np.zeros((patches.shape[0], *spatial, channels), patches.dtype)
    for place in np.ndindex(*map(len, axes)):
        for tap in np.ndindex(*window):
            at = tuple(axis[p][t] for axis, p, t in zip(axes, place, tap, strict=True))
            if all(0 <= i < n for i, n in zip(at, spatial, strict=True)):
                x[(slice(None), *at)] += patches[(slice(None), *place, slice(None), *tap)]
    return x


def torch_patches(y):
    """(N, C * prod(window), L) to (N, L, C * prod(window)): the windows in one axis."""
    return y.permute(0, 2, 1)


# Known values.


def test_taps_of_a_channel_are_neighbours():
    x = jnp.arange(8).reshape(1, 2, 2, 2)
    np.testing.assert_array_equal(unfold(x, 2), [[[[0, 2, 4, 6, 1, 3, 5, 7]]]])
    np.testing.assert_array_equal(fold(unfold(x, 2), 2, 2), x)


@pytest.mark.parametrize(
    ("window", "options", "expected"),
    [
        (1, {}, [[1], [2], [4], [8]]),
        (1, {"stride": 3}, [[1], [8]]),
        (2, {"stride": 2}, [[1, 2], [4, 8]]),
        (2, {"dilation": 2}, [[1, 4], [2, 8]]),
        (3, {"padding": 1, "stride": 3}, [[0, 1, 2], [4, 8, 0]]),
        (2, {"padding": ((2, 0),), "stride": 2}, [[0, 0], [1, 2], [4, 8]]),
        (2, {"padding": "SAME"}, [[1, 2], [2, 4], [4, 8], [8, 0]]),
        (2, {"padding": "same_lower"}, [[0, 1], [1, 2], [2, 4], [4, 8]]),
        (3, {"padding": "VALID", "stride": 2}, [[1, 2, 4]]),
        (2, {"padding": 3, "dilation": 6, "stride": 3}, [[0, 8], [1, 0]]),
    ],
)
def test_series_by_hand(window, options, expected):
    np.testing.assert_array_equal(unfold(jnp.array([1, 2, 4, 8]).reshape(1, 4, 1), window, **options)[0], expected)


@pytest.mark.parametrize(
    ("windows", "options", "expected"),
    [
        ([[1, 2], [3, 4], [5, 6]], {}, [1, 5, 9, 6]),
        ([[1, 2], [3, 4]], {"stride": 2}, [1, 2, 3, 4]),
        ([[1, 2], [3, 4]], {"dilation": 2}, [1, 3, 2, 4]),
        ([[1, 2]], {"stride": 3}, [1, 2, 0, 0]),
        ([[1, 2], [3, 4], [5, 6]], {"stride": 2, "padding": 1}, [2, 3, 4, 5]),
    ],
)
def test_sums_by_hand(windows, options, expected):
    np.testing.assert_array_equal(fold(jnp.array(windows)[None], 4, 2, **options).ravel(), expected)


@pytest.mark.parametrize("stride", [(2, 2), [2, 2], np.int64(2)])
@pytest.mark.parametrize("padding", [(1, 1), ((1, 1), (1, 1)), [[1, 1], [1, 1]], np.int64(1)])
def test_the_ways_to_write_an_argument_agree(stride, padding):
    def traced(size, window, **options):
        return str(jax.make_jaxpr(lambda x: fold(unfold(x, window, **options), size, window, **options))(X))

    expected = traced((4, 7), 3, stride=2, padding=1, dilation=2)
    assert traced([4, 7], [3, 3], stride=stride, padding=padding, dilation=stride) == expected


# Against libraries.

OPTIONS = [
    (2, {}),
    ((2, 3), {"dilation": (1, 2), "stride": 2, "padding": (1, 2)}),
    (3, {"stride": 3, "padding": 2, "dilation": 2}),
    ((1, 4), {"stride": (3, 1)}),
]


@pytest.mark.parametrize(("window", "options"), OPTIONS)
def test_against_torch(window, options):
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    x = normal(0, 2, 7, 6, 3)

    def ours(x):
        y = unfold(x, window, **options)
        return y.reshape(y.shape[0], -1, y.shape[-1])

    assert_same(
        value_and_grads(ours, x),
        torch_value_and_grads(lambda x: torch_patches(functional.unfold(first(x), window, **options)), x),
        1e-14,
    )
    windows = jax.eval_shape(lambda x: unfold(x, window, **options), x).shape
    patches = normal(1, *windows)
    assert_same(
        value_and_grads(lambda p: fold(p, (7, 6), window, **options), patches),
        torch_value_and_grads(
            lambda p: last(functional.fold(torch_patches(p.flatten(1, 2)), (7, 6), window, **options)), patches
        ),
        1e-13,
    )


@ranks
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 2), (0, 1), (2, 0))])
def test_against_lax(rank, padding):
    """The order of channels, and every rank."""
    padding = padding if isinstance(padding, str) else padding[:rank]
    x, window = normal(0, 2, *(6, 5, 4)[:rank], 3), (3, 2, 2)[:rank]
    options = {"stride": (2, 1, 1)[:rank], "dilation": (1, 2, 1)[:rank]}
    channels_last = lax.ConvDimensionNumbers(
        (0, rank + 1, *range(1, rank + 1)), (rank + 1, rank, *range(rank)), (0, rank + 1, *range(1, rank + 1))
    )

    def theirs(x):
        return lax.conv_general_dilated_patches(
            x,
            window,
            options["stride"],
            padding,
            rhs_dilation=options["dilation"],
            dimension_numbers=channels_last,
        )

    assert_same(
        value_and_grads(lambda x: unfold(x, window, padding=padding, **options), x), value_and_grads(theirs, x), 1e-13
    )


def test_convolution_is_a_product_with_the_windows():
    x, kernel = normal(0, 2, 7, 6, 3, dtype="float32"), normal(1, 3, 2, 3, 4, dtype="float32")
    rows = kernel.transpose(2, 0, 1, 3).reshape(-1, 4)
    y = ops.dense(unfold(x, (3, 2), stride=2, padding="SAME"), jnp.asarray(rows))
    np.testing.assert_allclose(y, ops.conv2d(x, kernel, stride=2), rtol=1e-5, atol=1e-5)


# Random configurations.


def per_axis(spatial, window, options):
    """Of every axis: the size, the window, the stride, the padding as `ops.shapes` takes it, and the dilation."""
    rank, padding = len(spatial), options["padding"]
    return list(
        zip(
            spatial,
            each_axis(window, rank),
            each_axis(options["stride"], rank),
            (padding,) * rank if isinstance(padding, str | int) else padding,
            each_axis(options["dilation"], rank),
            strict=True,
        )
    )


@st.composite
def configurations(draw):
    rank = draw(st.integers(1, 3))

    def each(low, high):
        return st.integers(low, high) | st.tuples(*[st.integers(low, high)] * rank)

    spatial = draw(st.lists(st.integers(1, (12, 7, 4)[rank - 1]), min_size=rank, max_size=rank))
    window = draw(each(1, (6, 4, 3)[rank - 1]))
    amounts = each(0, 3) | st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * rank)
    named = st.sampled_from(["SAME", "SAME_LOWER", "VALID"])
    options = {
        "stride": draw(each(1, 4)),
        "padding": draw(named if draw(st.booleans()) else amounts),
        "dilation": draw(each(1, 3)),
    }
    if draw(st.integers(0, 9)):  # mostly large enough
        axes = per_axis(spatial, window, options)
        spatial = [max(n, d * (k - 1) + 1 - sum(pair(n, k, p, s, d))) for n, k, s, p, d in axes]
    dtype = draw(st.sampled_from(["float64", "float32", "bfloat16", "float16", "int32", "complex64"]))
    shape = draw(st.sampled_from([1, 2, 1, 2, 3, 0])), *spatial, draw(st.integers(1, 3))
    return shape, window, options, dtype, draw(st.integers(0, 2**16))


def drawn_array(seed, shape, dtype):
    if dtype == "int32":
        return np.random.default_rng(seed).integers(-1000, 1000, shape, np.int32)
    values = normal(seed, *shape)
    return values.astype(dtype) + (1j * normal(seed + 1, *shape).astype(dtype) if dtype == "complex64" else 0)


def as_float64(array):
    array = np.asarray(array)
    if np.iscomplexobj(array):
        array = np.stack([np.real(array), np.imag(array)])
    return array.astype("float64")


TOLERANCES = {"float64": 1e-14, "float32": 1e-6, "bfloat16": 4e-3, "float16": 5e-4, "int32": 0, "complex64": 1e-6}


@drawn
@given(configurations())
def test_random_configurations(configuration):
    shape, window, options, dtype, seed = configuration
    spatial = shape[1:-1]
    windows = tuple(map(len, axes_of(spatial, window, **options)))
    assert windows == tuple(
        ops.shapes.conv_output_size(n, k, stride=s, padding=p, dilation=d)
        for n, k, s, p, d in per_axis(spatial, window, options)
    )
    x = drawn_array(seed, shape, dtype)
    if 0 in windows:
        with pytest.raises(ValueError, match=r"^unfold: window .* does not fit the padded input"):
            unfold(x, window, **options)
        return

    @jax.jit
    def run(x, cotangent):
        sums = fold(cotangent, spatial, window, **options)
        if dtype == "int32":  # which has no gradient
            return unfold(x, window, **options), sums, sums
        y, back = jax.vjp(lambda x: unfold(x, window, **options), x)
        return y, sums, *back(cotangent)

    expected = unfold_loops(x, window, **options)
    cotangent = drawn_array(seed + 2, expected.shape, dtype)
    wide = "int64" if dtype == "int32" else "complex128" if dtype == "complex64" else "float64"
    total = fold_loops(cotangent.astype(wide), spatial, window, **options)
    with jax.enable_x64(True):
        y, sums, gradient = run(x, cotangent)
    np.testing.assert_array_equal(y, expected)
    assert y.dtype == sums.dtype == gradient.dtype == dtype
    close(f"fold {dtype}", as_float64(sums), as_float64(total), TOLERANCES[dtype])
    close(f"unfold's gradient {dtype}", as_float64(gradient), as_float64(total), TOLERANCES[dtype])


# What the two are to each other.


@ranks
def test_adjoint(rank):
    """<unfold(x), p> = <x, fold(p)>."""
    window, spatial = (3, 2, 2)[:rank], (7, 6, 5)[:rank]
    options = {"stride": 2, "padding": 1, "dilation": (2, 1, 1)[:rank]}
    with jax.enable_x64(True):
        x = normal(0, 2, *spatial, 3)
        y = np.asarray(jax.jit(lambda x: unfold(x, window, **options))(x))
        p = normal(1, *y.shape)
        back = np.asarray(jax.jit(lambda p: fold(p, spatial, window, **options))(p))
        np.testing.assert_allclose(np.vdot(y, p), np.vdot(x, back), rtol=1e-12)


@ranks
def test_fold_of_unfold_counts_the_windows(rank):
    spatial = (7, 6, 5)[:rank]
    x = normal(0, 2, *spatial, 3, dtype="float32")
    options = {"stride": 2, "padding": 1}
    both = jax.jit(lambda x: fold(unfold(x, 3, **options), spatial, 3, **options))
    count = both(np.ones_like(x))
    np.testing.assert_allclose(both(x), x * count, rtol=1e-6)
    assert count.min() == 1
    assert count.max() == 2**rank


@ranks
def test_windows_side_by_side_come_back(rank):
    x = normal(0, 2, *(6,) * rank, 3, dtype="float32")
    patches = jax.jit(lambda x: unfold(x, 3, stride=3))(x)
    assert patches.shape == (2, *(2,) * rank, 3 * 3**rank)
    np.testing.assert_array_equal(jax.jit(lambda p: fold(p, 6, 3, stride=3))(patches), x)


# Transformations.


@ways
def test_every_way(way):
    x, options = normal(0, 2, 6, 5, 3, dtype="float32"), {"stride": 2, "padding": 1}
    expected = unfold_loops(x, 3, **options)
    y = way(lambda x: (unfold(x, 3, **options), fold(unfold(x, 3, **options), (6, 5), 3, **options)))(x)
    np.testing.assert_array_equal(y[0], expected)
    np.testing.assert_allclose(y[1], fold_loops(expected, (6, 5), 3, **options), rtol=1e-6)


@ways
def test_gradient_every_way(way):
    x, options = normal(0, 2, 6, 5, 3, dtype="float32"), {"stride": 2, "padding": 1}
    weights = weights_of(jax.eval_shape(lambda x: unfold(x, 3, **options), x).shape).astype("float32")
    gradient = way(jax.grad(lambda x: jnp.sum(weights * unfold(x, 3, **options) ** 2)))(x)
    expected = 2 * x * fold_loops(weights, (6, 5), 3, **options)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_derivatives_against_differences():
    options = {"stride": 2, "padding": ((1, 0), (0, 2)), "dilation": 2}
    with jax.enable_x64(True):
        x = jnp.asarray(normal(0, 1, 5, 4, 2))
        both = jax.jit(lambda x: fold(unfold(x, 2, **options) ** 2, (5, 4), 2, **options))
        check_grads(both, (x,), order=1, modes=["fwd", "rev"])


def test_checkpoint_and_scan():
    x = normal(0, 1, 6, 2, dtype="float32")

    def layer(y):
        return jnp.tanh(fold(unfold(y, 3, padding=1) ** 2, 6, 3, padding=1))

    def scanned(x):
        return jnp.sum(lax.scan(lambda y, _: (jax.checkpoint(layer)(y), None), x, length=2)[0])

    expected = jax.grad(lambda x: jnp.sum(layer(layer(x))))(x)
    np.testing.assert_allclose(jax.grad(scanned)(x), expected, rtol=1e-5, atol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x):
        return fold(unfold(x, 2), 5, 2)

    for seed in range(3):
        run(normal(seed, 1, 5, 5, 1, dtype="float32"))


def test_large_windows_compile_to_few_slices():
    jaxpr = jax.make_jaxpr(lambda x: unfold(x, 16, stride=16))(jnp.ones((1, 64, 64, 3)))
    assert len(jaxpr.eqns) < 30


# Dtypes and odd sizes.


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float16", "complex64"])
def test_any_dtype_unfolds(dtype):
    x = np.arange(12).reshape(1, 4, 3, 1).astype(dtype)
    y = jax.jit(lambda x: unfold(x, 2, padding=1, stride=2))(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, unfold_loops(x, 2, padding=1, stride=2))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "complex64"])
def test_numbers_fold(dtype):
    patches = np.arange(16).reshape(1, 2, 2, 4).astype(dtype)
    x = jax.jit(lambda p: fold(p, 3, 2))(patches)
    assert x.dtype == dtype
    np.testing.assert_array_equal(x, fold_loops(patches, (3, 3), 2))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(dtype):
    """The middle pixel is the sum of 16 times 1 / 2048 and of 1, to which they would be lost one by one."""
    patches = np.full((1, 17, 17), 2.0**-11)
    patches[0, [0, 16], [16, 0]] = 0.5 + 2.0**-12
    patches = patches.astype(dtype)
    sums = jax.jit(lambda p: fold(p, 33, 17))(patches)
    np.testing.assert_array_equal(sums, fold_loops(patches.astype("float64"), (33,), 17).astype(dtype))
    _, back = jax.vjp(jax.jit(lambda x: unfold(x, 17)), jnp.zeros((1, 33, 1), dtype))
    np.testing.assert_array_equal(back(jnp.asarray(patches))[0], sums)


def test_nan_and_infinity_stay_where_they_are():
    x = np.array([1, np.nan, np.inf, 2, 3], "float32").reshape(1, 5, 1)
    y, back = jax.jit(lambda x: (unfold(x, 2), fold(unfold(x, 2), 5, 2)))(x)
    np.testing.assert_array_equal(y[0], [[1, np.nan], [np.nan, np.inf], [np.inf, 2], [2, 3]])
    np.testing.assert_array_equal(back.ravel(), [1, np.nan, np.inf, 4, 3])


@ranks
def test_batch_of_none_and_no_channels(rank):
    for n, c in [(0, 3), (2, 0)]:
        x = jnp.ones((n, *(4,) * rank, c))
        y, back = jax.jit(lambda x: (unfold(x, 2), fold(unfold(x, 2), 4, 2)))(x)
        assert y.shape == (n, *(3,) * rank, c * 2**rank)
        assert back.shape == x.shape


# Errors.

X, P = jnp.ones((1, 4, 7, 3)), jnp.ones((1, 3, 6, 12))

UNFOLD = [
    (X, 5, {}, "unfold: window (5, 5) does not fit the padded input (4, 7) along H. Pad, or use a smaller window."),
    (X, 0, {}, "unfold: window must be at least 1, got 0."),
    (X, 2, {"stride": (1, 0)}, "unfold: stride must be at least 1, got (1, 0)."),
    (X, 2, {"padding": -1}, "unfold: padding must be at least 0, got -1."),
    (
        X,
        2,
        {"padding": "REFLECT"},
        "unfold: padding must be amounts or one of SAME, SAME_LOWER, VALID, got 'REFLECT'.",
    ),
    (
        X,
        2,
        {"dilation": (1, 1, 1)},
        "unfold: dilation takes one value an axis (2), got (1, 1, 1). Give an int for all axes.",
    ),
    (
        jnp.ones((8, 8, 3)),
        (2, 2),
        {},
        "unfold: window takes one value an axis (1), got (2, 2) for x (8, 8, 3). Give an int for all axes; a missing"
        " batch axis is added by x[None].",
    ),
    (
        jnp.ones((8, 8)),
        2,
        {},
        "unfold: x must be (N, *spatial, C) with one to three spatial axes, got shape (8, 8). Add a batch axis"
        " with x[None].",
    ),
    (
        jnp.ones((1, 2, 2, 2, 2, 1)),
        2,
        {},
        "unfold: x must be (N, *spatial, C) with one to three spatial axes, got shape (1, 2, 2, 2, 2, 1). Use vmap"
        " for more batch axes.",
    ),
    (
        jnp.ones((1, 0, 8, 3)),
        2,
        {},
        "unfold: x must have pixels, got shape (1, 0, 8, 3). Only the batch axis may be empty.",
    ),
]


@pytest.mark.parametrize(("x", "window", "options", "message"), UNFOLD)
def test_errors_of_unfold(x, window, options, message):
    with pytest.raises(ValueError, match="unfold") as caught:
        unfold(x, window, **options)
    assert str(caught.value) == message


FOLD = [
    (
        P,
        (4, 8),
        {},
        "fold: patches must be (N, 3, 7, C * 4), the windows (2, 2) of output_size (4, 8), got shape (1, 3, 6, 12)."
        " Give the output_size, stride, padding and dilation that they were unfolded with.",
    ),
    (
        jnp.ones((1, 12, 3, 6)),
        (4, 7),
        {},
        "fold: patches (1, 12, 3, 6) looks channels-first: the windows (3, 6) must come before their taps. Use"
        " patches.transpose(0, 2, 3, 1).",
    ),
    (
        jnp.ones((1, 3, 6, 10)),
        (4, 7),
        {},
        "fold: the last axis of patches must be C * 4, as window (2, 2) has 4 taps, got shape (1, 3, 6, 10).",
    ),
    (
        jnp.ones((3, 12)),
        4,
        {},
        "fold: patches must be (N, *windows, C * prod(window)) with one to three axes of windows, got shape (3, 12).",
    ),
    (P, (4, 0), {}, "fold: output_size must be at least 1, got (4, 0)."),
    (P, (4,), {}, "fold: output_size takes one value an axis (2), got (4,). Give an int for all axes."),
    (
        P,
        1,
        {},
        "fold: window (2, 2) does not fit the padded input (1, 1) along H. Pad, or use a smaller window.",
    ),
]


@pytest.mark.parametrize(("patches", "size", "options", "message"), FOLD)
def test_errors_of_fold(patches, size, options, message):
    with pytest.raises(ValueError, match="fold") as caught:
        fold(patches, size, 2, **options)
    assert str(caught.value) == message


def test_errors_of_type():
    with pytest.raises(TypeError, match=r"^unfold: window must be an int or 2 ints, got 2.0"):
        unfold(X, 2.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"^fold: output_size must be an int or 2 ints, got 'SAME'"):
        fold(P, "SAME", 2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"^fold: patches must be numbers, got bool\. Cast it with"):
        fold(P.astype(bool), (4, 7), 2)
