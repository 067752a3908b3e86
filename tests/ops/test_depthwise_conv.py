import itertools
from typing import Any

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
from ops_helpers import (
    assert_same,
    first,
    flat_pads,
    last,
    normal,
    torch_kernel,
    torch_value_and_grads,
    unsimplified,
    value_and_grads,
    ways,
    weights_of,
)

from cnnjax import ops
from cnnjax.ops import depthwise_conv1d, depthwise_conv2d, depthwise_conv3d

DEPTHWISE: dict[int, Any] = {1: depthwise_conv1d, 2: depthwise_conv2d, 3: depthwise_conv3d}
ranks = pytest.mark.parametrize("rank", [1, 2, 3])
MODES = ("SAME", "SAME_LOWER", "VALID", "CIRCULAR", "REFLECT", "REPLICATE")


# Known values.


def test_channels_and_filters_by_hand():
    """Outputs 0 and 1 see channel 0, outputs 2 and 3 channel 1."""
    x = jnp.array([[[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]])
    kernel = jnp.array([[[1.0, 0.0, -1.0, 0.0]], [[0.0, 1.0, 1.0, 3.0]]])
    y = depthwise_conv1d(x, kernel, jnp.array([0.5, 0, 0, 0]), padding="VALID")
    np.testing.assert_array_equal(y, [[[1.5, 2, 10, 60], [2.5, 4, 20, 120]]])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 2, 4, -8]),
        ({"padding": "same_lower"}, [1, 1, 2, 4]),
        ({"padding": "VALID", "stride": 2}, [1, 4]),
        ({"padding": "VALID", "dilation": 2}, [3, 6]),
        ({"padding": "Causal", "dilation": 2}, [1, 2, 3, 6]),
        ({"padding": "CIRCULAR"}, [1, 2, 4, -7]),
        ({"padding": "REFLECT"}, [1, 2, 4, -4]),
        ({"padding": "REPLICATE"}, [1, 2, 4, 0]),
        ({"padding": 1, "stride": (2,)}, [1, 2, -8]),
        ({"padding": ((2, 0),), "stride": 2}, [0, 1, 4]),
    ],
)
def test_options_by_hand(options, expected):
    """[-1, 1] over 1, 2, 4, 8, and over as much with the other sign."""
    x = jnp.array([1.0, 2.0, 4.0, 8.0])[None, :, None] * jnp.array([1.0, -1.0])
    y = depthwise_conv1d(x, jnp.array([-1.0, 1.0])[:, None, None] * jnp.ones(2), **options)
    np.testing.assert_array_equal(y[0], np.outer(expected, [1, -1]))


