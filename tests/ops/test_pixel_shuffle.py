"""Channels to pixels and back, in PyTorch's order of channels."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from comparison import close, drawn
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads
from ops_helpers import assert_same, first, last, normal, torch_value_and_grads, value_and_grads, ways

from cnnjax.ops import pixel_shuffle, pixel_unshuffle

ranks = pytest.mark.parametrize("rank", [1, 2, 3])


def shuffle_loops(x, factors):
    """One pixel at a time."""
    spatial, block = x.shape[1:-1], math.prod(factors)
    y = np.zeros((x.shape[0], *(n * f for n, f in zip(spatial, factors, strict=True)), x.shape[-1] // block), x.dtype)
    for place in np.ndindex(*y.shape[1:-1]):
        at = [p // f for p, f in zip(place, factors, strict=True)]
        rest = [p % f for p, f in zip(place, factors, strict=True)]
        for c in range(y.shape[-1]):
            y[(slice(None), *place, c)] = x[(slice(None), *at, c * block + np.ravel_multi_index(rest, factors))]
    return y


# Known values.


def test_picture_by_hand():
    x = jnp.arange(8).reshape(1, 1, 1, 8)
    y = pixel_shuffle(x, 2)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(y[0, :, :, 1], [[4, 5], [6, 7]])
    np.testing.assert_array_equal(pixel_unshuffle(y, 2), x)


def test_one_factor_an_axis_by_hand():
    x = jnp.arange(6).reshape(1, 1, 1, 6)
    np.testing.assert_array_equal(pixel_shuffle(x, (2, 3))[0, :, :, 0], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(pixel_shuffle(x, [3, 1])[0, :, 0], [[0, 3], [1, 4], [2, 5]])


def test_series_and_volume_by_hand():
    np.testing.assert_array_equal(pixel_shuffle(jnp.arange(4).reshape(1, 2, 2), 2).ravel(), [0, 1, 2, 3])
    volume = pixel_shuffle(jnp.arange(8).reshape(1, 1, 1, 1, 8), 2)
    np.testing.assert_array_equal(volume[0, ..., 0], np.arange(8).reshape(2, 2, 2))


@ranks
def test_factor_of_one_changes_nothing(rank):
    x = normal(0, 2, *(3,) * rank, 5, dtype="float32")
    np.testing.assert_array_equal(pixel_shuffle(x, 1), x)
    np.testing.assert_array_equal(pixel_unshuffle(x, 1), x)


# Against libraries.


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_against_torch(factor):
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    x = normal(0, 2, 3, 2, 2 * factor**2)
    assert_same(
        value_and_grads(lambda x: pixel_shuffle(x, factor), x),
        torch_value_and_grads(lambda x: last(functional.pixel_shuffle(first(x), factor)), x),
        0,
    )
    x = normal(0, 2, 2 * factor, 3 * factor, 2)
    assert_same(
        value_and_grads(lambda x: pixel_unshuffle(x, factor), x),
        torch_value_and_grads(lambda x: last(functional.pixel_unshuffle(first(x), factor)), x),
        0,
    )


def depth_to_space(x, r, mode):
    """As the ONNX operator is defined, channels first."""
    n, c, h, w = x.shape
    if mode == "DCR":
        y = x.reshape(n, r, r, c // r**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, c // r**2, r, r, h, w).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // r**2, h * r, w * r)


def test_the_orders_of_onnx():
    """CRD is ours; the recipe of the docstring turns DCR into it, and our result of unshuffling into SpaceToDepth's."""
    r, c = 2, 3
    x = np.arange(2 * 4 * 5 * c * r * r).reshape(2, 4, 5, c * r * r)
    ours = np.asarray(pixel_shuffle(x, r))
    np.testing.assert_array_equal(ours.transpose(0, 3, 1, 2), depth_to_space(x.transpose(0, 3, 1, 2), r, "CRD"))
    reordered = x.reshape(2, 4, 5, r * r, c).swapaxes(-1, -2).reshape(x.shape)
    expected = depth_to_space(x.transpose(0, 3, 1, 2), r, "DCR").transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(pixel_shuffle(reordered, r), expected)
    y = np.asarray(pixel_unshuffle(expected, r))
    np.testing.assert_array_equal(y.reshape(2, 4, 5, c, r * r).swapaxes(-1, -2).reshape(y.shape), x)


# Random configurations.


@st.composite
def configurations(draw):
    rank = draw(st.integers(1, 3))
    factor = draw(st.integers(1, 3) | st.tuples(*[st.integers(1, 3)] * rank))
    spatial = draw(st.tuples(*[st.integers(1, 3)] * rank))
    dtype = draw(st.sampled_from(["float64", "float32", "bfloat16", "int8", "bool"]))
    return draw(st.integers(0, 2)), spatial, draw(st.integers(1, 3)), factor, dtype, draw(st.integers(0, 2**16))


@drawn
@given(configurations())
def test_random_configurations(configuration):
    n, spatial, channels, factor, dtype, seed = configuration
    factors = (factor,) * len(spatial) if isinstance(factor, int) else factor
    x = (normal(seed, n, *spatial, channels * math.prod(factors)) * 10).astype(dtype)
    expected = shuffle_loops(x, factors)
    cotangent = (normal(seed + 1, *expected.shape) * 10).astype(dtype)

    @jax.jit
    def run(x, cotangent):
        y = pixel_shuffle(x, factor)
        if jnp.issubdtype(x.dtype, jnp.inexact):
            (gradient,) = jax.vjp(lambda x: pixel_shuffle(x, factor), x)[1](cotangent)
        else:
            gradient = pixel_unshuffle(cotangent, factor)
        return y, pixel_unshuffle(y, factor), gradient

    with jax.enable_x64(True):
        y, back, gradient = run(x, cotangent)
    assert y.dtype == back.dtype == dtype
    close("pixel_shuffle", y, expected, 0)
    close("pixel_unshuffle", back, x, 0)
    close("pixel_shuffle's gradient", shuffle_loops(np.asarray(gradient), factors), cotangent, 0)


