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
from pool_calls import REFUSED, calls, pixels, windows

from cnnjax.ops import avg_pool2d, lp_pool1d, lp_pool2d, lp_pool3d, max_pool2d

POOL: dict[int, Any] = {1: lp_pool1d, 2: lp_pool2d, 3: lp_pool3d}
ranks = pytest.mark.parametrize("rank", [1, 2, 3])
orders = pytest.mark.parametrize("p", [1, 1.5, 2, 3, 40.0, np.inf])


def series(*values, dtype="float32"):
    return jnp.array(values, dtype).reshape(1, -1, 1)


# Known values.


@pytest.mark.parametrize(
    ("window", "p", "options", "expected"),
    [
        (2, 2, {}, [5, 13]),
        (2, 1, {}, [7, 17]),
        (2, np.inf, {}, [4, 12]),
        (2, 2, {"stride": 1}, [5, 41**0.5, 13, 13]),
        (2, 2, {"padding": 1}, [3, 41**0.5, 13]),
        (2, 2, {"padding": "SAME_LOWER"}, [3, 41**0.5, 13]),
        (2, 1, {"ceil_mode": True}, [7, 17, 5]),
        (2, 2, {"dilation": 2, "stride": 1}, [34**0.5, 160**0.5, 50**0.5]),
        (3, 1, {"dilation": 2, "padding": ((2, 1),), "stride": 3}, [8, 16]),
        (1, 3, {"stride": 2}, [3, 5, 5]),
    ],
)
def test_series_by_hand(window, p, options, expected):
    y = jax.jit(lambda x: lp_pool1d(x, window, p, **options))(series(3, -4, 5, -12, 5))
    np.testing.assert_allclose(y.ravel(), expected, rtol=1e-6)


def test_picture_and_volume_by_hand():
    x = jnp.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]).reshape(1, 3, 3, 1)
    expected = np.sqrt([[46, 74], [154, 206]])
    y = jax.jit(lambda x: lp_pool2d(x, 2, 2, stride=1))(x)
    np.testing.assert_allclose(y[0, :, :, 0], expected, rtol=1e-6)
    assert jax.jit(lambda x: lp_pool3d(x, 3, 3))(jnp.full((1, 3, 3, 3, 1), -2.0)).item() == pytest.approx(6)


def test_sum_mean_and_maximum():
    """1 and inf are its ends; the mean needs a division."""
    x = normal(0, 2, 6, 5, 2, dtype="float32")
    options = {"stride": 2, "padding": 1, "ceil_mode": True}

    def pool(p):
        return jax.jit(lambda x: lp_pool2d(x, 3, p, **options))

    mean = avg_pool2d(jnp.abs(x), 3, count_include_pad=False, **options)
    largest = max_pool2d(jnp.abs(x), 3, **options)
    np.testing.assert_allclose(pool(1)(x) / pool(1)(jnp.ones_like(x)), mean, rtol=1e-5)
    np.testing.assert_array_equal(pool(np.inf)(x), largest)
    np.testing.assert_allclose(pool(1e4)(x), largest, rtol=1e-3)


# Against loops and libraries.


@pytest.mark.parametrize(
    ("rank", "p", "window", "options"),
    [
        (1, 3, 2, {"stride": 1}),
        (2, 1, 2, {}),
        (2, 1.5, 3, {"stride": 2}),
        (2, 2, 3, {"stride": 2}),
        (2, 3, (2, 1), {"stride": (1, 3)}),
        (2, np.inf, 2, {}),
        (3, 2, 2, {}),
    ],
)
def test_against_torch(rank, p, window, options):
    """Of |x|, which PyTorch does not take by itself."""
    pool = getattr(pytest.importorskip("torch", reason="compares with PyTorch").nn.functional, f"lp_pool{rank}d")
    x = normal(0, 2, *(8, 7, 6)[:rank], 2)
    x[:, :3, :3] = 0
    ours = value_and_grads(lambda x: POOL[rank](x, window, p, **options), x)
    theirs = torch_value_and_grads(lambda x: last(pool(first(x.abs()), p, window, **options)), x)
    # Of |x| at 0 anything from -1 to 1 is a derivative, which only p = 1 leaves.
    known = np.where((x == 0) & (p == 1), 0, 1)
    assert_same((ours[0], [ours[1][0] * known]), (theirs[0], [theirs[1][0] * known]))


