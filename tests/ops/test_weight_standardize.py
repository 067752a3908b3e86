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
from ops_helpers import assert_same, normal, torch_kernel, torch_value_and_grads, value_and_grads, ways, weights_of

from cnnjax.ops import weight_standardize


def reference(kernel, weights, eps=1e-6):
    """The value and the gradient of its weighted sum, one output at a time."""
    y, gradient = np.zeros_like(kernel), np.zeros_like(kernel)
    for o in range(kernel.shape[-1]):
        values, g = kernel[..., o], weights[..., o]
        root = np.sqrt(((values - values.mean()) ** 2).mean() + eps)
        z = (values - values.mean()) / root
        y[..., o] = z
        gradient[..., o] = (g - g.mean() - z * (g * z).mean()) / root
    return y, gradient


def test_by_hand():
    kernel = jnp.array([[1.0, 5.0], [3.0, 5.0], [1.0, 5.0], [3.0, 9.0]]).reshape(2, 2, 1, 2)
    y = weight_standardize(kernel, eps=0)
    np.testing.assert_allclose(y[..., 0].ravel(), [-1, 1, -1, 1], rtol=1e-6)
    np.testing.assert_allclose(y[..., 1].ravel(), np.array([-1, -1, -1, 3]) / np.sqrt(3), rtol=1e-6)
    np.testing.assert_allclose(weight_standardize(kernel, eps=3)[..., 0].ravel(), [-0.5, 0.5, -0.5, 0.5], rtol=1e-6)


def test_large_mean_by_hand():
    y = weight_standardize(jnp.array([1e4, 1e4 + 1, 1e4 + 2]).reshape(3, 1, 1))
    np.testing.assert_allclose(y.ravel(), [-np.sqrt(1.5), 0, np.sqrt(1.5)], atol=1e-5)


# Against loops and PyTorch.


@st.composite
def configurations(draw):
    return {
        "shape": tuple(draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))),
        "eps": draw(st.sampled_from([1e-6, 1e-4, 0.1])),
        "dtype": draw(st.sampled_from(["float64", "float32", "bfloat16"])),
        "seed": draw(st.integers(0, 2**16)),
    }


@drawn
@given(configurations())
def test_random_configurations_against_loops(case):
    """The weights are distinct quarters: their deviation is far from eps, where rounding would tell most."""
    shape, dtype = case["shape"], case["dtype"]
    numbers = np.random.default_rng(case["seed"]).permutation(np.prod(shape, dtype=int)) / 4
    kernel = numbers.reshape(shape).astype(dtype)
    y, (gradient,) = value_and_grads(lambda kernel: weight_standardize(kernel, eps=case["eps"]), kernel)
    assert y.dtype == gradient.dtype == dtype
    weights = weights_of(shape).astype(dtype).astype("float64")
    value, expected = reference(kernel.astype("float64"), weights, case["eps"])
    tolerance = {"float64": 1e-10, "float32": 1e-4, "bfloat16": 1e-2}[dtype]
    close(f"weight_standardize, {dtype}", y, value, tolerance)
    close(f"weight_standardize, {dtype}", gradient, expected, tolerance)


