"""Transposed convolution in one, two and three dimensions: each one call of `lax.conv_general_dilated`."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Inexact

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._arguments import Padding
from cnnjax.ops.shapes import TRANSPOSE_MODES, conv_transpose_output_size


def conv_transpose1d(
    x: Inexact[Array, "N L C"],
    kernel: Inexact[Array, "K C P"],
    bias: Inexact[Array, "O"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Inexact[Array, "N M O"]:
    """Spread a batch of series over a longer one: the gradient of `conv1d` with respect to its input.

    Everything is as in `conv_transpose2d`, which also says how to convert the weights and the options of other
    libraries; PyTorch's weight here is weight.transpose(2, 0, 1).

    y[n, p, o] = bias[o] + sum of x[n, t, c] * kernel[k, c, o] over c and t * stride + k * dilation - low = p

    Args:
        x: (N, L, C), floating or complex.
        kernel: (K, C, O // groups), the dtype of x.
        bias: (O,), the dtype of x, or None.
        stride: distance in the result between neighbouring samples of x, at least 1.
        padding: as in `conv_transpose2d`.
        output_padding: as in `conv_transpose2d`.
        dilation: distance between neighbouring taps in samples of the result, at least 1.
        groups: as in `conv_transpose2d`.

    Returns:
        (N, M, O) in the dtype of x, M = `shapes.conv_transpose_output_size(L, K, ...)`.

    Raises:
        TypeError: an integer array, or x, kernel and bias of different dtypes.
        ValueError: shapes that do not fit each other, too large an output_padding, or a padding that crops everything.

    Example:
        >>> x = jnp.array([1.0, 10.0, 100.0]).reshape(1, 3, 1)
        >>> conv_transpose1d(x, jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1), stride=2, padding=0).ravel()
        Array([  1.,   2.,  13.,  20., 130., 200., 300.], dtype=float32)

    Source:
        As `conv_transpose2d`.
    """
    return _conv_transpose("conv_transpose1d", 1, x, kernel, bias, stride, padding, output_padding, dilation, groups)


def conv_transpose2d(
    x: Inexact[Array, "N H W C"],
    kernel: Inexact[Array, "Kh Kw C P"],
    bias: Inexact[Array, "O"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Inexact[Array, "N Ho Wo O"]:
    """Spread a batch of pictures over a larger one: the gradient of `conv2d` with respect to its input.

    Every pixel of x lays down a copy of the kernel, scaled by it, and copies that overlap add up. The amounts of
    padding crop the result, and the kernel is not flipped: PyTorch's definition. A window that is no multiple of
    the stride leaves a checkerboard; `resize` and a `conv2d` leave none.

    y[n, p, q, o] = bias[o] + sum of x[n, i, j, c] * kernel[k, l, c, o] over c, i * stride + k * dilation - low = p
    and j * stride + l * dilation - low = q

    Weights and options of other libraries, where Kd = dilation * (K - 1) + 1:

    - PyTorch: weight.transpose(2, 3, 0, 1). The options mean the same; padding is 0 by default.
    - ONNX: W as PyTorch's weight, pads as (low, high) pairs. An output_shape crops total = (n - 1) * stride + Kd +
      output_padding - output_shape pixels: (total // 2, total - total // 2) for SAME_UPPER, otherwise the two
      exchanged (old texts of the standard say the opposite); a negative total is that much more output_padding, as
      in ONNX Runtime (ONNX's reference shares it among both sides). auto_pad is an output_shape of n * stride: SAME
      and SAME_LOWER, if Kd >= stride and output_padding is 0.
    - Keras: kernel.swapaxes(2, 3). "same" without output_padding is SAME, "valid" is as for Flax.
    - flax.nnx.ConvTranspose, lax.conv_transpose: kernel[::-1, ::-1], for theirs lies flipped; if it was made with
      transpose_kernel, kernel.swapaxes(2, 3). SAME is SAME. VALID gives n * stride pixels at least: where
      Kd < stride, add output_padding=stride - Kd. Amounts p pad x there, and are Kd - 1 - p here.

    Args:
        x: (N, H, W, C), floating or complex.
        kernel: (Kh, Kw, C, O // groups), the dtype of x.
        bias: (O,), the dtype of x, or None.
        stride: distance in the result between neighbouring pixels of x, at least 1: an int, or one an axis.
        padding: what is cropped: "SAME" (to n * stride pixels, max(Kd - stride, 0) // 2 of them at the start),
            "SAME_LOWER" (an odd pixel at the start), "VALID" (nothing), in any case, or amounts: an int, one an
            axis, or a nested (low, high) pair an axis. SAME adds zeros at the end where Kd < stride.
        output_padding: pixels more at the end, less than the stride or than the dilation, whatever the padding: an
            int, or one an axis. It undoes the rounding of a strided convolution's output size.
        dilation: distance between neighbouring taps in pixels of the result, at least 1: an int, or one an axis.
        groups: number of blocks that the channels are split into, each on its own; divides C and O.

    Returns:
        (N, Ho, Wo, O) in the dtype of x, with sizes `shapes.conv_transpose_output_size(n, k, ...)` an axis.

    Raises:
        TypeError: an integer array, or x, kernel and bias of different dtypes.
        ValueError: shapes that do not fit each other, too large an output_padding, or a padding that crops everything.

    Example:
        >>> x = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
        >>> conv_transpose2d(x, jnp.ones((3, 3, 1, 1)), stride=2, padding=1)[0, :, :, 0]
        Array([[ 1.,  3.,  2.],
               [ 4., 10.,  6.],
               [ 3.,  7.,  4.]], dtype=float32)

    Source:
        Zeiler, Krishnan, Taylor & Fergus 2010, "Deconvolutional Networks", equation 1; Dumoulin & Visin 2016,
        section 4, for sizes; Odena, Dumoulin & Olah 2016 for checkerboards. SAME as TensorFlow.
    """
    return _conv_transpose("conv_transpose2d", 2, x, kernel, bias, stride, padding, output_padding, dilation, groups)


def conv_transpose3d(
    x: Inexact[Array, "N D H W C"],
    kernel: Inexact[Array, "Kd Kh Kw C P"],
    bias: Inexact[Array, "O"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Inexact[Array, "N Do Ho Wo O"]:
    """Spread a batch of volumes over a larger one: the gradient of `conv3d` with respect to its input.

    `conv_transpose2d` with a depth axis; PyTorch's weight here is weight.transpose(2, 3, 4, 0, 1).

    Args:
        x: (N, D, H, W, C), floating or complex.
        kernel: (Kd, Kh, Kw, C, O // groups), the dtype of x.
        bias: (O,), the dtype of x, or None.
        stride: as in `conv_transpose2d`, in voxels.
        padding: as in `conv_transpose2d`.
        output_padding: as in `conv_transpose2d`.
        dilation: as in `conv_transpose2d`, in voxels.
        groups: as in `conv_transpose2d`.

    Returns:
        (N, Do, Ho, Wo, O) in the dtype of x, with sizes `shapes.conv_transpose_output_size(n, k, ...)` an axis.

    Raises:
        TypeError: an integer array, or x, kernel and bias of different dtypes.
        ValueError: shapes that do not fit each other, too large an output_padding, or a padding that crops everything.

    Example:
        >>> y = conv_transpose3d(jnp.ones((1, 2, 2, 2, 1)), jnp.ones((2, 2, 2, 1, 1)), padding="VALID")
        >>> y[0, 1, :, :, 0]
        Array([[2., 4., 2.],
               [4., 8., 4.],
               [2., 4., 2.]], dtype=float32)

    Source:
        As `conv_transpose2d`.
    """
    return _conv_transpose("conv_transpose3d", 3, x, kernel, bias, stride, padding, output_padding, dilation, groups)


def _conv_transpose(
    op: str,
    rank: int,
    x: Array,
    kernel: Array,
    bias: Array | None,
    stride: int | Sequence[int],
    padding: Padding,
    output_padding: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
) -> Array:
    x, kernel = arguments.inexact(op, "x", x), arguments.inexact(op, "kernel", kernel)
    arguments.same_dtype(op, x, "kernel", kernel)
    spatial = arguments.batched(op, x, rank)
    groups = arguments.count(op, "groups", groups)
    _check_kernel(op, rank, x, kernel, groups)
    bias = arguments.checked_bias(op, x, bias, kernel.shape[-1] * groups)
    window = kernel.shape[:rank]
    strides = arguments.per_axis(op, "stride", stride, rank)
    dilations = arguments.per_axis(op, "dilation", dilation, rank)
    extras = _output_paddings(op, output_padding, strides, dilations)
    margins = _margins(op, padding, spatial, window, strides, dilations, extras)
    channels_last = (0, rank + 1, *range(1, rank + 1))
    y = lax.conv_general_dilated(
        x,
        _of_a_convolution(kernel, rank, groups),
        (1,) * rank,
        margins,
        lhs_dilation=strides,
        rhs_dilation=dilations,
        dimension_numbers=lax.ConvDimensionNumbers(channels_last, (rank + 1, rank, *range(rank)), channels_last),
        feature_group_count=groups,
    )
    return arguments.add_bias(y, bias)


def _margins(
    op: str,
    padding: Padding,
    spatial: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    extras: Sequence[int],
) -> list[tuple[int, int]]:
    """The zeros around the spread-out x that make the result as large as asked for; negative ones crop x."""
    # Cropped is what the convolution, whose gradient this is, pads; a SAME one reads n * stride pixels.
    read = [n * s for n, s in zip(spatial, strides, strict=True)]
    crops = arguments.padding_pairs(op, padding, read, window, strides, dilations, TRANSPOSE_MODES)
    asked = [padding] * len(spatial) if isinstance(padding, str) else crops
    margins = []
    for axis, n, k, s, d, extra, each, (low, high) in zip(
        arguments.AXES[len(spatial)], spatial, window, strides, dilations, extras, asked, crops, strict=True
    ):
        size = conv_transpose_output_size(n, k, stride=s, padding=each, output_padding=extra, dilation=d)
        spread, reach = (n - 1) * s + 1, d * (k - 1)
        if size < 1:
            raise ValueError(
                f"{op}: padding must leave pixels, but {(low, high)} crops all {spread + reach + extra} along {axis}."
                " Crop less."
            )
        margins.append((reach - low, size - spread + low))
    return margins


def _of_a_convolution(kernel: Array, rank: int, groups: int) -> Array:
    """(*window, C, O // groups) as lax takes it: flipped, and (*window, C // groups, O)."""
    *window, channels, outputs = kernel.shape
    blocks = lax.rev(kernel, range(rank)).reshape(*window, groups, channels // groups, outputs)
    return jnp.swapaxes(blocks, rank, rank + 1).reshape(*window, channels // groups, groups * outputs)


def _check_kernel(op: str, rank: int, x: Array, kernel: Array, groups: int) -> None:
    if kernel.ndim != rank + 2 or 0 in kernel.shape[:rank]:
        raise ValueError(
            f"{op}: kernel must be (*window, C_in, C_out // groups) with {rank} window axes, got shape {kernel.shape}."
        )
    channels, taken = x.shape[-1], kernel.shape[-2]
    if channels != taken and x.shape[1] == taken:
        raise ValueError(
            f"{op}: x {x.shape} looks channels-first: kernel {kernel.shape} takes {taken} channels in the last"
            f" axis. Use x.transpose{(0, *range(2, rank + 2), 1)}."
        )
    if channels != taken:
        raise ValueError(
            f"{op}: x has {channels} channels but kernel {kernel.shape} takes {taken}."
            " The kernel is (*window, C_in, C_out // groups)."
        )
    if channels % groups:
        raise ValueError(
            f"{op}: groups must divide the channels of x, got groups={groups} and {channels} channels."
            f" Use a divisor of {channels}."
        )


def _output_paddings(
    op: str, output_padding: int | Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[int, ...]:
    extras = arguments.per_axis(op, "output_padding", output_padding, len(strides), minimum=0)
    for axis, extra, s, d in zip(arguments.AXES[len(strides)], extras, strides, dilations, strict=True):
        if extra >= max(s, d):
            raise ValueError(
                f"{op}: output_padding must be below the stride or the dilation, got {extra} with stride {s} and"
                f" dilation {d} along {axis}. Crop less, or pad the result."
            )
    return extras
