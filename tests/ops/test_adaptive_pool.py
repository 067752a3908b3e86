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

from cnnjax.ops import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool1d_with_indices,
    adaptive_max_pool2d,
    adaptive_max_pool2d_with_indices,
    adaptive_max_pool3d,
    adaptive_max_pool3d_with_indices,
)

AVG: dict[int, Any] = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}
MAX: dict[int, Any] = {1: adaptive_max_pool1d, 2: adaptive_max_pool2d, 3: adaptive_max_pool3d}
INDICES: dict[int, Any] = {
    1: adaptive_max_pool1d_with_indices,
    2: adaptive_max_pool2d_with_indices,
    3: adaptive_max_pool3d_with_indices,
}
ranks = pytest.mark.parametrize("rank", [1, 2, 3])


def series(*values, dtype="float32"):
    return jnp.array(values, dtype).reshape(1, -1, 1)


def together(rank, size):
    """The averages, the maxima, the maxima and their indices: one compilation for all of them."""

    def pools(x):
        y, indices = INDICES[rank](x, size)
        return jnp.stack([AVG[rank](x, size), MAX[rank](x, size), y, indices.astype(x.dtype)])

    return pools


def torch_together(rank, size):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    avg = getattr(torch.nn.functional, f"adaptive_avg_pool{rank}d")
    largest = getattr(torch.nn.functional, f"adaptive_max_pool{rank}d")

    def pools(x):
        y, indices = largest(first(x), size, return_indices=True)
        return torch.stack([last(avg(first(x), size)), last(y), last(y), last(indices).to(x.dtype)])

    return pools


