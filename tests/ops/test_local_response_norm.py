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
from ops_helpers import assert_same, first, last, normal, torch_value_and_grads, value_and_grads, ways, weights_of

from cnnjax.ops import local_response_norm


def reference(x, weights=None, *, size=5, alpha=1e-4, beta=0.75, k=1.0):
    """The value; with weights, the gradient of its weighted sum. One channel at a time."""
    channels = x.shape[-1]
    y, gradient = np.zeros_like(x), np.zeros_like(x)
    for c in range(channels):
        seen = [i for i in range(c - size // 2, c - size // 2 + size) if 0 <= i < channels]
        base = k + alpha * sum(x[..., i] ** 2 for i in seen) / size
        y[..., c] = x[..., c] / base**beta
        if weights is not None:
            gradient[..., c] += weights[..., c] / base**beta
            for i in seen:
                slope = -beta * base ** (-beta - 1) * alpha / size * 2 * x[..., i]
                gradient[..., i] += weights[..., c] * x[..., c] * slope
    return y if weights is None else gradient


def test_by_hand():
    """Energies 5, 14, 13; then, of two channels, the one before the centre and it: 1, 5, 13."""
    x, options = jnp.array([[1.0, 2.0, 3.0]]), {"beta": 0.5, "k": 2.0}
    y = local_response_norm(x, size=3, alpha=3.0, **options)
    np.testing.assert_allclose(y**2, [[1 / 7, 4 / 16, 9 / 15]], rtol=1e-6)
    y = local_response_norm(x, size=2, alpha=2.0, **options)
    np.testing.assert_allclose(y**2, [[1 / 3, 4 / 7, 9 / 15]], rtol=1e-6)
    y = local_response_norm(x, size=9, alpha=9.0, **options)
    np.testing.assert_allclose(y**2, [[1 / 16, 4 / 16, 9 / 16]], rtol=1e-6)


def test_defaults_by_hand():
    y = local_response_norm(jnp.full((1, 5), 100.0))
    np.testing.assert_allclose(y[0], 100 / (1 + 0.2 * np.array([3, 4, 5, 4, 3])) ** 0.75, rtol=1e-6)


# Against loops and PyTorch.


@st.composite
def configurations(draw):
    shape = tuple(draw(st.integers(1, 3)) for _ in range(draw(st.integers(1, 4))))
    return {
        "shape": (*shape, draw(st.integers(1, 7))),
        "options": {
            "size": draw(st.integers(1, 9)),
            "alpha": draw(st.sampled_from([0.0, 1e-4, 0.5, 3.0])),
            "beta": draw(st.sampled_from([-0.5, 0.0, 0.5, 0.75, 1.0, 2.0])),
            "k": draw(st.sampled_from([0.5, 1.0, 2.0])),
        },
        "dtype": draw(st.sampled_from(["float64", "float32", "bfloat16"])),
        "seed": draw(st.integers(0, 2**16)),
    }


@drawn
@given(configurations())
def test_random_configurations_against_loops(case):
    shape, options, dtype = case["shape"], case["options"], case["dtype"]
    x = normal(case["seed"], *shape, dtype=dtype)
    y, (gradient,) = value_and_grads(lambda x: local_response_norm(x, **options), x)
    assert y.dtype == gradient.dtype == dtype
    wide, weights = x.astype("float64"), weights_of(shape).astype(dtype).astype("float64")
    tolerance = {"float64": 1e-10, "float32": 1e-4, "bfloat16": 1e-2}[dtype]
    close(f"local_response_norm, {dtype}", y, reference(wide, **options), tolerance)
    close(f"local_response_norm, {dtype}", gradient, reference(wide, weights, **options), tolerance)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 12])
@pytest.mark.parametrize("shape", [(2, 3, 6), (1, 2, 3, 5), (1, 2, 2, 2, 4)])
def test_against_torch(shape, size):
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    options = {"alpha": 1.25, "beta": 0.5 + size / 8, "k": 1.5}
    x = normal(0, *shape) * 2

    def ours(x):
        return local_response_norm(x, size=size, **options) + local_response_norm(x, size=size)

    def theirs(x):
        norm = functional.local_response_norm
        return last(norm(first(x), size, **options) + norm(first(x), size))

    assert_same(value_and_grads(ours, x), torch_value_and_grads(theirs, x))


