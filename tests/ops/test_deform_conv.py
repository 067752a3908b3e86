"""Deformable convolution against loops, against PyTorch and against the plain one."""

import functools
import itertools
import math
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
from ops_helpers import assert_same, last, normal, torch_value_and_grads, value_and_grads, ways, weights_of

from cnnjax import ops
from cnnjax.ops import deform_conv2d

CONV: Any = jax.jit(deform_conv2d, static_argnames=("stride", "padding", "dilation", "groups", "offset_groups"))

# Known values.


def test_one_tap_by_hand():
    """A 1 x 1 kernel reads the pixel that its offset points to: down, then right."""
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    offset = jnp.array([[1, 0], [0, 1], [0.5, -0.25], [0, 0], [-1.5, 0], [-1, -2]]).reshape(1, 2, 3, 2)
    y = CONV(x, jnp.full((1, 1, 1, 1), 10.0), offset)
    np.testing.assert_array_equal(y[0, :, :, 0], [[30, 20, 32.5], [30, 5, 0]])


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        ((0, 0), [[8, 12], [20, 24]]),
        ((0, 1), [[12, 7], [24, 13]]),
        ((0.5, 0), [[14, 18], [16.5, 19.5]]),
        ((-1, 0), [[1, 3], [8, 12]]),
        ((-1.5, 0), [[0.5, 1.5], [4.5, 7.5]]),
        ((0, 3), [[0, 0], [0, 0]]),
        ((-np.inf, np.inf), [[0, 0], [0, 0]]),
        ((1e30, 0), [[0, 0], [0, 0]]),
    ],
)
def test_all_taps_shifted_by_hand(shift, expected):
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    offset = jnp.tile(jnp.array(shift, jnp.float32), (1, 2, 2, 4))
    y = CONV(x, jnp.ones((2, 2, 1, 1)), offset, padding="VALID")
    np.testing.assert_array_equal(y[0, :, :, 0], expected)


def test_mask_and_bias_by_hand():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    mask = jnp.ones((1, 2, 2, 4)).at[0, 1, 0].set(jnp.array([0.0, 1.0, 2.0, 0.5]))
    y = CONV(x, jnp.ones((2, 2, 1, 1)), jnp.zeros((1, 2, 2, 8)), mask, jnp.array([100.0]), padding="VALID")
    np.testing.assert_array_equal(y[0, :, :, 0], [[108, 112], [100 + 4 + 2 * 6 + 0.5 * 7, 124]])


