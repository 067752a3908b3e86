import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads
from ops_helpers import assert_same, normal, torch_value_and_grads, value_and_grads, ways

from cnnjax import ops


def test_by_hand():
    y = ops.dense(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0], [10.0, 1.0]]), jnp.array([0.5, 0.25]))
    np.testing.assert_array_equal(y, [[21.5, 2.25]])


@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (2, 0), (1, 2, 2, 2)])
def test_against_loops(leading):
    x, kernel, bias = normal(0, *leading, 3), normal(1, 3, 5), normal(2, 5)
    expected = np.zeros((*leading, 5))
    for place in np.ndindex(*leading, 5):
        expected[place] = sum(x[(*place[:-1], i)] * kernel[i, place[-1]] for i in range(3)) + bias[place[-1]]
    y = ops.dense(*(arg.astype("float32") for arg in (x, kernel, bias)))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    y = ops.dense(*(arg.astype("float32") for arg in (x, kernel)))
    np.testing.assert_allclose(y, expected - bias, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("leading", [(), (4,), (2, 3)])
def test_against_torch(leading):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    args = normal(0, *leading, 3), normal(1, 3, 5), normal(2, 5)
    theirs = torch_value_and_grads(lambda x, k, b: torch.nn.functional.linear(x, k.T, b), *args)
    assert_same(value_and_grads(ops.dense, *args), theirs)


@ways
def test_every_way(way):
    args = [normal(seed, *shape, dtype="float32") for seed, shape in enumerate([(4, 3), (3, 5), (5,)])]
    np.testing.assert_allclose(way(ops.dense)(*args), args[0] @ args[1] + args[2], rtol=1e-5, atol=1e-5)


def test_derivatives_against_differences():
    with jax.enable_x64(True):
        args = tuple(jnp.asarray(normal(seed, *shape)) for seed, shape in enumerate([(4, 3), (3, 5), (5,)]))
        check_grads(ops.dense, args, order=1, modes=["fwd", "rev"])


def test_checkpoint_and_scan():
    x, kernels = normal(0, 2, 3, dtype="float32"), normal(1, 3, 3, 3, dtype="float32")

    def loop(kernels):
        y = x
        for kernel in kernels:
            y = jnp.tanh(ops.dense(y, kernel))
        return jnp.sum(y**2)

    def scanned(kernels):
        layer = jax.checkpoint(lambda y, kernel: (jnp.tanh(ops.dense(y, kernel)), None))
        return jnp.sum(lax.scan(layer, jnp.asarray(x), kernels)[0] ** 2)

    np.testing.assert_allclose(jax.grad(scanned)(kernels), jax.grad(loop)(kernels), rtol=1e-5, atol=1e-6)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x, kernel):
        return ops.dense(ops.flatten(x), kernel)

    for seed in range(3):
        run(normal(seed, 2, 2, 3, dtype="float32"), normal(seed, 6, 2, dtype="float32"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(dtype):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.integers(-3, 9, shape), dtype) for shape in [(5, 2000), (2000, 4)])
    wide = ops.dense(x.astype("float32"), kernel.astype("float32"))
    assert not (wide == wide.astype(dtype)).all()
    np.testing.assert_array_equal(ops.dense(x, kernel), wide.astype(dtype))


