from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from comparison import close, drawn
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.test_util import check_grads
from ops_helpers import assert_same, first, last, normal, torch_value_and_grads, value_and_grads, ways, weights_of
from pool_calls import REFUSED, calls, windows

from cnnjax.ops import max_pool2d, min_pool1d, min_pool2d, min_pool3d

POOL: dict[int, Any] = {1: min_pool1d, 2: min_pool2d, 3: min_pool3d}
ranks = pytest.mark.parametrize("rank", [1, 2, 3])
forms = pytest.mark.parametrize("dilation", [1, 2], ids=["plain", "dilated"])


def series(*values, dtype="float32"):
    return jnp.array(values, dtype).reshape(1, -1, 1)


# Known values.


@pytest.mark.parametrize(
    ("window", "options", "expected"),
    [
        (2, {}, [1, 0]),
        (2, {"stride": 1}, [1, 2, 0, -1]),
        (2, {"ceil_mode": True}, [1, 0, -1]),
        (2, {"padding": "SAME_LOWER"}, [1, 2, -1]),
        (2, {"padding": ((1, 0),)}, [1, 2, -1]),
        (2, {"dilation": 2, "stride": 1}, [1, 0, -1]),
        (2, {"dilation": 3, "stride": 1, "padding": 1}, [2, 0, -1, 2]),
        (6, {"ceil_mode": True, "stride": 2}, [-1]),
    ],
)
def test_series_by_hand(window, options, expected):
    y = min_pool1d(series(1, 3, 2, 0, -1), window, **options)
    np.testing.assert_array_equal(y.ravel(), expected)


def test_picture_and_volume_by_hand():
    np.testing.assert_array_equal(min_pool2d(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0], [[0, 2], [8, 10]])
    y = min_pool3d(jnp.arange(48.0).reshape(1, 2, 4, 3, 2), (2, 2, 3))
    np.testing.assert_array_equal(y, jnp.array([0.0, 1.0, 12.0, 13.0]).reshape(1, 1, 2, 1, 2))


def test_erosion_of_a_picture():
    """A square of 3 loses its border, and outside the picture nothing is darker."""
    x = jnp.zeros((1, 5, 5, 1)).at[0, :3, 1:4, 0].set(1)
    y = min_pool2d(x, 3, stride=1, padding="SAME")[0, :, :, 0]
    np.testing.assert_array_equal(y, jnp.zeros((5, 5)).at[:2, 2].set(1))


# Against loops and libraries.


@ranks
@pytest.mark.parametrize(
    "options", [{"stride": 2, "padding": 1, "ceil_mode": True}, {"padding": 1, "dilation": 2}], ids=["plain", "dilated"]
)
def test_against_torch(rank, options):
    pool = getattr(pytest.importorskip("torch", reason="compares with PyTorch").nn.functional, f"max_pool{rank}d")
    x = normal(0, 2, *(8, 7, 6)[:rank], 2)
    ours = value_and_grads(lambda x: POOL[rank](x, 3, **options), x)
    theirs = torch_value_and_grads(lambda x: last(-pool(-first(x), 3, **options)), x)
    assert_same(ours, theirs, 1e-15)


@drawn
@given(calls(), st.sampled_from(["float64", "float32", "bfloat16", "int8", "uint8", "int32"]), st.integers(0, 2**32))
def test_any_call(call, dtype, seed):
    """With many ties: the gradient goes to the first of them."""
    rank, shape, window, options = call
    family = "min_pool, half precision" if "float16" in dtype else "min_pool"
    values = np.random.default_rng(seed).integers(0, 8, shape).astype(float)
    with jax.enable_x64(True):
        x = jnp.asarray(values, dtype)
        if windows(shape, window, options) is None:
            with pytest.raises(ValueError, match=REFUSED):
                POOL[rank](x, window, **options)
            return
        if "int" in dtype:
            y = jax.jit(lambda x: POOL[rank](x, window, **options))(x)
        else:
            y, (gradient,) = value_and_grads(lambda x: POOL[rank](x, window, **options), x)
            weights = weights_of(y.shape).astype(dtype).astype(float)
            expected = reference.max_pool(-values, window, **options, weights=weights)
            close(family, gradient, expected, {"float64": 1e-14, "float32": 1e-6, "bfloat16": 0.1}[dtype])
    assert y.dtype == dtype
    close(family, y, -reference.max_pool(-values, window, **options), 0)


