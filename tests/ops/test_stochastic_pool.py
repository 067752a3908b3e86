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
from ops_helpers import normal, value_and_grads, ways, weights_of

from cnnjax.ops import stochastic_pool2d
from cnnjax.ops.shapes import pool_output_size

KEY = jax.random.key(0)
# Compiled once for all draws: the ways to call it have tests of their own.
pool = jax.jit(stochastic_pool2d, static_argnames=("window", "stride", "padding", "train"))
modes = pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])


def picture(*values, dtype="float32"):
    return jnp.array(values, dtype).reshape(1, 2, -1, 1)


def loops(x, window, stride, padding, uniform, weights):
    """The value and the gradient of its weighted sum, one window at a time; uniform None is evaluation."""
    spatial = x.shape[1:-1]
    windows, _ = reference.pool_windows(spatial, window, stride, padding, 1, False)
    y, gradient = np.zeros(weights.shape), np.zeros(x.shape)
    for n, i, j, c in np.ndindex(*weights.shape):
        pixels = [(h, w) for h in windows[0][i] for w in windows[1][j] if 0 <= h < spatial[0] and 0 <= w < spatial[1]]
        values = [max(float(x[n, h, w, c]), 0.0) for h, w in pixels]
        total = sum(values)
        if total == 0:
            continue
        at = n, i, j, c
        if uniform is not None:
            drawn = int(np.argmax(np.cumsum(values) / total > uniform[at]))
            y[at] = values[drawn]
            gradient[n, *pixels[drawn], c] += weights[at]
            continue
        y[at] = sum(value**2 for value in values) / total
        for value, (h, w) in zip(values, pixels, strict=True):
            gradient[n, h, w, c] += weights[at] * (2 * value - y[at]) / total * (value > 0)
    return y, gradient


# Known values.


def test_expectation_by_hand():
    """The example of the paper's figure 1: 1.6 and 2.4 of 4 are drawn with probability 0.4 and 0.6."""
    x = picture(1.6, 0, 0, 2.4)
    assert pool(None, x, 2, train=False).item() == pytest.approx(0.4 * 1.6 + 0.6 * 2.4)
    with_negatives = picture(1.6, -5, -1, 2.4)
    assert pool(None, with_negatives, 2, train=False).item() == pytest.approx(0.4 * 1.6 + 0.6 * 2.4)


@pytest.mark.parametrize(
    "values", [(1.6, 0, 0, 2.4), (-3, 1, 1, 2), (5, 1, 3, 1), (0, 0, 0, 1e-30), (3e38, 3e38, 0, 3e38)]
)
def test_draws_by_their_activation(values):
    n = 20_000
    y = np.asarray(pool(KEY, jnp.broadcast_to(picture(*values), (n, 2, 2, 1)), 2)).ravel()
    shares = np.maximum(np.array(values, "float64"), 0)
    shares /= shares.sum()
    assert set(np.unique(y)) == {np.float32(value) for value, share in zip(values, shares, strict=True) if share > 0}
    for value in set(values):
        share = sum(other for same, other in zip(values, shares, strict=True) if same == value)
        assert abs((y == np.float32(value)).mean() - share) < 5 * np.sqrt(share * (1 - share) / n) + 1e-9


def test_equal_pixels_are_drawn_equally_often():
    gradient = jax.grad(lambda x: pool(KEY, x, 2).sum())(jnp.ones((20_000, 2, 2, 1)))
    np.testing.assert_allclose(gradient.mean(0).ravel(), 0.25, atol=0.02)


def test_windows_and_channels_are_independent():
    x = jnp.broadcast_to(jnp.array([1.0, 2.0])[:, None], (1, 256, 2, 64)).reshape(1, 16, 32, 64)
    y = np.asarray(pool(KEY, x, (1, 2)))
    for axis in 1, 2, 3:
        assert abs((y == np.roll(y, 1, axis)).mean() - ((1 / 3) ** 2 + (2 / 3) ** 2)) < 0.02


@modes
def test_windows_without_a_positive_pixel(train):
    x = picture(0, 0, -1, -jnp.inf)
    y, (gradient,) = value_and_grads(lambda x: stochastic_pool2d(KEY, x, (2, 1), train=train), x)
    np.testing.assert_array_equal(y.ravel(), [0, 0])
    np.testing.assert_array_equal(gradient.ravel(), [0, 0, 0, 0])