@pytest.mark.parametrize("run", [lambda function: function, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("argument", [0, 1, 2], ids=["x", "kernel", "bias"])
def test_half_precision_gradients_are_rounded_once(argument, run):
    rng = np.random.default_rng(0)
    args = [jnp.asarray(rng.integers(-3, 5, shape), "bfloat16") for shape in [(2000, 3), (3, 400), (400,)]]
    weights = jnp.asarray(rng.integers(-1, 5, (2000, 400)), "bfloat16")

    def gradient(*args):
        return jax.vjp(ops.dense, *args)[1](weights.astype(args[0].dtype))[argument]

    wide = gradient(*(arg.astype("float32") for arg in args))
    np.testing.assert_array_equal(run(gradient)(*args), wide.astype("bfloat16"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_dtype_is_kept(dtype):
    x, kernel, bias = jnp.ones((2, 3), dtype), jnp.ones((3, 4), dtype), jnp.ones(4, dtype)
    y, pull = jax.vjp(ops.dense, x, kernel, bias)
    assert y.dtype == dtype
    assert {grad.dtype for grad in pull(y)} == {jnp.dtype(dtype)}


def test_float64():
    with jax.enable_x64(True):
        assert ops.dense(jnp.ones((1, 2)), jnp.ones((2, 2))).dtype == "float64"


def test_batch_of_none():
    y, pull = jax.vjp(ops.dense, jnp.ones((0, 3)), jnp.ones((3, 4)), jnp.ones(4))
    assert y.shape == (0, 4)
    to_x, to_kernel, to_bias = pull(y)
    assert to_x.shape == (0, 3)
    assert not to_kernel.any()
    assert not to_bias.any()


def test_nan_stays_in_its_row():
    x = jnp.ones((2, 3)).at[0, 1].set(jnp.nan)
    np.testing.assert_array_equal(jnp.isnan(ops.dense(x, jnp.ones((3, 2)))), [[True, True], [False, False]])


def test_flatten():
    x = np.arange(24).reshape(2, 2, 3, 2)
    y = ops.flatten(x)
    assert y.dtype == "int32"
    for n, h, w, c in np.ndindex(*x.shape):
        assert y[n, (h * 3 + w) * 2 + c] == x[n, h, w, c]


@pytest.mark.parametrize(
    ("shape", "expected"), [((3,), (3, 1)), ((3, 4), (3, 4)), ((0, 4, 2), (0, 8)), ((2, 0, 3), (2, 0))]
)
def test_flatten_shapes(shape, expected):
    assert ops.flatten(jnp.ones(shape)).shape == expected


@ways
def test_flatten_every_way(way):
    x = normal(0, 2, 2, 3, dtype="float32")
    np.testing.assert_array_equal(way(ops.flatten)(x), x.reshape(2, 6))


def test_flatten_gradient():
    x = normal(0, 2, 2, 3, dtype="float32")
    np.testing.assert_array_equal(jax.grad(lambda x: (ops.flatten(x) ** 2).sum())(x), 2 * x)


X, KERNEL = jnp.ones((2, 3)), jnp.ones((3, 4))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((X, jnp.ones(3)), "dense: kernel must be (I, O), got shape (3,)."),
        ((X, jnp.ones((1, 3, 4))), "dense: kernel must be (I, O), got shape (1, 3, 4)."),
        ((jnp.ones((2, 4)), KERNEL), "dense: the last axis of x must be 3, got shape (2, 4)."),
        ((jnp.ones(()), KERNEL), "dense: the last axis of x must be 3, got shape ()."),
        (
            (jnp.ones((2, 1, 1, 4)), KERNEL),
            "dense: the last axis of x must be 3, got shape (2, 1, 1, 4). Flatten x first with ops.flatten(x).",
        ),
        ((X, KERNEL, jnp.ones(3)), "dense: bias must be (4,), one value an output channel, got shape (3,)."),
        ((X, KERNEL, jnp.ones((2, 4))), "dense: bias must be (4,), one value an output channel, got shape (2, 4)."),
    ],
)
def test_errors_word_for_word(args, message, monkeypatch):
    monkeypatch.setattr(jnp, "matmul", lambda *args: pytest.fail("JAX saw the call"))
    with pytest.raises(ValueError, match="dense") as caught:
        ops.dense(*args)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((X.astype("int32"), KERNEL), "dense: x must be floating point, got int32. Cast it with x.astype('float32')."),
        (
            (X, KERNEL.astype("int8")),
            "dense: kernel must be floating point, got int8. Cast it with kernel.astype('float32').",
        ),
        (
            (X, KERNEL, jnp.ones(4, "int32")),
            "dense: bias must be floating point, got int32. Cast it with bias.astype('float32').",
        ),
        (
            (X, KERNEL.astype("bfloat16")),
            "dense: x is float32 but kernel is bfloat16. Cast one, as in kernel.astype(x.dtype).",
        ),
        (
            (X, KERNEL, jnp.ones(4, "bfloat16")),
            "dense: x is float32 but bias is bfloat16. Cast one, as in bias.astype(x.dtype).",
        ),
    ],
)
def test_errors_of_dtype_word_for_word(args, message):
    with pytest.raises(TypeError, match="dense") as caught:
        ops.dense(*args)
    assert str(caught.value) == message


def test_flatten_a_scalar():
    with pytest.raises(ValueError, match="flatten") as caught:
        ops.flatten(jnp.ones(()))
    assert str(caught.value) == "flatten: x must have a batch axis, got a scalar. Use x[None]."
