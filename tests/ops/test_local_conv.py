import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from comparison import drawn
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.test_util import check_grads
from ops_helpers import assert_same, first, normal, torch_value_and_grads, value_and_grads, ways
from test_depthwise_conv import OPTIONS, check, cut, padded, pixels, windows

from cnnjax import ops
from cnnjax.ops import local_conv1d, local_conv2d

LOCAL: dict[int, Any] = {1: local_conv1d, 2: local_conv2d}
ranks = pytest.mark.parametrize("rank", [1, 2])


def operands(spatial, places, window, *, channels=2, outputs=3, batch=2):
    taken = channels * math.prod(window)
    shapes = (batch, *spatial, channels), (*places, taken, outputs), (*places, outputs)
    return [normal(seed, *shape) for seed, shape in enumerate(shapes)]


def singles(args):
    return [arg.astype("float32") for arg in args]


# Known values.


@pytest.mark.parametrize(
    ("kernel", "options", "expected"),
    [
        ([[-1, 1], [0.5, 0.5], [0, 10]], {"padding": "VALID"}, [1, 3, 80]),
        ([[-1, 1], [0.5, 0.5], [0, 10], [1, 7]], {}, [1, 3, 80, 8]),
        ([[1, 7], [-1, 1], [0.5, 0.5], [0, 10]], {"padding": "Causal"}, [7, 1, 3, 80]),
        ([[1, 2], [3, 4]], {"padding": "VALID", "stride": 2}, [5, 44]),
        ([[1, 2], [3, 4]], {"padding": "VALID", "dilation": (2,)}, [9, 38]),
        ([[0, 1], [0, 2], [0, 3], [0, 4]], {"padding": "circular"}, [2, 8, 24, 4]),
        ([[0, 1], [0, 2], [0, 3], [0, 4]], {"padding": "REFLECT"}, [2, 8, 24, 16]),
        ([[0, 1], [0, 2], [0, 3], [0, 4]], {"padding": "REPLICATE"}, [2, 8, 24, 32]),
        ([[1, 1], [1, 2], [1, 3]], {"padding": 1, "stride": 2}, [1, 10, 8]),
        ([[1, 1], [1, 2], [1, 3]], {"padding": ((2, 0),), "stride": (2,)}, [0, 5, 28]),
    ],
)
def test_series_by_hand(kernel, options, expected):
    x = jnp.array([1.0, 2.0, 4.0, 8.0]).reshape(1, 4, 1)
    y = local_conv1d(x, jnp.array(kernel, jnp.float32)[..., None], window=2, **options)
    np.testing.assert_array_equal(y.ravel(), expected)


def test_channels_come_before_the_window():
    x = jnp.array([[[1.0, 10.0], [2.0, 20.0]]])
    y = local_conv1d(x, jnp.array([1.0, 3.0, 5.0, 7.0]).reshape(1, 4, 1), window=2, padding="VALID")
    assert y.item() == 1 * 1 + 3 * 2 + 5 * 10 + 7 * 20


def test_bias_of_every_place_and_of_all():
    x, kernel = jnp.ones((1, 2, 2, 1)), jnp.ones((2, 2, 1, 3))
    everywhere = jnp.arange(12.0).reshape(2, 2, 3)
    np.testing.assert_array_equal(local_conv2d(x, kernel, everywhere, window=1)[0], everywhere + 1)
    y = local_conv2d(x, kernel, jnp.array([1.0, 2.0, 3.0]), window=1)
    np.testing.assert_array_equal(y, np.broadcast_to([2.0, 3.0, 4.0], (1, 2, 2, 3)))


# Against loops and libraries.


def loops(x, kernel, bias, weights, *, window, **options):
    """The value, and the gradients of the weighted sum, tap by tap."""
    output, taps = pixels(x.shape[1:-1], window, **options)
    y = np.zeros((x.shape[0], *output, kernel.shape[-1])) + bias
    to_x, to_kernel = np.zeros(x.shape), np.zeros(kernel.shape)
    for place, tap, at in taps:
        rows = (*place, slice(int(np.ravel_multi_index(tap, window)), None, math.prod(window)))
        pixel, weight = x[(slice(None), *at)], weights[(slice(None), *place)]
        y[(slice(None), *place)] += pixel @ kernel[rows]
        to_x[(slice(None), *at)] += weight @ kernel[rows].T
        to_kernel[rows] += pixel.T @ weight
    return y, [to_x, to_kernel, weights.sum(tuple(range(weights.ndim - bias.ndim)))]