def test_order_of_groups_taps_and_axes():
    """Moves one tap of one group of channels by a pixel along one axis: the outputs of the other channels stay."""
    x = normal(0, 1, 5, 5, 4, dtype="float32")
    for group, tap, axis in itertools.product(range(2), range(6), range(2)):
        kernel = jnp.zeros((6, 4, 4)).at[tap].set(jnp.eye(4)).reshape(2, 3, 4, 4)
        offset = np.zeros((1, 4, 3, 2, 6, 2), "float32")
        offset[..., group, tap, axis] = 1
        y = CONV(x, kernel, offset.reshape(1, 4, 3, 24), padding="VALID", offset_groups=2)
        moved, stayed = (ops.conv2d(x, kernel, padding="VALID") for x in (np.roll(x, -1, 1 + axis), x))
        expected = np.where(np.arange(4) // 2 == group, moved, stayed)
        np.testing.assert_array_equal(y[:, :3, :2], expected[:, :3, :2])


# Against loops.


def neighbours(place, sizes):
    """The pixels around a place: (row, column), the weight, and its derivatives by the place."""
    low = [math.floor(p) for p in place]
    for corner in itertools.product(range(2), range(2)):
        at = tuple(f + c for f, c in zip(low, corner, strict=True))
        if all(0 <= i < n for i, n in zip(at, sizes, strict=True)):
            down, right = (1 - abs(p - i) for p, i in zip(place, at, strict=True))
            slopes = [2 * c - 1 for c in corner]
            yield at, down * right, (slopes[0] * right, slopes[1] * down)


def loops(x, kernel, offset, mask, bias, *, weights, stride, padding, dilation, groups, offset_groups):
    """The value and the gradients of its weighted sum, as in the papers: tap by tap, a group of channels at a time."""
    (height, width, taken, outputs), channels = kernel.shape, x.shape[-1]
    margin = reference.pairs(x.shape[1:-1], kernel.shape[:2], padding, stride, dilation)
    dense = np.zeros((height, width, channels, outputs))
    blocks = [
        (slice(g * taken, (g + 1) * taken), slice(g * outputs // groups, (g + 1) * outputs // groups))
        for g in range(groups)
    ]
    for rows, columns in blocks:
        dense[:, :, rows, columns] = kernel[..., columns]
    y = np.zeros((*offset.shape[:3], outputs)) + bias
    to_x, to_dense, to_offset, to_mask = (np.zeros(a.shape) for a in (x, dense, offset, mask))
    each = channels // offset_groups
    for n, i, j in np.ndindex(offset.shape[:3]):
        for t, (group, row, column) in enumerate(np.ndindex(offset_groups, height, width)):
            own, m, w = slice(group * each, (group + 1) * each), mask[n, i, j, t], weights[n, i, j]
            tap = dense[row, column, own]
            place = [
                p * s - low + a * d + moved
                for p, s, (low, _), a, d, moved in zip(
                    (i, j), stride, margin, (row, column), dilation, offset[n, i, j, 2 * t : 2 * t + 2], strict=True
                )
            ]
            seen, back = np.zeros(each), tap @ w
            for at, weight, slopes in neighbours(place, x.shape[1:3]):
                pixel = x[(n, *at, own)]
                seen += weight * pixel
                to_x[(n, *at, own)] += weight * m * back
                to_offset[n, i, j, 2 * t : 2 * t + 2] += np.array(slopes) * m * (pixel @ back)
            y[n, i, j] += m * seen @ tap
            to_dense[row, column, own] += m * np.outer(seen, w)
            to_mask[n, i, j, t] = seen @ back
    to_kernel = np.concatenate([to_dense[:, :, rows, columns] for rows, columns in blocks], -1)
    return y, [to_x, to_kernel, to_offset, to_mask, weights.reshape(-1, outputs).sum(0)]


PRECISION = {"float64": 1e-12, "float32": 2e-5, "bfloat16": 2**-7, "float16": 2**-10}


@st.composite
def calls(draw):
    """Arguments and options; the kernel may not fit. Every dtype holds the offsets exactly, many of them on a pixel."""

    def each(low, high):
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    groups, offset_groups, block, many = (draw(st.integers(1, n)) for n in (2, 2, 2, 2))
    channels = math.lcm(groups, offset_groups) * block
    window, stride, dilation = each(1, 3), each(1, 3), each(1, 2)
    amounts = each(0, 2), each(0, 2)
    padding = draw(st.sampled_from(["SAME", "SAME_LOWER", "VALID", amounts, amounts]))
    spatial, batch = each(1, 5), draw(st.sampled_from([1, 2, 2, 1, 0]))
    options = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "offset_groups": offset_groups,
    }
    output = sizes(spatial, window, options)
    rng, taps = np.random.default_rng(draw(st.integers(0, 2**32 - 1))), offset_groups * math.prod(window)
    shape = (batch, *(max(n, 1) for n in output), 2 * taps)
    offset = np.where(rng.random(shape) < 0.05, rng.choice([-1000.0, 1000.0], shape), rng.integers(-32, 33, shape) / 16)
    x = rng.normal(size=(batch, *spatial, channels))
    kernel, bias = rng.normal(size=(*window, channels // groups, groups * many)), rng.normal(size=groups * many)
    return (x, kernel, offset, rng.normal(size=(*shape[:3], taps)), bias), options, min(output) > 0


def sizes(spatial, window, options):
    margin = reference.pairs(spatial, window, options["padding"], options["stride"], options["dilation"])
    return [
        ops.shapes.conv_output_size(n, k, stride=s, padding=pair, dilation=d)
        for n, k, s, pair, d in zip(spatial, window, options["stride"], margin, options["dilation"], strict=True)
    ]


@drawn
@given(calls(), st.booleans(), st.sampled_from(list(PRECISION)))
def test_any_options_against_loops(call, masked, dtype):
    args, options, fits = call
    x, kernel, offset, mask, bias = (arg.astype(jnp.dtype(dtype)) for arg in args)
    if not fits:
        with pytest.raises(ValueError, match="does not fit the padded input"):
            deform_conv2d(x, kernel, offset, mask, bias, **options)
        return
    if masked:
        y, grads = value_and_grads(functools.partial(deform_conv2d, **options), x, kernel, offset, mask, bias)
    else:
        unmasked = functools.partial(deform_conv2d, mask=None, bias=None, **options)
        y, grads = value_and_grads(unmasked, x, kernel, offset)
        mask, bias = np.ones_like(mask), np.zeros_like(bias)
    assert {array.dtype.name for array in (y, *grads)} == {dtype}
    weights = np.asarray(weights_of(y.shape).astype(y.dtype), np.float64)
    args = [np.asarray(arg, np.float64) for arg in (x, kernel, offset, mask, bias)]
    value, gradients = loops(*args, weights=weights, **options)
    for our, their in zip((y, *grads), (value, *gradients), strict=False):
        close(f"deform_conv2d, {dtype}", our, their, PRECISION[dtype])


# Against PyTorch, whose grid sampling reads the pixels.


def torch_deform_conv(x, kernel, offset, mask, bias, *, stride, padding, dilation, groups, offset_groups):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    (_, height, width, _), (rows, columns) = x.shape, kernel.shape[:2]
    parts = x.permute(0, 3, 1, 2).chunk(offset_groups, 1)
    shape = (*offset.shape[:3], offset_groups, rows, columns)
    offset, mask = offset.reshape(*shape, 2), mask.reshape(shape)
    y = torch.zeros(())
    for tap in np.ndindex(rows, columns):
        down = torch.arange(shape[1])[:, None] * stride[0] - padding[0][0] + tap[0] * dilation[0]
        right = torch.arange(shape[2]) * stride[1] - padding[1][0] + tap[1] * dilation[1]
        seen = []
        for group, part in enumerate(parts):
            at = (slice(None), slice(None), slice(None), group, *tap)
            row, column = down + offset[(*at, 0)], right + offset[(*at, 1)]
            grid = torch.stack([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1], -1)
            pixels = torch.nn.functional.grid_sample(part, grid, align_corners=False)
            seen.append(pixels * mask[at][:, None])
        weight = kernel[tap].T[:, :, None, None]
        y = y + torch.nn.functional.conv2d(torch.cat(seen, 1), weight, groups=groups)
    return last(y) + bias


@pytest.mark.parametrize(
    "options",
    [
        {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1, "offset_groups": 1},
        {"stride": (2, 1), "padding": ((0, 2), (1, 0)), "dilation": (1, 2), "groups": 2, "offset_groups": 1},
        {"stride": (1, 3), "padding": ((2, 1), (0, 0)), "dilation": (2, 1), "groups": 1, "offset_groups": 4},
        {"stride": (1, 1), "padding": ((1, 0), (2, 2)), "dilation": (1, 1), "groups": 4, "offset_groups": 2},
    ],
)
def test_against_torch(options):
    x, kernel, bias = normal(0, 2, 6, 7, 4), normal(1, 3, 2, 4 // options["groups"], 8), normal(2, 8)
    places, taps = sizes((6, 7), (3, 2), options), 6 * options["offset_groups"]
    args = x, kernel, 2 * normal(3, 2, *places, 2 * taps), normal(4, 2, *places, taps), bias
    ours = value_and_grads(functools.partial(deform_conv2d, **options), *args)
    assert_same(ours, torch_value_and_grads(lambda *args: torch_deform_conv(*args, **options), *args))


# Against the plain convolution.


@pytest.mark.parametrize(
    ("options", "offset_groups"),
    [
        ({}, 1),
        ({"padding": "same_lower", "stride": 2}, 2),
        ({"padding": "VALID", "dilation": (2, 1), "groups": 2}, 1),
        ({"padding": 2, "stride": (2, 3)}, 4),
        ({"padding": ((1, 0), (2, 3)), "groups": 4}, 2),
    ],
)
def test_without_offsets_it_is_conv2d(options, offset_groups):
    args = normal(0, 2, 6, 5, 4), normal(1, 3, 2, 4 // options.get("groups", 1), 8), normal(2, 8)
    plain = value_and_grads(lambda *args: ops.conv2d(*args, **options), *args)
    offset = jnp.zeros((*plain[0].shape[:3], offset_groups * 12))

    def ours(x, kernel, bias):
        return deform_conv2d(x, kernel, offset, None, bias, offset_groups=offset_groups, **options)

    assert_same(value_and_grads(ours, *args), plain, 1e-13)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "complex64"])
def test_without_offsets_it_is_conv2d_to_the_bit(dtype):
    """Sums of integers, exact in float32 in any order, and rounded once."""
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.integers(-9, 31, shape), dtype) for shape in [(2, 5, 5, 40), (3, 3, 40, 3)])
    offset = jnp.zeros((2, 5, 5, 18))

    def run(conv):
        y, pull = jax.vjp(jax.jit(conv), x, kernel)
        return y, *pull(jnp.ones_like(y))

    ours = run(lambda x, kernel: deform_conv2d(x, kernel, offset))
    for our, plain in zip(ours, run(ops.conv2d), strict=True):
        assert our.dtype == plain.dtype
        np.testing.assert_array_equal(our, plain)


def test_a_mask_of_ones_is_none():
    args = normal(0, 1, 4, 4, 2, dtype="float32"), normal(1, 3, 3, 2, 2, dtype="float32")
    offset = normal(2, 1, 4, 4, 18, dtype="float32")
    np.testing.assert_array_equal(CONV(*args, offset, jnp.ones((1, 4, 4, 9))), CONV(*args, offset))


# Transformations.


def arguments(batch=1, dtype="float32"):
    shapes = [(batch, 4, 5, 2), (3, 2, 2, 3), (batch, 4, 5, 12), (batch, 4, 5, 6), (3,)]
    return tuple(normal(seed, *shape, dtype=dtype) for seed, shape in enumerate(shapes))


@ways
def test_every_way(way):
    args = arguments(batch=2)
    options = {"stride": (1, 1), "padding": "SAME", "dilation": (1, 1), "groups": 1, "offset_groups": 1}
    y = way(deform_conv2d)(*args)
    expected, _ = loops(*(arg.astype("float64") for arg in args), weights=np.zeros(y.shape), **options)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("argument", range(5))
def test_vmap_over_any_argument(argument):
    args: list[Any] = list(arguments())
    args[argument] = normal(9, 3, *args[argument].shape, dtype="float32")
    axes = [0 if i == argument else None for i in range(5)]
    y = jax.jit(jax.vmap(deform_conv2d, axes))(*args)
    for i in range(3):
        one = CONV(*(arg[i] if axis == 0 else arg for arg, axis in zip(args, axes, strict=True)))
        np.testing.assert_allclose(y[i], one, rtol=1e-5, atol=1e-5)


def test_derivatives_against_differences():
    """At places between the pixels, where there is a derivative."""
    x, kernel, offset, mask, bias = arguments(dtype="float64")
    rng = np.random.default_rng(0)
    offset = rng.integers(-2, 2, offset.shape) + rng.uniform(0.2, 0.8, offset.shape)
    with jax.enable_x64(True):
        args = tuple(map(jnp.asarray, (x, kernel, offset, mask, bias)))
        check_grads(jax.jit(deform_conv2d), args, order=1, modes=["fwd", "rev"])


def test_checkpoint_and_scan():
    x, kernels = normal(0, 1, 4, 4, 2, dtype="float32"), normal(1, 3, 3, 3, 2, 2, dtype="float32") / 3
    offset = normal(2, 1, 4, 4, 18, dtype="float32")

    def loop(kernels):
        y = x
        for kernel in kernels:
            y = jnp.tanh(deform_conv2d(y, kernel, offset))
        return jnp.sum(y**2)

    def scanned(kernels):
        layer = jax.checkpoint(lambda y, kernel: (jnp.tanh(deform_conv2d(y, kernel, offset)), None))
        return jnp.sum(lax.scan(layer, jnp.asarray(x), kernels)[0] ** 2)

    ours, theirs = (jax.jit(jax.value_and_grad(way))(kernels) for way in (scanned, loop))
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our, their, rtol=1e-5, atol=1e-5)


def test_no_recompilation():
    run = jax.jit(chex.assert_max_traces(deform_conv2d, n=1))
    for seed in range(3):
        run(*(arg + seed for arg in arguments()))


# Dtypes and odd sizes.


def test_the_offset_keeps_its_own_precision():
    """A place that bfloat16 does not hold: 1000 + 1/2 of a row."""
    x = (jnp.arange(1024.0) % 2).reshape(1, 1, 1024, 1).astype("bfloat16")
    offset = jnp.full((1, 1, 1, 2), jnp.array([0, 1000.5]))
    y, pull = jax.vjp(lambda x, offset: CONV(x, jnp.ones((1, 1, 1, 1), x.dtype), offset, stride=1024), x, offset)
    assert y.item() == 0.5
    assert [grad.dtype for grad in pull(y)] == ["bfloat16", "float32"]


def test_batch_of_none():
    y, pull = jax.vjp(CONV, *map(jnp.asarray, arguments(batch=0)))
    assert y.shape == (0, 4, 5, 3)
    to_x, to_kernel, to_offset, to_mask, to_bias = pull(y)
    assert (to_x.shape, to_offset.shape, to_mask.shape) == ((0, 4, 5, 2), (0, 4, 5, 12), (0, 4, 5, 6))
    assert not to_kernel.any()
    assert not to_bias.any()


def test_batch_of_one_is_one_of_many():
    x, kernel, offset, mask, bias = arguments(batch=3)
    alone = CONV(x[1:2], kernel, offset[1:2], mask[1:2], bias)
    np.testing.assert_allclose(CONV(x, kernel, offset, mask, bias)[1:2], alone, rtol=1e-5, atol=1e-6)


def test_not_a_number_stays_where_it_is_read():
    """A pixel that counts nothing is read all the same, as in torchvision: there this is not `conv2d`."""
    x, kernel, offset, mask, bias = map(jnp.asarray, arguments())
    still = jnp.zeros_like(offset)
    for args, lost in [
        ((x, offset.at[0, 1, 2, 3].set(jnp.nan), mask), {(1, 2)}),
        ((x, offset, mask.at[0, 1, 2, 3].set(jnp.inf)), {(1, 2)}),
        ((x.at[0, 1, 2].set(jnp.nan), still, mask), set(itertools.product(range(3), range(3)))),
    ]:
        y = CONV(args[0], kernel, args[1], args[2], bias)
        assert set(map(tuple, np.argwhere(~np.isfinite(y[0]).all(-1)))) == lost


# Errors.


def ones(*shape, dtype="float32"):
    return jnp.ones(shape, dtype)


PICTURE, KERNEL, OFFSET = ones(1, 8, 7, 4), ones(3, 3, 4, 8), ones(1, 8, 7, 18)

ERRORS = [
    (
        (ones(8, 7, 4), KERNEL, OFFSET),
        {},
        "x must be (N, H, W, C), got shape (8, 7, 4). Add a batch axis with x[None].",
    ),
    (
        (ones(1, 4, 8, 7), KERNEL, OFFSET),
        {},
        "x (1, 4, 8, 7) looks channels-first: kernel (3, 3, 4, 8) takes 4 channels in the last axis."
        " Use x.transpose(0, 2, 3, 1).",
    ),
    (
        (PICTURE, ones(3, 3, 3, 8), OFFSET),
        {},
        "x has 4 channels but kernel (3, 3, 3, 8) with groups=1 takes 3. The kernel is (*window, C_in // groups,"
        " C_out).",
    ),
    (
        (PICTURE, ones(3, 3, 2, 5), OFFSET),
        {"groups": 2},
        "groups must divide the output channels, got groups=2 and kernel (3, 3, 2, 5). Use a multiple of 2 output"
        " channels.",
    ),
    (
        (PICTURE, KERNEL, OFFSET),
        {"offset_groups": 3},
        "offset_groups must divide the channels of x, got offset_groups=3 and x (1, 8, 7, 4). Use a divisor.",
    ),
    ((PICTURE, KERNEL, OFFSET), {"offset_groups": 0}, "offset_groups must be at least 1, got 0."),
    (
        (PICTURE, KERNEL, ones(1, 18, 8, 7)),
        {},
        "offset (1, 18, 8, 7) looks channels-first: its 18 values a place come last. Use offset.transpose(0, 2, 3, 1).",
    ),
    (
        (PICTURE, KERNEL, OFFSET),
        {"stride": 2},
        "offset must be (N, Ho, Wo, offset_groups * Kh * Kw * 2 = 1 * 9 * 2), here (1, 4, 4, 18), got shape"
        " (1, 8, 7, 18). Ho and Wo are those of the result.",
    ),
    (
        (PICTURE, KERNEL, OFFSET),
        {"offset_groups": 2},
        "offset must be (N, Ho, Wo, offset_groups * Kh * Kw * 2 = 2 * 9 * 2), here (1, 8, 7, 36), got shape"
        " (1, 8, 7, 18). Ho and Wo are those of the result.",
    ),
    (
        (PICTURE, KERNEL, OFFSET, ones(1, 8, 7, 18)),
        {},
        "mask must be (N, Ho, Wo, offset_groups * Kh * Kw = 1 * 9), here (1, 8, 7, 9), got shape (1, 8, 7, 18). Ho and"
        " Wo are those of the result.",
    ),
    (
        (PICTURE, KERNEL, OFFSET, ones(1, 9, 8, 7)),
        {},
        "mask (1, 9, 8, 7) looks channels-first: its 9 values a place come last. Use mask.transpose(0, 2, 3, 1).",
    ),
    (
        (PICTURE, KERNEL, OFFSET, None, ones(4)),
        {},
        "bias must be (8,), one value an output channel, got shape (4,).",
    ),
    (
        (PICTURE, KERNEL, OFFSET),
        {"padding": "REFLECT"},
        "padding must be amounts or one of SAME, SAME_LOWER, VALID, got 'REFLECT'.",
    ),
    (
        (ones(1, 8, 2, 4), KERNEL, OFFSET),
        {"padding": "VALID"},
        "kernel (3, 3) does not fit the padded input (8, 2) along W. Pad, or use a smaller kernel.",
    ),
    (
        (PICTURE, KERNEL, OFFSET),
        {"stride": (1, 2, 3)},
        "stride takes one value an axis (2), got (1, 2, 3). Give an int for all axes.",
    ),
    ((PICTURE, KERNEL, OFFSET), {"dilation": 0}, "dilation must be at least 1, got 0."),
]


@pytest.mark.parametrize(("args", "options", "message"), ERRORS)
def test_errors_word_for_word(args, options, message):
    with pytest.raises(ValueError, match="deform_conv2d") as caught:
        deform_conv2d(*args, **options)
    assert str(caught.value) == f"deform_conv2d: {message}"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            (PICTURE.astype("uint8"), KERNEL, OFFSET),
            "x must be floating point, got uint8. Cast it with x.astype('float32').",
        ),
        (
            (PICTURE, KERNEL, OFFSET.astype("int32")),
            "offset must be floating point, got int32. Cast it with offset.astype('float32').",
        ),
        (
            (PICTURE, KERNEL.astype("bfloat16"), OFFSET),
            "x is float32 but kernel is bfloat16. Cast one, as in kernel.astype(x.dtype).",
        ),
        (
            (PICTURE, KERNEL, OFFSET, ones(1, 8, 7, 9, dtype="bfloat16")),
            "x is float32 but mask is bfloat16. Cast one, as in mask.astype(x.dtype).",
        ),
        (
            (PICTURE, KERNEL, OFFSET, ones(1, 8, 7, 9, dtype="bool")),
            "mask must be floating point, got bool. Cast it with mask.astype('float32').",
        ),
    ],
)
def test_errors_of_dtype_word_for_word(args, message):
    with pytest.raises(TypeError, match="deform_conv2d") as caught:
        deform_conv2d(*args)
    assert str(caught.value) == f"deform_conv2d: {message}"


def test_options_are_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        deform_conv2d(PICTURE, KERNEL, OFFSET, None, None, 2)  # pyright: ignore[reportCallIssue]
