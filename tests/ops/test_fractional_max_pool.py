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

from cnnjax.ops import fractional_max_pool2d, fractional_max_pool2d_with_indices

KEY = jax.random.key(0)
# Compiled once for all draws: the ways to call it have tests of their own.
pool = jax.jit(fractional_max_pool2d, static_argnames=("window", "output_size", "output_ratio"))


def uniform(seed, *shape):
    return np.random.default_rng(seed).random(shape)


def both(samples, window, **options):
    """The maxima, and then both maxima and indices: one compilation for all of them."""

    def pools(x):
        y, indices = fractional_max_pool2d_with_indices(None, x, window, samples=jnp.asarray(samples), **options)
        plain = fractional_max_pool2d(None, x, window, samples=jnp.asarray(samples), **options)
        return jnp.stack([plain, y, indices.astype(y.dtype)])

    return pools


def torch_both(samples, window, **options):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")

    def pools(x):
        y, indices = torch.nn.functional.fractional_max_pool2d(
            first(x), window, return_indices=True, _random_samples=torch.tensor(samples), **options
        )
        return torch.stack([last(y), last(y), last(indices).to(x.dtype)])

    return pools


def starts(u, n, k, out):
    """Graham's sequence as PyTorch computes it, in the precision of u."""
    if out == 1:
        return [n - k]
    kind = type(u)
    alpha = kind(n - k) / kind(out - 1)
    return [int((kind(i) + u) * alpha) - int(u * alpha) for i in range(out - 1)] + [n - k]


def loops(x, samples, window, sizes, weights):
    """What `both` gives, and the gradient of its weighted sum: one window at a time."""
    (batch, height, width, channels), (kh, kw) = x.shape, window
    y, gradient = np.zeros((3, batch, *sizes, channels)), np.zeros(x.shape)
    for n, c in np.ndindex(batch, channels):
        rows = starts(samples[n, c, 1], height, kh, sizes[0])
        columns = starts(samples[n, c, 0], width, kw, sizes[1])
        for i, j in np.ndindex(*sizes):
            block = x[n, rows[i] : rows[i] + kh, columns[j] : columns[j] + kw, c]
            down, right = np.unravel_index(block.argmax(), block.shape)
            best = rows[i] + int(down), columns[j] + int(right)
            y[:, n, i, j, c] = block.max(), block.max(), best[0] * width + best[1]
            gradient[n, best[0], best[1], c] += weights[0, n, i, j, c] + weights[1, n, i, j, c]
    return y, gradient


# Known values.


def test_picture_by_hand():
    """(5 - 2) / (3 - 1) = 1.5 a step: from 0.2 columns start at 0, 1, 3, from 0.6 rows at 0, 2, 3."""
    x = jnp.arange(25.0).reshape(1, 5, 5, 1)
    samples = jnp.array([[[0.2, 0.6]]])
    y, indices = fractional_max_pool2d_with_indices(None, x, 2, output_size=3, samples=samples)
    np.testing.assert_array_equal(y[0, :, :, 0], [[6, 7, 9], [16, 17, 19], [21, 22, 24]])
    np.testing.assert_array_equal(indices, y)
    assert indices.dtype == "int32"
    np.testing.assert_array_equal(fractional_max_pool2d(None, x, 2, output_ratio=0.6, samples=samples), y)
    np.testing.assert_array_equal(fractional_max_pool2d(None, x, 2, output_ratio=(0.7, 0.6), samples=samples), y)


def test_one_window_is_the_last():
    x = jnp.arange(12.0).reshape(1, 3, 4, 1)
    y = pool(KEY, -x, (2, 3), output_size=1)
    np.testing.assert_array_equal(y.ravel(), [-5])


def test_as_many_windows_as_fit():
    x = normal(0, 2, 5, 6, 3, dtype="float32")
    y = pool(KEY, x, (2, 3), output_size=4)
    expected = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 3, 1), (1, 1, 1, 1), "VALID")
    np.testing.assert_array_equal(y, expected)


def test_every_plane_has_windows_of_its_own():
    """Steps of one and two pixels, from the first to the last, in another order in every plane."""
    ramp = jnp.broadcast_to(jnp.arange(25.0)[:, None, None], (25, 25, 40))
    y = np.asarray(pool(KEY, jnp.stack([ramp, ramp]), 2, output_size=15))[:, :, 0]
    steps = np.diff(y, axis=1)
    assert set(np.unique(steps)) == {1, 2}
    assert (y[:, 0] == 1).all()
    assert (y[:, -1] == 24).all()
    assert len({tuple(plane) for picture in y for plane in picture.T}) > 10


def test_same_key_same_windows():
    x = normal(0, 1, 16, 16, 8, dtype="float32")
    y = pool(KEY, x, 2, output_ratio=0.7)
    assert y.shape == (1, 11, 11, 8)
    np.testing.assert_array_equal(y, pool(KEY, x, 2, output_ratio=0.7))
    np.testing.assert_array_equal(y, pool(jax.random.PRNGKey(0), x, 2, output_ratio=0.7))
    assert not (y == pool(jax.random.key(1), x, 2, output_ratio=0.7)).all()