def loops(x, sizes, weights):
    """What `together` gives, and the gradient of its weighted sum: one window at a time."""
    spatial = x.shape[1:-1]
    spans = [
        [range(i * n // out, -(-(i + 1) * n // out)) for i in range(out)] for n, out in zip(spatial, sizes, strict=True)
    ]
    y, gradient = np.zeros(weights.shape), np.zeros(x.shape)
    for place in np.ndindex(*sizes):
        chosen = [axis[p] for axis, p in zip(spans, place, strict=True)]
        window = [tuple(span[t] for span, t in zip(chosen, tap, strict=True)) for tap in np.ndindex(*map(len, chosen))]
        for n, c in np.ndindex(x.shape[0], x.shape[-1]):
            values = [float(x[(n, *pixel, c)]) for pixel in window]
            best = window[values.index(max(values))]
            at = n, *place, c
            y[(slice(None), *at)] = np.mean(values), max(values), max(values), np.ravel_multi_index(best, spatial)
            gradient[(n, *best, c)] += weights[(1, *at)] + weights[(2, *at)]
            for pixel in window:
                gradient[(n, *pixel, c)] += weights[(0, *at)] / len(window)
    return y, gradient


# Known values.


@pytest.mark.parametrize(
    ("size", "avg", "largest", "indices"),
    [
        (1, [2.2], [7], [4]),
        (2, [4 / 3, 3], [3, 7], [1, 4]),
        (3, [1, 5 / 3, 3.5], [3, 3, 7], [1, 1, 4]),
        (4, [1, 2.5, 1, 3.5], [3, 3, 2, 7], [1, 1, 2, 4]),
        (5, [-1, 3, 2, 0, 7], [-1, 3, 2, 0, 7], [0, 1, 2, 3, 4]),
        (7, [-1, 1, 2.5, 2, 1, 3.5, 7], [-1, 3, 3, 2, 2, 7, 7], [0, 1, 1, 2, 2, 4, 4]),
        (10, [-1, -1, 3, 3, 2, 2, 0, 0, 7, 7], [-1, -1, 3, 3, 2, 2, 0, 0, 7, 7], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),
    ],
)
def test_series_by_hand(size, avg, largest, indices):
    x = series(-1, 3, 2, 0, 7)
    np.testing.assert_allclose(adaptive_avg_pool1d(x, size).ravel(), avg, rtol=1e-6)
    np.testing.assert_array_equal(adaptive_max_pool1d(x, size).ravel(), largest)
    y, places = adaptive_max_pool1d_with_indices(x, size)
    np.testing.assert_array_equal(y.ravel(), largest)
    np.testing.assert_array_equal(places.ravel(), indices)
    assert places.dtype == "int32"


def test_picture_and_volume_by_hand():
    avg, largest, _, places = jax.jit(together(2, (2, 3)))(jnp.arange(15.0).reshape(1, 3, 5, 1))[:, 0, :, :, 0]
    np.testing.assert_array_equal(avg, [[3, 4.5, 6], [8, 9.5, 11]])
    np.testing.assert_array_equal(largest, [[6, 8, 9], [11, 13, 14]])
    np.testing.assert_array_equal(places, largest)
    x = -jnp.arange(36.0).reshape(1, 3, 3, 2, 2)
    avg, largest, _, places = jax.jit(together(3, (2, None, 1)))(x)[:, 0, :, :, 0]
    np.testing.assert_array_equal(avg[..., 0], [[-7, -11, -15], [-19, -23, -27]])
    np.testing.assert_array_equal(largest[..., 0], [[0, -4, -8], [-12, -16, -20]])
    np.testing.assert_array_equal(places[..., 1], [[0, 2, 4], [6, 8, 10]])


@pytest.mark.parametrize("size", [None, (None, None), [5, None], (None, 4), (np.int64(5), 4)])
def test_none_keeps_an_axis(size):
    x = normal(0, 2, 5, 4, 3, dtype="float32")
    np.testing.assert_array_equal(adaptive_avg_pool2d(x, size), x)
    np.testing.assert_array_equal(adaptive_max_pool2d(x, size), x)
    y, indices = adaptive_max_pool2d_with_indices(x, size)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(indices, np.broadcast_to(np.arange(20).reshape(1, 5, 4, 1), x.shape))


def test_an_int_is_broadcast():
    x = normal(0, 1, 5, 7, 2, dtype="float32")
    np.testing.assert_array_equal(adaptive_avg_pool2d(x, 3), adaptive_avg_pool2d(x, (3, 3)))
    np.testing.assert_array_equal(adaptive_max_pool2d(x, 3), adaptive_max_pool2d(x, [3, 3]))


# Against PyTorch and loops.


@ranks
@pytest.mark.parametrize("size", [3, (4, 7, 1), (8, None, 9)], ids=str)
def test_against_torch(rank, size):
    size = size[:rank] if isinstance(size, tuple) else size
    x = normal(0, 2, *(8, 7, 5)[:rank], 2)
    assert_same(value_and_grads(together(rank, size), x), torch_value_and_grads(torch_together(rank, size), x), 1e-12)


@ranks
def test_equals_nan_and_infinity_against_torch(rank):
    rng = np.random.default_rng(rank)
    x = rng.choice([np.nan, np.inf, -np.inf, 0.0, 1.0], (4, *(7, 5, 4)[:rank], 4), p=[0.04, 0.05, 0.4, 0.21, 0.3])
    x[0] = -np.inf
    x[1] = rng.integers(0, 3, x[1].shape)
    ours, theirs = value_and_grads(together(rank, 3), x), torch_value_and_grads(torch_together(rank, 3), x)
    assert_same(ours, theirs, 1e-12)


configurations = st.integers(1, 3).flatmap(
    lambda rank: st.tuples(
        st.tuples(*[st.integers(1, (12, 7, 5)[rank - 1])] * rank),
        st.tuples(*[st.none() | st.integers(1, (14, 8, 5)[rank - 1])] * rank),
        st.integers(0, 2),
        st.integers(1, 2),
        st.sampled_from(["float64", "float32", "bfloat16"]),
        st.integers(0, 9),
    )
)


@drawn
@given(configurations)
def test_any_configuration_against_loops(configuration):
    spatial, size, batch, channels, dtype, seed = configuration
    # Integers, of which many are equal, and none is rounded.
    x = np.random.default_rng(seed).integers(-8, 9, (batch, *spatial, channels)).astype(dtype)
    with jax.enable_x64(True):
        (y, (gradient,)) = value_and_grads(together(len(spatial), size), jnp.asarray(x))
    sizes = [n if out is None else out for n, out in zip(spatial, size, strict=True)]
    assert y.shape == (4, batch, *sizes, channels)
    assert y.dtype == gradient.dtype == dtype
    expected, to_x = loops(x, sizes, weights_of(y.shape).astype(dtype).astype("float64"))
    tolerance = {"float64": 1e-13, "float32": 1e-5, "bfloat16": 3e-2}[dtype]
    close("adaptive_pool", y[0], expected[0], tolerance)
    close("adaptive_pool", y[1:], expected[1:], 0)
    close("adaptive_pool", gradient, to_x, tolerance)


# Transformations.


@ways
def test_value_and_gradient_every_way(way):
    x, weights = normal(0, 2, 7, 2, dtype="float32"), weights_of((4, 2, 4, 2)).astype("float32")

    def loss(x):
        y = together(1, 4)(x)
        return jnp.sum(weights * y), y

    gradient, y = way(jax.grad(loss, has_aux=True))(x)
    expected, to_x = loops(x, (4,), weights)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, to_x, rtol=1e-5, atol=1e-5)


def test_derivatives_against_differences():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).permutation(32).reshape(1, 4, 4, 2) * 0.1)
        check_grads(jax.jit(together(2, 3)), (x,), order=1, modes=["fwd", "rev"])