# Transformations.


@ways
@forms
def test_every_way(way, dilation):
    x, options = normal(0, 2, 6, 5, 2, dtype="float32"), {"stride": 2, "padding": 1, "dilation": dilation}
    y = way(lambda x: min_pool2d(x, 2, **options))(x)
    np.testing.assert_array_equal(y, -reference.max_pool(-x, 2, **options))
    weights = weights_of(y.shape)
    gradient = way(jax.grad(lambda x: jnp.sum(weights * min_pool2d(x, 2, **options))))(x)
    np.testing.assert_allclose(gradient, reference.max_pool(-x, 2, **options, weights=weights), rtol=1e-6, atol=1e-6)


@ranks
@forms
def test_derivatives_against_differences(rank, dilation):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).permutation(2 * 4**rank).reshape(1, *(4,) * rank, 2) * 0.1)
        pool = jax.jit(lambda x: POOL[rank](x, 2, stride=1, padding=1, dilation=dilation))
        check_grads(pool, (x,), order=1, modes=["fwd", "rev"])


@forms
def test_second_derivative(dilation):
    x = normal(0, 1, 6, 1, dtype="float32")
    hessian = jax.jit(jax.hessian(lambda x: jnp.sum(min_pool1d(x, 2, stride=1, dilation=dilation) ** 2)))(x)
    options = {"stride": 1, "dilation": dilation}
    counts = reference.max_pool(-x, 2, **options, weights=np.ones((1, 6 - dilation, 1))).ravel()
    np.testing.assert_allclose(hessian.reshape(6, 6), 2 * np.diag(counts))


def test_checkpoint_and_scan():
    x = normal(0, 1, 6, 2, dtype="float32")

    def layer(y):
        return jnp.tanh(min_pool1d(y, 3, stride=1, padding=1))

    def scanned(x):
        return jnp.sum(lax.scan(lambda y, _: (jax.checkpoint(layer)(y), None), x, length=3)[0] ** 2)

    expected = jax.grad(lambda x: jnp.sum(layer(layer(layer(x))) ** 2))(x)
    np.testing.assert_allclose(jax.grad(scanned)(x), expected, rtol=1e-5, atol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x):
        return min_pool2d(x, 2, ceil_mode=True)

    for seed in range(3):
        run(normal(seed, 1, 5, 5, 1, dtype="float32"))


def test_one_call_of_lax():
    jaxpr = str(jax.make_jaxpr(lambda x: min_pool2d(x, 2, padding="SAME", ceil_mode=True))(jnp.ones((1, 5, 5, 2))))
    assert jaxpr.count("reduce_window_min[") == 1
    assert " pad[" not in jaxpr


# Ties, NaN, infinity.


@forms
def test_first_of_equals_takes_the_gradient_and_the_tangent(dilation):
    x = jnp.ones((1, 2 * dilation, 2 * dilation, 1))
    gradient = jax.jit(jax.grad(lambda x: min_pool2d(x, 2, stride=1, dilation=dilation).sum()))(x)
    expected = np.zeros((2 * dilation, 2 * dilation))
    expected[:dilation, :dilation] = 1
    np.testing.assert_array_equal(gradient[0, :, :, 0], expected)
    x, tangent = series(1, 1, 1, 1), series(1, 2, 3, 4)
    _, moved = jax.jvp(lambda x: min_pool1d(x, 2, stride=1, dilation=dilation), (x,), (tangent,))
    np.testing.assert_array_equal(moved.ravel(), [1, 2, 3][: 4 - dilation])


@forms
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nan_propagates(dilation, dtype):
    for place in range(5):
        x = series(1, 3, 2, jnp.inf, -jnp.inf, dtype=dtype).at[0, place, 0].set(jnp.nan)
        y = min_pool1d(x, 2, stride=1, padding=1, dilation=dilation).ravel()
        seen = [place in axis for axis in reference.taps(5, 2, 1, 1, 1, dilation, False)]
        np.testing.assert_array_equal(np.isnan(y), seen)


