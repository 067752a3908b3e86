from typing import Any

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

from cnnjax.ops import group_norm, instance_norm, layer_norm


def reference(x, groups, scale=None, bias=None, *, eps=1e-6, weights):
    """The value and the gradients of its weighted sum, one example and one group at a time."""
    channels = x.shape[-1]
    each = channels // groups
    factor = np.ones(channels) if scale is None else scale
    y, to_x, to_scale, to_bias = np.zeros_like(x), np.zeros_like(x), np.zeros(channels), np.zeros(channels)
    for n in range(x.shape[0]):
        for group in range(groups):
            at = (n, ..., slice(group * each, (group + 1) * each))
            own = at[-1]
            root = np.sqrt(np.mean((x[at] - np.mean(x[at])) ** 2) + eps)
            z, g = (x[at] - np.mean(x[at])) / root, weights[at] * factor[own]
            y[at] = z * factor[own] + (0 if bias is None else bias[own])
            to_x[at] = (g - np.mean(g) - z * np.mean(g * z)) / root
            to_scale[own] += (weights[at] * z).reshape(-1, each).sum(0)
            to_bias[own] += weights[at].reshape(-1, each).sum(0)
    return y, [to_x, *([] if scale is None else [to_scale]), *([] if bias is None else [to_bias])]


# Known values.


@pytest.mark.parametrize("run", [lambda function: function, jax.jit], ids=["eager", "jit"])
def test_large_mean_by_hand(run):
    x = jnp.array([1e4, 1e4 + 1, 1e4 + 2, -1e4, -1e4, 3 - 1e4]).reshape(2, 3, 1)
    root, expected = np.sqrt(1.5), np.zeros((2, 3))
    expected[0], expected[1] = [-root, 0, root], [-np.sqrt(0.5), -np.sqrt(0.5), np.sqrt(2)]
    np.testing.assert_allclose(run(lambda x: group_norm(x, groups=1))(x)[..., 0], expected, atol=1e-5)
    np.testing.assert_allclose(run(instance_norm)(x)[..., 0], expected, atol=1e-5)


def test_groups_are_neighbours():
    """Channels 0 and 1, then 2 and 3: their means are 2 and 30, their deviations 1 and 20."""
    y = group_norm(jnp.array([[1.0, 3.0, 10.0, 50.0]]), jnp.arange(1.0, 5.0), jnp.full(4, 7.0), groups=2, eps=0)
    np.testing.assert_allclose(y, [[7 - 1, 7 + 2, 7 - 3, 7 + 4]], rtol=1e-6)


def test_examples_and_groups_by_hand():
    """In the picture 0 to 7, evens and odds are the channels: both deviate by sqrt(5) pairs."""
    x = jnp.stack([jnp.arange(8.0), 10 * jnp.arange(8.0)]).reshape(2, 2, 2, 2)
    y = instance_norm(x, eps=0)
    expected = np.repeat(np.array([-3, -1, 1, 3]) / np.sqrt(5), 2).reshape(2, 2, 2)
    np.testing.assert_allclose(y, [expected, expected], rtol=1e-6)
    y = group_norm(x, groups=1, eps=0)
    expected = np.arange(-7, 8, 2).reshape(2, 2, 2) / np.sqrt(21)
    np.testing.assert_allclose(y, [expected, expected], rtol=1e-6)


def test_relations():
    x, scale, bias = (normal(seed, *shape, dtype="float32") for seed, shape in enumerate([(2, 3, 4, 6), (6,), (6,)]))

    @jax.jit
    def pairs(x, scale, bias):
        return [
            (instance_norm(x, scale, bias), group_norm(x, scale, bias, groups=6)),
            (layer_norm(x, axis=(1, 2, 3)), group_norm(x, groups=1)),
            (layer_norm(x[:, 0, 0]), group_norm(x[:, 0, 0], groups=1)),
        ]

    for ours, theirs in pairs(x, scale, bias):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


# Against loops and libraries.


@st.composite
def configurations(draw):
    rank = draw(st.integers(0, 3))
    groups, each = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    instance = rank > 0 and draw(st.booleans())
    return {
        "shape": (draw(st.integers(1, 2)), *(draw(st.integers(1, 3)) for _ in range(rank)), groups * each),
        "groups": groups * each if instance else groups,
        "instance": instance,
        "with_scale": draw(st.booleans()),
        "with_bias": draw(st.booleans()),
        "eps": draw(st.sampled_from([1e-6, 1e-3, 0.5])),
        "dtype": draw(st.sampled_from(["float64", "float32", "bfloat16"])),
        "seed": draw(st.integers(0, 2**16)),
    }