def test_volume_by_hand():
    y = depthwise_conv3d(jnp.ones((1, 3, 3, 3, 2)), jnp.ones((3, 3, 3, 1, 2)) * jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(y[0, 1, 1, 1], [27, 54])
    np.testing.assert_array_equal(y[0, 0, 0, 0], [8, 16])


# Against loops and libraries.


def pixels(spatial, window, *, stride, padding, dilation):
    """How many places there are along each axis, and for all of them (place, tap, pixel) where x has a pixel."""
    margin = reference.pairs(spatial, window, padding, stride, dilation)
    fill: dict[str, Any] = {"mode": reference.FILL[padding]} if padding in reference.FILL else {"constant_values": -1}
    indices = [np.pad(np.arange(n), pair, **fill) for n, pair in zip(spatial, margin, strict=True)]
    axes = list(zip(indices, window, stride, dilation, strict=True))
    output = tuple(max((len(index) - d * (k - 1) - 1) // s + 1, 0) for index, k, s, d in axes)
    taps = []
    for place, tap in itertools.product(np.ndindex(*output), np.ndindex(*window)):
        at = tuple(index[p * s + t * d] for (index, _, s, d), p, t in zip(axes, place, tap, strict=True))
        if min(at) >= 0:
            taps.append((place, tap, at))
    return output, taps


def loops(x, kernel, **options):
    """The value, and what turns weights of its elements into the gradients of their weighted sum: tap by tap."""
    output, taps = pixels(x.shape[1:-1], kernel.shape[:-2], **options)
    multiplier = kernel.shape[-1] // x.shape[-1]
    y = np.zeros((x.shape[0], *output, kernel.shape[-1]))
    for place, tap, at in taps:
        y[(slice(None), *place)] += np.repeat(x[(slice(None), *at)], multiplier, axis=-1) * kernel[tap][0]

    def pull(weights):
        to_x, to_kernel = np.zeros(x.shape), np.zeros(kernel.shape)
        for place, tap, at in taps:
            weight, pixel = weights[(slice(None), *place)], x[(slice(None), *at)]
            to_kernel[tap][0] += (np.repeat(pixel, multiplier, axis=-1) * weight).sum(0)
            to_x[(slice(None), *at)] += (weight * kernel[tap][0]).reshape(*pixel.shape, multiplier).sum(-1)
        return to_x, to_kernel

    return y, pull


def loops_with_bias(x, kernel, bias, weights, **options):
    y, pull = loops(x, kernel, **options)
    return y + bias, [*pull(weights), weights.reshape(-1, bias.size).sum(0)]


def padded(x, padding, window, dilation):
    """A tensor (N, C, *spatial) with the amounts or the mode of padding around it."""
    pad = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional.pad
    if not isinstance(padding, str):
        return pad(x, flat_pads(padding))
    pairs = reference.pairs(tuple(x.shape[2:]), window, padding, 1, dilation)
    return pad(x, flat_pads(pairs), mode=padding.lower())


OPTIONS = {
    "stride": (2, {"stride": (2, 1, 3), "padding": ((0, 0),) * 3, "dilation": (1, 1, 1)}),
    "pairs": (1, {"stride": (1, 2, 1), "padding": ((2, 0), (1, 3), (0, 1)), "dilation": (2, 1, 1)}),
    "circular": (3, {"stride": (1, 1, 1), "padding": "CIRCULAR", "dilation": (1, 2, 1)}),
    "reflect": (1, {"stride": (2, 2, 1), "padding": "REFLECT", "dilation": (2, 1, 1)}),
    "replicate": (2, {"stride": (1, 1, 2), "padding": "REPLICATE", "dilation": (1, 1, 2)}),
}


def cut(options, rank):
    """The options of the first axes."""
    return {name: value if isinstance(value, str) else value[:rank] for name, value in options.items()}


@pytest.mark.parametrize(
    ("rank", "name"),
    [(1, "stride"), (2, "stride"), (3, "stride"), (2, "pairs"), (3, "circular"), (1, "reflect"), (2, "replicate")],
)
def test_against_torch(rank, name):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    multiplier, options = OPTIONS[name][0], cut(OPTIONS[name][1], rank)
    padding, stride, dilation = options["padding"], options["stride"], options["dilation"]
    window, outputs = (3, 2, 2)[:rank], 3 * multiplier
    args = normal(0, 2, *(6, 7, 5)[:rank], 3), normal(1, *window, 1, outputs), normal(2, outputs)
    conv = getattr(torch, f"conv{rank}d")

    def theirs(x, kernel, bias):
        x = padded(first(x), padding, window, dilation)
        return last(conv(x, torch_kernel(kernel), bias, stride, dilation=dilation, groups=3))

    ours = value_and_grads(lambda *args: DEPTHWISE[rank](*args, **options), *args)
    assert_same(ours, torch_value_and_grads(theirs, *args))


def test_kernel_of_keras():
    """Keras's output c * multiplier + m is channel c under kernel[:, :, c, m]."""
    x, keras = normal(0, 1, 5, 6, 3, dtype="float32"), normal(1, 2, 3, 3, 2, dtype="float32")
    y = depthwise_conv2d(x, keras.reshape(2, 3, 1, 6), padding="VALID")
    for c, m in np.ndindex(3, 2):
        alone = ops.conv2d(x[..., c : c + 1], keras[:, :, c, m, None, None], padding="VALID")
        np.testing.assert_allclose(y[..., c * 2 + m], alone[..., 0], rtol=1e-5, atol=1e-5)


PRECISION = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 2**-6, "float16": 2**-9}


@st.composite
def windows(draw, most=3):
    """Spatial sizes, a window and options; the window may not fit, and REFLECT may add too much."""
    rank = draw(st.integers(1, most))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    spatial, window = each(1, (11, 6, 4)[rank - 1]), each(1, (5, 4, 2)[rank - 1])
    amounts = tuple(zip(each(0, 3), each(0, 3), strict=True))
    modes = [*MODES, *(["CAUSAL"] if rank == 1 else [])]
    padding = draw(st.sampled_from([*modes, amounts, amounts]))
    return spatial, window, {"stride": each(1, 3), "padding": padding, "dilation": each(1, (3, 2, 2)[rank - 1])}


def check(family, op, expected, args, window, options, dtype, *, roundings=1):
    """Compare values and gradients with loops, or find the error that the loops have no answer for."""
    spatial = args[0].shape[1:-1]
    spans = [(k - 1) * d + 1 for k, d in zip(window, options["dilation"], strict=True)]
    if options["padding"] == "REFLECT" and any(span // 2 >= n for span, n in zip(spans, spatial, strict=True)):
        rule = "REFLECT must add fewer pixels"
    elif 0 in (output := pixels(spatial, window, **options)[0]):
        rule = "does not fit the padded input"
    else:
        if dtype == "float64" and any(k > n for k, n in zip(window, output, strict=True)):
            # XLA's CPU compiler aborts on some float64 gradients of depthwise kernels larger than the output.
            dtype = "float32"
        args = [arg.astype(jnp.dtype(dtype)) for arg in args]
        y, grads = value_and_grads(op, *args, compiler_options=unsimplified(window, output, stride=options["stride"]))
        assert {array.dtype.name for array in (y, *grads)} == {dtype}
        weights = np.asarray(weights_of(y.shape).astype(y.dtype), np.float64)
        value, gradients = expected(*(np.asarray(arg, np.float64) for arg in args), weights)
        for our, their in zip((y, *grads), (value, *gradients), strict=True):
            close(f"{family}, {dtype}", our, their, roundings * PRECISION[dtype])
        return
    with pytest.raises(ValueError, match=rule):
        op(*args)


@drawn
@given(windows(), st.integers(0, 2), st.integers(1, 3), st.integers(1, 3), st.sampled_from(list(PRECISION)))
def test_any_options_against_loops(placed, batch, channels, multiplier, dtype):
    spatial, window, options = placed
    outputs = channels * multiplier
    args = normal(0, batch, *spatial, channels), normal(1, *window, 1, outputs), normal(2, outputs)
    op = DEPTHWISE[len(spatial)]
    check(
        "depthwise_conv",
        lambda *args: op(*args, **options),
        lambda *args: loops_with_bias(*args, **options),
        args,
        window,
        options,
        dtype,
    )


# Transformations.


@ranks
@ways
def test_every_way(way, rank):
    x, kernel, bias = normal(0, 2, *(5,) * rank, 2), normal(1, *(3,) * rank, 1, 4), normal(2, 4)
    run = way(lambda *args: DEPTHWISE[rank](*args, stride=2))
    y = run(*(arg.astype("float32") for arg in (x, kernel, bias)))
    np.testing.assert_allclose(y, reference.conv(x, kernel, bias, stride=2, groups=2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", list(itertools.product((0, None), repeat=3))[:-1])
def test_vmap_over_any_argument(axes):
    args = (
        normal(0, 3, 2, 6, 2, dtype="float32"),
        normal(1, 3, 3, 1, 4, dtype="float32"),
        normal(2, 3, 4).astype("float32"),
    )
    args = [arg if axis == 0 else arg[0] for arg, axis in zip(args, axes, strict=True)]
    y = jax.vmap(depthwise_conv1d, axes)(*args)
    for i in range(3):
        one = depthwise_conv1d(*(arg[i] if axis == 0 else arg for arg, axis in zip(args, axes, strict=True)))
        np.testing.assert_allclose(y[i], one, rtol=1e-5, atol=1e-5)


def test_derivatives_against_differences():
    args = normal(0, 1, 4, 3, 2), normal(1, 2, 2, 1, 4), normal(2, 4)
    with jax.enable_x64(True):
        run = jax.jit(lambda *args: depthwise_conv2d(*args, padding="REFLECT"))
        check_grads(run, tuple(map(jnp.asarray, args)), order=1, modes=["fwd", "rev"])


def test_checkpoint_and_scan():
    x, kernels = normal(0, 1, 6, 2, dtype="float32"), normal(1, 3, 3, 1, 2, dtype="float32")

    def loop(kernels):
        y = x
        for kernel in kernels:
            y = jnp.tanh(depthwise_conv1d(y, kernel))
        return jnp.sum(y**2)

    def scanned(kernels):
        layer = jax.checkpoint(lambda y, kernel: (jnp.tanh(depthwise_conv1d(y, kernel)), None))
        return jnp.sum(lax.scan(layer, jnp.asarray(x), kernels)[0] ** 2)

    ours, theirs = (jax.jit(jax.value_and_grad(run))(kernels) for run in (scanned, loop))
    chex.assert_trees_all_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_no_recompilation():
    run = jax.jit(chex.assert_max_traces(depthwise_conv2d, n=1))
    for seed in range(3):
        run(normal(seed, 1, 5, 5, 2, dtype="float32"), normal(seed, 3, 3, 1, 2, dtype="float32"))


def test_one_call_of_lax():
    jaxpr = str(jax.make_jaxpr(depthwise_conv2d)(jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 1, 4)), jnp.ones(4)))
    assert jaxpr.count("conv_general_dilated[") == 1
    assert "feature_group_count=2" in jaxpr


# Dtypes and odd sizes.


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(dtype):
    """Sums of integers are exact in float32, and beyond the 8 or 11 bits of the halves."""
    rng = np.random.default_rng(0)
    args = [jnp.asarray(rng.integers(-9, 31, shape), dtype) for shape in [(8, 30, 4), (15, 1, 8), (8, 30, 8)]]

    @jax.jit
    def run(x, kernel, weights):
        y, pull = jax.vjp(depthwise_conv1d, x, kernel)
        return y, *pull(weights)

    wide = run(*(arg.astype("float32") for arg in args))
    for ours, theirs in zip(run(*args), wide, strict=True):
        assert not (theirs == theirs.astype(dtype)).all()
        np.testing.assert_array_equal(ours, theirs.astype(dtype))


def test_complex_against_loops():
    x, kernel = normal(0, 1, 5, 2) + 1j * normal(1, 1, 5, 2), normal(2, 3, 1, 4) + 1j * normal(3, 3, 1, 4)
    y = depthwise_conv1d(x.astype("complex64"), kernel.astype("complex64"))
    np.testing.assert_allclose(y, reference.conv(x, kernel, groups=2), rtol=1e-4, atol=1e-4)


@ranks
@pytest.mark.parametrize("padding", ["SAME", "REPLICATE"])
def test_batch_of_none(rank, padding):
    x, kernel = jnp.ones((0, *(4,) * rank, 2)), jnp.ones((*(3,) * rank, 1, 4))
    run = jax.jit(lambda *args: DEPTHWISE[rank](*args, padding=padding))
    y, pull = jax.vjp(run, x, kernel, jnp.ones(4))
    assert y.shape == (0, *(4,) * rank, 4)
    to_x, to_kernel, to_bias = pull(y)
    assert to_x.shape == x.shape
    assert not to_kernel.any()
    assert not to_bias.any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_stays_in_its_windows_and_channel(value):
    x = jnp.ones((1, 7, 2)).at[0, 3, 1].set(value)
    y = depthwise_conv1d(x, jnp.ones((3, 1, 4)))
    finite = np.ones((7, 4), bool)
    finite[2:5, 2:] = False
    np.testing.assert_array_equal(np.isfinite(y[0]), finite)


@pytest.mark.parametrize(
    ("n", "k", "stride", "padding", "dilation"), [(7, 3, 2, 1, 1), (9, 2, 3, 0, 2), (5, 4, 1, 2, 1)]
)
def test_size_is_that_of_shapes(n, k, stride, padding, dilation):
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    y = jax.eval_shape(lambda x, k: depthwise_conv1d(x, k, **options), jnp.ones((2, n, 2)), jnp.ones((k, 1, 2)))
    assert y.shape == (2, ops.shapes.conv_output_size(n, k, **options), 2)


# Errors.


def ones(*shape, dtype="float32"):
    return jnp.ones(shape, dtype)


PICTURE, KERNEL = ones(1, 8, 8, 3), ones(3, 3, 1, 6)

ERRORS = [
    (
        (ones(8, 8, 3), KERNEL),
        {},
        "x must be (N, H, W, C), got shape (8, 8, 3). Add a batch axis with x[None].",
    ),
    (
        (PICTURE, ones(3, 3, 6)),
        {},
        "kernel must be (*window, 1, C * multiplier) with 2 window axes, got shape (3, 3, 6).",
    ),
    (
        (PICTURE, ones(3, 0, 1, 6)),
        {},
        "kernel must be (*window, 1, C * multiplier) with 2 window axes, got shape (3, 0, 1, 6).",
    ),
    (
        (PICTURE, ones(3, 3, 1, 0)),
        {},
        "kernel must be (*window, 1, C * multiplier) with 2 window axes, got shape (3, 3, 1, 0).",
    ),
    (
        (PICTURE, ones(3, 3, 3, 2)),
        {},
        "kernel must be (*window, 1, C * multiplier), got shape (3, 3, 3, 2). If it is (*window, C, multiplier), use"
        " kernel.reshape(3, 3, 1, 6).",
    ),
    ((PICTURE, ones(3, 3, 2, 6)), {}, "kernel must be (*window, 1, C * multiplier), got shape (3, 3, 2, 6)."),
    (
        (ones(1, 8, 8, 0), KERNEL),
        {},
        "x must have channels, got shape (1, 8, 8, 0). Only the batch axis may be empty.",
    ),
    (
        (ones(1, 6, 28, 28), KERNEL),
        {},
        "x (1, 6, 28, 28) looks channels-first: kernel (3, 3, 1, 6) takes 6 channels in the last axis."
        " Use x.transpose(0, 2, 3, 1).",
    ),
    (
        (ones(1, 8, 8, 4), KERNEL),
        {},
        "the channels of x must divide the outputs of kernel, got x (1, 8, 8, 4) and kernel (3, 3, 1, 6). The kernel is"
        " (*window, 1, C * multiplier), x (N, H, W, C).",
    ),
    ((PICTURE, KERNEL, ones(3)), {}, "bias must be (6,), one value an output channel, got shape (3,)."),
    (
        (PICTURE, KERNEL),
        {"padding": "CAUSAL"},
        "padding must be amounts or one of SAME, SAME_LOWER, VALID, CIRCULAR, REFLECT, REPLICATE, got 'CAUSAL'.",
    ),
    (
        (ones(1, 8, 2, 3), KERNEL),
        {"padding": "VALID"},
        "kernel (3, 3) does not fit the padded input (8, 2) along W. Pad, or use a smaller kernel.",
    ),
    (
        (PICTURE, KERNEL),
        {"stride": (1, 2, 3)},
        "stride takes one value an axis (2), got (1, 2, 3). Give an int for all axes.",
    ),
    ((PICTURE, KERNEL), {"dilation": 0}, "dilation must be at least 1, got 0."),
]


@pytest.mark.parametrize(("args", "options", "message"), ERRORS)
def test_errors_word_for_word(args, options, message, monkeypatch):
    monkeypatch.setattr(lax, "conv_general_dilated", lambda *args, **options: pytest.fail("lax saw the call"))
    with pytest.raises(ValueError, match="depthwise_conv2d") as caught:
        depthwise_conv2d(*args, **options)
    assert str(caught.value) == f"depthwise_conv2d: {message}"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            (ones(1, 8, 8, 3, dtype="uint8"), KERNEL),
            "x must be floating point, got uint8. Cast it with x.astype('float32').",
        ),
        (
            (PICTURE, ones(3, 3, 1, 3, dtype="int32")),
            "kernel must be floating point, got int32. Cast it with kernel.astype('float32').",
        ),
        (
            (ones(1, 8, 8, 3, dtype="bfloat16"), KERNEL),
            "x is bfloat16 but kernel is float32. Cast one, as in kernel.astype(x.dtype).",
        ),
    ],
)
def test_errors_of_dtype_word_for_word(args, message):
    with pytest.raises(TypeError, match="depthwise_conv2d") as caught:
        depthwise_conv2d(*args)
    assert str(caught.value) == f"depthwise_conv2d: {message}"


@ranks
def test_errors_name_their_op(rank):
    for args in [(ones(3), KERNEL), (ones(1, *(5,) * rank, 3), ones(*(3,) * rank, 1, 4))]:
        with pytest.raises(ValueError, match=f"^depthwise_conv{rank}d: "):
            DEPTHWISE[rank](*args)


def test_options_are_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        depthwise_conv2d(PICTURE, KERNEL, None, 2)  # pyright: ignore[reportCallIssue]