@forms
def test_infinity_and_padding(dilation):
    y = min_pool1d(jnp.full((1, 3, 1), jnp.inf), 3, stride=1, padding=1, dilation=dilation)
    assert (y == jnp.inf).all()
    x = np.array([[[5], [np.inf], [7], [-np.inf], [9]]])
    y = min_pool1d(jnp.asarray(x, "float32"), 3, stride=2, padding=1, dilation=dilation)
    np.testing.assert_array_equal(y, -reference.max_pool(-x, 3, stride=2, padding=1, dilation=dilation))


# Dtypes and odd sizes.


@forms
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32"])
def test_padding_never_wins_over_the_highest_integers(dilation, dtype):
    """Nor do the lowest: there is no negative of -128 in int8, and none of 1 in uint8."""
    info = jnp.iinfo(dtype)
    x = series(info.max, info.max - 1, info.min, dtype=dtype)
    y = min_pool1d(x, 2, stride=2, padding=1, dilation=dilation)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.ravel(), {1: [info.max, info.min], 2: [info.max - 1] * 2}[dilation])


def test_half_precision_and_float64():
    for dtype in ("float16", "bfloat16"):
        y = min_pool1d(series(3, 2, dtype=dtype), 2)
        assert (y.dtype, y.item()) == (dtype, 2)
    with jax.enable_x64(True):
        assert min_pool1d(jnp.array([1.0 + 1e-12, 2.0]).reshape(1, 2, 1), 2).item() == 1 + 1e-12


@ranks
@forms
def test_batch_of_none_and_no_channels(rank, dilation):
    for shape in [(0, *(6,) * rank, 2), (2, *(6,) * rank, 0)]:
        y, pull = jax.vjp(jax.jit(lambda x: POOL[rank](x, 3, padding=1, dilation=dilation)), jnp.ones(shape))
        assert y.shape == (shape[0], *(2,) * rank, shape[-1])
        assert pull(y)[0].shape == shape


def test_the_negative_of_the_maximum():
    x = normal(0, 3, 6, 5, 2, dtype="float32")
    np.testing.assert_array_equal(min_pool2d(x, 2), -max_pool2d(-x, 2))
    np.testing.assert_array_equal(min_pool2d(x, 2)[1:2], min_pool2d(x[1:2], 2))


# Errors.


@pytest.mark.parametrize(
    ("shape", "window", "options", "message"),
    [
        (
            (1, 4, 7, 3),
            (1, 4),
            {"dilation": (1, 3), "stride": 1},
            "window (1, 4) with dilation (1, 3) does not fit the padded input (4, 7) along W."
            " Pad, or use a smaller window.",
        ),
        ((8, 8, 3), 2, {}, "x must be (N, H, W, C), got shape (8, 8, 3). Add a batch axis with x[None]."),
        ((1, 0, 7, 3), 2, {}, "x must have pixels, got shape (1, 0, 7, 3). Only the batch axis may be empty."),
        ((1, 4, 7, 3), 2, {"stride": 0}, "stride must be at least 1, got 0."),
        (
            (1, 4, 7, 3),
            2,
            {"padding": "REFLECT"},
            "padding must be amounts or one of SAME, SAME_LOWER, VALID, got 'REFLECT'.",
        ),
    ],
)
def test_errors_word_for_word(shape, window, options, message):
    with pytest.raises(ValueError, match="min_pool2d") as caught:
        min_pool2d(jnp.ones(shape), window, **options)
    assert str(caught.value) == f"min_pool2d: {message}"


@pytest.mark.parametrize("dtype", ["bool", "complex64"])
@ranks
def test_dtypes_without_order(rank, dtype):
    with pytest.raises(TypeError, match=rf"^min_pool{rank}d: x must be floating point or integer, got {dtype}"):
        POOL[rank](jnp.ones((1, *(4,) * rank, 1), dtype), 2)