def loops(x, found, p):
    """Values, and the gradient of their weighted sum."""
    spatial = x.shape[1:-1]
    y = np.zeros((x.shape[0], *map(len, found), x.shape[-1]))
    gradient, weights = np.zeros(x.shape), weights_of(y.shape)
    for place, ats in pixels(found, spatial):
        taps = np.stack([x[(slice(None), *at)] for at in ats])
        norm = np.sum(np.abs(taps) ** p, 0) ** (1 / p)
        y[(slice(None), *place)] = norm
        shares = np.sign(taps) * (np.abs(taps) / np.where(norm == 0, 1, norm)) ** (p - 1)
        for at, share in zip(ats, shares, strict=True):
            gradient[(slice(None), *at)] += weights[(slice(None), *place)] * share
    return y, gradient


TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 3e-2, "float16": 5e-3}


@drawn
@given(calls(), st.sampled_from(list(TOLERANCE)), st.floats(1, 6), st.integers(0, 2**32))
def test_any_call(call, dtype, p, seed):
    rank, shape, window, options = call
    family = "lp_pool, half precision" if "float16" in dtype else "lp_pool"
    found = windows(shape, window, options)
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=shape) * (rng.random(shape) < 0.7), dtype)
        if found is None:
            with pytest.raises(ValueError, match=REFUSED):
                POOL[rank](x, window, p, **options)
            return
        y, (gradient,) = value_and_grads(lambda x: POOL[rank](x, window, p, **options), x)
    assert y.dtype == gradient.dtype == dtype
    values = np.asarray(x, np.float64)
    expected, moved = loops(values, found, p)
    close(family, y, expected, TOLERANCE[dtype])
    if p == 1:
        gradient = np.where(values == 0, 0, gradient)
    close(family, gradient, moved, TOLERANCE[dtype] * 10)


# Transformations.