@drawn
@given(configurations())
def test_random_configurations_against_loops(case):
    """The values of x are distinct multiples of a power of 2, which bfloat16 holds or nearly so."""
    shape, groups, dtype = case["shape"], case["groups"], case["dtype"]
    rng = np.random.default_rng(case["seed"])
    x = (rng.permutation(np.prod(shape, dtype=int)) / 4).reshape(shape).astype(dtype)
    wanted = [case["with_scale"], case["with_bias"]]
    vectors = [rng.normal(size=shape[-1]).astype(dtype) if one else None for one in wanted]
    given_vectors = [vector for vector in vectors if vector is not None]

    def norm(x, *given_vectors):
        rest = iter(given_vectors)
        scale, bias = (next(rest) if one else None for one in wanted)
        if case["instance"]:
            return instance_norm(x, scale, bias, eps=case["eps"])
        return group_norm(x, scale, bias, groups=groups, eps=case["eps"])

    y, grads = value_and_grads(norm, x, *given_vectors)
    assert [y.dtype, *(grad.dtype for grad in grads)] == [dtype] * (2 + len(given_vectors))
    wide = [None if vector is None else vector.astype("float64") for vector in vectors]
    weights = weights_of(shape).astype(dtype).astype("float64")
    value, expected = reference(x.astype("float64"), groups, *wide, eps=case["eps"], weights=weights)
    tolerance = {"float64": 1e-10, "float32": 1e-4, "bfloat16": 1e-2}[dtype]
    family = f"{'instance_norm' if case['instance'] else 'group_norm'}, {dtype}"
    close(family, y, value, tolerance)
    for ours, theirs in zip(grads, expected, strict=True):
        close(family, ours, theirs, tolerance)


@pytest.mark.parametrize(
    ("shape", "groups"), [((3, 6), 2), ((2, 5, 6), 3), ((2, 3, 4, 6), 1), ((1, 2, 3, 2, 4), 2), ((1, 3), 1)]
)
def test_group_norm_against_torch(shape, groups):
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional

    def ours(x, scale, bias):
        return group_norm(x, scale, bias, groups=groups, eps=1e-3) + group_norm(x, groups=groups, eps=-0.01)

    def theirs(x, scale, bias):
        y = functional.group_norm(first(x), groups, scale, bias, 1e-3)
        return last(y + functional.group_norm(first(x), groups, eps=-0.01))

    args = normal(0, *shape) * 3 + 5, normal(1, shape[-1]), normal(2, shape[-1])
    assert_same(value_and_grads(ours, *args), torch_value_and_grads(theirs, *args))


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 3, 4, 2), (2, 2, 3, 2, 2)])
def test_instance_norm_against_torch(shape):
    """Not of one example: where pixels lie channels last in memory, torch's gradient of that is another's."""
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional

    def ours(x, scale, bias):
        return instance_norm(x, scale, bias, eps=0.6) + instance_norm(x)

    def theirs(x, scale, bias):
        y = functional.instance_norm(first(x), weight=scale, bias=bias, eps=0.6)
        return last(y + functional.instance_norm(first(x), eps=1e-6))

    args = normal(0, *shape) * 3 + 5, normal(1, shape[-1]), normal(2, shape[-1])
    assert_same(value_and_grads(ours, *args), torch_value_and_grads(theirs, *args))


def test_nan_and_infinity_stay_where_torch_has_them():
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    x = normal(0, 4, 3, 4)
    x[1, 0, 0], x[2, 1, 3], x[3, 2, 1] = np.nan, np.inf, -np.inf
    assert_same(
        value_and_grads(lambda x: group_norm(x, groups=2), x),
        torch_value_and_grads(lambda x: last(functional.group_norm(first(x), 2, eps=1e-6)), x),
    )
    assert np.isnan(instance_norm(x)).any(1).sum() == 3


# Accuracy.