@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 4), (2, 3, 2, 4), (2, 2, 3, 1, 4)])
def test_against_torch(shape):
    """Of its layout: (O, I, *window)."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")

    def theirs(kernel):
        weight = torch_kernel(kernel)
        var, mean = torch.var_mean(weight, tuple(range(1, weight.ndim)), correction=0, keepdim=True)
        return ((weight - mean) / torch.sqrt(var + 1e-4)).permute(*range(2, weight.ndim), 1, 0)

    kernel = normal(0, *shape) + 0.5
    ours = value_and_grads(lambda kernel: weight_standardize(kernel, eps=1e-4), kernel)
    assert_same(ours, torch_value_and_grads(theirs, kernel))


def test_the_definitions_of_the_papers():
    """Near the formula with the deviation + eps; the scaled form by its gain, whose rows have norm 1."""
    kernel = normal(0, 3, 3, 16, 8, dtype="float32") * 0.1
    mean, deviation = kernel.mean((0, 1, 2)), kernel.std((0, 1, 2))
    y = weight_standardize(kernel)
    np.testing.assert_allclose(y, (kernel - mean) / (deviation + 1e-5), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm((y / 12).reshape(-1, 8), axis=0), np.ones(8), rtol=1e-4)


# Transformations.


@ways
def test_every_way(way):
    kernel = normal(0, 3, 2, 4)
    y = way(weight_standardize)(kernel.astype("float32"))
    np.testing.assert_allclose(y, reference(kernel, kernel)[0], rtol=1e-5, atol=1e-5)


def test_derivatives():
    kernel = normal(0, 3, 2, 2)
    weights = weights_of(kernel.shape)
    check_derivatives(weight_standardize, lambda kernel: reference(kernel, weights)[1], kernel)


def test_checkpoint_and_scan():
    kernels = normal(0, 2, 3, 3, dtype="float32")

    def layer(x, kernel):
        return jnp.tanh(x @ weight_standardize(kernel)), None

    def scanned(kernels):
        return jnp.sum(lax.scan(jax.checkpoint(layer), jnp.ones(3), kernels)[0] ** 3)

    def loop(kernels):
        return jnp.sum(layer(layer(jnp.ones(3), kernels[0])[0], kernels[1])[0] ** 3)

    ours, theirs = (jax.jit(jax.grad(function))(kernels) for function in (scanned, loop))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_no_recompilation():
    run = jax.jit(chex.assert_max_traces(weight_standardize, n=1))
    for seed in range(3):
        run(normal(seed, 3, 2, 4, dtype="float32"))


# Dtypes, odd sizes, errors.


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype):
    kernel = (normal(0, 3, 3, 64, 2) * 0.04).astype(dtype)
    y, pull = jax.vjp(weight_standardize, kernel)
    assert y.dtype == pull(y)[0].dtype == dtype
    np.testing.assert_array_equal(y, weight_standardize(kernel.astype("float32")).astype(dtype))


def test_float64():
    with jax.enable_x64(True):
        assert weight_standardize(jnp.ones((2, 3), "float64")).dtype == "float64"


def test_equal_weights_have_a_finite_gradient():
    y, pull = jax.vjp(weight_standardize, jnp.full((3, 3, 2, 4), 0.1))
    np.testing.assert_allclose(y, np.zeros(y.shape), atol=1e-4)
    assert np.isfinite(pull(jnp.ones_like(y))[0]).all()


def test_one_weight_an_output():
    np.testing.assert_array_equal(weight_standardize(jnp.ones((1, 1, 1, 4))), np.zeros((1, 1, 1, 4)))


def test_nan_stays_in_its_output():
    y = weight_standardize(jnp.asarray(normal(0, 3, 2, 2, dtype="float32")).at[0, 0, 1].set(jnp.nan))
    assert jnp.isnan(y).all((0, 1)).tolist() == jnp.isnan(y).any((0, 1)).tolist() == [False, True]


@pytest.mark.parametrize("shape", [(3,), (), (0, 3), (3, 0, 2)])
def test_kernels_without_weights(shape):
    with pytest.raises(ValueError, match="weight_standardize") as caught:
        weight_standardize(jnp.ones(shape))
    assert str(caught.value) == (
        f"weight_standardize: kernel must be (*window, C_in // groups, C_out), got shape {shape}."
        " It has to hold weights to take the mean of."
    )


@pytest.mark.parametrize("dtype", ["int8", "complex64"])
def test_dtypes_that_are_refused(dtype):
    with pytest.raises(TypeError, match=f"^weight_standardize: kernel must be floating point, got {dtype}"):
        weight_standardize(jnp.ones((3, 2), dtype))