# Transformations.


@ways
def test_every_way(way):
    x = normal(0, 2, 3, 2, 12, dtype="float32")
    y = way(lambda x: pixel_shuffle(x, 2))(x)
    np.testing.assert_array_equal(y, shuffle_loops(x, (2, 2)))
    np.testing.assert_array_equal(way(lambda y: pixel_unshuffle(y, 2))(y), x)


def test_derivatives_against_differences():
    with jax.enable_x64(True):
        x = jnp.asarray(normal(0, 1, 2, 2, 4))
        both = jax.jit(lambda x: pixel_unshuffle(jnp.sin(pixel_shuffle(x, 2)), 2))
        check_grads(both, (x,), order=1, modes=["fwd", "rev"])


def test_checkpoint_and_scan():
    x = normal(0, 1, 4, 2, 4, dtype="float32")

    def layer(y):
        return jnp.tanh(pixel_unshuffle(jnp.sin(pixel_shuffle(y, 2)), 2))

    def scanned(x):
        return jnp.sum(jax.lax.scan(lambda y, _: (jax.checkpoint(layer)(y), None), x, length=2)[0])

    expected = jax.grad(lambda x: jnp.sum(layer(layer(x))))(x)
    np.testing.assert_allclose(jax.grad(scanned)(x), expected, rtol=1e-6, atol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x):
        return pixel_unshuffle(pixel_shuffle(x, 2), 2)

    for seed in range(3):
        run(normal(seed, 1, 5, 5, 4, dtype="float32"))


# Dtypes and odd sizes.


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16", "bfloat16", "complex64"])
def test_dtype_is_kept(dtype):
    x = (np.arange(8).reshape(1, 1, 2, 4) % 3).astype(dtype)
    assert pixel_shuffle(x, 2).dtype == dtype
    np.testing.assert_array_equal(pixel_unshuffle(pixel_shuffle(x, 2), 2), x)


def test_nan_stays_where_it_is():
    y = pixel_shuffle(jnp.array([jnp.nan, 1, jnp.inf, 2]).reshape(1, 1, 1, 4), 2)
    np.testing.assert_array_equal(y[0, :, :, 0], [[np.nan, 1], [np.inf, 2]])


@ranks
def test_batch_of_none_and_no_channels(rank):
    for n, c in [(0, 1), (1, 0)]:
        x = jnp.ones((n, *(3,) * rank, c * 2**rank))
        y, back = jax.jit(lambda x: (pixel_shuffle(x, 2), pixel_unshuffle(pixel_shuffle(x, 2), 2)))(x)
        assert y.shape == (n, *(6,) * rank, c)
        assert back.shape == x.shape


# Errors.


@pytest.mark.parametrize(
    ("op", "shape", "factor", "message"),
    [
        (
            pixel_shuffle,
            (1, 5, 5, 6),
            2,
            "pixel_shuffle: channels must be a multiple of 4 for factor (2, 2), got x (1, 5, 5, 6).",
        ),
        (
            pixel_shuffle,
            (1, 12, 5, 7),
            2,
            "pixel_shuffle: channels must be a multiple of 4 for factor (2, 2), got x (1, 12, 5, 7). If x is"
            " channels-first, use x.transpose(0, 2, 3, 1).",
        ),
        (
            pixel_unshuffle,
            (1, 4, 5, 3),
            2,
            "pixel_unshuffle: factor (2, 2) must divide the spatial size of x (1, 4, 5, 3), got 5 along W. Pad or crop"
            " x.",
        ),
        (
            pixel_unshuffle,
            (1, 4, 5, 3),
            (2, 2, 2),
            "pixel_unshuffle: factor takes one value an axis (2), got (2, 2, 2). Give an int for all axes.",
        ),
        (pixel_shuffle, (1, 4, 5, 4), 0, "pixel_shuffle: factor must be at least 1, got 0."),
        (
            pixel_shuffle,
            (4, 4),
            2,
            "pixel_shuffle: x must be (N, *spatial, C) with one to three spatial axes, got shape (4, 4). Add a batch"
            " axis with x[None].",
        ),
        (
            pixel_unshuffle,
            (1, 1, 4, 4, 4, 4),
            2,
            "pixel_unshuffle: x must be (N, *spatial, C) with one to three spatial axes, got shape (1, 1, 4, 4, 4, 4)."
            " Use vmap for more batch axes.",
        ),
        (
            pixel_shuffle,
            (1, 0, 4, 4),
            2,
            "pixel_shuffle: x must have pixels, got shape (1, 0, 4, 4). Only the batch axis may be empty.",
        ),
    ],
)
def test_errors_word_for_word(op, shape, factor, message):
    with pytest.raises(ValueError, match="pixel_") as caught:
        op(jnp.ones(shape), factor)
    assert str(caught.value) == message


def test_error_of_type():
    with pytest.raises(TypeError, match=r"^pixel_shuffle: factor must be an int or 2 ints, got 2.0"):
        pixel_shuffle(jnp.ones((1, 2, 2, 4)), 2.0)  # pyright: ignore[reportArgumentType]