def test_second_derivative():
    x = normal(0, 1, 6, 1, dtype="float32")
    hessian = jax.jit(jax.hessian(lambda x: jnp.sum(adaptive_max_pool1d(x, 4) ** 2)))(x).reshape(6, 6)
    _, places = adaptive_max_pool1d_with_indices(x, 4)
    np.testing.assert_allclose(hessian, 2 * np.diag(np.bincount(places.ravel(), minlength=6)))


def test_first_of_equals_takes_the_tangent():
    x, tangent = series(1, 1, 1, 1), series(1, 2, 3, 4)
    _, moved = jax.jvp(lambda x: adaptive_max_pool1d(x, 3), (x,), (tangent,))
    np.testing.assert_array_equal(moved.ravel(), [1, 2, 3])


def test_checkpoint_and_scan():
    x = normal(0, 1, 6, 2, dtype="float32")

    def layer(y):
        return jnp.tanh(adaptive_max_pool1d(y, 6) + adaptive_avg_pool1d(adaptive_avg_pool1d(y, 4), 6))

    def scanned(x):
        return jnp.sum(lax.scan(lambda y, _: (jax.checkpoint(layer)(y), None), x, length=3)[0] ** 2)

    expected = jax.jit(jax.grad(lambda x: jnp.sum(layer(layer(layer(x))) ** 2)))(x)
    np.testing.assert_allclose(jax.jit(jax.grad(scanned))(x), expected, rtol=1e-5, atol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x):
        return together(2, (2, 3))(x)

    for seed in range(3):
        run(normal(seed, 1, 5, 5, 1, dtype="float32"))


def test_integers_inside_a_gradient():
    """The maximum has a derivative of its own, which integers must not trip over."""
    gradient = jax.grad(lambda x: jnp.sum(adaptive_max_pool1d(x.astype("int32"), 2) * x[:, :2]))(series(1, 2, 3, 4, 5))
    np.testing.assert_array_equal(gradient.ravel(), [3, 5, 0, 0, 0])


# Dtypes and odd sizes.


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(dtype):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 99, (1, 47, 61, 2)), dtype)
    np.testing.assert_array_equal(adaptive_avg_pool2d(x, 2), adaptive_avg_pool2d(x.astype("float32"), 2).astype(dtype))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "float16"])