def test_gradient_goes_to_the_pixel_drawn():
    x = jnp.asarray(np.random.default_rng(0).permutation(np.arange(1.0, 129)).reshape(1, 8, 8, 2), "float32")
    y, pull = jax.vjp(lambda x: pool(KEY, x, 2), x)
    gradient = pull(y)[0]
    np.testing.assert_array_equal(np.sort(gradient[gradient > 0]), np.sort(y.ravel()))
    np.testing.assert_array_equal(jnp.where(gradient > 0, x, 0), gradient)


def test_same_key_same_draws():
    x = jnp.abs(normal(0, 1, 8, 8, 2, dtype="float32"))
    y = pool(KEY, x, 2)
    np.testing.assert_array_equal(y, pool(KEY, x, 2))
    np.testing.assert_array_equal(y, pool(jax.random.PRNGKey(0), x, 2))
    np.testing.assert_array_equal(2 * y, pool(KEY, 2 * x, 2))
    assert not (y == pool(jax.random.key(1), x, 2)).all()
    np.testing.assert_array_equal(pool(KEY, x, 2, train=False), pool(None, x, 2, train=False))


# Against loops.


@st.composite
def configurations(draw):
    window = draw(st.tuples(*[st.integers(1, 3)] * 2))
    pairs = [tuple(draw(st.integers(0, k // 2)) for _ in range(2)) for k in window]
    spatial = [draw(st.integers(max(k - low - high, 1), 8)) for k, (low, high) in zip(window, pairs, strict=True)]
    named = st.sampled_from(["SAME", "SAME_LOWER", "VALID"])
    fits = all(k <= n for k, n in zip(window, spatial, strict=True))
    padding = draw(st.just(pairs) | named if fits else st.just(pairs))
    stride = draw(st.none() | st.tuples(*[st.integers(1, 3)] * 2))
    shape = draw(st.integers(0, 2)), *spatial, draw(st.integers(1, 3))
    return (
        shape,
        window,
        stride,
        padding,
        draw(st.booleans()),
        draw(st.sampled_from(["float64", "float32", "bfloat16"])),
    )


@drawn
@given(configurations(), st.integers(0, 99))
def test_any_configuration_against_loops(configuration, seed):
    shape, window, stride, padding, train, dtype = configuration
    # Sixteenths, many of them equal, zero or negative: their sums are exact.
    x = (np.random.default_rng(seed).integers(-16, 33, shape) / 16).astype(dtype)
    options = {"stride": stride, "padding": padding}
    key = jax.random.key(seed)
    y, (to_x,) = value_and_grads(lambda x: stochastic_pool2d(key, x, window, train=train, **options), x)
    strides = window if stride is None else stride
    pairs = reference.pairs(shape[1:-1], window, padding, strides, 1)
    sizes = [
        pool_output_size(n, k, stride=s, padding=pair)
        for n, k, s, pair in zip(shape[1:-1], window, strides, pairs, strict=True)
    ]
    assert y.shape == (shape[0], *sizes, shape[-1])
    assert y.dtype == to_x.dtype == dtype
    with jax.enable_x64(True):
        kind = "float64" if dtype == "float64" else "float32"
        uniform = np.asarray(jax.random.uniform(key, y.shape, kind), "float64") if train else None
    weights = weights_of(y.shape).astype(dtype).astype("float64")
    expected, gradient = loops(x, window, stride, padding, uniform, weights)
    tolerance = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 3e-2}[dtype]
    close("stochastic_pool", y, expected, tolerance)
    close("stochastic_pool", to_x, gradient, tolerance)


# Transformations.


@ways
@modes
def test_every_way(way, train):
    x = normal(0, 2, 6, 5, 2, dtype="float32")
    y = way(lambda x: stochastic_pool2d(KEY, x, 2, padding=1, train=train))(x)
    uniform = np.asarray(jax.random.uniform(KEY, y.shape)) if train else None
    np.testing.assert_allclose(y, loops(x, 2, None, 1, uniform, weights_of(y.shape))[0], rtol=1e-5)


def test_vmap_over_keys_and_over_x():
    keys, x = jax.random.split(KEY, 3), jnp.abs(normal(0, 3, 1, 6, 6, 2, dtype="float32"))
    run = jax.jit(lambda key, x: stochastic_pool2d(key, x, 2))
    for key, one, y in zip(keys, x, jax.vmap(run)(keys, x), strict=True):
        np.testing.assert_array_equal(y, run(key, one))


@modes
def test_derivatives_against_differences(train):
    with jax.enable_x64(True):
        # Powers of two: the smallest step changes no draw.
        x = jnp.asarray(np.random.default_rng(0).permutation(2.0 ** np.arange(-4, 14)).reshape(1, 3, 3, 2))
        run = jax.jit(lambda x: stochastic_pool2d(KEY, x, 2, stride=1, train=train))
        check_grads(run, (x,), order=1, modes=["fwd", "rev"])


def test_checkpoint_and_scan():
    x, keys = normal(0, 1, 6, 6, 2, dtype="float32"), jax.random.split(KEY, 3)
    each = [keys[i] for i in range(3)]

    def layer(y, key):
        return jnp.exp(-stochastic_pool2d(key, y, 3, stride=1, padding="SAME"))

    def loop(x):
        for key in each:
            x = layer(x, key)
        return jnp.sum(x**2)

    def scanned(x):
        return jnp.sum(lax.scan(lambda y, key: (jax.checkpoint(layer)(y, key), None), x, keys)[0] ** 2)

    np.testing.assert_allclose(jax.jit(jax.grad(scanned))(x), jax.jit(jax.grad(loop))(x), rtol=1e-5, atol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(key, x):
        return stochastic_pool2d(key, x, 2) + stochastic_pool2d(None, x, 2, train=False)

    for seed in range(3):
        run(jax.random.key(seed), normal(seed, 1, 4, 4, 1, dtype="float32"))


# NaN, infinity, dtypes and odd sizes.


@modes
@pytest.mark.parametrize("place", range(4))
def test_nan_and_infinity(train, place):
    others = [1.0, jnp.inf, -1.0]
    x = picture(*others[:place], jnp.nan, *others[place:])
    assert jnp.isnan(pool(KEY, x, 2, train=train)).all()
    x = picture(*[2.0] * place, jnp.inf, *[-jnp.inf, 0.0, 1.0][place:])
    assert pool(KEY, x, 2, train=train).item() == jnp.inf


@modes
def test_large_and_small_numbers(train):
    x = picture(3e38, 3e38, 1e30, 1e30, 1e38, 0, 2e-37, 2e-37)
    np.testing.assert_allclose(pool(KEY, x, (1, 2), train=train).ravel(), [3e38, 1e30, 1e38, 2e-37], rtol=1e-6)


@modes
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(train, dtype):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 99, (1, 12, 12, 3)), dtype)
    y = pool(KEY, x, 6, train=train)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, pool(KEY, x.astype("float32"), 6, train=train).astype(dtype))


@modes
@pytest.mark.parametrize("shape", [(0, 4, 4, 2), (1, 4, 4, 2), (2, 4, 4, 0)])
def test_odd_shapes(train, shape):
    y, (gradient,) = value_and_grads(lambda x: stochastic_pool2d(KEY, x, 2, train=train), jnp.ones(shape))
    assert y.shape == (shape[0], 2, 2, shape[-1])
    assert gradient.shape == shape


# Errors.


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        (
            (None, jnp.ones((1, 4, 4, 1)), 2),
            {},
            ValueError,
            "key must be a JAX PRNG key in training, got None. Give one, or train=False.",
        ),
        (
            (KEY, jnp.ones((1, 4, 4, 1)), 5),
            {},
            ValueError,
            "window (5, 5) does not fit the padded input (4, 4) along H. Pad, or use a smaller window.",
        ),
        (
            (KEY, jnp.ones((1, 4, 4, 1)), 2),
            {"padding": "reflect"},
            ValueError,
            "padding must be amounts or one of SAME, SAME_LOWER, VALID, got 'reflect'.",
        ),
        (
            (KEY, jnp.ones((4, 4, 1)), 2),
            {},
            ValueError,
            "x must be (N, H, W, C), got shape (4, 4, 1). Add a batch axis with x[None].",
        ),
        (
            (KEY, jnp.ones((1, 4, 4, 1), "int32"), 2),
            {},
            TypeError,
            "x must be floating point, got int32. Cast it with x.astype('float32').",
        ),
        (
            (KEY, jnp.ones((1, 4, 4, 1), "complex64"), 2),
            {"train": False},
            TypeError,
            "x must be floating point, got complex64. Take its real and imaginary parts.",
        ),
        ((KEY, jnp.ones((1, 4, 4, 1)), 2), {"stride": 0}, ValueError, "stride must be at least 1, got 0."),
    ],
)
def test_errors(args, options, error, message):
    with pytest.raises(error) as caught:
        stochastic_pool2d(*args, **options)
    assert str(caught.value) == f"stochastic_pool2d: {message}"
