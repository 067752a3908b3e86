"""Transposed convolutions against loops, PyTorch, and the gradient of the convolution."""

import functools
from typing import Any

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from comparison import close, drawn
from hypothesis import given
from jax import lax
from jax.test_util import check_grads
from ops_helpers import (
    assert_same,
    first,
    last,
    normal,
    torch_value_and_grads,
    value_and_grads,
    ways,
    weights_of,
)

from cnnjax import ops
from cnnjax.ops import conv_transpose1d, conv_transpose2d, conv_transpose3d, shapes

CONV: dict[int, Any] = {1: ops.conv1d, 2: ops.conv2d, 3: ops.conv3d}
TRANSPOSE: dict[int, Any] = {1: conv_transpose1d, 2: conv_transpose2d, 3: conv_transpose3d}
ranks = pytest.mark.parametrize("rank", [1, 2, 3])


def series(*values):
    return jnp.array(values, jnp.float32).reshape(1, -1, 1)


def each_axis(value, rank):
    return (value,) * rank if isinstance(value, int | str) else tuple(value)


def crop(n, k, padding, stride, extra, dilation):
    """Along one axis, how many pixels are cropped at the start, and how many are left."""
    whole = (n - 1) * stride + (k - 1) * dilation + 1
    if padding == "VALID":
        return 0, whole + extra
    if isinstance(padding, str):
        surplus = max(whole - n * stride, 0)
        return surplus // 2 if padding == "SAME" else surplus - surplus // 2, n * stride + extra
    low, high = (padding, padding) if isinstance(padding, int) else padding
    return low, whole - low - high + extra


def loops(
    x, kernel, bias=None, weights=None, *, stride=1, padding: Any = "SAME", output_padding=0, dilation=1, groups=1
) -> Any:
    """Every pixel lays down its copy of the kernel: y, or with weights for every output the gradients of their sum."""
    spatial, window, (channels, each) = x.shape[1:-1], kernel.shape[:-2], kernel.shape[-2:]
    rank, taken = len(spatial), channels // groups
    options = [each_axis(option, rank) for option in (padding, stride, output_padding, dilation)]
    axes = list(zip(spatial, window, *options, strict=True))
    lows, sizes = zip(*(crop(*axis) for axis in axes), strict=True)
    y = np.zeros((x.shape[0], *sizes, each * groups), np.result_type(x, kernel))
    to_x, to_kernel = np.zeros_like(x), np.zeros_like(kernel)
    for place in np.ndindex(*spatial):
        for tap in np.ndindex(*window):
            at = tuple(
                p * s + t * d - low for p, t, low, (_, _, _, s, _, d) in zip(place, tap, lows, axes, strict=True)
            )
            if not all(0 <= i < size for i, size in zip(at, sizes, strict=True)):
                continue
            for group in range(groups):
                own, theirs = slice(group * taken, (group + 1) * taken), slice(group * each, (group + 1) * each)
                y[(slice(None), *at, theirs)] += x[(slice(None), *place, own)] @ kernel[(*tap, own)]
                if weights is not None:
                    weight = weights[(slice(None), *at, theirs)]
                    to_x[(slice(None), *place, own)] += weight @ kernel[(*tap, own)].T
                    to_kernel[(*tap, own)] += x[(slice(None), *place, own)].T @ weight
    if weights is not None:
        return to_x, to_kernel, weights.reshape(-1, each * groups).sum(0)
    return y if bias is None else y + bias