# Against PyTorch and loops.


@pytest.mark.parametrize(
    ("shape", "window", "options"),
    [
        ((2, 9, 9, 3), 3, {"output_size": 2}),
        ((1, 9, 9, 3), (6, 6), {"output_size": (2, 3)}),
        ((2, 16, 11, 3), 2, {"output_size": (11, 7)}),
        ((2, 16, 11, 3), (3, 2), {"output_ratio": (0.7, 0.55)}),
        ((1, 4, 4, 1), 2, {"output_size": 3}),
        ((1, 6, 5, 2), (1, 4), {"output_size": (4, 1)}),
    ],
)
def test_against_torch(shape, window, options):
    x, samples = normal(0, *shape), uniform(1, shape[0], shape[-1], 2)
    ours = value_and_grads(both(samples, window, **options), x)
    assert_same(ours, torch_value_and_grads(torch_both(samples, window, **options), x), 1e-15)


def test_equals_and_nan_against_torch():
    rng = np.random.default_rng(0)
    x = rng.choice([np.nan, np.inf, -np.inf, 0.0, 1.0], (3, 9, 8, 4), p=[0.05, 0.05, 0.4, 0.2, 0.3])
    x[0] = -np.inf
    samples = uniform(1, 3, 4, 2)
    ours = value_and_grads(both(samples, 3, output_size=5), x)
    assert_same(ours, torch_value_and_grads(torch_both(samples, 3, output_size=5), x), 1e-15)


