from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads
from ops_helpers import assert_same, first, last, normal, torch_value_and_grads, value_and_grads, ways, weights_of

from cnnjax import ops

SHAPES = [(6, 3), (4, 5, 3), (3, 4, 2, 3), (2, 2, 3, 2, 3)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=[f"rank{len(shape) - 2}" for shape in SHAPES])


def remembered(channels, dtype="float32"):
    """Scale, bias, mean, var."""
    return [
        normal(1, channels, dtype=dtype),
        normal(2, channels, dtype=dtype),
        normal(3, channels, dtype=dtype),
        normal(4, channels, dtype=dtype) ** 2 + 0.5,
    ]


def reference(x, scale, bias, mean, var, *, train, decay=0.99, eps=1e-5):
    y, mean, var = np.zeros_like(x), mean.copy(), var.copy()
    for c in range(x.shape[-1]):
        values = x[..., c].ravel()
        m, v = mean[c], var[c]
        if train:
            m = sum(values) / values.size
            v = sum((values - m) ** 2) / values.size
            mean[c] = decay * mean[c] + (1 - decay) * m
            var[c] = decay * var[c] + (1 - decay) * v
        y[..., c] = (x[..., c] - m) / np.sqrt(v + eps) * scale[c] + bias[c]
    return y, mean, var


def test_large_mean_by_hand():
    x = jnp.array([[1e4], [1e4 + 1], [1e4 + 2]])
    y, mean, var = ops.batch_norm(x, None, None, jnp.zeros(1), jnp.ones(1), train=True, decay=0.9)
    np.testing.assert_allclose(y.ravel(), [-1.2247, 0, 1.2247], atol=1e-4)
    np.testing.assert_allclose(mean, [1000.1], rtol=1e-6)
    np.testing.assert_allclose(var, [0.9 + 0.1 * 2 / 3], rtol=1e-5)