# Known values.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"padding": 0}, [1, 12, 123, 230, 300]),
        ({"padding": "VALID"}, [1, 12, 123, 230, 300]),
        ({}, [12, 123, 230]),
        ({"padding": 1}, [12, 123, 230]),
        ({"padding": 2}, [123]),
        ({"padding": ((2, 0),)}, [123, 230, 300]),
        ({"padding": ((0, 3),)}, [1, 12]),
        ({"padding": 0, "stride": 2}, [1, 2, 13, 20, 130, 200, 300]),
        ({"padding": 1, "stride": 2}, [2, 13, 20, 130, 200]),
        ({"padding": 1, "stride": 2, "output_padding": 1}, [2, 13, 20, 130, 200, 300]),
        ({"padding": 0, "stride": 2, "output_padding": 1}, [1, 2, 13, 20, 130, 200, 300, 0]),
        ({"stride": 2}, [1, 2, 13, 20, 130, 200]),
        ({"stride": 2, "padding": "SAME_LOWER"}, [2, 13, 20, 130, 200, 300]),
        ({"stride": 2, "output_padding": 1}, [1, 2, 13, 20, 130, 200, 300]),
        ({"stride": 4, "padding": "VALID"}, [1, 2, 3, 0, 10, 20, 30, 0, 100, 200, 300]),
        ({"stride": 4}, [1, 2, 3, 0, 10, 20, 30, 0, 100, 200, 300, 0]),
        ({"stride": 4, "padding": "SAME_LOWER"}, [1, 2, 3, 0, 10, 20, 30, 0, 100, 200, 300, 0]),
        ({"padding": 0, "dilation": 2}, [1, 10, 102, 20, 203, 30, 300]),
        ({"dilation": 2}, [102, 20, 203]),
        ({"padding": 0, "dilation": 2, "output_padding": 1}, [1, 10, 102, 20, 203, 30, 300, 0]),
        ({"padding": 4, "stride": 3, "dilation": 2, "output_padding": 2}, [3, 20, 100, 30, 200]),
    ],
)
def test_series_by_hand(options, expected):
    y = conv_transpose1d(series(1, 10, 100), jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1), **options)
    np.testing.assert_array_equal(y.ravel(), expected)


def test_picture_by_hand():
    kernel = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1)
    x = jnp.array([[1.0, 10.0]]).reshape(1, 1, 2, 1)
    y = conv_transpose2d(x, kernel, jnp.array([0.5]), stride=(2, 1), padding=0)
    np.testing.assert_array_equal(y[0, :, :, 0], [[1.5, 12.5, 20.5], [3.5, 34.5, 40.5]])


def test_volume_by_hand():
    """Ones counted: how many copies of the window reach each voxel."""
    y = conv_transpose3d(jnp.ones((1, 3, 3, 3, 1)), jnp.ones((3, 3, 3, 1, 1)))
    assert y[0, 1, 1, 1, 0] == 27
    assert y[0, 0, 0, 0, 0] == 8
    assert y[0, 0, 1, 1, 0] == 18


def test_groups_by_hand():
    """Two groups: channel 0 of x goes to outputs 0 and 1, channel 1 to outputs 2 and 3."""
    x = jnp.array([10.0, 1.0]).reshape(1, 1, 2)
    y = conv_transpose1d(x, jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2), groups=2)
    np.testing.assert_array_equal(y.ravel(), [10, 20, 3, 4])


def test_crops_may_be_larger_than_the_kernel():
    y = conv_transpose1d(series(1, 2, 3, 4), series(1).reshape(1, 1, 1), stride=2, padding=((3, 2),))
    np.testing.assert_array_equal(y.ravel(), [0, 3])
    y = conv_transpose1d(series(5), jnp.ones((1, 1, 1)), stride=3, padding=((1, 1),), output_padding=2)
    np.testing.assert_array_equal(y.ravel(), [0])


@pytest.mark.parametrize("stride", [(2, 2), [2, 2], np.int64(2)])
@pytest.mark.parametrize("padding", [(1, 1), [1, 1], ((1, 1), (1, 1)), [[1, 1], [1, 1]], np.int64(1)])
def test_the_ways_to_write_an_argument_agree(stride, padding):
    x, kernel = normal(0, 1, 4, 3, 2, dtype="float32"), normal(1, 3, 3, 2, 2, dtype="float32")
    y = conv_transpose2d(x, kernel, stride=2, padding=1, output_padding=1, dilation=2)
    more = {"stride": stride, "padding": padding, "output_padding": (1, 1), "dilation": stride}
    np.testing.assert_array_equal(y, conv_transpose2d(x, kernel, **more))


@pytest.mark.parametrize("mode", ["same", "Same_Lower", "valid"])
def test_modes_in_any_case(mode):
    x, kernel = normal(0, 1, 4, 2, dtype="float32"), normal(1, 3, 2, 2, dtype="float32")
    ours, theirs = (conv_transpose1d(x, kernel, stride=2, padding=each) for each in (mode, mode.upper()))
    np.testing.assert_array_equal(ours, theirs)


# The gradient of the convolution, whose options these are.