def test_half_a_million_values_around_a_large_mean():
    """Their float32 mean alone is off by 1e-3 deviations."""
    x = (normal(0, 1, 256, 256, 8) + 1e4).astype("float32")
    wide, weights = x.astype("float64"), weights_of(x.shape)
    for norm, axes in ((lambda x: group_norm(x, groups=1), (1, 2, 3)), (instance_norm, (1, 2))):
        mean, root = wide.mean(axes, keepdims=True), np.sqrt(wide.var(axes, keepdims=True) + 1e-6)
        z = (wide - mean) / root
        gradient = (weights - weights.mean(axes, keepdims=True) - z * (z * weights).mean(axes, keepdims=True)) / root
        y, pull = jax.vjp(jax.jit(norm), x)
        np.testing.assert_allclose(y, z, atol=1e-5)
        (ours,) = jax.jit(pull)(jnp.asarray(weights, "float32"))
        np.testing.assert_allclose(ours, gradient, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype):
    """Computed in float32 and rounded once; the gradients have the dtypes of their arguments."""
    x, scale = (normal(0, 2, 30, 30, 4) * 0.1 + 3).astype(dtype), normal(1, 4, dtype="float32")

    def norm(x, scale):
        return group_norm(x, scale, scale, groups=2), instance_norm(x, scale, scale)

    @jax.jit
    def run(x, scale):
        wide, half = x.astype("float32"), scale.astype(dtype)
        expected = norm(wide, scale) + norm(wide, half.astype("float32"))
        grads = jax.grad(lambda *args: sum(y.sum() for y in norm(*args)), (0, 1))(x, scale)
        return norm(x, scale) + norm(x, half), expected, grads

    ours, expected, grads = run(x, scale)
    for y, wide in zip(ours, expected, strict=True):
        assert y.dtype == dtype
        np.testing.assert_allclose(y.astype("float32"), wide, rtol=float(jnp.finfo(dtype).eps), atol=1e-5)
    assert [grad.dtype for grad in grads] == [dtype, "float32"]


# Transformations.


@ways
def test_every_way(way):
    args = normal(0, 2, 3, 2, 4), normal(1, 4), normal(2, 4)
    expected = [reference(args[0], groups, *args[1:], weights=np.ones(args[0].shape))[0] for groups in (2, 4)]
    y = way(lambda *args: (group_norm(*args, groups=2), instance_norm(*args)))(*(arg.astype("float32") for arg in args))
    chex.assert_trees_all_close(y, tuple(expected), rtol=1e-5, atol=1e-5)


def test_vmap_over_one_argument():
    x, scales = normal(0, 2, 3, 4, dtype="float32"), normal(1, 5, 4, dtype="float32")
    y = jax.vmap(lambda x, scale: group_norm(x, scale, groups=2), (None, 0))(x, scales)
    np.testing.assert_allclose(y, group_norm(x, groups=2) * scales[:, None, None], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("groups", [2, 4])
def test_derivatives_around_a_large_mean(groups):
    x = normal(0, 2, 3, 4) + 100
    weights = weights_of(x.shape)
    norm = instance_norm if groups == 4 else lambda x: group_norm(x, groups=groups)
    check_derivatives(norm, lambda x: reference(x, groups, weights=weights)[1][0], x)


def test_checkpoint_and_scan():
    x, scales = normal(0, 2, 3, 4, dtype="float32"), normal(1, 3, 4, dtype="float32")

    def layer(x, scale):
        return jnp.tanh(group_norm(x, scale, groups=2)) + instance_norm(x, scale), None

    def loop(x):
        for scale in scales:
            x, _ = layer(x, scale)
        return jnp.sum(x**2)

    def scanned(x):
        return jnp.sum(lax.scan(jax.checkpoint(layer), x, scales)[0] ** 2)

    ours, theirs = (jax.jit(jax.value_and_grad(function))(x) for function in (scanned, loop))
    chex.assert_trees_all_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x, scale):
        return group_norm(x, scale, groups=2) + instance_norm(x, scale)

    for seed in range(3):
        run(normal(seed, 2, 3, 4, dtype="float32"), normal(seed, 4, dtype="float32"))


# Odd sizes.


def test_batch_of_none():
    for norm in (lambda *args: group_norm(*args, groups=2), instance_norm):
        y, pull = jax.vjp(norm, jnp.ones((0, 3, 2)), jnp.ones(2), jnp.ones(2))
        assert y.shape == (0, 3, 2)
        chex.assert_trees_all_equal(pull(y)[1:], (jnp.zeros(2), jnp.zeros(2)))


