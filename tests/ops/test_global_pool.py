import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads
from ops_helpers import assert_same, first, normal, torch_value_and_grads, value_and_grads, ways

from cnnjax import ops

BOTH = {"avg": (ops.global_avg_pool, np.mean), "max": (ops.global_max_pool, np.max)}
both = pytest.mark.parametrize(("pool", "numpy_pool"), list(BOTH.values()), ids=list(BOTH))
ranks = pytest.mark.parametrize("rank", [1, 2, 3, 4])


def test_by_hand():
    x = jnp.array([[[1.0, 8.0], [3.0, 4.0]]])
    np.testing.assert_array_equal(ops.global_avg_pool(x), [[2, 6]])
    np.testing.assert_array_equal(ops.global_max_pool(x), [[3, 8]])


@both
@ranks
def test_against_numpy(pool, numpy_pool, rank):
    x = normal(0, 2, *(5, 4, 3, 2)[:rank], 3, dtype="float32")
    np.testing.assert_allclose(pool(x), numpy_pool(x, axis=tuple(range(1, rank + 1))), rtol=1e-5, atol=1e-6)


@ranks
@pytest.mark.parametrize("name", list(BOTH))
def test_against_torch(rank, name):
    def theirs(x):
        flat = first(x).flatten(2)
        return flat.mean(2) if name == "avg" else flat.max(2).values

    x = normal(0, 2, *(5, 4, 3, 2)[:rank], 3)
    assert_same(value_and_grads(BOTH[name][0], x), torch_value_and_grads(theirs, x), 1e-12)


@both
@ways
def test_every_way(pool, numpy_pool, way):
    x = normal(0, 2, 5, 4, 3, dtype="float32")
    np.testing.assert_allclose(way(pool)(x), numpy_pool(x, axis=(1, 2)), rtol=1e-5, atol=1e-6)


@both
def test_derivatives_against_differences(pool, numpy_pool):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).permutation(24).reshape(1, 3, 4, 2) * 0.1)
        check_grads(jax.jit(pool), (x,), order=1, modes=["fwd", "rev"])
        assert pool(x).dtype == "float64"
        np.testing.assert_allclose(pool(x), numpy_pool(x, axis=(1, 2)), rtol=1e-15)


@both
def test_checkpoint_and_scan(pool, numpy_pool):
    x = normal(0, 3, 1, 5, 2, dtype="float32")

    def scanned(x):
        return jnp.sum(lax.scan(lambda _, x: (None, jax.checkpoint(pool)(x)), None, x)[1] ** 2)

    expected = jax.grad(lambda x: jnp.sum(pool(x[:, 0]) ** 2))(x)
    np.testing.assert_allclose(jax.grad(scanned)(x), expected, rtol=1e-5, atol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x):
        return ops.global_max_pool(x) + ops.global_avg_pool(x)

    for seed in range(3):
        run(normal(seed, 1, 5, 5, 1, dtype="float32"))


@ways
def test_first_of_equals_takes_the_gradient(way):
    x = jnp.array([[0.0, 2.0, 1.0], [2.0, 2.0, 0.0]]).reshape(1, 2, 3, 1)
    gradient = way(jax.grad(lambda x: ops.global_max_pool(x).sum()))(x)
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[0, 1, 0], [0, 0, 0]])


def test_first_of_equals_takes_the_tangent():
    _, moved = jax.jvp(ops.global_max_pool, (jnp.ones((1, 4, 1)),), (jnp.arange(1.0, 5.0).reshape(1, 4, 1),))
    assert moved.item() == 1


def test_first_of_minus_infinities_takes_the_gradient():
    gradient = jax.vjp(ops.global_max_pool, jnp.full((1, 3, 1), -jnp.inf))[1](jnp.ones((1, 1)))[0]
    np.testing.assert_array_equal(gradient.ravel(), [1, 0, 0])


@both
@pytest.mark.parametrize("place", range(4))
def test_nan_propagates(pool, numpy_pool, place):
    x = jnp.array([1.0, jnp.inf, -jnp.inf, 0.0]).at[place].set(jnp.nan).reshape(1, 4, 1)
    assert jnp.isnan(pool(jnp.concatenate([x, jnp.ones_like(x)], 2)))[0].tolist() == [True, False]


def test_infinity():
    assert ops.global_max_pool(jnp.array([[[-jnp.inf], [-5.0]]])).item() == -5
    assert ops.global_max_pool(jnp.full((1, 2, 1), -jnp.inf)).item() == -jnp.inf
    assert ops.global_avg_pool(jnp.array([[[jnp.inf], [-5.0]]])).item() == jnp.inf


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(dtype):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 99, (2, 64, 64, 3)), dtype)
    np.testing.assert_array_equal(ops.global_avg_pool(x), ops.global_avg_pool(x.astype("float32")).astype(dtype))
    assert ops.global_max_pool(x).dtype == dtype


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_maximum_of_integers(dtype):
    x = jnp.array([[[3, 0], [1, 7]]], dtype)
    y = ops.global_max_pool(x)
    assert y.dtype == dtype
    assert y.tolist() == [[3, 7]]


@both
def test_batch_of_none(pool, numpy_pool):
    y, pull = jax.vjp(pool, jnp.ones((0, 3, 3, 2)))
    assert y.shape == (0, 2)
    assert pull(y)[0].shape == (0, 3, 3, 2)


@both
def test_batch_of_one_is_one_of_many(pool, numpy_pool):
    x = normal(0, 3, 6, 5, 2, dtype="float32")
    np.testing.assert_allclose(pool(x)[1:2], pool(x[1:2]), rtol=1e-6)


@both
@pytest.mark.parametrize("shape", [(2, 3), (3,), ()])
def test_rank(pool, numpy_pool, shape):
    with pytest.raises(ValueError, match="global") as caught:
        pool(jnp.ones(shape))
    assert str(caught.value).startswith(f"{pool.__name__}: x must be (N, *spatial, C), got shape {shape}.")


@both
def test_no_pixels(pool, numpy_pool):
    with pytest.raises(ValueError, match="global") as caught:
        pool(jnp.ones((2, 0, 3, 1)))
    assert str(caught.value) == (
        f"{pool.__name__}: x must have pixels, got shape (2, 0, 3, 1). Only the batch axis may be empty."
    )


@pytest.mark.parametrize(
    ("pool", "dtype", "message"),
    [
        (ops.global_avg_pool, "int32", "global_avg_pool: x must be floating point, got int32."),
        (ops.global_avg_pool, "bool", "global_avg_pool: x must be floating point, got bool."),
        (ops.global_max_pool, "bool", "global_max_pool: x must be floating point or integer, got bool"),
        (ops.global_max_pool, "complex64", "global_max_pool: x must be floating point or integer, got complex64"),
    ],
)
def test_dtypes_that_are_refused(pool, dtype, message):
    with pytest.raises(TypeError, match="global") as caught:
        pool(jnp.ones((1, 2, 1), dtype))
    assert str(caught.value).startswith(message)