@pytest.mark.parametrize(
    ("rank", "padding"),
    [(1, "SAME"), (1, "SAME_LOWER"), (1, "VALID"), (1, 1), (2, "SAME"), (2, "pairs"), (3, "pairs")],
)
@pytest.mark.parametrize(("size", "stride", "dilation", "groups"), [(3, 2, 1, 2), (2, 3, 2, 1)])
def test_is_the_gradient_of_the_convolution(rank, padding, size, stride, dilation, groups):
    """Of every input size that this number of outputs may come from: output_padding tells which."""
    pairs: Any = ((1, 0), (0, 2), (2, 1))[:rank] if padding == "pairs" else padding
    options = {"stride": stride, "padding": pairs, "dilation": dilation, "groups": groups}
    kernel = normal(1, *(size,) * rank, 4 // groups, 2, dtype="float32")
    for extra in range(1 if padding in ("SAME", "SAME_LOWER") else stride):
        x = normal(0, 2, *(3, 4, 2)[:rank], 2, dtype="float32")
        ours = TRANSPOSE[rank](x, jnp.swapaxes(kernel, -1, -2), output_padding=extra, **options)
        y, pull = jax.vjp(functools.partial(CONV[rank], kernel=kernel, **options), jnp.zeros_like(ours))
        assert y.shape == x.shape
        np.testing.assert_allclose(ours, pull(x)[0], rtol=1e-5, atol=1e-5)


@ranks
def test_its_own_gradient_is_the_convolution(rank):
    kernel = normal(0, *(3,) * rank, 2, 4, dtype="float32")
    options = {"stride": 2, "padding": 1, "output_padding": 1}
    y, pull = jax.vjp(lambda x: TRANSPOSE[rank](x, kernel, **options), jnp.zeros((2, *(3,) * rank, 2)))
    weights = weights_of(y.shape).astype("float32")
    theirs = CONV[rank](weights, jnp.swapaxes(kernel, -1, -2), stride=2, padding=1)
    np.testing.assert_allclose(pull(weights)[0], theirs, rtol=1e-5, atol=1e-5)


# Against loops.


@st.composite
def calls(draw):
    """A call that leaves pixels: arrays and options."""
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    groups, taken, each = draw(st.tuples(*[st.integers(1, 3)] * 3))

    def axes(low, high):
        return draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    spatial, window = axes(1, (7, 5, 3)[rank - 1]), axes(1, (5, 4, 3)[rank - 1])
    stride, dilation = axes(1, 4), axes(1, 3)
    extras = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
    padding: Any = draw(st.sampled_from(["SAME", "SAME_LOWER", "VALID", "amounts", "amounts", "amounts"]))
    if padding == "amounts":
        padding = []
        for n, k, s, d, extra in zip(spatial, window, stride, dilation, extras, strict=True):
            low = draw(st.integers(0, (n - 1) * s + (k - 1) * d + extra))
            padding.append((low, draw(st.integers(0, (n - 1) * s + (k - 1) * d + extra - low))))
    options = {
        "stride": stride,
        "padding": padding,
        "output_padding": extras,
        "dilation": dilation,
        "groups": groups,
    }
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(size=(draw(st.integers(0, 2)), *spatial, groups * taken))
    args = x, rng.normal(size=(*window, groups * taken, each)), rng.normal(size=groups * each)
    return rank, draw(st.sampled_from(["float64", "float32", "bfloat16"])), args, options


TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 1e-2}


@drawn
@given(calls())
def test_against_loops(call):
    rank, dtype, args, options = call
    args = [arg.astype(dtype) for arg in args]
    ours, grads = value_and_grads(lambda *args: TRANSPOSE[rank](*args, **options), *args)
    assert {str(array.dtype) for array in (ours, *grads)} == {dtype}
    x, kernel, bias = (arg.astype("float64") for arg in args)
    family, tolerance = f"conv_transpose {dtype}", TOLERANCE[dtype]
    close(family, ours, loops(x, kernel, bias, **options), tolerance)
    weights = weights_of(ours.shape).astype(dtype).astype("float64")
    for our, their in zip(grads, loops(x, kernel, bias, weights, **options), strict=True):
        close(family, our, their, tolerance)
    sizes = [
        shapes.conv_transpose_output_size(n, k, stride=s, padding=p, output_padding=e, dilation=d)
        for n, k, s, p, e, d in zip(
            x.shape[1:-1],
            kernel.shape[:rank],
            options["stride"],
            each_axis(options["padding"], rank),
            options["output_padding"],
            options["dilation"],
            strict=True,
        )
    ]
    assert list(ours.shape[1:-1]) == sizes


