import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from comparison import close, drawn
from derivatives import check_derivatives
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from ops_helpers import assert_same, normal, torch_value_and_grads, value_and_grads, ways, weights_of

from cnnjax.ops import layer_norm, rms_norm

both = pytest.mark.parametrize("norm", [layer_norm, rms_norm], ids=["layer_norm", "rms_norm"])


def reference(x, axes, scale=None, bias=None, *, eps=1e-6, weights, centre=True):
    """The value and the gradients of its weighted sum, one normalised set at a time."""
    axes = tuple(axis % x.ndim for axis in axes)
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    sizes = [x.shape[axis] for axis in sorted(axes)]
    factor = np.ones(sizes) if scale is None else scale
    y, to_x = np.zeros_like(x), np.zeros_like(x)
    to_scale, to_bias = np.zeros(sizes), np.zeros(sizes)
    for place in np.ndindex(*(x.shape[axis] for axis in kept)):
        at: list = [slice(None)] * x.ndim
        for axis, i in zip(kept, place, strict=True):
            at[axis] = i
        values, w = x[tuple(at)], weights[tuple(at)]
        m = np.mean(values) if centre else 0.0
        root = np.sqrt(np.mean((values - m) ** 2) + eps)
        z, g = (values - m) / root, w * factor
        y[tuple(at)] = z * factor + (0 if bias is None else bias)
        to_x[tuple(at)] = (g - (np.mean(g) if centre else 0) - z * np.mean(g * z)) / root
        to_scale += w * z
        to_bias += w
    return y, [to_x, *([] if scale is None else [to_scale]), *([] if bias is None else [to_bias])]


# Known values.


@pytest.mark.parametrize("run", [lambda function: function, jax.jit], ids=["eager", "jit"])
def test_large_mean_by_hand(run):
    y = run(layer_norm)(jnp.array([[1e4, 1e4 + 1, 1e4 + 2], [-1e4, -1e4, 3 - 1e4]]))
    root = np.sqrt(1.5)
    np.testing.assert_allclose(y, [[-root, 0, root], [-np.sqrt(0.5), -np.sqrt(0.5), np.sqrt(2)]], atol=1e-5)


def test_scale_and_bias_by_hand():
    y = layer_norm(jnp.array([[1.0, 3.0], [30.0, 10.0]]), jnp.array([1.0, 2.0]), jnp.array([0.0, 5.0]), eps=0)
    np.testing.assert_allclose(y, [[-1, 7], [1, 3]], rtol=1e-6)


def test_eps_by_hand():
    """Variance 1 and eps 3; mean square 16 and eps 9."""
    np.testing.assert_allclose(layer_norm(jnp.array([4.0, 6.0]), eps=3), [-0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(rms_norm(jnp.array([4.0, -4.0]), eps=9), [0.8, -0.8], rtol=1e-6)


def test_axes_by_hand():
    x = jnp.array([[1.0, 10.0], [3.0, 50.0]])
    np.testing.assert_allclose(layer_norm(x, axis=0), [[-1, -1], [1, 1]], rtol=1e-5)
    y = rms_norm(x.T, axis=0, eps=0)
    np.testing.assert_allclose(y**2, [[2 / 101, 18 / 2509], [200 / 101, 5000 / 2509]], rtol=1e-6)


def test_mean_square_by_hand():
    y = rms_norm(jnp.array([[3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 2.0]]), jnp.array([1.0, 2.0, 3.0, 4.0]), eps=0)
    np.testing.assert_allclose(y, [[1, 2, 3, 4], [0, 0, 0, 8]], rtol=1e-6)


# Against loops and libraries.


@st.composite
def configurations(draw):
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=len(shape), unique=True))
    axes = tuple(axis - len(shape) if draw(st.booleans()) else axis for axis in axes)
    return {
        "shape": shape,
        "axes": axes,
        "centre": draw(st.booleans()),
        "with_scale": draw(st.booleans()),
        "with_bias": draw(st.booleans()),
        "eps": draw(st.sampled_from([1e-6, 1e-3, 0.5])),
        "dtype": draw(st.sampled_from(["float64", "float32", "bfloat16"])),
        "seed": draw(st.integers(0, 2**16)),
    }