@pytest.mark.parametrize(
    ("window", "stride", "padding", "dilation"),
    [
        ((3, 2), (1, 2), "SAME", (1, 1)),
        ((2,), (2,), "VALID", (2,)),
        ((1, 4), (3, 2), ((1, 2), (0, 3)), (1, 2)),
    ],
)
def test_against_lax(window, stride, padding, dilation):
    rank = len(window)
    spatial, letters = (7, 6)[:rank], {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}[rank]
    args = operands(spatial, pixels(spatial, window, stride=stride, padding=padding, dilation=dilation)[0], window)

    def theirs(x, kernel, bias):
        options = {"rhs_dilation": dilation, "dimension_numbers": letters}
        return lax.conv_general_dilated_local(x, kernel, stride, padding, window, **options) + bias

    ours = value_and_grads(
        lambda *args: LOCAL[rank](*args, window=window, stride=stride, padding=padding, dilation=dilation), *args
    )
    assert_same(ours, value_and_grads(theirs, *args))


@pytest.mark.parametrize(
    ("rank", "name"), [(1, "stride"), (2, "pairs"), (1, "circular"), (2, "reflect"), (2, "replicate")]
)
def test_against_torch(rank, name):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    options, spatial, window = cut(OPTIONS[name][1], rank), (6, 7)[:rank], (3, 2)[:rank]
    places, _ = pixels(spatial, window, **options)
    args = operands(spatial, places, window)

    def theirs(x, kernel, bias):
        x = padded(first(x), options["padding"], window, options["dilation"])
        if rank == 1:
            x = x[..., None]
        full = {name: (*options[name], 1)[:2] for name in ("stride", "dilation")}
        rows = torch.nn.functional.unfold(x, (*window, 1)[:2], **full)
        rows = rows.reshape(*rows.shape[:2], *places)
        return torch.einsum("nfhw,hwfo->nhwo" if rank == 2 else "nft,tfo->nto", rows, kernel) + bias

    ours = value_and_grads(lambda *args: LOCAL[rank](*args, window=window, **options), *args)
    assert_same(ours, torch_value_and_grads(theirs, *args))


@ranks
def test_the_same_filter_everywhere_is_a_convolution(rank):
    x, kernel = normal(0, 2, *(6, 5)[:rank], 2, dtype="float32"), normal(1, *(3, 2)[:rank], 2, 4, dtype="float32")
    rows = np.moveaxis(kernel, -2, 0).reshape(-1, 4)
    conv: Any = {1: ops.conv1d, 2: ops.conv2d}[rank]
    for options in ({}, {"stride": 2, "padding": "SAME_LOWER"}, {"padding": "REFLECT", "dilation": 2}):
        expected = conv(x, kernel, **options)
        everywhere = np.broadcast_to(rows, (*expected.shape[1:-1], *rows.shape))
        run = jax.jit(lambda *args, options=options: LOCAL[rank](*args, window=kernel.shape[:rank], **options))
        y = run(x, everywhere)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_kernel_of_keras():
    """Keras 2 has a row of (Kh, Kw, C) for every place, all places in one axis."""
    x, keras = normal(0, 2, 5, 4, 3, dtype="float32"), normal(1, 4 * 2, 2 * 3 * 3, 5, dtype="float32")
    rows = keras.reshape(4, 2, 2, 3, 3, 5).transpose(0, 1, 4, 2, 3, 5).reshape(4, 2, 18, 5)
    y = local_conv2d(x, rows, window=(2, 3), padding="VALID")
    for i, j in np.ndindex(4, 2):
        seen = x[:, i : i + 2, j : j + 3].reshape(2, -1)
        np.testing.assert_allclose(y[:, i, j], seen @ keras[i * 2 + j], rtol=1e-4, atol=1e-5)


@drawn
@given(
    windows(most=2),
    st.integers(0, 2),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(["float64", "float32", "bfloat16", "float16"]),
)
def test_any_options_against_loops(placed, batch, channels, outputs, everywhere, dtype):
    spatial, window, options = placed
    places, _ = pixels(spatial, window, **options)
    x, kernel, bias = operands(spatial, places, window, channels=channels, outputs=outputs, batch=batch)
    args = x, kernel, bias if everywhere else normal(2, outputs)
    check(
        "local_conv",
        lambda *args: LOCAL[len(spatial)](*args, window=window, **options),
        lambda *args: loops(*args, window=window, **options),
        args,
        window,
        options,
        dtype,
    )


# Transformations.


@ranks
@ways
def test_every_way(way, rank):
    x, kernel, bias = singles(operands((5,) * rank, (3,) * rank, (3,) * rank))
    options = {"stride": (2,) * rank, "padding": "SAME", "dilation": (1,) * rank}
    expected, _ = loops(x, kernel, bias, np.zeros((2, *(3,) * rank, 3)), window=(3,) * rank, **options)
    run = way(lambda *args: LOCAL[rank](*args, window=3, stride=2))
    np.testing.assert_allclose(run(x, kernel, bias), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [(0, None, None), (None, 0, None), (None, None, 0), (0, 0, 0)])