@ways
def test_every_way(way):
    x, options = normal(0, 2, 9, 2, dtype="float32"), {"stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True}
    expected, moved = loops(x, windows(x.shape, (2,), options), 3)
    np.testing.assert_allclose(way(lambda x: lp_pool1d(x, 2, 3, **options))(x), expected, rtol=1e-5, atol=1e-6)
    weights = weights_of(expected.shape)
    gradient = way(jax.grad(lambda x: jnp.sum(weights * lp_pool1d(x, 2, 3, **options))))(x)
    np.testing.assert_allclose(gradient, moved, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rank", "p", "order"), [(1, 2, 2), (1, 3.5, 2), (2, 3, 1), (3, 2.5, 1)])
def test_derivatives_against_differences(rank, p, order):
    with jax.enable_x64(True):
        x = jnp.asarray(normal(0, 1, *(4,) * rank, 2))
        pool = jax.jit(lambda x: POOL[rank](x, 2, p, stride=1, padding=1, dilation=2))
        check_grads(pool, (x,), order=order, modes=["fwd", "rev"], rtol=1e-3)


def test_a_trained_order():
    """Compiled, mapped and differentiated: p may be traced."""
    with jax.enable_x64(True):
        x = jnp.asarray(normal(0, 1, 6, 2)).at[0, 2:4].set(0)
        pool = jax.jit(lambda p: lp_pool1d(x, 2, p))
        np.testing.assert_allclose(pool(3), lp_pool1d(x, 2, 3))
        mapped = jax.vmap(pool)(jnp.array([1.0, 2.5]))
        np.testing.assert_allclose(mapped, [lp_pool1d(x, 2, 1), lp_pool1d(x, 2, jnp.asarray(2.5))])
        check_grads(pool, (2.5,), order=1, modes=["fwd", "rev"], rtol=1e-4)


def test_checkpoint_and_scan():
    x = normal(0, 1, 6, 2, dtype="float32")

    def layer(y):
        return jnp.tanh(lp_pool1d(y, 3, 2, stride=1, padding=1))

    def scanned(x):
        return jnp.sum(lax.scan(lambda y, _: (jax.checkpoint(layer)(y), None), x, length=3)[0] ** 2)

    expected = jax.jit(jax.grad(lambda x: jnp.sum(layer(layer(layer(x))) ** 2)))(x)
    np.testing.assert_allclose(jax.grad(scanned)(x), expected, rtol=1e-5, atol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x, p):
        return lp_pool2d(x, 2, p, ceil_mode=True)

    for seed in range(3):
        run(normal(seed, 1, 5, 5, 1, dtype="float32"), 2.0 + seed)


# Zeros, NaN, infinity, range.


@orders
def test_zeros_have_no_gradient(p):
    x, tangent = jnp.zeros((1, 4, 1)), jnp.ones((1, 4, 1))
    run = jax.jit(lambda x: lp_pool1d(x, 3, p, stride=1, padding=1))
    y, pull = jax.vjp(run, x)
    assert not y.any()
    np.testing.assert_array_equal(pull(jnp.ones_like(y))[0], x)
    np.testing.assert_array_equal(jax.jvp(run, (x,), (tangent,))[1], jnp.zeros_like(y))


@orders
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_large_and_small_numbers_keep_their_digits(p, dtype):
    """|x| ** p would leave the range of float32, and the gradient be 0, inf or NaN."""
    run = jax.jit(jax.value_and_grad(lambda x: jnp.sum(lp_pool1d(x, 3, p).astype("float32"))))
    sizes = np.array([3, 4, 1.5])
    norm = 4.0 if p == np.inf else np.sum(sizes**p) ** (1 / p)
    shares = np.array([0, 1, 0]) if p == np.inf else (sizes / norm) ** (p - 1)
    tolerance = 3e-6 if dtype == "float32" else 1e-2
    for unit in (1e-37, 1e-20, 1.0, 1e20, 1e37):
        value, gradient = run(jnp.asarray((sizes * [1, -1, 1]).reshape(1, 3, 1) * unit, dtype))
        assert value == pytest.approx(norm * unit, rel=tolerance)
        np.testing.assert_allclose(gradient.ravel(), shares * [1, -1, 1], rtol=tolerance * min(p, 40), atol=tolerance)


@orders
def test_not_finite_stays_in_its_windows(p):
    x = series(1, 1, jnp.inf, 1, -jnp.inf, jnp.inf, jnp.nan, jnp.inf, 0, jnp.nan, 0, 1)
    y = jax.jit(lambda x: lp_pool1d(x, 2, p))(x).ravel()
    two = 1 if p == np.inf else 2 ** (1 / p)
    np.testing.assert_allclose(y, [two, np.inf, np.inf, np.nan, np.nan, 1], rtol=1e-6)


# Dtypes and odd sizes.


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_rounded_once(dtype):
    x, run = (
        jnp.asarray(np.random.default_rng(0).integers(-9, 9, (2, 8, 4, 3)), dtype),
        jax.jit(lambda x: lp_pool2d(x, 4, 3)),
    )
    y = run(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, run(x.astype("float32")).astype(dtype))


@ranks
def test_batch_of_none_and_no_channels(rank):
    for shape in [(0, *(6,) * rank, 2), (2, *(6,) * rank, 0)]:
        y, pull = jax.vjp(jax.jit(lambda x: POOL[rank](x, 3, 2, padding=1)), jnp.ones(shape))
        assert y.shape == (shape[0], *(2,) * rank, shape[-1])
        assert pull(y)[0].shape == shape


def test_batch_of_one_is_one_of_many():
    x, run = normal(0, 3, 6, 5, 2, dtype="float32"), jax.jit(lambda x: lp_pool2d(x, 2, 2))
    np.testing.assert_allclose(run(x)[1:2], run(x[1:2]), rtol=1e-6)


# Errors.


@pytest.mark.parametrize(
    ("shape", "window", "p", "message"),
    [
        (
            (1, 4, 7, 3),
            5,
            2,
            "window (5, 5) does not fit the padded input (4, 7) along H. Pad, or use a smaller window.",
        ),
        ((8, 8, 3), 2, 2, "x must be (N, H, W, C), got shape (8, 8, 3). Add a batch axis with x[None]."),
        ((1, 4, 7, 3), 2, 0.5, "p must be at least 1, got 0.5. Below 1 it is no norm."),
        ((1, 4, 7, 3), 2, -np.inf, "p must be at least 1, got -inf. Below 1 it is no norm."),
        ((1, 4, 7, 3), 2, np.nan, "p must be at least 1, got nan. Below 1 it is no norm."),
    ],
)
def test_errors_word_for_word(shape, window, p, message):
    with pytest.raises(ValueError, match="lp_pool2d") as caught:
        lp_pool2d(jnp.ones(shape), window, p)
    assert str(caught.value) == f"lp_pool2d: {message}"


@pytest.mark.parametrize("p", [(2, 2), None, "two", np.ones(2)])
def test_orders_that_are_no_numbers(p):
    with pytest.raises(TypeError, match=r"^lp_pool1d: p must be a number, got .*\. 2\.0 is usual\.$"):
        lp_pool1d(series(1, 2), 2, p)


@ranks
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64"])
def test_dtypes_that_are_refused(rank, dtype):
    with pytest.raises(TypeError, match=rf"^lp_pool{rank}d: x must be floating point, got {dtype}"):
        POOL[rank](jnp.ones((1, *(4,) * rank, 1), dtype), 2, 2)


def test_modes_that_pools_refuse():
    with pytest.raises(ValueError, match=r"^lp_pool1d: .* one of SAME, SAME_LOWER, VALID, got 'CIRCULAR'"):
        lp_pool1d(jnp.ones((1, 8, 1)), 2, 2, padding="CIRCULAR")
