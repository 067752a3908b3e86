import math

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

from cnnjax.ops import blur_pool2d
from cnnjax.ops.shapes import conv_output_size

PASCAL = {1: [1], 2: [1, 1], 3: [1, 2, 1], 4: [1, 3, 3, 1], 5: [1, 4, 6, 4, 1], 6: [1, 5, 10, 10, 5, 1]}
PASCAL[7] = [1, 6, 15, 20, 15, 6, 1]


def binomial(window):
    """The filter of the author's code: an outer product over its sum."""
    kernel = np.multiply.outer(*(np.array(PASCAL[k], "float64") for k in reference.each_axis(window, 2)))
    return kernel / kernel.sum()


def loops(x, window=3, stride=2, padding="REFLECT"):
    channels = x.shape[-1]
    kernel = np.broadcast_to(binomial(window)[:, :, None, None], (*reference.each_axis(window, 2), 1, channels))
    return reference.conv(x, kernel, stride=stride, padding=padding, groups=channels)


# Known values.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [8, 12]),
        ({"stride": 1}, [8, 8, 12, 16]),
        ({"window": 1}, [0, 0]),
        ({"window": (1, 2)}, [8, 16]),
        ({"window": (1, 4)}, [8, 14]),
        ({"padding": "REPLICATE"}, [4, 12]),
        ({"padding": "circular"}, [12, 12]),
        ({"padding": 1}, [4, 12]),
        ({"padding": "SAME"}, [8, 16]),
        ({"padding": "VALID", "window": (1, 3)}, [8]),
    ],
)
def test_row_by_hand(options, expected):
    """Rows are all the same: in the middle, away from zeros above and below, only columns matter."""
    x = jnp.broadcast_to(jnp.array([0.0, 16.0, 0.0, 32.0])[:, None], (1, 5, 4, 1))
    y = blur_pool2d(x, **options)
    np.testing.assert_array_equal(y[0, y.shape[1] // 2, :, 0], expected)


def test_picture_by_hand():
    x = jnp.zeros((1, 5, 5, 2)).at[0, 2, 2].set(jnp.array([16.0, 64.0]))
    y = blur_pool2d(x)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 0, 0], [0, 4, 0], [0, 0, 0]])
    # Reflected, the outermost windows of 5 see the pixel twice.
    np.testing.assert_array_equal(blur_pool2d(x, window=5)[0, :, :, 1], [[1, 3, 1], [3, 9, 3], [1, 3, 1]])


@pytest.mark.parametrize("window", range(1, 8))
def test_impulse_gives_the_filter(window):
    x = jnp.zeros((1, 15, 15, 1)).at[0, 7, 7, 0].set(1)
    y = np.asarray(blur_pool2d(x, window=window, stride=1))[0, :, :, 0]
    low = window // 2
    np.testing.assert_allclose(y[7 - low : 7 - low + window, 7 - low : 7 - low + window], binomial(window), rtol=1e-6)
    assert y.sum() == pytest.approx(1)


@pytest.mark.parametrize("padding", ["REFLECT", "REPLICATE", "CIRCULAR"])
def test_constants_stay(padding):
    y = blur_pool2d(jnp.full((1, 6, 7, 2), 3.0), window=4, padding=padding)
    np.testing.assert_array_equal(y, jnp.full((1, 3, 4, 2), 3.0))


def test_the_finest_grating_is_gone():
    """What a plain stride of 2 takes for a constant."""
    x = jnp.broadcast_to((-1.0) ** jnp.arange(8)[:, None], (1, 8, 8, 1))
    np.testing.assert_array_equal(x[:, ::2, ::2], jnp.ones((1, 4, 4, 1)))
    np.testing.assert_array_equal(blur_pool2d(x), jnp.zeros((1, 4, 4, 1)))


# Against PyTorch and loops.