def test_vmap_over_any_argument(axes):
    stacks = [np.stack([one, one[::-1]]) for one in singles(operands((6,), (6,), (3,)))]
    args = [stack if axis == 0 else stack[0] for axis, stack in zip(axes, stacks, strict=True)]

    @jax.jit
    def run(*args):
        return local_conv1d(*args, window=3)

    y = jax.vmap(run, axes)(*args)
    for i in range(2):
        one = run(*(arg[i] if axis == 0 else arg for arg, axis in zip(args, axes, strict=True)))
        np.testing.assert_allclose(y[i], one, rtol=1e-5, atol=1e-5)


def test_derivatives_against_differences():
    args = operands((4, 3), (4, 3), (2, 2), batch=1)
    with jax.enable_x64(True):
        run = jax.jit(lambda *args: local_conv2d(*args, window=2, padding="CIRCULAR"))
        check_grads(run, tuple(map(jnp.asarray, args)), order=1, modes=["fwd", "rev"])


def test_checkpoint_and_scan():
    x, kernel, bias = singles(operands((6,), (6,), (3,), outputs=2))
    stacks = [np.stack([one, one[::-1]]) for one in (kernel, bias)]

    def layer(y, parameters):
        return jnp.tanh(local_conv1d(y, *parameters, window=3))

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
    run = jax.jit(chex.assert_max_traces(lambda *args: local_conv2d(*args, window=3), n=1))
    for _ in range(3):
        run(*singles(operands((5, 5), (5, 5), (3, 3))))


def test_one_product():
    jaxpr = str(jax.make_jaxpr(lambda *args: local_conv2d(*args, window=3))(*operands((5, 5), (5, 5), (3, 3))))
    assert jaxpr.count("dot_general[") == 1


# Dtypes and odd sizes.


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(dtype):
    """Sums of integers are exact in float32, and beyond the 8 or 11 bits of the halves; gradients and bias too."""
    rng = np.random.default_rng(0)
    shapes = (32, 9, 2), (9, 6, 4), (9, 4), (32, 9, 4)
    args = [jnp.asarray(rng.integers(-9, 31, shape), dtype) for shape in shapes]

    @jax.jit
    def run(x, kernel, bias, weights):
        y, pull = jax.vjp(lambda *args: local_conv1d(*args, window=3), x, kernel, bias)
        return y, *pull(weights)

    wide = run(*(arg.astype("float32") for arg in args))
    for ours, theirs in zip(run(*args), wide, strict=True):
        assert ours.dtype == dtype
        assert dtype == "float16" or not (theirs == theirs.astype(dtype)).all()
        np.testing.assert_array_equal(ours, theirs.astype(dtype))


def test_complex_against_loops():
    args = [(real + 1j * (real - 1)).astype("complex64") for real in operands((5,), (5,), (2,))]
    y = local_conv1d(*args, window=2, padding="CAUSAL")
    assert y.dtype == "complex64"
    x, kernel, bias = args
    past = np.pad(x, [(0, 0), (1, 0), (0, 0)])
    for t in range(5):
        seen = past[:, t : t + 2].transpose(0, 2, 1).reshape(2, -1)
        np.testing.assert_allclose(y[:, t], seen @ kernel[t] + bias[t], rtol=1e-4, atol=1e-4)


@ranks
@pytest.mark.parametrize("padding", ["SAME", "REPLICATE"])
def test_batch_of_none(rank, padding):
    args = singles(operands((4,) * rank, (4,) * rank, (3,) * rank, batch=0))
    y, pull = jax.vjp(jax.jit(lambda *args: LOCAL[rank](*args, window=3, padding=padding)), *args)
    assert y.shape == (0, *(4,) * rank, 3)
    to_x, *others = pull(y)
    assert to_x.shape == args[0].shape
    assert not any(grad.any() for grad in others)


def test_infinity_stays_infinite_in_its_windows():
    """A window is a copy: no zero of a one-hot filter turns the infinity beside a finite pixel into NaN."""
    x = jnp.ones((1, 7, 2)).at[0, 3, 1].set(jnp.inf)
    y = local_conv1d(x, jnp.ones((7, 6, 1)), window=3).ravel()
    np.testing.assert_array_equal(y, [4, 6, np.inf, np.inf, np.inf, 6, 4])
    y = local_conv1d(x.at[0, 3, 1].set(jnp.nan), jnp.ones((7, 6, 1)), window=3).ravel()
    np.testing.assert_array_equal(np.isnan(y), [False, False, True, True, True, False, False])


# Errors.


def ones(*shape, dtype="float32"):
    return jnp.ones(shape, dtype)


PICTURE, KERNEL = ones(1, 6, 5, 3), ones(6, 5, 27, 8)