def test_large_mean_under_jit_and_over_shards():
    x = jnp.array([[1e4], [1e4 + 1], [1e4 + 2], [1e4 + 1]])
    args = None, None, jnp.zeros(1), jnp.ones(1)
    expected = np.array([-1, 0, 1, 0]) / np.sqrt(0.5)
    y = jax.jit(lambda x: ops.batch_norm(x, *args, train=True)[0])(x)
    np.testing.assert_allclose(y.ravel(), expected, atol=1e-4)
    y = jax.vmap(lambda x: ops.batch_norm(x, *args, train=True, axis_name="i")[0], axis_name="i")(x.reshape(2, 2, 1))
    np.testing.assert_allclose(y.ravel(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("large mean", 5e-3), ("first is an outlier", 5e-5), ("first image is another", 5e-5), ("two clusters", 5e-5)],
)
def test_nasty_data_against_float64(name, tolerance):
    """What shifts or one pass over the squares would lose."""
    x = normal(0, 64, 100, 3)
    x = {
        "large mean": x + 1e4,
        "first is an outlier": np.where(np.arange(64)[:, None, None] + np.arange(100)[:, None] == 0, 1e6, x),
        "first image is another": np.where(np.arange(64)[:, None, None] == 0, x + 1e5, x),
        "two clusters": np.where(np.arange(64)[:, None, None] < 32, x - 1e4, x + 1e4),
    }[name].astype("float32")
    wide, weights = x.astype("float64"), weights_of(x.shape)
    root = np.sqrt(wide.var((0, 1)) + 1e-5)
    z = (wide - wide.mean((0, 1))) / root
    gradient = (weights - weights.mean((0, 1)) - z * (z * weights).mean((0, 1))) / root

    def norm(x):
        y, _, var = ops.batch_norm(x, None, None, jnp.zeros(3), jnp.ones(3), train=True, decay=0)
        return y, var

    @jax.jit
    def run(x, weights):
        y, pull, var = jax.vjp(norm, x, has_aux=True)
        return y, var, *pull(weights)

    y, var, ours = run(x, jnp.asarray(weights, "float32"))
    np.testing.assert_allclose(var, wide.var((0, 1)), rtol=5e-5)
    np.testing.assert_allclose(y, z, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(ours, gradient, rtol=tolerance, atol=tolerance * abs(gradient).max())


def test_evaluation_by_hand():
    x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
    mean, var = jnp.array([1.0, 10.0]), jnp.array([4.0, 100.0])
    y, *_ = ops.batch_norm(x, jnp.array([1.0, 2.0]), jnp.array([0.0, 5.0]), mean, var, train=False, eps=1e-12)
    np.testing.assert_allclose(y, [[0, 5], [1, 9]], rtol=1e-6)


@shapes
@pytest.mark.parametrize("train", [True, False])
def test_against_loops(shape, train):
    x, rest = normal(0, *shape, dtype="float32") * 3 + 2, remembered(3)
    for ours, theirs in zip(
        ops.batch_norm(x, *rest, train=train, decay=0.8, eps=1e-3),
        reference(x, *rest, train=train, decay=0.8, eps=1e-3),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@shapes
@pytest.mark.parametrize("train", [True, False])
def test_against_torch(shape, train):
    """Torch remembers the unbiased variance: ours is (n - 1) / n of what it adds."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    x, (scale, bias, mean, var) = normal(0, *shape), remembered(3, "float64")
    kept = torch.tensor(mean), torch.tensor(var)

    def theirs(x, scale, bias):
        return last(torch.nn.functional.batch_norm(first(x), *kept, scale, bias, train, momentum=0.2, eps=1e-3))

    def ours(x, scale, bias):
        return ops.batch_norm(x, scale, bias, jnp.asarray(mean), jnp.asarray(var), train=train, decay=0.8, eps=1e-3)

    assert_same(
        value_and_grads(lambda *args: ours(*args)[0], x, scale, bias), torch_value_and_grads(theirs, x, scale, bias)
    )
    with jax.enable_x64(True):
        new_mean, new_var = map(np.asarray, ours(*map(jnp.asarray, (x, scale, bias)))[1:])
    n = x.size // 3
    unbiased = 0.8 * var + (new_var - 0.8 * var) * n / (n - 1) if train else new_var
    np.testing.assert_allclose(new_mean, kept[0].numpy(), rtol=1e-12)
    np.testing.assert_allclose(unbiased, kept[1].numpy(), rtol=1e-12)


@ways
@pytest.mark.parametrize("train", [True, False])
def test_every_way(way, train):
    args = [normal(0, 4, 3, 2, dtype="float32"), *remembered(2)]
    ours = way(lambda x, scale, bias, mean, root: ops.batch_norm(x, scale, bias, mean, root**2, train=train))(*args)
    for our, their in zip(ours, reference(*args[:4], var=args[4] ** 2, train=train), strict=True):
        np.testing.assert_allclose(our, their, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("train", [True, False])
def test_derivatives_against_differences(train):
    with jax.enable_x64(True):
        args = tuple(map(jnp.asarray, [normal(0, 4, 3, 2), *remembered(2, "float64")]))
        check_grads(jax.jit(lambda *args: ops.batch_norm(*args, train=train)), args, order=2, modes=["fwd", "rev"])


def plain(x, scale, bias, mean, var):
    """What `batch_norm` computes in training, for JAX to differentiate by itself."""
    axes = tuple(range(x.ndim - 1))
    m, v = x.mean(axes), x.var(axes)
    return (x - m) / jnp.sqrt(v + 1e-5) * scale + bias, 0.99 * mean + 0.01 * m, 0.99 * var + 0.01 * v


@pytest.mark.parametrize(
    "second",
    [
        jax.hessian,
        lambda f: jax.jacrev(jax.grad(f)),
        lambda f: jax.jacfwd(jax.jacfwd(f)),
        lambda f: jax.jacrev(jax.jacfwd(f)),
    ],
    ids=["forward over reverse", "reverse over reverse", "forward over forward", "reverse over forward"],
)
def test_second_derivatives_against_the_plain_formula(second):
    """Of the output and of the statistics, in x, scale and bias together, around a large mean."""
    shapes = [(3, 2, 2), (2,), (2,)]
    cuts = np.cumsum([np.prod(shape) for shape in shapes])[:-1]

    def loss(norm, flat):
        parts = [part.reshape(shape) for part, shape in zip(jnp.split(flat, cuts), shapes, strict=True)]
        y, mean, var = norm(parts[0] + 100, *parts[1:], jnp.zeros(2), jnp.ones(2))
        return jnp.sum(jnp.sin(y)) + jnp.sum(mean**3) + jnp.sum(jnp.exp(100 * var))

    with jax.enable_x64(True):
        flat = jnp.asarray(normal(0, sum(int(np.prod(shape)) for shape in shapes)))
        ours = jax.jit(second(lambda flat: loss(lambda *args: ops.batch_norm(*args, train=True), flat)))(flat)
        np.testing.assert_allclose(ours, jax.hessian(lambda flat: loss(plain, flat))(flat), rtol=1e-8, atol=1e-8)


@ways
def test_tangents_against_the_plain_formula(way):
    args = [normal(0, 4, 3, 2, dtype="float32"), *remembered(2)]
    tangents = [normal(seed, *arg.shape, dtype="float32") for seed, arg in enumerate(args, 10)]

    def tangent(norm):
        return way(lambda *both: jax.jvp(norm, both[:5], both[5:])[1])(*args, *tangents)

    for ours, theirs in zip(tangent(lambda *args: ops.batch_norm(*args, train=True)), tangent(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_training_gradient_is_orthogonal():
    """What shifts or scales a whole channel does not change the output."""
    x = normal(0, 16, 3)
    _, (gradient,) = value_and_grads(
        lambda x: ops.batch_norm(x, None, None, jnp.zeros(3), jnp.ones(3), train=True, eps=1e-12)[0], x
    )
    np.testing.assert_allclose(gradient.sum(0), 0, atol=1e-12)
    np.testing.assert_allclose((gradient * x).sum(0), 0, atol=1e-9)


def test_checkpoint_and_scan():
    x = normal(0, 3, 4, 2, dtype="float32")

    def layer(kept, x):
        y, *kept = ops.batch_norm(x, None, None, *kept, train=True, decay=0.5)
        return kept, jnp.tanh(y)

    kept = [jnp.zeros(2), jnp.ones(2)]
    scanned, ys = lax.scan(jax.checkpoint(layer), kept, x)
    for one, y in zip(x, ys, strict=True):
        kept, expected = layer(kept, one)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scanned, kept, rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(lax.scan(jax.checkpoint(layer), kept, x)[1] ** 3))(x)
    expected = jax.vmap(jax.grad(lambda x: jnp.sum(layer(kept, x)[1] ** 3)))(x)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x, mean, var):
        return ops.batch_norm(x, None, None, mean, var, train=True)

    kept = jnp.zeros(2), jnp.ones(2)
    for seed in range(3):
        _, *kept = run(normal(seed, 4, 2, dtype="float32"), *kept)


# The global batch.


@pytest.mark.parametrize("shards", [2, 4])
def test_axis_name_under_vmap_equals_the_whole_batch(shards):
    x, (scale, bias, mean, var) = normal(0, 8, 3, 2) + 100, remembered(2, "float64")

    def loss(x, scale, bias, weights, axis_name=None):
        y, *kept = ops.batch_norm(x, scale, bias, mean, var, train=True, axis_name=axis_name)
        return jnp.sum(y * weights), (y, kept)

    def total(x, scale, bias, weights):
        losses, aux = jax.vmap(lambda x, w: loss(x, scale, bias, w, "shards"), axis_name="shards")(x, weights)
        return losses.sum(), aux

    with jax.enable_x64(True):
        mean, var = jnp.asarray(mean), jnp.asarray(var)
        args = jnp.asarray(x), jnp.asarray(scale), jnp.asarray(bias)
        weights = jnp.asarray(weights_of(x.shape))
        whole_grads, (y, kept) = jax.grad(loss, (0, 1, 2), has_aux=True)(*args, weights)
        cut = [array.reshape(shards, -1, *array.shape[1:]) for array in (args[0], weights)]
        grads, (ys, all_kept) = jax.grad(total, (0, 1, 2), has_aux=True)(cut[0], args[1], args[2], cut[1])
        np.testing.assert_allclose(ys.reshape(y.shape), y, atol=1e-12, rtol=1e-12)
        np.testing.assert_allclose(grads[0].reshape(x.shape), whole_grads[0], atol=1e-12)
        for ours, whole in zip(grads[1:], whole_grads[1:], strict=True):
            np.testing.assert_allclose(ours, whole, atol=1e-12, rtol=1e-12)
        for ours, whole in zip(all_kept, kept, strict=True):
            np.testing.assert_allclose(ours, np.broadcast_to(whole, ours.shape), atol=1e-12, rtol=1e-12)


def test_axis_name_synchronises_the_derivatives_of_the_statistics():
    x, kept = normal(0, 4, 3, 2), [jnp.zeros(2), jnp.ones(2)]

    def loss(x, axis_name=None):
        y, mean, var = ops.batch_norm(x, None, None, *kept, train=True, decay=0.5, axis_name=axis_name)
        total, share = jnp.sum(jnp.sin(y)), jnp.sum(mean**3) + jnp.sum(jnp.exp(var))
        return total + share / (1 if axis_name is None else 2)

    def sharded(x):
        return jax.vmap(lambda x: loss(x, "shards"), axis_name="shards")(x.reshape(2, -1, *x.shape[1:])).sum()

    with jax.enable_x64(True):
        x, kept = jnp.asarray(x), [jnp.zeros(2), jnp.ones(2)]
        np.testing.assert_allclose(jax.grad(sharded)(x), jax.grad(loss)(x), atol=1e-12)
        np.testing.assert_allclose(jax.hessian(sharded)(x), jax.hessian(loss)(x), atol=1e-11)


def test_axis_name_under_pmap_equals_the_whole_batch():
    x, rest = normal(0, 8, 3, 2, dtype="float32"), remembered(2)
    run = jax.pmap(
        lambda x: ops.batch_norm(x, *rest, train=True, axis_name="batch"), axis_name="batch", devices=jax.devices()[:2]
    )
    y, mean, _ = run(x.reshape(2, 4, 3, 2))
    whole = ops.batch_norm(x, *rest, train=True)
    np.testing.assert_allclose(y.reshape(x.shape), whole[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mean[0], whole[1], rtol=1e-6)


def test_axis_name_does_nothing_in_evaluation():
    x, rest = normal(0, 4, 2, dtype="float32"), remembered(2)
    expected = ops.batch_norm(x, *rest, train=False)[0]
    np.testing.assert_array_equal(ops.batch_norm(x, *rest, train=False, axis_name="nowhere")[0], expected)


# None, dtypes, odd sizes.


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("with_scale", "with_bias"), [(False, False), (True, False), (False, True)])
def test_none_is_one_and_zero(train, with_scale, with_bias):
    x, (scale, bias, mean, var) = normal(0, 5, 3, dtype="float32"), remembered(3)
    y = ops.batch_norm(x, scale if with_scale else None, bias if with_bias else None, mean, var, train=train)[0]
    full = ops.batch_norm(
        x, scale if with_scale else jnp.ones(3), bias if with_bias else jnp.zeros(3), mean, var, train=train
    )[0]
    np.testing.assert_allclose(y, full, rtol=1e-6, atol=1e-6)


def test_evaluation_leaves_the_statistics():
    x, (scale, bias, mean, var) = normal(0, 5, 3, dtype="float32"), remembered(3)
    _, new_mean, new_var = ops.batch_norm(x, scale, bias, mean, var, train=False)
    np.testing.assert_array_equal(new_mean, mean)
    np.testing.assert_array_equal(new_var, var)


@pytest.mark.parametrize(("decay", "share"), [(0.0, 0.0), (1.0, 1.0), (1, 1.0), (0.25, 0.25)])
def test_decay_is_the_share_that_is_kept(decay, share):
    x = jnp.array([[1.0], [3.0]])
    _, mean, var = ops.batch_norm(x, None, None, jnp.array([10.0]), jnp.array([5.0]), train=True, decay=decay)
    np.testing.assert_allclose(mean, [share * 10 + (1 - share) * 2])
    np.testing.assert_allclose(var, [share * 5 + (1 - share) * 1])


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype, train):
    """Computed in float32, rounded once; the statistics keep their dtype."""
    x = (normal(0, 4000, 2) * 0.1 + 3).astype(dtype)
    rest = remembered(2)
    y, mean, var = ops.batch_norm(x, *rest, train=train)
    wide = ops.batch_norm(x.astype("float32"), *rest, train=train)
    assert (y.dtype, mean.dtype, var.dtype) == (dtype, "float32", "float32")
    np.testing.assert_array_equal(y, wide[0].astype(dtype))
    np.testing.assert_allclose(mean, wide[1], rtol=1e-6)
    np.testing.assert_allclose(var, wide[2], rtol=1e-6)


@pytest.mark.parametrize("train", [True, False])
def test_half_precision_parameters(train):
    """All in bfloat16: still computed in float32 and rounded once."""
    x, rest = jnp.asarray(normal(0, 64, 2), "bfloat16"), [jnp.asarray(arg, "bfloat16") for arg in remembered(2)]
    ours = ops.batch_norm(x, *rest, train=train)
    wide = ops.batch_norm(x.astype("float32"), *(arg.astype("float32") for arg in rest), train=train)
    for our, their in zip(ours, wide, strict=True):
        assert our.dtype == "bfloat16"
        np.testing.assert_array_equal(our, their.astype("bfloat16"))


def test_half_precision_gradients_have_the_dtypes_of_their_arguments():
    x, rest = jnp.ones((4, 2), "bfloat16"), remembered(2)
    grads = jax.grad(lambda x, scale: ops.batch_norm(x, scale, *rest[1:], train=True)[0].sum(), (0, 1))(x, rest[0])
    assert [grad.dtype for grad in grads] == ["bfloat16", "float32"]


def test_float64():
    with jax.enable_x64(True):
        x, rest = jnp.asarray(normal(0, 4, 2)) + 1e8, [jnp.asarray(arg) for arg in remembered(2, "float64")]
        y, mean, var = ops.batch_norm(x, None, None, *rest[2:], train=True)
        assert y.dtype == mean.dtype == var.dtype == "float64"
        np.testing.assert_allclose(y.std(0), 1, atol=1e-3)


@pytest.mark.parametrize("train", [True, False])
def test_batch_of_none(train):
    rest = remembered(2)

    def run(x, scale, bias, mean, var):
        return ops.batch_norm(x, scale, bias, mean, var, train=train)

    (y, mean, var), pull = jax.vjp(run, jnp.ones((0, 3, 2)), *map(jnp.asarray, rest))
    assert y.shape == (0, 3, 2)
    np.testing.assert_array_equal(mean, rest[2])
    np.testing.assert_array_equal(var, rest[3])
    assert all(np.isfinite(grad).all() for grad in pull((y, mean, var)))


def test_batch_of_one():
    y, _, var = ops.batch_norm(jnp.full((1, 2), 7.0), None, None, jnp.zeros(2), jnp.ones(2), train=True, decay=0)
    np.testing.assert_array_equal(y, jnp.zeros((1, 2)))
    np.testing.assert_array_equal(var, [0, 0])


def test_constant_channel_has_a_finite_gradient():
    gradient = jax.grad(lambda x: (ops.batch_norm(x, None, None, jnp.zeros(1), jnp.ones(1), train=True)[0] ** 2).sum())(
        jnp.ones((4, 1))
    )
    np.testing.assert_array_equal(gradient, jnp.zeros((4, 1)))


def test_nan_stays_in_its_channel():
    x = jnp.asarray(normal(0, 4, 2, dtype="float32")).at[1, 0].set(jnp.nan)
    y, mean, var = ops.batch_norm(x, None, None, jnp.zeros(2), jnp.ones(2), train=True)
    assert jnp.isnan(y).all(0).tolist() == jnp.isnan(mean).tolist() == jnp.isnan(var).tolist() == [True, False]


# Errors.


@pytest.mark.parametrize("name", ["scale", "bias", "mean", "var"])
@pytest.mark.parametrize("shape", [(2,), (1, 3), ()])
def test_vectors_of_the_wrong_shape(name, shape):
    args: Any = {"scale": jnp.ones(3), "bias": jnp.ones(3), "mean": jnp.ones(3), "var": jnp.ones(3)}
    with pytest.raises(ValueError, match="batch_norm") as caught:
        ops.batch_norm(jnp.ones((4, 5, 3)), **{**args, name: jnp.ones(shape)}, train=True)
    assert str(caught.value) == (f"batch_norm: {name} must be (3,), one value a channel of x (4, 5, 3), got {shape}.")


@pytest.mark.parametrize("shape", [(3,), ()])
def test_rank(shape):
    with pytest.raises(ValueError, match="batch_norm") as caught:
        ops.batch_norm(jnp.ones(shape), None, None, jnp.ones(3), jnp.ones(3), train=True)
    assert str(caught.value) == (
        f"batch_norm: x must be (N, *spatial, C), got shape {shape}. Add a batch axis with x[None]."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 1.5}, "batch_norm: decay must be in [0, 1], got 1.5. It is the share that is kept."),
        ({"decay": -0.1}, "batch_norm: decay must be in [0, 1], got -0.1. It is the share that is kept."),
        ({"decay": float("nan")}, "batch_norm: decay must be in [0, 1], got nan. It is the share that is kept."),
        ({"eps": 0}, "batch_norm: eps must be above 0, got 0. 1e-5 is usual."),
        ({"eps": -1e-5}, "batch_norm: eps must be above 0, got -1e-05. 1e-5 is usual."),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match="batch_norm") as caught:
        ops.batch_norm(jnp.ones((2, 1)), None, None, jnp.ones(1), jnp.ones(1), train=True, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_integers_are_refused(dtype):
    with pytest.raises(TypeError, match="batch_norm") as caught:
        ops.batch_norm(jnp.ones((2, 1), dtype), None, None, jnp.ones(1), jnp.ones(1), train=True)
    assert str(caught.value) == (
        f"batch_norm: x must be floating point, got {dtype}. Cast it with x.astype('float32')."
    )


def test_complex_is_refused():
    """Documented as floating: the mean of squares of complex numbers is no variance."""
    with pytest.raises(TypeError, match=r"^batch_norm: x must be floating point, got complex64"):
        ops.batch_norm(jnp.ones((2, 1), "complex64"), None, None, jnp.ones(1), jnp.ones(1), train=True)