def test_windows_in_float32_against_torch():
    """Where (i + u) * alpha comes out at an integer but for rounding, the window moves with every bit."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    x = np.broadcast_to(np.arange(100, dtype="float32").reshape(1, 100, 1, 1), (1, 100, 100, 64))
    samples = (np.arange(128).reshape(1, 64, 2) / 128).astype("float32")
    for out in 34, 67:
        y = pool(None, jnp.asarray(x), 1, output_size=out, samples=jnp.asarray(samples))
        theirs = torch.nn.functional.fractional_max_pool2d(
            first(torch.tensor(x)), 1, output_size=out, _random_samples=torch.tensor(samples)
        )
        np.testing.assert_array_equal(y, last(theirs).numpy())


axes = st.integers(1, 9).flatmap(
    lambda n: st.integers(1, n).flatmap(lambda k: st.tuples(st.just(n), st.just(k), st.integers(1, n - k + 1)))
)


@drawn
@given(
    axes,
    axes,
    st.integers(0, 2),
    st.integers(1, 3),
    st.sampled_from(["float64", "float32", "bfloat16"]),
    st.integers(0, 99),
)
def test_any_configuration_against_loops(rows, columns, batch, channels, dtype, seed):
    (height, kh, down), (width, kw, right) = rows, columns
    # Integers, of which many are equal, and none is rounded.
    x = np.random.default_rng(seed).integers(-4, 5, (batch, height, width, channels)).astype(dtype)
    samples = uniform(seed, batch, channels, 2).astype("float64" if dtype == "float64" else "float32")
    values, (to_x,) = value_and_grads(both(samples, (kh, kw), output_size=(down, right)), x)
    assert values.dtype == to_x.dtype == dtype
    weights = weights_of(values.shape).astype(dtype).astype("float64")
    y, gradient = loops(x.astype("float64"), samples, (kh, kw), (down, right), weights)
    close("fractional_max_pool", values, y, 0)
    close("fractional_max_pool", to_x, gradient, {"float64": 1e-14, "float32": 1e-6, "bfloat16": 3e-2}[dtype])


# Transformations.


@ways
def test_every_way(way):
    x, samples = normal(0, 2, 7, 6, 2, dtype="float32"), uniform(1, 2, 2, 2).astype("float32")
    y = way(both(samples, 2, output_size=(5, 3)))(x)
    np.testing.assert_array_equal(y, loops(x, samples, (2, 2), (5, 3), weights_of(y.shape))[0])


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_vmap_over_keys_and_over_x(axes):
    keys, x = jax.random.split(KEY, 3), jnp.asarray(normal(0, 3, 1, 7, 7, 2, dtype="float32"))
    args = [arg if axis == 0 else arg[0] for arg, axis in zip((keys, x), axes, strict=True)]

    def run(key, x):
        return fractional_max_pool2d(key, x, 2, output_size=5)

    y = jax.jit(jax.vmap(run, axes))(*args)
    for i in range(3):
        one = jax.jit(run)(*(arg[i] if axis == 0 else arg for arg, axis in zip(args, axes, strict=True)))
        np.testing.assert_array_equal(y[i], one)


def test_derivatives_against_differences():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).permutation(72).reshape(1, 6, 6, 2) * 0.1)
        run = jax.jit(lambda x: fractional_max_pool2d(KEY, x, 2, output_size=4))
        check_grads(run, (x,), order=1, modes=["fwd", "rev"])


def test_checkpoint_and_scan():
    x, keys = normal(0, 1, 6, 6, 2, dtype="float32"), jax.random.split(KEY, 3)
    each = [keys[i] for i in range(3)]

    def layer(y, key):
        return jnp.tanh(jnp.pad(fractional_max_pool2d(key, y, 2, output_size=4), [(0, 0), (1, 1), (1, 1), (0, 0)]))

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
        return fractional_max_pool2d(key, x, 2, output_ratio=0.5)

    for seed in range(3):
        run(jax.random.key(seed), normal(seed, 1, 5, 5, 1, dtype="float32"))


# Dtypes and odd sizes.


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "float16"])
def test_other_dtypes(dtype):
    values = np.arange(36).reshape(1, 6, 6, 1) * 7 % 36
    samples = uniform(0, 1, 1, 2).astype("float32")
    y, indices = fractional_max_pool2d_with_indices(
        None, jnp.asarray(values, dtype), 3, output_size=3, samples=jnp.asarray(samples)
    )
    assert y.dtype == dtype
    expected, _ = loops(values, samples, (3, 3), (3, 3), weights_of((3, 1, 3, 3, 1)))
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_array_equal(indices, expected[2])


@pytest.mark.parametrize("shape", [(0, 5, 5, 2), (2, 5, 5, 0)])
def test_batch_of_none_and_no_channels(shape):
    y, (gradient,) = value_and_grads(lambda x: fractional_max_pool2d(KEY, x, 2, output_size=3), jnp.ones(shape))
    assert y.shape == (shape[0], 3, 3, shape[-1])
    assert gradient.shape == shape


def test_batch_of_one_is_one_of_many():
    x, samples = normal(0, 3, 6, 5, 2, dtype="float32"), jnp.asarray(uniform(1, 3, 2, 2))
    run = jax.jit(lambda x, samples: fractional_max_pool2d(None, x, 2, output_size=3, samples=samples))
    np.testing.assert_array_equal(run(x, samples)[1:2], run(x[1:2], samples[1:2]))


# Errors.


X = jnp.ones((2, 7, 5, 3))


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((KEY, X, 2), {}, ValueError, "either output_size or output_ratio must be given, got None and None."),
        (
            (KEY, X, 2),
            {"output_size": 2, "output_ratio": 0.5},
            ValueError,
            "either output_size or output_ratio must be given, got 2 and 0.5.",
        ),
        (
            (KEY, X, 3),
            {"output_size": 4},
            ValueError,
            "window (3, 3) has from 1 to 3 places along W of the input (7, 5), got an output of (4, 4).",
        ),
        (
            (KEY, X, (8, 1)),
            {"output_size": 1},
            ValueError,
            "window (8, 1) does not fit the padded input (7, 5) along H. Pad, or use a smaller window.",
        ),
        (
            (KEY, X, 2),
            {"output_ratio": 0.1},
            ValueError,
            "window (2, 2) has from 1 to 6 places along H of the input (7, 5), got an output of (0, 0).",
        ),
        ((KEY, X, 2), {"output_ratio": 1.0}, ValueError, "output_ratio must be one or two numbers in (0, 1), got 1.0."),
        (
            (KEY, X, 2),
            {"output_ratio": (0.5,)},
            ValueError,
            "output_ratio must be one or two numbers in (0, 1), got (0.5,).",
        ),
        ((KEY, X, 2), {"output_size": 0}, ValueError, "output_size must be at least 1, got 0."),
        (
            (KEY, X, (2, 2, 2)),
            {"output_size": 2},
            ValueError,
            "window takes one value an axis (2), got (2, 2, 2). Give an int for all axes.",
        ),
        (
            (None, X, 2),
            {"output_size": 2},
            ValueError,
            "key must be a JAX PRNG key where there are no samples, got None. Give either.",
        ),
        (
            (None, X, 2),
            {"output_size": 2, "samples": jnp.ones((2, 2, 3))},
            ValueError,
            "samples must be (N, C, 2), (2, 3, 2) for x (2, 7, 5, 3), got shape (2, 2, 3).",
        ),
        (
            (None, X, 2),
            {"output_size": 2, "samples": jnp.ones((2, 3, 2), "int32")},
            TypeError,
            "samples must be floating point, got int32. Cast it with samples.astype('float32').",
        ),
        (
            (KEY, X[0], 2),
            {"output_size": 2},
            ValueError,
            "x must be (N, H, W, C), got shape (7, 5, 3). Add a batch axis with x[None].",
        ),
        ((KEY, X > 0, 2), {"output_size": 2}, TypeError, "x must be floating point or integer, got bool, which"),
    ],
)
@pytest.mark.parametrize("op", [fractional_max_pool2d, fractional_max_pool2d_with_indices])
def test_errors(op, args, options, error, message):
    with pytest.raises(error) as caught:
        op(*args, **options)
    assert str(caught.value).startswith(f"{op.__name__}: {message}")
