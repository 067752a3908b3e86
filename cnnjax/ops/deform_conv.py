"""Deformable convolution: every tap of every window is moved by an offset of its own."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Inexact

from cnnjax.ops import _arguments as arguments
from cnnjax.ops import _sampling as sampling
from cnnjax.ops._arguments import Padding
from cnnjax.ops._sampling import Taps
from cnnjax.ops.conv import _check_kernel
from cnnjax.ops.shapes import conv_output_size

_MODES = ("SAME", "SAME_LOWER", "VALID")


def deform_conv2d(
    x: Inexact[Array, "N H W C"],
    kernel: Inexact[Array, "Kh Kw I O"],
    offset: Float[Array, "N Ho Wo T2"],
    mask: Inexact[Array, "N Ho Wo T"] | None = None,
    bias: Inexact[Array, "O"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    offset_groups: int = 1,
) -> Inexact[Array, "N Ho Wo O"]:
    """Convolve a batch of pictures with a kernel whose taps are moved.

    A `conv2d` that chooses, from place to place, where it looks: the offsets come from a convolution of their own,
    usually of x and starting at zero, where this is `conv2d`. With a mask (of sigmoids, usually) it also chooses how
    much each tap counts. It reads four pixels a tap one by one: many times slower than `conv2d`, and Kh * Kw times
    the memory of x.

    y[n, i, j, o] = bias[o] + sum over k, l, c of kernel[k, l, c, o] * mask[n, i, j, t]
        * x[n, i * s + k * d - low + offset[n, i, j, 2 * t], j * s + l * d - low + offset[n, i, j, 2 * t + 1], c]

    with t = (g * Kh + k) * Kw + l for the group g of c; x between pixels is linear, and zero outside.

    Args:
        x: (N, H, W, C), floating or complex.
        kernel: (Kh, Kw, C // groups, O), the dtype of x.
        offset: (N, Ho, Wo, offset_groups * Kh * Kw * 2), floating, in pixels: group by group, tap by tap in row-major
            order, down before right. Another dtype than that of x will do; it is computed in float32 at least.
        mask: (N, Ho, Wo, offset_groups * Kh * Kw), the dtype of x, in the same order; or None for ones.
        bias: (O,), the dtype of x, or None.
        stride: step of the window in pixels, at least 1: an int, or one an axis.
        padding: "SAME" (ceil(n / stride) outputs, an odd pixel at the end), "SAME_LOWER" (at the start) or "VALID" in
            any case, or amounts of zeros: an int, one an axis, or a nested (low, high) pair an axis.
        dilation: distance between neighbouring taps before they are moved, in pixels, at least 1: an int, or one an
            axis.
        groups: number of blocks that the channels are split into, each convolved on its own; divides C and O.
        offset_groups: number of blocks of channels that have offsets and a mask of their own; divides C.

    Returns:
        (N, Ho, Wo, O) in the dtype of x, with sizes `shapes.conv_output_size(n, k, ...)` an axis. Half precision is
        accumulated in float32 and rounded once. An infinite offset reads zeros, a NaN gives NaN.

    Raises:
        TypeError: an integer array, a complex offset, or x, kernel, mask and bias of different dtypes.
        ValueError: shapes that do not fit each other, or a kernel that does not fit the padded input.

    Example:
        >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
        >>> offset = jnp.zeros((1, 2, 2, 2 * 4)).at[0, 0, 0, :2].set(jnp.array([0.5, 2.0]))  # of the first tap
        >>> deform_conv2d(x, jnp.ones((2, 2, 1, 1)), offset, padding="VALID")[0, :, :, 0]
        Array([[11.5, 12. ],
               [20. , 24. ]], dtype=float32)

    Source:
        Dai et al. 2017, "Deformable Convolutional Networks", equations 2 to 4; Zhu et al. 2019, "Deformable ConvNets
        v2", equation 1, for the mask. As torchvision.ops.deform_conv2d and ONNX DeformConv, channels last: take their
        x, offset and mask as .transpose(0, 2, 3, 1), their weight as .transpose(2, 3, 1, 0).
    """
    op = "deform_conv2d"
    x, kernel = arguments.inexact(op, "x", x), arguments.inexact(op, "kernel", kernel)
    arguments.same_dtype(op, x, "kernel", kernel)
    spatial = arguments.batched(op, x, 2)
    groups, offset_groups = arguments.count(op, "groups", groups), arguments.count(op, "offset_groups", offset_groups)
    _check_kernel(op, 2, x, kernel, groups)
    bias = arguments.checked_bias(op, x, bias, kernel.shape[-1])
    window, (channels, outputs) = kernel.shape[:2], kernel.shape[2:]
    strides = arguments.per_axis(op, "stride", stride, 2)
    dilations = arguments.per_axis(op, "dilation", dilation, 2)
    pairs = arguments.padding_pairs(op, padding, spatial, window, strides, dilations, _MODES)
    sizes = [
        conv_output_size(n, k, stride=s, padding=pair, dilation=d)
        for n, k, s, pair, d in zip(spatial, window, strides, pairs, dilations, strict=True)
    ]
    arguments.fits(op, "kernel", spatial, window, dilations, pairs, sizes)
    offset, mask = _checked_maps(op, x, offset, mask, sizes, window, offset_groups)

    places = [
        np.arange(size)[:, None] * s - low + np.arange(k) * d
        for size, k, s, (low, _), d in zip(sizes, window, strides, pairs, dilations, strict=True)
    ]
    axes = _moved_taps(offset, places, spatial)
    if mask is not None:
        axes[0] = axes[0]._replace(weight=axes[0].weight * arguments.wide(mask)[..., None])
    seen = sampling.sample(x, axes, groups=offset_groups)
    taps = math.prod(window)
    y = jnp.einsum(
        "nhwtgc,tcgo->nhwgo",
        seen.reshape(x.shape[0], *sizes, taps, groups, channels),
        arguments.wide(kernel).reshape(taps, channels, groups, outputs // groups),
    )
    return arguments.add_bias(y.reshape(x.shape[0], *sizes, outputs), bias).astype(x.dtype)


def _moved_taps(offset: Array, places: Sequence[np.ndarray], spatial: Sequence[int]) -> list[Taps]:
    """What each tap reads along H and W, from (outputs, taps) places an axis and the offsets added to them."""
    (_, height), (_, width) = (place.shape for place in places)
    rows = np.repeat(places[0], width, axis=1)[:, None, :, None]
    columns = np.tile(places[1], height)[None, :, :, None]
    # Clipped where all is zeros anyway, so that infinity is no NaN.
    return [
        sampling.linear(jnp.clip(place.astype(offset.dtype) + offset[..., axis], -2, n + 1), n)
        for axis, (place, n) in enumerate(zip((rows, columns), spatial, strict=True))
    ]


def _checked_maps(
    op: str,
    x: Array,
    offset: Array,
    mask: Array | None,
    sizes: Sequence[int],
    window: Sequence[int],
    groups: int,
) -> tuple[Array, Array | None]:
    """Offset and mask as (N, Ho, Wo, taps, groups, 2) and (N, Ho, Wo, taps, groups)."""
    if x.shape[-1] % groups:
        raise ValueError(
            f"{op}: offset_groups must divide the channels of x, got offset_groups={groups} and x {x.shape}."
            " Use a divisor."
        )
    taps = math.prod(window)
    split = (x.shape[0], *sizes, groups, taps)
    offset = arguments.floating(op, "offset", offset)
    _check_map(op, "offset", offset, split, 2)
    offset = offset.astype(jnp.promote_types(offset.dtype, jnp.finfo(arguments.wide(x).dtype).dtype))
    offset = offset.reshape(*split, 2).swapaxes(3, 4)
    if mask is None:
        return offset, None
    mask = arguments.inexact(op, "mask", mask)
    arguments.same_dtype(op, x, "mask", mask)
    _check_map(op, "mask", mask, split, 1)
    return offset, mask.reshape(split).swapaxes(3, 4)


def _check_map(op: str, name: str, array: Array, split: tuple[int, ...], values: int) -> None:
    *places, groups, taps = split
    expected = (*places, groups * taps * values)
    product = (
        f"offset_groups * Kh * Kw{' * 2' if values == 2 else ''} = {groups} * {taps}{' * 2' if values == 2 else ''}"
    )
    if array.shape == (expected[0], expected[3], *expected[1:3]) != expected:
        raise ValueError(
            f"{op}: {name} {array.shape} looks channels-first: its {expected[3]} values a place come last."
            f" Use {name}.transpose(0, 2, 3, 1)."
        )
    if array.shape != expected:
        raise ValueError(
            f"{op}: {name} must be (N, Ho, Wo, {product}), here {expected}, got shape {array.shape}. Ho and Wo are"
            " those of the result."
        )
