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

from cnnjax.ops import spatial_pyramid_pool2d

methods = pytest.mark.parametrize("method", ["max", "avg"])


def loops(x, levels, method, weights=None):
    """The vectors; with `weights`, the gradient of their weighted sum: one cell at a time."""
    batch, height, width, channels = x.shape
    cells = []
    for level in levels:
        rows, columns = (level, level) if isinstance(level, int) else level
        for i, j in np.ndindex(rows, columns):
            down = slice(i * height // rows, -(-(i + 1) * height // rows))
            right = slice(j * width // columns, -(-(j + 1) * width // columns))
            cells.append((slice(None), down, right))
    if weights is None:
        reduced = [x[cell].max((1, 2)) if method == "max" else x[cell].mean((1, 2)) for cell in cells]
        return np.concatenate(reduced, axis=1) if batch else np.zeros((0, len(cells) * channels))
    gradient = np.zeros(x.shape)
    for number, cell in enumerate(cells):
        for n, c in np.ndindex(batch, channels):
            block, to_block = x[cell][n, :, :, c], gradient[cell][n, :, :, c]
            weight = weights[n, number * channels + c]
            if method == "avg":
                to_block += weight / block.size
            else:
                to_block[np.unravel_index(block.argmax(), block.shape)] += weight
    return gradient


def test_picture_by_hand():
    x = jnp.arange(30.0).reshape(1, 3, 5, 2)
    y = spatial_pyramid_pool2d(x, (1, (1, 2), 2))
    np.testing.assert_array_equal(y, [[28, 29, 24, 25, 28, 29, 14, 15, 18, 19, 24, 25, 28, 29]])
    y = spatial_pyramid_pool2d(x[..., ::2], [(2, 1), 1], method="avg")
    np.testing.assert_array_equal(y, [[9, 19, 14]])


@pytest.mark.parametrize("bins", [1, 2, 3])
def test_windows_of_the_paper(bins):
    """Section 2.3: 13 pixels, windows ceil(13 / bins) at stride floor(13 / bins)."""
    x = normal(0, 1, 13, 13, 2, dtype="float32")
    window, stride = (1, *(-(-13 // bins),) * 2, 1), (1, *(13 // bins,) * 2, 1)
    expected = lax.reduce_window(x, -jnp.inf, lax.max, window, stride, "VALID")
    np.testing.assert_array_equal(spatial_pyramid_pool2d(x, [bins]), expected.reshape(1, -1))


@methods
def test_against_torch(method):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    pool = getattr(torch.nn.functional, f"adaptive_{method}_pool2d")
    levels, x = [1, (2, 3), 4, (1, 9)], normal(0, 2, 7, 6, 3)
    ours = value_and_grads(lambda x: spatial_pyramid_pool2d(x, levels, method=method), x)
    theirs = torch_value_and_grads(
        lambda x: torch.cat([last(pool(first(x), level)).flatten(1) for level in levels], 1), x
    )
    assert_same(ours, theirs, 1e-14)


@drawn
@given(
    st.tuples(st.integers(0, 2), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3)),
    st.lists(st.integers(1, 4) | st.tuples(st.integers(1, 4), st.integers(1, 8)), min_size=1, max_size=3),
    st.sampled_from(["max", "avg"]),
    st.sampled_from(["float64", "float32", "bfloat16"]),
    st.integers(0, 99),
)
def test_any_configuration_against_loops(shape, levels, method, dtype, seed):
    # Integers, of which many are equal, and none is rounded.
    x = np.random.default_rng(seed).integers(-8, 9, shape).astype(dtype)
    y, (to_x,) = value_and_grads(lambda x: spatial_pyramid_pool2d(x, levels, method=method), x)
    assert y.dtype == to_x.dtype == dtype
    wide = x.astype("float64")
    tolerance = {"float64": 1e-13, "float32": 1e-5, "bfloat16": 3e-2}[dtype]
    close("spatial_pyramid_pool", y, loops(wide, levels, method), tolerance)
    weights = weights_of(y.shape).astype(dtype).astype("float64")
    close("spatial_pyramid_pool", to_x, loops(wide, levels, method, weights), tolerance)


# Transformations.


@ways
@methods
def test_every_way(way, method):
    x = normal(0, 2, 5, 6, 2, dtype="float32")
    y = way(lambda x: spatial_pyramid_pool2d(x, (1, 2), method=method))(x)
    np.testing.assert_allclose(y, loops(x, (1, 2), method), rtol=1e-5, atol=1e-6)


@methods
def test_derivatives_against_differences(method):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).permutation(40).reshape(1, 4, 5, 2) * 0.1)
        run = jax.jit(lambda x: spatial_pyramid_pool2d(x, (1, 3), method=method))
        check_grads(run, (x,), order=1, modes=["fwd", "rev"])


def test_checkpoint_and_scan():
    x = normal(0, 3, 1, 5, 5, 2, dtype="float32")

    def pool(x):
        return spatial_pyramid_pool2d(x, (2, 3))

    def scanned(x):
        return jnp.sum(lax.scan(lambda _, x: (None, jax.checkpoint(pool)(x)), None, x)[1] ** 2)

    expected = jax.jit(jax.grad(lambda x: jnp.sum(pool(x[:, 0]) ** 2)))(x)
    np.testing.assert_allclose(jax.jit(jax.grad(scanned))(x), expected, rtol=1e-5, atol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x):
        return spatial_pyramid_pool2d(x, (1, 2))

    for seed in range(3):
        run(normal(seed, 1, 4, 5, 1, dtype="float32"))


# NaN, dtypes and odd sizes.


@methods
def test_nan_stays_in_its_cells(method):
    x = jnp.ones((1, 4, 4, 2)).at[0, 0, 3, 1].set(jnp.nan)
    y = spatial_pyramid_pool2d(x, (1, 2), method=method)
    np.testing.assert_array_equal(jnp.isnan(y)[0], [False, True, False, False, False, True, False, False, False, False])


def test_maxima_of_integers():
    y = spatial_pyramid_pool2d(jnp.arange(12, dtype="int8").reshape(1, 4, 3, 1), [2])
    assert y.dtype == "int8"
    np.testing.assert_array_equal(y, [[4, 5, 10, 11]])


@methods
@pytest.mark.parametrize("shape", [(0, 4, 5, 2), (2, 4, 5, 0)])
def test_batch_of_none_and_no_channels(method, shape):
    y, (gradient,) = value_and_grads(lambda x: spatial_pyramid_pool2d(x, (1, 3), method=method), jnp.ones(shape))
    assert y.shape == (shape[0], 10 * shape[-1])
    assert gradient.shape == shape


# Errors.


X = jnp.ones((1, 4, 4, 1))


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((X, (1, 2)), {"method": "sum"}, ValueError, "method must be one of max, avg, got 'sum'."),
        ((X, ()), {}, ValueError, "levels must be a sequence of at least one grid, got (). 1, 2, 4 is usual."),
        ((X, 4), {}, ValueError, "levels must be a sequence of at least one grid, got 4. 1, 2, 4 is usual."),
        ((X, (1, 0)), {}, ValueError, "each of levels must be at least 1, got 0."),
        ((X, (1, None)), {}, TypeError, "each of levels must be an int or 2 ints, got None."),
        (
            (X, (1, (2, 2, 2))),
            {},
            ValueError,
            "each of levels takes one value an axis (2), got (2, 2, 2). Give an int for all axes.",
        ),
        (
            (X[0], (1, 2)),
            {},
            ValueError,
            "x must be (N, H, W, C), got shape (4, 4, 1). Add a batch axis with x[None].",
        ),
        (
            (X[:, :0], (1, 2)),
            {},
            ValueError,
            "x must have pixels, got shape (1, 0, 4, 1). Only the batch axis may be empty.",
        ),
        (
            (X.astype("int32"), (1, 2)),
            {"method": "avg"},
            TypeError,
            "x must be floating point, got int32. Cast it with x.astype('float32').",
        ),
        ((X > 0, (1, 2)), {}, TypeError, "x must be floating point or integer, got bool, which has no order."),
    ],
)
def test_errors(args, options, error, message):
    with pytest.raises(error) as caught:
        spatial_pyramid_pool2d(*args, **options)
    assert str(caught.value) == f"spatial_pyramid_pool2d: {message}"