def test_maxima_of_other_dtypes(dtype):
    values = np.arange(12).reshape(1, 12, 1) * 7 % 12
    y, indices = adaptive_max_pool1d_with_indices(jnp.asarray(values, dtype), 5)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.ravel(), [7, 9, 11, 8, 10])
    np.testing.assert_array_equal(values.ravel()[indices.ravel()], y.ravel())


def test_averages_of_complex_numbers():
    x = normal(0, 1, 5, 2, dtype="float32") + 1j * normal(1, 1, 5, 2, dtype="float32")
    y = adaptive_avg_pool1d(x, 2)
    np.testing.assert_allclose(y.real, adaptive_avg_pool1d(x.real, 2), rtol=1e-6)
    np.testing.assert_allclose(y.imag, adaptive_avg_pool1d(x.imag, 2), rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 5, 5, 2), (2, 5, 5, 0)])
def test_batch_of_none_and_no_channels(shape):
    y, (gradient,) = value_and_grads(together(2, 3), jnp.ones(shape))
    assert y.shape == (4, shape[0], 3, 3, shape[-1])
    assert gradient.shape == shape


def test_batch_of_one_is_one_of_many():
    x = normal(0, 3, 6, 5, 2, dtype="float32")
    run = jax.jit(together(2, 4))
    np.testing.assert_allclose(run(x)[:, 1:2], run(x[1:2]), rtol=1e-6)


# Errors.


@ranks
@pytest.mark.parametrize("pools", [AVG, MAX, INDICES], ids=["avg", "max", "indices"])
def test_errors_name_the_op(rank, pools):
    op = pools[rank]
    with pytest.raises(ValueError, match="output_size") as caught:
        op(jnp.ones((1, *(4,) * rank, 1)), 0)
    assert str(caught.value) == f"{op.__name__}: output_size must be at least 1, got 0."
    with pytest.raises(ValueError, match="x must have pixels") as caught:
        op(jnp.ones((1, *(0,) * rank, 1)), 1)
    assert str(caught.value).startswith(f"{op.__name__}: x must have pixels, got shape")


@pytest.mark.parametrize("op", [adaptive_avg_pool2d, adaptive_max_pool2d])
@pytest.mark.parametrize(
    ("x", "size", "error", "message"),
    [
        (
            jnp.ones((8, 8, 3)),
            2,
            ValueError,
            "x must be (N, H, W, C), got shape (8, 8, 3). Add a batch axis with x[None].",
        ),
        (
            jnp.ones((1, 4, 4, 3)),
            (2, 2, 2),
            ValueError,
            "output_size takes one value an axis (2), got (2, 2, 2). Give an int for all axes.",
        ),
        (jnp.ones((1, 4, 4, 3)), (), ValueError, "output_size takes one value an axis (2), got ()."),
        (jnp.ones((1, 4, 4, 3)), (None, -1), ValueError, "output_size must be at least 1, got -1."),
        (jnp.ones((1, 4, 4, 3)), 2.0, TypeError, "output_size must be an int, got 2.0."),
        (jnp.ones((1, 4, 4, 3)), "ab", TypeError, "output_size must be an int, got 'a'."),
    ],
)
def test_bad_arguments(op, x, size, error, message):
    with pytest.raises(error) as caught:
        op(x, size)
    assert str(caught.value).startswith(f"{op.__name__}: {message}")


@pytest.mark.parametrize(
    ("op", "dtype", "message"),
    [
        (adaptive_avg_pool2d, "int32", "adaptive_avg_pool2d: x must be floating point, got int32. Cast it with"),
        (adaptive_max_pool2d, "bool", "adaptive_max_pool2d: x must be floating point or integer, got bool"),
        (
            adaptive_max_pool2d_with_indices,
            "complex64",
            "adaptive_max_pool2d_with_indices: x must be floating point or integer, got complex64",
        ),
    ],
)
def test_dtypes_that_are_refused(op, dtype, message):
    with pytest.raises(TypeError) as caught:
        op(jnp.ones((1, 4, 4, 1), dtype), 2)
    assert str(caught.value).startswith(message)