def test_odd_options_against_torch():
    """A base of 0 or less: NaN and infinities where torch has them."""
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    x = normal(0, 1, 4, 6)
    x[0, 0], x[0, 1, 2], x[0, 2, 3], x[0, 3, 5] = 0, np.nan, np.inf, -np.inf
    for options in ({}, {"k": 0.0}, {"k": -0.5, "alpha": 1.0}, {"beta": 0.0, "k": 0.0}):
        ours = value_and_grads(lambda x, o=options: local_response_norm(x, size=3, **o), x)
        theirs = torch_value_and_grads(lambda x, o=options: last(functional.local_response_norm(first(x), 3, **o)), x)
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-12, err_msg=str(options))
        if options.get("k"):
            np.testing.assert_allclose(ours[1][0], theirs[1][0], rtol=1e-12, atol=1e-12, err_msg=str(options))


# Transformations.


@ways
def test_every_way(way):
    x = normal(0, 2, 3, 4)
    y = way(lambda x: local_response_norm(x, size=3, alpha=1.0))(x.astype("float32"))
    np.testing.assert_allclose(y, reference(x, size=3, alpha=1.0), rtol=1e-5, atol=1e-5)


def test_derivatives():
    x, options = normal(0, 2, 6), {"size": 4, "alpha": 2.0}
    weights = weights_of(x.shape)
    check_derivatives(lambda x: local_response_norm(x, **options), lambda x: reference(x, weights, **options), x)


def test_vmap_and_derivatives_of_the_options():
    x, alphas = normal(0, 2, 4, dtype="float32"), jnp.array([0.5, 2.0])
    y = jax.vmap(lambda alpha: local_response_norm(x, alpha=alpha))(alphas)
    np.testing.assert_allclose(y, [reference(x, alpha=0.5), reference(x, alpha=2.0)], rtol=1e-5)
    slope = jax.grad(lambda beta: jnp.sum(local_response_norm(x, beta=beta, alpha=2.0)))(0.75)
    expected = (reference(x, beta=0.76, alpha=2.0) - reference(x, beta=0.74, alpha=2.0)).sum() / 0.02
    np.testing.assert_allclose(slope, expected, rtol=1e-2)


def test_checkpoint_and_scan():
    x = normal(0, 2, 5, dtype="float32")

    def layer(x, _):
        return local_response_norm(3 * x, size=3, alpha=1.0), None

    def scanned(x):
        return jnp.sum(lax.scan(jax.checkpoint(layer), x, length=2)[0] ** 2)

    def loop(x):
        return jnp.sum(layer(layer(x, None)[0], None)[0] ** 2)

    ours, theirs = (jax.jit(jax.grad(function))(x) for function in (scanned, loop))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_no_recompilation():
    run = jax.jit(chex.assert_max_traces(local_response_norm, n=1))
    for seed in range(3):
        run(normal(seed, 2, 4, dtype="float32"))


def test_one_call_of_lax():
    jaxpr = str(jax.make_jaxpr(local_response_norm)(jnp.ones((2, 5, 5, 8))))
    assert jaxpr.count("reduce_window_sum[") == 1


# Dtypes and odd sizes.


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype):
    """Computed in float32, where squares of thousands have room, and rounded once."""
    x = (normal(0, 4, 8) * 1000).astype(dtype)
    y = local_response_norm(x, alpha=1.0)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, local_response_norm(x.astype("float32"), alpha=1.0).astype(dtype))
    assert jax.grad(lambda x: local_response_norm(x).sum())(jnp.asarray(x)).dtype == dtype


def test_float64():
    with jax.enable_x64(True):
        assert local_response_norm(jnp.ones((1, 3), "float64")).dtype == "float64"


@pytest.mark.parametrize("shape", [(0, 4), (0, 3, 4), (1, 4), (2, 1, 1)])
def test_odd_shapes(shape):
    x = normal(0, *shape, dtype="float32")
    y, pull = jax.vjp(local_response_norm, x)
    np.testing.assert_allclose(y, reference(x), rtol=1e-5)
    assert pull(y)[0].shape == shape


# Errors.


def test_errors():
    with pytest.raises(ValueError, match="local_response_norm") as caught:
        local_response_norm(jnp.ones(3))
    assert str(caught.value) == (
        "local_response_norm: x must be (N, *spatial, C), got shape (3,). Add a batch axis with x[None]."
    )
    with pytest.raises(ValueError, match=r"^local_response_norm: size must be at least 1, got 0"):
        local_response_norm(jnp.ones((1, 3)), size=0)
    with pytest.raises(TypeError, match=r"^local_response_norm: size must be an int, got 2\.5"):
        local_response_norm(jnp.ones((1, 3)), size=2.5)  # pyright: ignore[reportArgumentType]
    for dtype in ("int32", "complex64"):
        with pytest.raises(TypeError, match=f"^local_response_norm: x must be floating point, got {dtype}"):
            local_response_norm(jnp.ones((1, 3), dtype))
