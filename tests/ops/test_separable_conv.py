from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from comparison import drawn
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.test_util import check_grads
from ops_helpers import assert_same, first, last, normal, torch_kernel, torch_value_and_grads, value_and_grads, ways
from test_depthwise_conv import OPTIONS, check, cut, loops, padded, windows

from cnnjax import ops
from cnnjax.ops import depthwise_conv2d, separable_conv1d, separable_conv2d, separable_conv3d

SEPARABLE: dict[int, Any] = {1: separable_conv1d, 2: separable_conv2d, 3: separable_conv3d}
ranks = pytest.mark.parametrize("rank", [1, 2, 3])


def operands(rank, spatial, window, *, channels=2, multiplier=2, outputs=3, batch=2):
    inner = channels * multiplier
    shapes = (batch, *spatial, channels), (*window, 1, inner), (*(1,) * rank, inner, outputs), (outputs,)
    return [normal(seed, *shape) for seed, shape in enumerate(shapes)]


def singles(args):
    return [arg.astype("float32") for arg in args]


# Known values.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"padding": "VALID"}, [-3, -6, -12]),
        ({}, [-3, -6, -12, -8]),
        ({"padding": "causal"}, [-1, -3, -6, -12]),
        ({"padding": "VALID", "stride": 2}, [-3, -12]),
        ({"padding": "VALID", "dilation": (2,)}, [-5, -10]),
        ({"padding": "REPLICATE"}, [-3, -6, -12, -16]),
        ({"padding": ((1, 0),), "stride": 2}, [-1, -6]),
    ],
)
def test_series_by_hand(options, expected):
    """Of 1, 2, 4, 8 the steps to the next, less twice the next; and half of that with a bias."""
    x = jnp.array([1.0, 2.0, 4.0, 8.0]).reshape(1, 4, 1)
    depthwise, pointwise = jnp.array([[[-1.0, 0.0]], [[1.0, 1.0]]]), jnp.array([[[1.0, 0.5], [-2.0, -1.0]]])
    y = separable_conv1d(x, depthwise, pointwise, jnp.array([0.0, 9.0]), **options)
    np.testing.assert_array_equal(y[0], np.stack([expected, np.array(expected) / 2 + 9], axis=-1))


# Against loops and libraries.


@pytest.mark.parametrize(
    ("rank", "name"), [(1, "replicate"), (2, "stride"), (3, "pairs"), (2, "circular"), (1, "reflect")]
)
def test_against_torch(rank, name):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    multiplier, options = OPTIONS[name][0], cut(OPTIONS[name][1], rank)
    stride, dilation, window = options["stride"], options["dilation"], (3, 2, 2)[:rank]
    args = operands(rank, (6, 7, 5)[:rank], window, multiplier=multiplier)
    conv = getattr(torch, f"conv{rank}d")

    def theirs(x, depthwise, pointwise, bias):
        x = padded(first(x), options["padding"], window, dilation)
        y = conv(x, torch_kernel(depthwise), None, stride, dilation=dilation, groups=2)
        return last(conv(y, torch_kernel(pointwise), bias))

    ours = value_and_grads(lambda *args: SEPARABLE[rank](*args, **options), *args)
    assert_same(ours, torch_value_and_grads(theirs, *args))


@ranks
def test_equals_the_dense_convolution_of_the_product(rank):
    x, depthwise, pointwise, bias = operands(rank, (5, 4, 6)[:rank], (3, 2, 2)[:rank])
    mixtures = depthwise.reshape(*depthwise.shape[:-2], 2, 2)[..., None] * pointwise.reshape(2, 2, 3)
    expected = reference.conv(x, mixtures.sum(-2), bias, stride=2)
    y = SEPARABLE[rank](*singles((x, depthwise, pointwise, bias)), stride=2)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_equals_its_two_parts():
    x, depthwise, pointwise, bias = singles(operands(2, (5, 6), (3, 3)))
    parts = ops.conv2d(depthwise_conv2d(x, depthwise, stride=2, padding="REFLECT"), pointwise, bias)
    np.testing.assert_array_equal(separable_conv2d(x, depthwise, pointwise, bias, stride=2, padding="REFLECT"), parts)


def loops_of_both(x, depthwise, pointwise, bias, weights, **options):
    between, pull = loops(x, depthwise, **options)
    mixture = pointwise.reshape(pointwise.shape[-2:])
    rows, pulled = between.reshape(-1, len(mixture)), weights.reshape(-1, bias.size)
    to_between = (weights @ mixture.T).reshape(between.shape)
    return between @ mixture + bias, [*pull(to_between), (rows.T @ pulled).reshape(pointwise.shape), pulled.sum(0)]


@drawn
@given(
    windows(),
    st.integers(0, 2),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 3),
    st.sampled_from(["float64", "float32", "bfloat16", "float16"]),
)
def test_any_options_against_loops(placed, batch, channels, multiplier, outputs, dtype):
    spatial, window, options = placed
    rank = len(spatial)
    args = operands(rank, spatial, window, channels=channels, multiplier=multiplier, outputs=outputs, batch=batch)
    check(
        "separable_conv",
        lambda *args: SEPARABLE[rank](*args, **options),
        lambda *args: loops_of_both(*args, **options),
        args,
        window,
        options,
        dtype,
        roundings=2,  # the result between the two convolutions has the dtype as well
    )