def test_examples_do_not_see_each_other():
    x = normal(0, 3, 4, 4, dtype="float32")
    np.testing.assert_allclose(group_norm(x, groups=2)[1:2], group_norm(x[1:2], groups=2), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(instance_norm(x)[1:2], instance_norm(x[1:2]), rtol=1e-6, atol=1e-6)


def test_one_value_becomes_its_bias():
    x, bias = normal(0, 2, 1, 1, 3, dtype="float32"), jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(instance_norm(x, bias=bias), np.broadcast_to(bias, x.shape))
    np.testing.assert_array_equal(group_norm(x, bias=bias, groups=3), np.broadcast_to(bias, x.shape))


def test_no_channels():
    assert group_norm(jnp.ones((2, 4, 0)), groups=2).shape == instance_norm(jnp.ones((2, 4, 0))).shape == (2, 4, 0)


def test_float64():
    with jax.enable_x64(True):
        x = jnp.asarray(normal(0, 2, 100, 4)) + 1e8
        y = group_norm(x, groups=4) + instance_norm(x)
        assert y.dtype == "float64"
        np.testing.assert_allclose(y.std(1), 2, atol=1e-5)


# Errors.


@pytest.mark.parametrize(
    ("shape", "groups", "message"),
    [
        ((3,), 1, "x must be (N, *spatial, C), got shape (3,). Add a batch axis with x[None]."),
        ((2, 0, 3), 1, "x must have pixels, got shape (2, 0, 3). Only the batch axis may be empty."),
        ((2, 4, 7), 2, "groups must divide the channels of x (2, 4, 7), got groups=2."),
        ((2, 7, 7), 2, "groups must divide the channels of x (2, 7, 7), got groups=2. Use a divisor."),
        ((2, 7), 2, "groups must divide the channels of x (2, 7), got groups=2. Use a divisor."),
        ((2, 7), 0, "groups must be at least 1, got 0."),
        (
            (8, 64, 28, 28),
            32,
            "groups must divide the channels of x (8, 64, 28, 28), got groups=32."
            " It looks channels-first: use x.transpose(0, 2, 3, 1).",
        ),
    ],
)
def test_group_norm_errors(shape, groups, message):
    with pytest.raises(ValueError, match="group_norm") as caught:
        group_norm(jnp.ones(shape), groups=groups)
    assert str(caught.value).startswith(f"group_norm: {message}")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 3), "x must be (N, *spatial, C) with a spatial axis, got shape (4, 3). Add a batch axis with x[None]."),
        ((2, 4, 0, 3), "x must have pixels, got shape (2, 4, 0, 3). Only the batch axis may be empty."),
    ],
)
def test_instance_norm_errors(shape, message):
    with pytest.raises(ValueError, match="instance_norm") as caught:
        instance_norm(jnp.ones(shape))
    assert str(caught.value) == f"instance_norm: {message}"


@pytest.mark.parametrize("name", ["scale", "bias"])
def test_vectors_of_the_wrong_shape(name):
    scalar: Any = {name: jnp.ones(())}
    rows: Any = {name: jnp.ones(6)}
    with pytest.raises(ValueError, match=rf"^group_norm: {name} must be \(4,\), one value a channel of x \(2, 5, 4\),"):
        group_norm(jnp.ones((2, 5, 4)), **scalar, groups=2)
    with pytest.raises(ValueError, match="instance_norm") as caught:
        instance_norm(jnp.ones((2, 6, 5, 4)), **rows)
    assert str(caught.value) == (
        f"instance_norm: x (2, 6, 5, 4) looks channels-first: {name} (6,) has one value a channel, which is the last"
        " axis. Use x.transpose(0, 2, 3, 1)."
    )


def test_dtypes_that_are_refused():
    for dtype in ("int32", "bool", "complex64"):
        with pytest.raises(TypeError, match=f"^group_norm: x must be floating point, got {dtype}"):
            group_norm(jnp.ones((2, 4, 2), dtype), groups=1)
        with pytest.raises(TypeError, match=f"^instance_norm: x must be floating point, got {dtype}"):
            instance_norm(jnp.ones((2, 4, 2), dtype))
        with pytest.raises(TypeError, match=f"^instance_norm: bias must be floating point, got {dtype}"):
            instance_norm(jnp.ones((2, 4, 2)), bias=jnp.ones(2, dtype))
    with pytest.raises(TypeError, match=r"^group_norm: groups must be an int, got 2\.0"):
        group_norm(jnp.ones((2, 4, 2)), groups=2.0)  # pyright: ignore[reportArgumentType]