@drawn
@given(configurations())
def test_random_configurations_against_loops(case):
    """The values of x are distinct quarters, which bfloat16 holds: what differs is the computation."""
    shape, axes, dtype, centre = case["shape"], case["axes"], case["dtype"], case["centre"]
    rng = np.random.default_rng(case["seed"])
    x = (rng.permutation(np.prod(shape, dtype=int)) / 4).reshape(shape).astype(dtype)
    sizes = [shape[axis] for axis in sorted(axis % len(shape) for axis in axes)]
    wanted = [case["with_scale"], case["with_bias"] and centre]
    vectors = [rng.normal(size=sizes).astype(dtype) if one else None for one in wanted]
    given_vectors = [vector for vector in vectors if vector is not None]
    options = {"axis": axes if len(axes) > 1 or rng.random() < 0.5 else axes[0], "eps": case["eps"]}

    def norm(x, *given_vectors):
        rest = iter(given_vectors)
        scale, bias = (next(rest) if one else None for one in wanted)
        return layer_norm(x, scale, bias, **options) if centre else rms_norm(x, scale, **options)

    y, grads = value_and_grads(norm, x, *given_vectors)
    assert [y.dtype, *(grad.dtype for grad in grads)] == [dtype] * (2 + len(given_vectors))
    wide = [None if vector is None else vector.astype("float64") for vector in vectors]
    weights = weights_of(shape).astype(dtype).astype("float64")
    value, expected = reference(x.astype("float64"), axes, *wide, eps=case["eps"], weights=weights, centre=centre)
    tolerance = {"float64": 1e-10, "float32": 1e-4, "bfloat16": 1e-2}[dtype]
    family = f"{'layer_norm' if centre else 'rms_norm'}, {dtype}"
    close(family, y, value, tolerance)
    for ours, theirs in zip(grads, expected, strict=True):
        close(family, ours, theirs, tolerance)


@pytest.mark.parametrize(
    ("shape", "normalised"), [((4,), 1), ((3, 4), 1), ((3, 4), 2), ((2, 3, 2, 4), 1), ((2, 3, 2, 4), 3), ((1, 1, 1), 2)]
)
def test_against_torch(shape, normalised):
    """Trailing axes, as torch has them; with and without scale and bias."""
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    sizes, axes = shape[-normalised:], tuple(range(-normalised, 0))

    def ours(x, scale, bias, factor):
        y = layer_norm(x, scale, bias, axis=axes, eps=1e-3) + layer_norm(x, scale, axis=axes, eps=1e-5)
        return y + rms_norm(x, factor, axis=axes, eps=0.5) + rms_norm(x, axis=axes)

    def theirs(x, scale, bias, factor):
        y = functional.layer_norm(x, sizes, scale, bias, 1e-3) + functional.layer_norm(x, sizes, scale)
        return y + functional.rms_norm(x, sizes, factor, 0.5) + functional.rms_norm(x, sizes, eps=1e-6)

    args = normal(0, *shape) * 3 + 5, *(normal(seed, *sizes) for seed in (1, 2, 3))
    assert_same(value_and_grads(ours, *args), torch_value_and_grads(theirs, *args))