# Transformations.


@ranks
@ways
def test_every_way(way, rank):
    x, depthwise, pointwise, bias = singles(operands(rank, (5,) * rank, (3,) * rank))
    between, _ = loops(x, depthwise, stride=(2,) * rank, padding="SAME", dilation=(1,) * rank)
    run = way(lambda *args: SEPARABLE[rank](*args, stride=2))
    y = run(x, depthwise, pointwise, bias)
    np.testing.assert_allclose(y, between @ pointwise.reshape(4, 3) + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [(0, None, None, None), (None, 0, None, 0), (None, None, 0, None), (0, 0, 0, 0)])
def test_vmap_over_any_argument(axes):
    stacks = [np.stack([one, one[::-1]]) for one in singles(operands(1, (6,), (3,)))]
    args = [stack if axis == 0 else stack[0] for axis, stack in zip(axes, stacks, strict=True)]
    run = jax.jit(SEPARABLE[1])
    y = jax.vmap(run, axes)(*args)
    for i in range(2):
        one = run(*(arg[i] if axis == 0 else arg for arg, axis in zip(args, axes, strict=True)))
        np.testing.assert_allclose(y[i], one, rtol=1e-5, atol=1e-5)


def test_derivatives_against_differences():
    args = operands(2, (4, 3), (2, 2), batch=1)
    with jax.enable_x64(True):
        run = jax.jit(lambda *args: separable_conv2d(*args, padding="CIRCULAR"))
        check_grads(run, tuple(map(jnp.asarray, args)), order=1, modes=["fwd", "rev"])


def test_checkpoint_and_scan():
    x, depthwise, pointwise, bias = singles(operands(1, (6,), (3,), outputs=2))
    stacks = [np.stack([one, one[::-1]]) for one in (depthwise, pointwise, bias)]

    def layer(y, parameters):
        return jnp.tanh(separable_conv1d(y, *parameters))

    def loop(stacks):
        y = x
        for i in range(2):
            y = layer(y, [stack[i] for stack in stacks])
        return jnp.sum(y**2)

    def scanned(stacks):
        step = jax.checkpoint(lambda y, parameters: (layer(y, parameters), None))
        return jnp.sum(lax.scan(step, jnp.asarray(x), stacks)[0] ** 2)

    ours, theirs = (jax.jit(jax.value_and_grad(run))(stacks) for run in (scanned, loop))
    chex.assert_trees_all_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_no_recompilation():
    run = jax.jit(chex.assert_max_traces(separable_conv2d, n=1))
    for _ in range(3):
        run(*singles(operands(2, (5, 5), (3, 3))))


def test_two_calls_of_lax():
    jaxpr = str(jax.make_jaxpr(separable_conv2d)(*singles(operands(2, (5, 5), (3, 3)))))
    assert jaxpr.count("conv_general_dilated[") == 2


# Dtypes and odd sizes.


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once_a_part(dtype):
    """Sums of integers are exact in float32, and beyond the 8 or 11 bits of the halves."""
    rng = np.random.default_rng(0)
    shapes = (4, 20, 4), (5, 1, 8), (1, 8, 3)
    x, depthwise, pointwise = (jnp.asarray(rng.integers(-9, 21, shape), dtype) for shape in shapes)
    between = ops.conv1d(x.astype("float32"), depthwise.astype("float32"), groups=4).astype(dtype)
    y = ops.conv1d(between.astype("float32"), pointwise.astype("float32")).astype(dtype)
    ours = separable_conv1d(x, depthwise, pointwise)
    assert ours.dtype == dtype
    np.testing.assert_array_equal(ours, y)


def test_complex():
    real, imaginary = (singles(operands(1, (5,), (3,))), singles([arg + 1 for arg in operands(1, (5,), (3,))]))
    x, depthwise, pointwise, bias = (a + 1j * b for a, b in zip(real, imaginary, strict=True))
    between = reference.conv(x, depthwise, groups=2)
    y = separable_conv1d(x, depthwise, pointwise, bias)
    assert y.dtype == "complex64"
    np.testing.assert_allclose(y, between @ pointwise[0] + bias, rtol=1e-4, atol=1e-4)


@ranks
def test_batch_of_none(rank):
    args = singles(operands(rank, (4,) * rank, (3,) * rank, batch=0))
    y, pull = jax.vjp(jax.jit(lambda *args: SEPARABLE[rank](*args, padding="REFLECT")), *args)
    assert y.shape == (0, *(4,) * rank, 3)
    to_x, *others = pull(y)
    assert to_x.shape == args[0].shape
    assert not any(grad.any() for grad in others)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_stays_in_its_windows(value):
    x = jnp.ones((1, 7, 2)).at[0, 3, 1].set(value)
    y = separable_conv1d(x, jnp.ones((3, 1, 4)), jnp.ones((1, 4, 2)))
    np.testing.assert_array_equal(np.isfinite(y[0, :, 0]), [True, True, False, False, False, True, True])