# Against PyTorch.


def torch_weight(kernel):
    """(*window, I, O) to (I, O, *window)."""
    return kernel.permute(kernel.ndim - 2, kernel.ndim - 1, *range(kernel.ndim - 2))


OPTIONS = {
    "plain": {"padding": 0},
    "stride": {"stride": 2, "padding": 1, "output_padding": 1},
    "stride beyond the window": {"stride": 4, "padding": 1, "output_padding": 3},
    "dilation": {"dilation": 3, "padding": 2, "output_padding": 2},
    "groups": {"groups": 2, "padding": 1, "stride": 2},
    "depthwise": {"groups": 4, "padding": 0, "stride": 2},
    "all": {"stride": 3, "padding": 4, "output_padding": 1, "dilation": 2, "groups": 2},
}


@pytest.mark.parametrize(
    ("rank", "name"), [*((2, name) for name in OPTIONS), (1, "all"), (1, "plain"), (3, "all"), (3, "depthwise")]
)
def test_against_torch(rank, name):
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    options = OPTIONS[name]
    groups = options.get("groups", 1)
    args = normal(0, 2, *(4, 3, 4)[:rank], 4), normal(1, *(3, 2, 3)[:rank], 4, 2), normal(2, 2 * groups)
    conv = getattr(functional, f"conv_transpose{rank}d")
    ours = value_and_grads(lambda *args: TRANSPOSE[rank](*args, **options), *args)
    theirs = torch_value_and_grads(lambda x, k, b: last(conv(first(x), torch_weight(k), b, **options)), *args)
    assert_same(ours, theirs)


@ranks
def test_values_per_axis_against_torch(rank):
    functional = pytest.importorskip("torch", reason="compares with PyTorch").nn.functional
    options: Any = {"stride": (3, 2, 1), "padding": (1, 2, 3), "output_padding": (2, 3, 1), "dilation": (1, 4, 2)}
    options = {name: values[:rank] for name, values in options.items()}
    args = normal(0, 2, *(4, 3, 4)[:rank], 2), normal(1, *(4, 3, 5)[:rank], 2, 3)
    conv = getattr(functional, f"conv_transpose{rank}d")
    ours = value_and_grads(lambda *args: TRANSPOSE[rank](*args, **options), *args)
    theirs = torch_value_and_grads(lambda x, k: last(conv(first(x), torch_weight(k), **options)), *args)
    assert_same(ours, theirs)