def test_other_axes_against_torch():
    """Torch normalises trailing axes alone: move them there, and back."""
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    x, scale, bias = normal(0, 2, 3, 4, 5), normal(1, 3, 5), normal(2, 3, 5)

    def theirs(x, scale, bias):
        x = x.permute(0, 2, 1, 3)
        y = functional.layer_norm(x, (3, 5), scale, bias, 1e-6) + functional.rms_norm(x, (3, 5), scale, 1e-6)
        return y.permute(0, 2, 1, 3)

    def ours(x, scale, bias):
        return layer_norm(x, scale, bias, axis=(3, 1)) + rms_norm(x, scale, axis=(-3, -1))

    assert_same(value_and_grads(ours, x, scale, bias), torch_value_and_grads(theirs, x, scale, bias))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_the_eps_that_torch_takes_by_itself(dtype):
    """Small values, of which eps is most."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    x = normal(0, 3, 4) * (1e-8 if dtype == "float64" else 1e-4)
    theirs = torch.nn.functional.rms_norm(torch.tensor(x).to(getattr(torch, dtype)), (4,)).double().numpy()
    with jax.enable_x64(True):
        y = rms_norm(jnp.asarray(x, dtype), eps=float(jnp.finfo(jnp.promote_types(dtype, "float32")).eps))
    tolerance = {"float64": 1e-12, "float32": 1e-5}.get(dtype, 1e-2)
    np.testing.assert_allclose(np.asarray(y, "float64"), theirs, rtol=tolerance)


def test_odd_eps_against_torch():
    """Whatever it is, it is added to the variance: below 0 that may be NaN."""
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    x = normal(0, 4, 3)
    for eps in (0.0, -0.5, -100.0):
        ours = value_and_grads(lambda x, eps=eps: layer_norm(x, eps=eps) + rms_norm(x, eps=eps), x)
        theirs = torch_value_and_grads(
            lambda x, eps=eps: functional.layer_norm(x, (3,), eps=eps) + functional.rms_norm(x, (3,), eps=eps), x
        )
        assert_same(ours, theirs)


@both
def test_nan_and_infinity_stay_where_torch_has_them(norm):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    x = normal(0, 4, 3)
    x[1, 0], x[2, 1], x[3, 2] = np.nan, np.inf, -np.inf
    theirs = getattr(torch.nn.functional, norm.__name__)
    assert_same(value_and_grads(norm, x), torch_value_and_grads(lambda x: theirs(x, (3,), eps=1e-6), x))


# Accuracy.


@pytest.mark.parametrize("axis", [0, 1, (0, 1)])
@pytest.mark.parametrize("name", ["large mean", "an outlier", "two clusters"])
def test_nasty_data_against_float64(name, axis):
    """What a shift by one element, or one pass over the squares, would lose."""
    x = normal(0, 300, 200)
    rows = np.arange(300)[:, None] + np.arange(200)
    x = {
        "large mean": x + 1e4,
        "an outlier": np.where(rows == 0, 1e6, x),
        "two clusters": np.where(rows % 2 == 0, x - 1e4, x + 1e4),
    }[name].astype("float32")
    wide, weights = x.astype("float64"), weights_of(x.shape)
    mean = functools.partial(np.mean, axis=axis, keepdims=True)
    root = np.sqrt(mean((wide - mean(wide)) ** 2) + 1e-6)
    z = (wide - mean(wide)) / root
    gradient = (weights - mean(weights) - z * mean(z * weights)) / root

    @jax.jit
    def run(x, weights):
        y, pull = jax.vjp(lambda x: layer_norm(x, axis=axis), x)
        return y, *pull(weights)

    y, ours = run(x, jnp.asarray(weights, "float32"))
    np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours, gradient, rtol=5e-5, atol=5e-5 * abs(gradient).max())


def test_equal_values_become_nothing():
    """However many there are, and however large: what rounding leaves of them is not blown up."""
    y, pull = jax.vjp(lambda x: layer_norm(x, axis=(0, 1)), jnp.full((300, 333), 12345.678))
    np.testing.assert_allclose(y, np.zeros((300, 333)), atol=1e-3)
    assert np.isfinite(pull(jnp.ones_like(y))[0]).all()


@both
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(norm, dtype):
    """Computed in float32 and rounded once, parameters too; the gradients have the dtypes of their arguments."""
    x, scale = (normal(0, 8, 500) * 0.1 + 3).astype(dtype), normal(1, 500, dtype="float32")

    @jax.jit
    def run(x, scale):
        y, half = norm(x, scale), scale.astype(dtype)
        wide = x.astype("float32")
        expected = norm(wide, scale), norm(wide, half.astype("float32"))
        return (y, norm(x, half)), expected, jax.grad(lambda *args: norm(*args).sum(), (0, 1))(x, scale)

    ours, expected, grads = run(x, scale)
    for y, wide in zip(ours, expected, strict=True):
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, wide.astype(dtype))
    assert [grad.dtype for grad in grads] == [dtype, "float32"]


def test_squares_beyond_float16():
    np.testing.assert_allclose(rms_norm(jnp.full((1, 4), 1000.0, "float16")), np.ones((1, 4)))


# Transformations.


@ways
def test_every_way(way):
    x, scale, bias = normal(0, 3, 2, 4), normal(1, 3, 4), normal(2, 3, 4)
    args = [arg.astype("float32") for arg in (x, scale, bias)]
    weights = np.ones(x.shape)
    y = way(lambda *args: layer_norm(*args, axis=(0, 2)))(*args)
    np.testing.assert_allclose(y, reference(x, (0, 2), scale, bias, weights=weights)[0], rtol=1e-5, atol=1e-5)
    y = way(lambda *args: rms_norm(*args, axis=(0, 2)))(*args[:2])
    expected, _ = reference(x, (0, 2), scale, weights=weights, centre=False)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_vmap_over_one_argument():
    x, scales = normal(0, 2, 3, dtype="float32"), normal(1, 4, 3, dtype="float32")
    y = jax.vmap(layer_norm, (None, 0))(x, scales)
    np.testing.assert_allclose(y, layer_norm(x) * scales[:, None], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        jax.vmap(lambda eps: rms_norm(x, eps=eps))(jnp.array([0.0, 1.0])), [rms_norm(x, eps=0), rms_norm(x, eps=1)]
    )


@both
def test_derivatives_around_a_large_mean(norm):
    """The mean that is taken off first is no constant: the second takes care of its derivatives."""
    x, axes = normal(0, 2, 3, 2) + 100, (0, 2)
    weights, centre = weights_of(x.shape), norm is layer_norm

    def gradient(x):
        return reference(x, axes, weights=weights, centre=centre)[1][0]

    check_derivatives(lambda x: norm(x, axis=axes), gradient, x)


@both
def test_checkpoint_and_scan(norm):
    x, scales = normal(0, 2, 4, dtype="float32"), normal(1, 3, 4, dtype="float32")

    def layer(x, scale):
        return jnp.tanh(norm(x, scale)), None

    def loop(x):
        for scale in scales:
            x, _ = layer(x, scale)
        return jnp.sum(x**2)

    def scanned(x):
        return jnp.sum(lax.scan(jax.checkpoint(layer), x, scales)[0] ** 2)

    ours, theirs = (jax.jit(jax.value_and_grad(function))(x) for function in (scanned, loop))
    chex.assert_trees_all_close(ours, theirs, rtol=1e-4, atol=1e-5)


@both
def test_no_recompilation(norm):
    run = jax.jit(chex.assert_max_traces(norm, n=1))
    for seed in range(3):
        run(normal(seed, 2, 4, dtype="float32"), normal(seed, 4, dtype="float32"))


# Odd sizes.


@both
def test_batch_of_none(norm):
    y, pull = jax.vjp(norm, jnp.ones((0, 3, 2)), jnp.ones(2))
    assert y.shape == (0, 3, 2)
    np.testing.assert_array_equal(pull(y)[1], [0, 0])


def test_one_value():
    """The mean of one is itself."""
    np.testing.assert_array_equal(layer_norm(jnp.array([[7.0], [-3.0]]), bias=jnp.array([2.0])), [[2], [2]])
    np.testing.assert_allclose(rms_norm(jnp.array([[7.0], [-3.0]])), [[1], [-1]], rtol=1e-6)


@both
def test_zeros_have_a_finite_gradient(norm):
    y, pull = jax.vjp(norm, jnp.zeros((2, 3)))
    np.testing.assert_array_equal(y, np.zeros((2, 3)))
    assert np.isfinite(pull(jnp.ones((2, 3)))[0]).all()


def test_float64():
    with jax.enable_x64(True):
        y = layer_norm(jnp.asarray(normal(0, 4, 100)) + 1e8)
        assert y.dtype == "float64"
        np.testing.assert_allclose(y.std(1), 1, atol=1e-5)
        assert rms_norm(jnp.ones(3, "float64")).dtype == "float64"


# Errors.


@both
@pytest.mark.parametrize(
    ("shape", "axis", "message"),
    [
        ((2, 3), 2, "axis must name axes of x (2, 3), each once, got 2. -1 is the last one."),
        ((2, 3), (0, -3), "axis must name axes of x (2, 3), each once, got (0, -3). -1 is the last one."),
        ((2, 3), (1, -1), "axis must name axes of x (2, 3), each once, got (1, -1). -1 is the last one."),
        ((2, 3), (), "axis must name axes of x (2, 3), each once, got (). -1 is the last one."),
        ((), -1, "axis must name axes of x (), each once, got -1. -1 is the last one."),
        ((2, 0), -1, "x (2, 0) must hold values along axis -1. Only other axes may be empty."),
        ((0, 2), (0, 1), "x (0, 2) must hold values along axis (0, 1). Only other axes may be empty."),
    ],
)
def test_axes_that_x_does_not_have(norm, shape, axis, message):
    with pytest.raises(ValueError, match=norm.__name__) as caught:
        norm(jnp.ones(shape), axis=axis)
    assert str(caught.value) == f"{norm.__name__}: {message}"


@both
@pytest.mark.parametrize("axis", [1.0, "C", (0, 1.5), None])
def test_axes_that_are_no_ints(norm, axis):
    with pytest.raises(TypeError, match=norm.__name__) as caught:
        norm(jnp.ones((2, 3)), axis=axis)
    assert str(caught.value) == f"{norm.__name__}: axis must be an int or several, got {axis!r}."


@both
@pytest.mark.parametrize(
    ("shape", "axis", "of", "message"),
    [
        ((4, 5, 3), -1, (2,), "scale must be (3,), one value a channel of x (4, 5, 3), got (2,)."),
        ((4, 5, 3), -1, (1, 3), "scale must be (3,), one value a channel of x (4, 5, 3), got (1, 3)."),
        ((4, 5, 3), -1, (), "scale must be (3,), one value a channel of x (4, 5, 3), got ()."),
        (
            (4, 8, 5, 3),
            -1,
            (8,),
            "x (4, 8, 5, 3) looks channels-first: scale (8,) has one value a channel, which is the last axis."
            " Use x.transpose(0, 2, 3, 1).",
        ),
        ((4, 5, 3), (1, 2), (3, 5), "scale must be (5, 3), as x (4, 5, 3) along axes (1, 2), got (3, 5)."),
        (
            (4, 5, 3),
            (-1, 1),
            (3,),
            "scale must be (5, 3), as x (4, 5, 3) along axes (1, 2), got (3,)."
            " group_norm with groups=1 takes one value a channel.",
        ),
    ],
)
def test_scales_of_the_wrong_shape(norm, shape, axis, of, message):
    with pytest.raises(ValueError, match=norm.__name__) as caught:
        norm(jnp.ones(shape), jnp.ones(of), axis=axis)
    assert str(caught.value) == f"{norm.__name__}: {message}"


def test_bias_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"^layer_norm: bias must be \(3,\), one value a channel of x \(4, 3\), got"):
        layer_norm(jnp.ones((4, 3)), None, jnp.ones(4))


@both
@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_dtypes_that_are_refused(norm, dtype):
    with pytest.raises(TypeError, match=f"^{norm.__name__}: x must be floating point, got {dtype}"):
        norm(jnp.ones((2, 3), dtype))
    with pytest.raises(TypeError, match=f"^{norm.__name__}: scale must be floating point, got {dtype}"):
        norm(jnp.ones((2, 3)), jnp.ones(3, dtype))
