import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads
from ops_helpers import normal

from cnnjax import ops

KEY = jax.random.key(0)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_expectation_and_scale(rate):
    n = 100_000
    y = np.asarray(ops.dropout(KEY, jnp.ones(n), rate=rate))
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)], rtol=1e-6)
    deviation = np.sqrt(rate * (1 - rate) / n)
    assert abs((y == 0).mean() - rate) < 5 * deviation
    assert abs(y.mean() - 1) < 5 * deviation / (1 - rate)


def test_elements_are_independent():
    """Every pixel and every channel by itself: neighbours agree as often as chance has it."""
    kept = np.asarray(ops.dropout(KEY, jnp.ones((8, 32, 32, 8)), rate=0.5)) > 0
    for axis in range(4):
        assert abs((kept == np.roll(kept, 1, axis)).mean() - 0.5) < 0.02


def test_same_key_same_mask():
    x = jnp.ones((32, 32))
    y = ops.dropout(KEY, x, rate=0.5)
    np.testing.assert_array_equal(y, ops.dropout(KEY, x, rate=0.5))
    np.testing.assert_array_equal(y, ops.dropout(KEY, 3 * x, rate=0.5) / 3)
    assert not (y == ops.dropout(jax.random.key(1), x, rate=0.5)).all()


def test_both_kinds_of_keys():
    y = ops.dropout(jax.random.PRNGKey(0), jnp.ones(64), rate=0.5)
    np.testing.assert_array_equal(y, ops.dropout(KEY, jnp.ones(64), rate=0.5))


@pytest.mark.parametrize("rate", [0, 0.0, False])
def test_rate_of_nothing(rate):
    x = normal(0, 3, 4, dtype="float32")
    np.testing.assert_array_equal(ops.dropout(KEY, x, rate=rate), x)
    np.testing.assert_array_equal(jax.grad(lambda x: ops.dropout(KEY, x, rate=rate).sum())(x), jnp.ones((3, 4)))


@pytest.mark.parametrize("rate", [1, 1.0])
def test_rate_of_everything(rate):
    x = jnp.array([1.0, -2.0, jnp.inf, jnp.nan])
    np.testing.assert_array_equal(ops.dropout(KEY, x, rate=rate), [0, 0, 0, 0])
    np.testing.assert_array_equal(jax.grad(lambda x: ops.dropout(KEY, x, rate=rate).sum())(x), [0, 0, 0, 0])


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan"), float("inf")])
def test_bad_rates(rate):
    with pytest.raises(ValueError, match="dropout") as caught:
        ops.dropout(KEY, jnp.ones(3), rate=rate)
    assert str(caught.value) == f"dropout: rate must be in [0, 1], got {rate}. It is the share that is zeroed."


@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_integers_are_refused(dtype):
    with pytest.raises(TypeError, match="dropout") as caught:
        ops.dropout(KEY, jnp.ones(3, dtype), rate=0.5)
    assert str(caught.value) == f"dropout: x must be floating point, got {dtype}. Cast it with x.astype('float32')."


def test_rate_is_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        ops.dropout(KEY, jnp.ones(3), 0.5)  # pyright: ignore[reportCallIssue]


def test_jit_is_eager():
    x = normal(0, 16, 16, dtype="float32")
    run = jax.jit(ops.dropout, static_argnames="rate")
    np.testing.assert_allclose(run(KEY, x, rate=0.3), ops.dropout(KEY, x, rate=0.3), rtol=1e-6)


def test_vmap_over_keys_and_over_x():
    x, keys = normal(0, 4, 8, dtype="float32"), jax.random.split(KEY, 4)
    both = jax.vmap(lambda key, x: ops.dropout(key, x, rate=0.5))(keys, x)
    for key, one, y in zip(keys, x, both, strict=True):
        np.testing.assert_array_equal(y, ops.dropout(key, one, rate=0.5))
    shared = jax.vmap(lambda x: ops.dropout(KEY, x, rate=0.5))(jnp.ones((4, 8)))
    np.testing.assert_array_equal(shared, np.broadcast_to(shared[0], shared.shape))


def test_gradient_is_the_mask():
    x = normal(0, 64, dtype="float32")
    y, pull = jax.vjp(lambda x: ops.dropout(KEY, x, rate=0.75), x)
    np.testing.assert_array_equal(pull(jnp.ones(64))[0], np.where(y == 0, 0, 4))
    _, moved = jax.jvp(lambda x: ops.dropout(KEY, x, rate=0.75), (x,), (x,))
    np.testing.assert_array_equal(moved, y)


def test_derivatives_against_differences():
    with jax.enable_x64(True):
        x = jnp.asarray(normal(0, 8))
        check_grads(lambda x: ops.dropout(KEY, x, rate=0.5), (x,), order=1, modes=["fwd", "rev"])


def test_checkpoint_keeps_the_mask():
    x = normal(0, 32, dtype="float32")

    def loss(x):
        return jnp.sum(jnp.sin(ops.dropout(KEY, x, rate=0.5)))

    np.testing.assert_allclose(jax.grad(jax.checkpoint(loss))(x), jax.grad(loss)(x), rtol=1e-6)


def test_scan_over_keys():
    keys = jax.random.split(KEY, 3)
    y, _ = lax.scan(lambda x, key: (ops.dropout(key, x, rate=0.2), None), jnp.ones(64), keys)
    expected = jnp.ones(64)
    for key in keys:
        expected = ops.dropout(key, expected, rate=0.2)
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(key, x):
        return ops.dropout(key, x, rate=0.5)

    for seed in range(3):
        run(jax.random.key(seed), jnp.full(4, float(seed)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("rate", [0, 0.5, 1])
def test_dtype_is_kept(dtype, rate):
    y, pull = jax.vjp(lambda x: ops.dropout(KEY, x, rate=rate), jnp.ones(4, dtype))
    assert y.dtype == pull(y)[0].dtype == dtype


def test_float64():
    with jax.enable_x64(True):
        y = ops.dropout(KEY, jnp.full(64, 1 / 3, "float64"), rate=0.3)
        assert y.dtype == "float64"
        np.testing.assert_allclose(y[y > 0], 1 / 3 / 0.7, rtol=1e-15)


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), ()])
@pytest.mark.parametrize("rate", [0, 0.5, 1])
def test_odd_shapes(shape, rate):
    assert ops.dropout(KEY, jnp.ones(shape), rate=rate).shape == shape


def test_dropped_infinities_and_nans_are_gone():
    y = np.asarray(ops.dropout(KEY, jnp.full(100, jnp.nan), rate=0.5))
    assert set(y[~np.isnan(y)]) == {0.0}
    assert 20 < np.isnan(y).sum() < 80