ERRORS = [
    ((ones(6, 5, 3), KERNEL), {}, "x must be (N, H, W, C), got shape (6, 5, 3). Add a batch axis with x[None]."),
    (
        (ones(1, 0, 5, 3), KERNEL),
        {},
        "x must have pixels, got shape (1, 0, 5, 3). Only the batch axis may be empty.",
    ),
    (
        (PICTURE, ones(30, 27, 8)),
        {},
        "kernel must be (*out_spatial, C * prod(window), C_out) with 2 spatial axes, got shape (30, 27, 8).",
    ),
    (
        (PICTURE, ones(6, 5, 36, 8)),
        {},
        "x has 3 channels and window (3, 3) 9 taps, 27 together, but kernel (6, 5, 36, 8) takes 36. The kernel is"
        " (*out_spatial, C * prod(window), C_out).",
    ),
    (
        (ones(1, 3, 6, 5), KERNEL),
        {"padding": "VALID"},
        "x (1, 3, 6, 5) looks channels-first: kernel (6, 5, 27, 8) takes 3 channels in the last axis."
        " Use x.transpose(0, 2, 3, 1).",
    ),
    (
        (PICTURE, KERNEL),
        {"padding": "VALID"},
        "kernel must have one filter a place, (4, 3) for x (1, 6, 5, 3), got shape (6, 5, 27, 8). Resize x, or make"
        " the kernel for this size.",
    ),
    (
        (PICTURE, KERNEL, ones(5)),
        {},
        "bias must be (6, 5, 8) or (8,), got shape (5,).",
    ),
    (
        (PICTURE, KERNEL),
        {"padding": "CAUSAL"},
        "padding must be amounts or one of SAME, SAME_LOWER, VALID, CIRCULAR, REFLECT, REPLICATE, got 'CAUSAL'.",
    ),
    (
        (ones(1, 6, 2, 3), KERNEL),
        {"padding": "VALID"},
        "window (3, 3) does not fit the padded input (6, 2) along W. Pad, or use a smaller window.",
    ),
    (
        (ones(1, 6, 1, 3), ones(6, 1, 27, 8)),
        {"padding": "REFLECT"},
        "REFLECT must add fewer pixels than there are, got 1 for 1 along W. Use REPLICATE, or a smaller kernel.",
    ),
    ((PICTURE, KERNEL), {"window": 0}, "window must be at least 1, got 0."),
    (
        (PICTURE, KERNEL),
        {"window": (3, 3, 3)},
        "window takes one value an axis (2), got (3, 3, 3). Give an int for all axes.",
    ),
    ((PICTURE, KERNEL), {"stride": 0}, "stride must be at least 1, got 0."),
    ((PICTURE, KERNEL), {"dilation": (1, 0)}, "dilation must be at least 1, got (1, 0)."),
]


@pytest.mark.parametrize(("args", "options", "message"), ERRORS)
def test_errors_word_for_word(args, options, message, monkeypatch):
    monkeypatch.setattr(lax, "dot_general", lambda *args, **options: pytest.fail("lax saw the call"))
    with pytest.raises(ValueError, match="local_conv2d") as caught:
        local_conv2d(*args, **{"window": 3, **options})
    assert str(caught.value) == f"local_conv2d: {message}"


@pytest.mark.parametrize(
    ("index", "dtype", "message"),
    [
        (0, "uint8", "x must be floating point, got uint8. Cast it with x.astype('float32')."),
        (1, "int32", "kernel must be floating point, got int32. Cast it with kernel.astype('float32')."),
        (2, "bool", "bias must be floating point, got bool. Cast it with bias.astype('float32')."),
        (1, "bfloat16", "x is float32 but kernel is bfloat16. Cast one, as in kernel.astype(x.dtype)."),
        (2, "bfloat16", "x is float32 but bias is bfloat16. Cast one, as in bias.astype(x.dtype)."),
    ],
)
def test_errors_of_dtype_word_for_word(index, dtype, message):
    args = [PICTURE, KERNEL, ones(8)]
    args[index] = args[index].astype(dtype)
    with pytest.raises(TypeError, match="local_conv2d") as caught:
        local_conv2d(*args, window=3)
    assert str(caught.value) == f"local_conv2d: {message}"


@ranks
def test_errors_name_their_op(rank):
    for x in (ones(3), ones(1, *(5,) * rank, 3)):
        with pytest.raises(ValueError, match=f"^local_conv{rank}d: "):
            LOCAL[rank](x, ones(*(4,) * rank, 6, 1), window=2)


def test_window_is_asked_for_by_name():
    with pytest.raises(TypeError, match="window"):
        local_conv2d(PICTURE, KERNEL)  # pyright: ignore[reportCallIssue]