@pytest.mark.parametrize(
    ("window", "stride", "mode"),
    [
        (1, 2, "reflect"),
        (2, 2, "reflect"),
        (3, 2, "reflect"),
        (4, 2, "reflect"),
        (5, 1, "replicate"),
        (6, 3, "reflect"),
        (7, 2, "reflect"),
        (4, 2, "constant"),
        (4, 2, "circular"),
    ],
)
def test_against_torch(window, stride, mode):
    """The author's code: pad, then convolve every channel with the filter."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    x, low, high = normal(0, 2, 7, 6, 3), (window - 1) // 2, math.ceil((window - 1) / 2)
    kernel = torch.tensor(binomial(window)).expand(3, 1, window, window)
    padding = ((low, high), (low, high)) if mode == "constant" else mode

    def theirs(x):
        padded = torch.nn.functional.pad(first(x), (low, high, low, high), mode=mode)
        return last(torch.nn.functional.conv2d(padded, kernel, stride=stride, groups=3))

    ours = value_and_grads(lambda x: blur_pool2d(x, window=window, stride=stride, padding=padding), x)
    assert_same(ours, torch_value_and_grads(theirs, x), 1e-13)


@st.composite
def configurations(draw):
    window, stride = draw(st.tuples(*[st.integers(1, 7)] * 2)), draw(st.tuples(*[st.integers(1, 3)] * 2))
    mode = draw(st.sampled_from(["REFLECT", "REPLICATE", "CIRCULAR", "SAME", "SAME_LOWER", "VALID", "amounts"]))
    pairs = [tuple(draw(st.integers(0, 3)) for _ in range(2)) for _ in window]
    smallest = {
        "REFLECT": [k // 2 + 1 for k in window],
        "VALID": window,
        "amounts": [k - sum(pair) for k, pair in zip(window, pairs, strict=True)],
    }.get(mode, [1, 1])
    spatial = [draw(st.integers(max(n, 1), 9)) for n in smallest]
    shape = draw(st.integers(0, 2)), *spatial, draw(st.integers(1, 3))
    options = {"window": window, "stride": stride, "padding": pairs if mode == "amounts" else mode}
    return shape, options, draw(st.sampled_from(["float64", "float32", "bfloat16"]))


@drawn
@given(configurations(), st.integers(0, 99))
def test_any_configuration_against_loops(configuration, seed):
    shape, options, dtype = configuration
    rng = np.random.default_rng(seed)
    x, direction = rng.normal(size=shape).astype(dtype), rng.normal(size=shape)
    y, (to_x,) = value_and_grads(lambda x: blur_pool2d(x, **options), x)
    assert y.dtype == to_x.dtype == dtype
    margin = reference.pairs(shape[1:-1], options["window"], options["padding"], options["stride"], 1)
    sizes = [
        conv_output_size(n, k, stride=s, padding=pair)
        for n, k, s, pair in zip(shape[1:-1], options["window"], options["stride"], margin, strict=True)
    ]
    assert y.shape == (shape[0], *sizes, shape[-1])
    tolerance = {"float64": 1e-13, "float32": 1e-5, "bfloat16": 2e-2}[dtype]
    close("blur_pool", y, loops(x.astype("float64"), **options), tolerance)
    # Linear: the gradient along any direction is the output of that direction.
    along = np.vdot(weights_of(y.shape).astype(dtype).astype("float64"), loops(direction, **options))
    close("blur_pool", np.vdot(to_x.astype("float64"), direction), along, 10 * tolerance)


# Transformations.


@ways
def test_every_way(way):
    x = normal(0, 2, 6, 5, 2, dtype="float32")
    y = way(lambda x: blur_pool2d(x, window=4))(x)
    np.testing.assert_allclose(y, loops(x.astype("float64"), window=4), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding", ["REFLECT", "SAME"])
def test_derivatives_against_differences(padding):
    with jax.enable_x64(True):
        x = jnp.asarray(normal(0, 1, 4, 5, 2))
        check_grads(jax.jit(lambda x: blur_pool2d(x, padding=padding)), (x,), order=1, modes=["fwd", "rev"])


def test_checkpoint_and_scan():
    x = normal(0, 1, 6, 6, 2, dtype="float32")

    def layer(y):
        return jnp.tanh(blur_pool2d(y, stride=1))

    def scanned(x):
        return jnp.sum(lax.scan(lambda y, _: (jax.checkpoint(layer)(y), None), x, length=3)[0] ** 2)

    expected = jax.jit(jax.grad(lambda x: jnp.sum(layer(layer(layer(x))) ** 2)))(x)
    np.testing.assert_allclose(jax.jit(jax.grad(scanned))(x), expected, rtol=1e-5, atol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x):
        return blur_pool2d(x)

    for seed in range(3):
        run(normal(seed, 1, 4, 5, 1, dtype="float32"))


# NaN, dtypes and odd sizes.


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_nan_and_infinity_stay_in_their_windows(value):
    y = blur_pool2d(jnp.zeros((1, 7, 7, 2)).at[0, 3, 2, 1].set(value))
    expected = np.zeros((1, 4, 4, 2))
    expected[0, 1:3, 1, 1] = value
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(dtype):
    x = jnp.asarray(normal(0, 1, 9, 9, 2), dtype)
    np.testing.assert_array_equal(blur_pool2d(x, window=7), blur_pool2d(x.astype("float32"), window=7).astype(dtype))


def test_complex_numbers():
    x = normal(0, 1, 5, 5, 2, dtype="float32") + 1j * normal(1, 1, 5, 5, 2, dtype="float32")
    y = blur_pool2d(x)
    np.testing.assert_allclose(y.real, blur_pool2d(x.real), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y.imag, blur_pool2d(x.imag), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding", ["REFLECT", "SAME"])
@pytest.mark.parametrize("shape", [(0, 4, 4, 2), (2, 4, 4, 0)])
def test_batch_of_none_and_no_channels(padding, shape):
    y, (gradient,) = value_and_grads(lambda x: blur_pool2d(x, padding=padding), jnp.ones(shape))
    assert y.shape == (shape[0], 2, 2, shape[-1])
    assert gradient.shape == shape


@pytest.mark.parametrize("padding", ["REPLICATE", "CIRCULAR"])
def test_filled_padding_of_more_than_the_input(padding):
    x = normal(0, 1, 1, 2, 3, dtype="float32")
    y = blur_pool2d(x, window=7, padding=padding)
    np.testing.assert_allclose(y, loops(x.astype("float64"), window=7, padding=padding), rtol=1e-5)


# Errors.


X = jnp.ones((1, 4, 7, 3))


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (
            X,
            {"window": 5, "padding": "VALID"},
            ValueError,
            "window (5, 5) does not fit the padded input (4, 7) along H. Pad, or use a smaller window.",
        ),
        (
            X[:, :1],
            {},
            ValueError,
            "REFLECT must add fewer pixels than there are, got 1 for 1 along H. Use REPLICATE, or a smaller window.",
        ),
        (X, {"window": 0}, ValueError, "window must be at least 1, got 0."),
        (X, {"stride": (1, 0)}, ValueError, "stride must be at least 1, got (1, 0)."),
        (X, {"window": 3.0}, TypeError, "window must be an int or 2 ints, got 3.0."),
        (
            X,
            {"padding": "CAUSAL"},
            ValueError,
            "padding must be amounts or one of SAME, SAME_LOWER, VALID, CIRCULAR, REFLECT, REPLICATE, got 'CAUSAL'.",
        ),
        (X, {"padding": -1}, ValueError, "padding must be at least 0, got -1."),
        (X[0], {}, ValueError, "x must be (N, H, W, C), got shape (4, 7, 3). Add a batch axis with x[None]."),
        (
            X.astype("int32"),
            {},
            TypeError,
            "x must be floating point, got int32. Cast it with x.astype('float32').",
        ),
    ],
)
def test_errors(x, options, error, message):
    with pytest.raises(error) as caught:
        blur_pool2d(x, **options)
    assert str(caught.value) == f"blur_pool2d: {message}"
