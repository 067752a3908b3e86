"""Locally connected layers: a convolution whose kernel changes from place to place."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jaxtyping import Inexact

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._arguments import Padding
from cnnjax.ops.conv import _FILLED, _fill
from cnnjax.ops.patches import unfold
from cnnjax.ops.shapes import conv_output_size


def local_conv1d(
    x: Inexact[Array, "N L C"],
    kernel: Inexact[Array, "T F O"],
    bias: Inexact[Array, "*places O"] | None = None,
    *,
    window: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
) -> Inexact[Array, "N T O"]:
    """Apply another filter at every place of a batch of series.

    `local_conv2d` along one axis.

    y[n, t, o] = bias[t, o] + sum over c, k of x[n, t * stride + k * dilation - low, c] * kernel[t, c * K + k, o]

    Args:
        x: (N, L, C), floating or complex.
        kernel: (T, C * K, O), the dtype of x, T = `shapes.conv_output_size(L, K, ...)`.
        bias: (T, O), or (O,) for the same at every place, the dtype of x; or None.
        window: size K of the window in samples, at least 1.
        stride: step in samples, at least 1.
        padding: as in `conv1d`.
        dilation: distance between neighbouring taps in samples, at least 1.

    Returns:
        (N, T, O) in the dtype of x.

    Raises:
        TypeError: an integer array, or x, kernel and bias of different dtypes.
        ValueError: shapes that do not fit each other, or a window that does not fit the padded input.

    Example:
        >>> x = jnp.array([1.0, 2.0, 4.0, 8.0]).reshape(1, 4, 1)
        >>> kernel = jnp.array([[-1.0, 1.0], [0.5, 0.5], [0.0, 10.0]]).reshape(3, 2, 1)
        >>> local_conv1d(x, kernel, window=2, padding="VALID").ravel()
        Array([ 1.,  3., 80.], dtype=float32)

    Source:
        As `local_conv2d`.
    """
    return _local_conv("local_conv1d", 1, x, kernel, bias, window, stride, padding, dilation)


def local_conv2d(
    x: Inexact[Array, "N H W C"],
    kernel: Inexact[Array, "Ho Wo F O"],
    bias: Inexact[Array, "*places O"] | None = None,
    *,
    window: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
) -> Inexact[Array, "N Ho Wo O"]:
    """Apply another filter at every place of a batch of pictures.

    A `conv2d` without weight sharing, for pictures whose places differ, such as aligned faces: Ho * Wo times the
    weights, which fix the size of x. The windows are laid out by `unfold`, at stride 1 Kh * Kw times the memory of x.

    y[n, i, j, o] = bias[i, j, o] + sum over c, k, l of x[n, i * s + k * d - low, j * s + l * d - low, c]
        * kernel[i, j, (c * Kh + k) * Kw + l, o]

    Args:
        x: (N, H, W, C), floating or complex.
        kernel: (Ho, Wo, C * Kh * Kw, O), the dtype of x, Ho and Wo from `shapes.conv_output_size(n, k, ...)`. Channels
            come before the window, as in `jax.lax.conv_general_dilated_local` and in the rows of
            torch.nn.functional.unfold; Keras 2 has the window before the channels.
        bias: (Ho, Wo, O), or (O,) for the same at every place, the dtype of x; or None.
        window: size (Kh, Kw) in pixels, at least 1: an int, or one an axis.
        stride: step of the window in pixels, at least 1: an int, or one an axis.
        padding: as in `conv2d`.
        dilation: distance between neighbouring taps in pixels, at least 1: an int, or one an axis.

    Returns:
        (N, Ho, Wo, O) in the dtype of x. Half precision is accumulated in float32 and rounded once.

    Raises:
        TypeError: an integer array, or x, kernel and bias of different dtypes.
        ValueError: shapes that do not fit each other, or a window that does not fit the padded input.

    Example:
        >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
        >>> places = jnp.array([[1.0, 0.0], [0.5, -1.0]]).reshape(2, 2, 1, 1)
        >>> local_conv2d(x, places * jnp.ones((2, 2, 4, 1)), window=2, padding="VALID")[0, :, :, 0]
        Array([[  8.,   0.],
               [ 10., -24.]], dtype=float32)

    Source:
        LeCun 1989, "Generalization and Network Design Strategies", its Net-3; Taigman et al. 2014, "DeepFace:
        Closing the Gap to Human-Level Performance in Face Verification", section 3.1.
    """
    return _local_conv("local_conv2d", 2, x, kernel, bias, window, stride, padding, dilation)


def _local_conv(
    op: str,
    rank: int,
    x: Array,
    kernel: Array,
    bias: Array | None,
    window: int | Sequence[int],
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
) -> Array:
    x, kernel = arguments.inexact(op, "x", x), arguments.inexact(op, "kernel", kernel)
    arguments.same_dtype(op, x, "kernel", kernel)
    spatial = arguments.batched(op, x, rank)
    size = arguments.per_axis(op, "window", window, rank)
    _check_channels(op, rank, x, kernel, size)
    pairs, output = _places(op, "window", spatial, size, stride, padding, dilation)
    if kernel.shape[:rank] != output:
        raise ValueError(
            f"{op}: kernel must have one filter a place, {output} for x {x.shape}, got shape {kernel.shape}."
            " Resize x, or make the kernel for this size."
        )
    bias = _checked_bias(op, x, kernel, bias)
    wide = arguments.wide(x)
    if isinstance(padding, str) and padding.upper() in _FILLED:
        wide, pairs = _fill(op, wide, pairs, padding.upper()), 0
    rows = unfold(wide, size, stride=stride, padding=pairs, dilation=dilation)
    y = jnp.einsum("n...f,...fo->n...o", rows, arguments.wide(kernel))
    return arguments.add_bias(y, bias).astype(x.dtype)


def _places(
    op: str,
    name: str,
    spatial: Sequence[int],
    window: Sequence[int],
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
) -> tuple[list[tuple[int, int]], tuple[int, ...]]:
    """The padding in pixels, and how many places a window has: one value an axis."""
    rank = len(spatial)
    strides = arguments.per_axis(op, "stride", stride, rank)
    dilations = arguments.per_axis(op, "dilation", dilation, rank)
    pairs = arguments.padding_pairs(op, padding, spatial, window, strides, dilations, arguments.conv_modes(rank))
    output = tuple(
        conv_output_size(n, k, stride=s, padding=pair, dilation=d)
        for n, k, s, pair, d in zip(spatial, window, strides, pairs, dilations, strict=True)
    )
    arguments.fits(op, name, spatial, window, dilations, pairs, output)
    return pairs, output


def _check_channels(op: str, rank: int, x: Array, kernel: Array, window: tuple[int, ...]) -> None:
    if kernel.ndim != rank + 2:
        raise ValueError(
            f"{op}: kernel must be (*out_spatial, C * prod(window), C_out) with {rank} spatial axes, got shape"
            f" {kernel.shape}."
        )
    channels, taps, taken = x.shape[-1], math.prod(window), kernel.shape[-2]
    if taken != channels * taps and taken == x.shape[1] * taps:
        raise ValueError(
            f"{op}: x {x.shape} looks channels-first: kernel {kernel.shape} takes {x.shape[1]} channels in the last"
            f" axis. Use x.transpose{(0, *range(2, rank + 2), 1)}."
        )
    if taken != channels * taps:
        raise ValueError(
            f"{op}: x has {channels} channels and window {window} {taps} taps, {channels * taps} together, but kernel"
            f" {kernel.shape} takes {taken}. The kernel is (*out_spatial, C * prod(window), C_out)."
        )


def _checked_bias(op: str, x: Array, kernel: Array, bias: Array | None) -> Array | None:
    if bias is None:
        return None
    bias = arguments.inexact(op, "bias", bias)
    arguments.same_dtype(op, x, "bias", bias)
    everywhere = (*kernel.shape[:-2], kernel.shape[-1])
    if bias.shape not in (everywhere, everywhere[-1:]):
        raise ValueError(f"{op}: bias must be {everywhere} or {everywhere[-1:]}, got shape {bias.shape}.")
    return bias