@pytest.mark.slow
def test_grid_of_one_axis_against_torch():
    """Values and refusals: where PyTorch refuses a call, or answers without a pixel, it is refused here."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    compared = 0
    for n, k, stride, dilation, padding, extra, groups in np.ndindex(4, 4, 3, 3, 4, 3, 2):
        options = {
            "stride": stride + 1,
            "padding": padding,
            "output_padding": extra,
            "dilation": dilation + 1,
            "groups": groups + 1,
        }
        x, kernel = normal(0, 1, n + 1, 2, dtype="float32"), normal(1, k + 1, 2, 1, dtype="float32")
        try:
            theirs = torch.conv_transpose1d(first(torch.tensor(x)), torch_weight(torch.tensor(kernel)), **options)
        except RuntimeError:
            theirs = torch.empty(0)
        if not theirs.numel():
            with pytest.raises(ValueError, match=r"must leave pixels|must be below the stride or the dilation"):
                conv_transpose1d(x, kernel, **options)
            continue
        compared += 1
        np.testing.assert_allclose(conv_transpose1d(x, kernel, **options), last(theirs), rtol=1e-5, atol=1e-5)
    assert compared > 1000


# The conversions that the docstring promises.


@pytest.mark.parametrize("transpose_kernel", [False, True])
@pytest.mark.parametrize(("size", "stride", "dilation"), [(3, 1, 1), (4, 2, 1), (4, 3, 2), (2, 3, 1)])
def test_lax_and_flax_after_conversion(size, stride, dilation, transpose_kernel):
    x, theirs = normal(0, 2, 4, 3, 2, dtype="float32"), normal(1, size, size, 2, 3, dtype="float32")
    kernel = theirs if transpose_kernel else theirs[::-1, ::-1]
    span = (size - 1) * dilation + 1
    for padding, ours in [
        ("SAME", {}),
        ("VALID", {"padding": "VALID", "output_padding": max(stride - span, 0)}),
        ([(1, 0), (0, 1)], {"padding": ((span - 2, span - 1), (span - 1, span - 2))}),
    ]:
        expected = lax.conv_transpose(
            x,
            jnp.swapaxes(theirs, 2, 3) if transpose_kernel else theirs,
            (stride,) * 2,
            padding,
            rhs_dilation=(dilation,) * 2,
            transpose_kernel=transpose_kernel,
        )
        y = conv_transpose2d(x, kernel, stride=stride, dilation=dilation, **ours)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("output_shape", [6, 7, 8, 9, 10, 11])
@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "NOTSET"])
def test_output_shape_of_onnx_by_the_recipe(auto_pad, output_shape):
    x, kernel = normal(0, 1, 3, 1, dtype="float32"), normal(1, 3, 1, 1, dtype="float32")
    whole = np.pad(loops(x, kernel, stride=3, padding=0).ravel(), (0, 2))
    total = (3 - 1) * 3 + 3 - output_shape
    cropped = max(total, 0)
    pair = cropped // 2, cropped - cropped // 2
    low, high = pair if auto_pad == "SAME_UPPER" else pair[::-1]
    y = conv_transpose1d(x, kernel, stride=3, padding=((low, high),), output_padding=max(-total, 0))
    np.testing.assert_allclose(y.ravel(), whole[low : low + output_shape], rtol=1e-5)


@pytest.mark.parametrize(("size", "stride", "dilation"), [(3, 2, 1), (4, 1, 1), (2, 2, 2), (3, 3, 1)])
def test_auto_pad_of_onnx_is_same(size, stride, dilation):
    x, kernel = normal(0, 1, 4, 1, dtype="float32"), normal(1, size, 1, 1, dtype="float32")
    total = dilation * (size - 1) + 1 - stride
    pair = total // 2, total - total // 2
    run = functools.partial(conv_transpose1d, x, kernel, stride=stride, dilation=dilation)
    np.testing.assert_array_equal(run(padding="SAME"), run(padding=(pair,)))
    np.testing.assert_array_equal(run(padding="SAME_LOWER"), run(padding=(pair[::-1],)))
    assert run(padding="SAME").shape == (1, 4 * stride, 1)


def test_pads_and_output_padding_of_onnx_by_hand():
    """A kernel of ones as tall as the stride: along H every row repeats, along W the copies overlap by one."""
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    run = functools.partial(conv_transpose2d, x, jnp.ones((3, 3, 1, 2)), stride=(3, 2))
    rows = [[0, 0, 1, 1, 3, 2, 2], [3, 3, 7, 4, 9, 5, 5], [6, 6, 13, 7, 15, 8, 8]]
    whole = np.repeat(rows, 3, axis=0)
    for channel in range(2):
        cropped = run(padding=((1, 1), (2, 2)))[0, :, :, channel]
        np.testing.assert_array_equal(cropped, whole[1:-1, 2:-2])
        padded = run(padding=0, output_padding=1)[0, :, :, channel]
        np.testing.assert_array_equal(padded, np.pad(whole, ((0, 1), (0, 1))))


# Transformations.


@ranks
@ways
def test_every_way(way, rank):
    x, kernel, bias = normal(0, 2, *(3,) * rank, 4), normal(1, *(3,) * rank, 4, 2), normal(2, 4)
    options = {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}
    run = way(lambda *args: TRANSPOSE[rank](*args, **options))
    y = run(*(arg.astype("float32") for arg in (x, kernel, bias)))
    np.testing.assert_allclose(y, loops(x, kernel, bias, **options), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [(0, None, None), (None, 0, None), (None, None, 0), (0, 0, 0)])
def test_vmap_over_any_argument(axes):
    stacks = [normal(seed, 3, *shape, dtype="float32") for seed, shape in enumerate([(2, 3, 4, 4), (3, 2, 4, 2), (4,)])]
    args = [stack if axis == 0 else stack[0] for stack, axis in zip(stacks, axes, strict=True)]
    run = functools.partial(conv_transpose2d, stride=2, groups=2)
    y = jax.vmap(run, axes)(*args)
    for i in range(3):
        one = run(*(arg[i] if axis == 0 else arg for arg, axis in zip(args, axes, strict=True)))
        np.testing.assert_allclose(y[i], one, rtol=1e-5, atol=1e-5)


def test_derivatives_against_differences():
    args = normal(0, 1, 2, 3, 2), normal(1, 2, 2, 2, 1), normal(2, 2)
    with jax.enable_x64(True):
        check_grads(
            jax.jit(lambda *args: conv_transpose2d(*args, stride=2, padding=1, output_padding=1, groups=2)),
            tuple(jnp.asarray(arg) for arg in args),
            order=1,
            modes=["fwd", "rev"],
        )


def test_checkpoint_and_scan():
    x, kernels = normal(0, 1, 6, 2, dtype="float32"), normal(1, 3, 3, 2, 2, dtype="float32")

    def layer(y, kernel):
        return jnp.tanh(conv_transpose1d(y, kernel, dilation=2))

    def loop(kernels):
        return jnp.sum(functools.reduce(layer, kernels, x) ** 2)

    def scanned(kernels):
        checkpointed = jax.checkpoint(lambda y, kernel: (layer(y, kernel), None))
        return jnp.sum(lax.scan(checkpointed, jnp.asarray(x), kernels)[0] ** 2)

    for ours, theirs in zip(jax.value_and_grad(scanned)(kernels), jax.value_and_grad(loop)(kernels), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_no_recompilation():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(x, kernel):
        return conv_transpose2d(x, kernel, stride=2, output_padding=1)

    for seed in range(3):
        run(normal(seed, 1, 3, 3, 1, dtype="float32"), normal(seed, 3, 3, 1, 1, dtype="float32"))


def test_one_call_of_lax():
    jaxpr = str(
        jax.make_jaxpr(functools.partial(conv_transpose2d, stride=2, groups=2))(
            jnp.ones((1, 5, 5, 4)), jnp.ones((3, 3, 4, 2)), jnp.ones(4)
        )
    )
    assert jaxpr.count("conv_general_dilated[") == 1
    assert " pad[" not in jaxpr


# Dtypes and odd sizes.


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_dtype_is_kept(dtype):
    x, kernel = jnp.ones((1, 4, 2), dtype), jnp.ones((3, 2, 2), dtype)
    y, pull = jax.vjp(functools.partial(conv_transpose1d, stride=2), x, kernel, jnp.ones(2, dtype))
    assert y.dtype == dtype
    assert {grad.dtype for grad in pull(y)} == {jnp.dtype(dtype)}


def test_complex_against_loops():
    x, kernel = normal(0, 1, 5, 2) + 1j * normal(1, 1, 5, 2), normal(2, 3, 2, 1) + 1j * normal(3, 3, 2, 1)
    y = conv_transpose1d(x.astype("complex64"), kernel.astype("complex64"), stride=2)
    np.testing.assert_allclose(y, loops(x, kernel, stride=2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(dtype):
    """Sums of integers are exact in float32, and beyond the 8 or 11 bits of the halves: values and gradients."""
    rng = np.random.default_rng(0)
    args = [jnp.asarray(rng.integers(-3, 9, shape), dtype) for shape in [(2, 4, 4, 150), (3, 3, 150, 4), (4,)]]
    weights = jnp.asarray(rng.integers(-3, 9, (2, 8, 8, 4)), dtype)

    @jax.jit
    def run(*args):
        y, pull = jax.vjp(functools.partial(conv_transpose2d, stride=2), *args)
        return conv_transpose2d(*args[:2], stride=2), *pull(weights.astype(y.dtype))

    halves, wides = run(*args), run(*(arg.astype("float32") for arg in args))
    assert not (wides[0] == wides[0].astype(dtype)).all()
    for half, wide in zip(halves, wides, strict=True):
        np.testing.assert_array_equal(half, wide.astype(dtype))


@pytest.mark.parametrize(("rank", "padding", "size"), [(1, 1, 5), (2, "SAME", 6), (3, "VALID", 7)])
def test_batch_of_none(rank, padding, size):
    x, kernel = jnp.ones((0, *(3,) * rank, 2)), jnp.ones((*(3,) * rank, 2, 3))
    run = functools.partial(TRANSPOSE[rank], stride=2, padding=padding)
    y, pull = jax.vjp(run, x, kernel, jnp.ones(3))
    assert y.shape == (0, *(size,) * rank, 3)
    to_x, to_kernel, to_bias = pull(y)
    assert to_x.shape == x.shape
    assert not to_kernel.any()
    assert not to_bias.any()


def test_batch_of_one_is_one_of_many():
    x, kernel = normal(0, 3, 4, 3, 2, dtype="float32"), normal(1, 3, 3, 2, 4, dtype="float32")
    one, many = conv_transpose2d(x[1:2], kernel, stride=2), conv_transpose2d(x, kernel, stride=2)
    np.testing.assert_allclose(many[1:2], one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_not_finite_stays_in_its_copy_as_in_torch(value, stride):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    x: Any = np.ones((1, 4, 4, 1), "float32")
    x[0, 1, 2, 0] = value
    kernel = normal(0, 3, 3, 1, 2, dtype="float32")
    theirs = torch.conv_transpose2d(first(torch.tensor(x)), torch_weight(torch.tensor(kernel)), stride=stride)
    y = conv_transpose2d(x, kernel, stride=stride, padding=0)
    np.testing.assert_allclose(y, last(theirs), rtol=1e-5, atol=1e-5)


def test_takes_what_is_no_jax_array():
    assert conv_transpose1d([[[1.0], [2.0]]], [[[1.0]]]).tolist() == [[[1.0], [2.0]]]  # pyright: ignore[reportArgumentType]


# Errors.


def ones(*shape, dtype="float32"):
    return jnp.ones(shape, dtype)


PICTURE, KERNEL = ones(1, 4, 4, 3), ones(3, 3, 3, 8)

EXACT = [
    (
        (ones(4, 4, 3), KERNEL),
        {},
        "conv_transpose2d: x must be (N, H, W, C), got shape (4, 4, 3). Add a batch axis with x[None].",
    ),
    (
        (ones(1, 0, 4, 3), KERNEL),
        {},
        "conv_transpose2d: x must have pixels, got shape (1, 0, 4, 3). Only the batch axis may be empty.",
    ),
    (
        (ones(2, 3, 28, 28), KERNEL),
        {},
        "conv_transpose2d: x (2, 3, 28, 28) looks channels-first: kernel (3, 3, 3, 8) takes 3 channels in the last"
        " axis. Use x.transpose(0, 2, 3, 1).",
    ),
    (
        (ones(1, 4, 4, 8), KERNEL),
        {},
        "conv_transpose2d: x has 8 channels but kernel (3, 3, 3, 8) takes 3."
        " The kernel is (*window, C_in, C_out // groups).",
    ),
    (
        (PICTURE, KERNEL),
        {"groups": 2},
        "conv_transpose2d: groups must divide the channels of x, got groups=2 and 3 channels. Use a divisor of 3.",
    ),
    (
        (PICTURE, ones(3, 3, 3)),
        {},
        "conv_transpose2d: kernel must be (*window, C_in, C_out // groups) with 2 window axes, got shape (3, 3, 3).",
    ),
    (
        (PICTURE, ones(3, 0, 3, 8)),
        {},
        "conv_transpose2d: kernel must be (*window, C_in, C_out // groups) with 2 window axes, got shape (3, 0, 3, 8).",
    ),
    (
        (PICTURE, KERNEL, ones(8)),
        {"groups": 3},
        "conv_transpose2d: bias must be (24,), one value an output channel, got shape (8,).",
    ),
    (
        (PICTURE, KERNEL),
        {"stride": (1, 2, 3)},
        "conv_transpose2d: stride takes one value an axis (2), got (1, 2, 3). Give an int for all axes.",
    ),
    (
        (PICTURE, KERNEL),
        {"output_padding": (0,)},
        "conv_transpose2d: output_padding takes one value an axis (2), got (0,). Give an int for all axes.",
    ),
    (
        (PICTURE, KERNEL),
        {"stride": 2, "output_padding": (1, 2)},
        "conv_transpose2d: output_padding must be below the stride or the dilation, got 2 with stride 2 and dilation 1"
        " along W. Crop less, or pad the result.",
    ),
    (
        (PICTURE, KERNEL),
        {"padding": "REFLECT"},
        "conv_transpose2d: padding must be amounts or one of SAME, SAME_LOWER, VALID, got 'REFLECT'.",
    ),
    (
        (PICTURE, KERNEL),
        {"padding": ((0, 0), (2, 4))},
        "conv_transpose2d: padding must leave pixels, but (2, 4) crops all 6 along W. Crop less.",
    ),
    ((PICTURE, KERNEL), {"stride": 0}, "conv_transpose2d: stride must be at least 1, got 0."),
    ((PICTURE, KERNEL), {"dilation": 0}, "conv_transpose2d: dilation must be at least 1, got 0."),
    ((PICTURE, KERNEL), {"groups": 0}, "conv_transpose2d: groups must be at least 1, got 0."),
    ((PICTURE, KERNEL), {"padding": -1}, "conv_transpose2d: padding must be at least 0, got -1."),
    ((PICTURE, KERNEL), {"output_padding": -1}, "conv_transpose2d: output_padding must be at least 0, got -1."),
]


@pytest.mark.parametrize(("args", "options", "message"), EXACT)
def test_errors_word_for_word(args, options, message):
    with pytest.raises(ValueError, match="conv_transpose2d") as caught:
        conv_transpose2d(*args, **options)
    assert str(caught.value) == message


@ranks
@pytest.mark.parametrize("mode", ["CAUSAL", "CIRCULAR", "REFLECT", "REPLICATE", "replicate", "FULL", ""])
def test_modes_that_are_refused(rank, mode):
    with pytest.raises(ValueError, match=rf"^conv_transpose{rank}d: .* one of SAME, SAME_LOWER, VALID, got '{mode}'"):
        TRANSPOSE[rank](ones(1, *(4,) * rank, 1), ones(*(3,) * rank, 1, 1), padding=mode)


@pytest.mark.parametrize(
    ("args", "options", "pattern"),
    [
        ((PICTURE.astype("uint8"), KERNEL), {}, r"^conv_transpose2d: x must be floating point, got uint8\. Cast it"),
        ((PICTURE, KERNEL.astype("int32")), {}, r"^conv_transpose2d: kernel must be floating point, got int32"),
        ((PICTURE.astype("bfloat16"), KERNEL), {}, r"^conv_transpose2d: x is bfloat16 but kernel is float32\. Cast"),
        ((PICTURE, KERNEL, ones(8, dtype="float16")), {}, r"^conv_transpose2d: x is float32 but bias is float16\."),
        ((PICTURE, KERNEL), {"stride": 1.5}, r"^conv_transpose2d: stride must be an int or 2 ints, got 1\.5"),
        ((PICTURE, KERNEL), {"output_padding": "1"}, r"^conv_transpose2d: output_padding must be an int or 2 ints"),
        ((PICTURE, KERNEL), {"padding": None}, r"^conv_transpose2d: padding must be .*got None"),
        ((PICTURE, KERNEL), {"groups": 1.0}, r"^conv_transpose2d: groups must be an int.*got 1\.0"),
    ],
)
def test_errors_of_type(args, options, pattern):
    with pytest.raises(TypeError, match=pattern):
        conv_transpose2d(*args, **options)


@ranks
def test_errors_name_their_op(rank):
    kernel = ones(*(3,) * rank, 3, 1)
    for args, options in [
        ((ones(3), kernel), {}),
        ((ones(1, *(5,) * rank, 2), kernel), {}),
        ((ones(1, *(2,) * rank, 3), kernel), {"padding": 2}),
        ((ones(1, *(2,) * rank, 3), kernel), {"output_padding": 1}),
    ]:
        with pytest.raises(ValueError, match=f"^conv_transpose{rank}d: "):
            TRANSPOSE[rank](*args, **options)


def test_errors_come_before_lax(monkeypatch):
    monkeypatch.setattr(lax, "conv_general_dilated", lambda *args, **options: pytest.fail("lax saw the call"))
    for args, options, _ in EXACT:
        with pytest.raises(ValueError, match=r"^conv_transpose2d: "):
            conv_transpose2d(*args, **options)


def test_errors_under_jit():
    with pytest.raises(ValueError, match="looks channels-first"):
        jax.jit(conv_transpose2d)(ones(2, 3, 9, 9), KERNEL)