# Errors.


def ones(*shape, dtype="float32"):
    return jnp.ones(shape, dtype)


PICTURE, DEPTHWISE, POINTWISE = ones(1, 8, 8, 3), ones(3, 3, 1, 6), ones(1, 1, 6, 4)

ERRORS = [
    (
        (ones(8, 8, 3), DEPTHWISE, POINTWISE),
        {},
        "x must be (N, H, W, C), got shape (8, 8, 3). Add a batch axis with x[None].",
    ),
    (
        (PICTURE, ones(3, 3, 3, 2), POINTWISE),
        {},
        "depthwise_kernel must be (*window, 1, C * multiplier), got shape (3, 3, 3, 2). If it is"
        " (*window, C, multiplier), use depthwise_kernel.reshape(3, 3, 1, 6).",
    ),
    (
        (ones(1, 6, 28, 28), DEPTHWISE, POINTWISE),
        {},
        "x (1, 6, 28, 28) looks channels-first: depthwise_kernel (3, 3, 1, 6) takes 6 channels in the last axis."
        " Use x.transpose(0, 2, 3, 1).",
    ),
    (
        (PICTURE, ones(3, 3, 1, 4), POINTWISE),
        {},
        "the channels of x must divide the outputs of depthwise_kernel, got x (1, 8, 8, 3) and depthwise_kernel"
        " (3, 3, 1, 4). The depthwise_kernel is (*window, 1, C * multiplier), x (N, H, W, C).",
    ),
    (
        (PICTURE, DEPTHWISE, ones(6, 4)),
        {},
        "pointwise_kernel must be (1, 1, C * multiplier, C_out), got shape (6, 4)."
        " Use pointwise_kernel.reshape(1, 1, 6, 4).",
    ),
    (
        (PICTURE, DEPTHWISE, ones(3, 1, 6, 4)),
        {},
        "pointwise_kernel must be (1, 1, C * multiplier, C_out), got shape (3, 1, 6, 4).",
    ),
    (
        (PICTURE, DEPTHWISE, ones(1, 1, 3, 4)),
        {},
        "pointwise_kernel (1, 1, 3, 4) takes 3 channels but depthwise_kernel (3, 3, 1, 6) gives 6. The first is"
        " (1, 1, C * multiplier, C_out).",
    ),
    (
        (PICTURE, DEPTHWISE, POINTWISE, ones(6)),
        {},
        "bias must be (4,), one value an output channel, got shape (6,).",
    ),
    (
        (PICTURE, DEPTHWISE, POINTWISE),
        {"padding": "FULL"},
        "padding must be amounts or one of SAME, SAME_LOWER, VALID, CIRCULAR, REFLECT, REPLICATE, got 'FULL'.",
    ),
    (
        (ones(1, 2, 8, 3), DEPTHWISE, POINTWISE),
        {"padding": "VALID"},
        "kernel (3, 3) does not fit the padded input (2, 8) along H. Pad, or use a smaller kernel.",
    ),
    ((PICTURE, DEPTHWISE, POINTWISE), {"stride": 0}, "stride must be at least 1, got 0."),
]


@pytest.mark.parametrize(("args", "options", "message"), ERRORS)
def test_errors_word_for_word(args, options, message, monkeypatch):
    monkeypatch.setattr(lax, "conv_general_dilated", lambda *args, **options: pytest.fail("lax saw the call"))
    with pytest.raises(ValueError, match="separable_conv2d") as caught:
        separable_conv2d(*args, **options)
    assert str(caught.value) == f"separable_conv2d: {message}"


@pytest.mark.parametrize(
    ("index", "dtype", "message"),
    [
        (0, "uint8", "x must be floating point, got uint8. Cast it with x.astype('float32')."),
        (1, "int32", "depthwise_kernel must be floating point, got int32."),
        (2, "bool", "pointwise_kernel must be floating point, got bool."),
        (1, "bfloat16", "x is float32 but depthwise_kernel is bfloat16. Cast one, as in"),
        (2, "bfloat16", "x is float32 but pointwise_kernel is bfloat16. Cast one, as in"),
        (3, "bfloat16", "x is float32 but bias is bfloat16. Cast one, as in bias.astype(x.dtype)."),
    ],
)
def test_errors_of_dtype(index, dtype, message):
    args = [PICTURE, DEPTHWISE, POINTWISE, ones(4)]
    args[index] = args[index].astype(dtype)
    with pytest.raises(TypeError, match="separable_conv2d") as caught:
        separable_conv2d(*args)
    assert str(caught.value).startswith(f"separable_conv2d: {message}")


@ranks
def test_errors_name_their_op(rank):
    kernels = ones(*(3,) * rank, 1, 4), ones(*(1,) * rank, 4, 2)
    for x in (ones(3), ones(1, *(5,) * rank, 3)):
        with pytest.raises(ValueError, match=f"^separable_conv{rank}d: "):
            SEPARABLE[rank](x, *kernels)
