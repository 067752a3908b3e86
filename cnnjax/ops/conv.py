"""Convolution in one, two and three dimensions: each one call of `lax.conv_general_dilated`."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Inexact

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._arguments import Padding
from cnnjax.ops.shapes import conv_output_size

# lax knows zero padding alone; these modes fill in something else.
_FILLED = {"CIRCULAR": "wrap", "REFLECT": "reflect", "REPLICATE": "edge"}


def conv1d(
    x: Inexact[Array, "N L C"],
    kernel: Inexact[Array, "K I O"],
    bias: Inexact[Array, "O"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Inexact[Array, "N M O"]:
    """Convolve a batch of series with a kernel.

    The cross-correlation of the deep-learning libraries: the kernel is not flipped. "CAUSAL" padding makes
    every output see its own and earlier steps alone.

    y[n, t, o] = bias[o] + sum over k, c of x[n, t * stride + k * dilation - low, c] * kernel[k, c, o]

    Args:
        x: (N, L, C), floating or complex.
        kernel: (K, C // groups, O), the dtype of x.
        bias: (O,), the dtype of x, or None.
        stride: step in samples, at least 1.
        padding: as in `conv2d`, and "CAUSAL": dilation * (K - 1) zeros at the start, none at the end.
        dilation: distance between neighbouring taps in samples, at least 1.
        groups: as in `conv2d`.
        precision: as in `conv2d`.
        preferred_element_type: as in `conv2d`.

    Returns:
        (N, M, O) in the dtype of x, M = `shapes.conv_output_size(L, K, ...)`.

    Raises:
        TypeError: an integer array, or x, kernel and bias of different dtypes.
        ValueError: shapes that do not fit each other, or a kernel that does not fit the padded input.

    Example:
        >>> x = jnp.array([1.0, 2.0, 4.0, 8.0]).reshape(1, 4, 1)
        >>> conv1d(x, jnp.array([-1.0, 1.0]).reshape(2, 1, 1), padding="CAUSAL").ravel()
        Array([1., 1., 2., 4.], dtype=float32)

    Source:
        van den Oord et al. 2016, "WaveNet", section 2.1, for causal and dilated; otherwise as `conv2d`.
    """
    return _conv("conv1d", 1, x, kernel, bias, stride, padding, dilation, groups, precision, preferred_element_type)


def conv2d(
    x: Inexact[Array, "N H W C"],
    kernel: Inexact[Array, "Kh Kw I O"],
    bias: Inexact[Array, "O"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Inexact[Array, "N Ho Wo O"]:
    """Convolve a batch of pictures with a kernel.

    The cross-correlation of the deep-learning libraries: the kernel is not flipped.

    y[n, i, j, o] = bias[o] + sum over k, l, c of x[n, i * s + k * d - low, j * s + l * d - low, c] * kernel[k, l, c, o]

    Args:
        x: (N, H, W, C), floating or complex.
        kernel: (Kh, Kw, C // groups, O), the dtype of x.
        bias: (O,), the dtype of x, or None.
        stride: step of the window in pixels, at least 1: an int, or one an axis.
        padding: "SAME" (ceil(n / stride) outputs, an odd pixel at the end), "SAME_LOWER" (at the start), "VALID",
            or amounts: an int, one an axis, or a nested (low, high) pair an axis. "CIRCULAR", "REFLECT" and
            "REPLICATE" fill in pixels of x instead of zeros, ((Kd - 1) // 2, Kd // 2) of them an axis whatever
            the stride, with Kd = dilation * (K - 1) + 1. Any case.
        dilation: distance between neighbouring taps in pixels, at least 1: an int, or one an axis.
        groups: number of blocks that the channels are split into, each convolved on its own; divides C and O.
        precision: as in `jax.lax.conv_general_dilated`; matters on GPU and TPU.
        preferred_element_type: dtype of accumulation and result; None is the dtype of x, another one is
            differentiated from jax 0.10 on. Half-precision
            inputs are accumulated in float32 and rounded, before the bias is added and again after.

    Returns:
        (N, Ho, Wo, O) in the dtype of x, with sizes `shapes.conv_output_size(n, k, ...)` an axis.

    Raises:
        TypeError: an integer array, or x, kernel and bias of different dtypes.
        ValueError: shapes that do not fit each other, or a kernel that does not fit the padded input.

    Example:
        >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
        >>> conv2d(x, jnp.ones((2, 2, 1, 1)), padding="VALID")[0, :, :, 0]
        Array([[ 8., 12.],
               [20., 24.]], dtype=float32)

    Source:
        LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", section II.A; Dumoulin &
        Visin 2016 for sizes. REFLECT and CIRCULAR pad as flax.nnx.Conv, which for strides above 1 is not SAME.
    """
    return _conv("conv2d", 2, x, kernel, bias, stride, padding, dilation, groups, precision, preferred_element_type)


def conv3d(
    x: Inexact[Array, "N D H W C"],
    kernel: Inexact[Array, "Kd Kh Kw I O"],
    bias: Inexact[Array, "O"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Inexact[Array, "N Do Ho Wo O"]:
    """Convolve a batch of volumes with a kernel.

    `conv2d` with a depth axis: CT and MRI volumes, or video with time as depth.

    Args:
        x: (N, D, H, W, C), floating or complex.
        kernel: (Kd, Kh, Kw, C // groups, O), the dtype of x.
        bias: (O,), the dtype of x, or None.
        stride: as in `conv2d`, in voxels.
        padding: as in `conv2d`.
        dilation: as in `conv2d`, in voxels.
        groups: as in `conv2d`.
        precision: as in `conv2d`.
        preferred_element_type: as in `conv2d`.

    Returns:
        (N, Do, Ho, Wo, O) in the dtype of x, with sizes `shapes.conv_output_size(n, k, ...)` an axis.

    Raises:
        TypeError: an integer array, or x, kernel and bias of different dtypes.
        ValueError: shapes that do not fit each other, or a kernel that does not fit the padded input.

    Example:
        >>> conv3d(jnp.ones((1, 4, 4, 4, 1)), jnp.ones((3, 3, 3, 1, 2)), padding="VALID").shape
        (1, 2, 2, 2, 2)

    Source:
        Ji et al. 2010, "3D Convolutional Neural Networks for Human Action Recognition", equation 2.
    """
    return _conv("conv3d", 3, x, kernel, bias, stride, padding, dilation, groups, precision, preferred_element_type)


def _conv(
    op: str,
    rank: int,
    x: Array,
    kernel: Array,
    bias: Array | None,
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
    groups: int,
    precision: lax.PrecisionLike,
    preferred_element_type: DTypeLike | None,
) -> Array:
    x, kernel = arguments.inexact(op, "x", x), arguments.inexact(op, "kernel", kernel)
    arguments.same_dtype(op, x, "kernel", kernel)
    spatial = arguments.batched(op, x, rank)
    groups = arguments.count(op, "groups", groups)
    _check_kernel(op, rank, x, kernel, groups)
    bias = arguments.checked_bias(op, x, bias, kernel.shape[-1])
    window = kernel.shape[:rank]
    strides = arguments.per_axis(op, "stride", stride, rank)
    dilations = arguments.per_axis(op, "dilation", dilation, rank)
    pairs = arguments.padding_pairs(op, padding, spatial, window, strides, dilations, arguments.conv_modes(rank))
    sizes = [
        conv_output_size(n, k, stride=s, padding=pair, dilation=d)
        for n, k, s, pair, d in zip(spatial, window, strides, pairs, dilations, strict=True)
    ]
    arguments.fits(op, "kernel", spatial, window, dilations, pairs, sizes)
    if isinstance(padding, str) and padding.upper() in _FILLED:
        x, pairs = _fill(op, x, pairs, padding.upper()), [(0, 0)] * rank
    x, pairs = _pad_beyond_reach(x, pairs, window, dilations)
    channels_last = (0, rank + 1, *range(1, rank + 1))
    y = lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pairs,
        rhs_dilation=dilations,
        dimension_numbers=lax.ConvDimensionNumbers(channels_last, (rank + 1, rank, *range(rank)), channels_last),
        feature_group_count=groups,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    return arguments.add_bias(y, bias)


def _pad_beyond_reach(
    x: Array, pairs: Sequence[tuple[int, int]], window: Sequence[int], dilation: Sequence[int]
) -> tuple[Array, list[tuple[int, int]]]:
    """Add here what lets a window see padding alone: of it, XLA:CPU computes a wrong gradient (jax 0.10.2)."""
    most = [d * (k - 1) for k, d in zip(window, dilation, strict=True)]
    inner = [(min(low, m), min(high, m)) for (low, high), m in zip(pairs, most, strict=True)]
    outer = [(low - a, high - b) for (low, high), (a, b) in zip(pairs, inner, strict=True)]
    return (jnp.pad(x, [(0, 0), *outer, (0, 0)]) if any(map(any, outer)) else x), inner


def _check_kernel(op: str, rank: int, x: Array, kernel: Array, groups: int) -> None:
    if kernel.ndim != rank + 2 or 0 in kernel.shape[:rank]:
        raise ValueError(
            f"{op}: kernel must be (*window, C_in // groups, C_out) with {rank} window axes, got shape {kernel.shape}."
        )
    channels, taken = x.shape[-1], kernel.shape[-2] * groups
    if channels != taken and x.shape[1] == taken:
        raise ValueError(
            f"{op}: x {x.shape} looks channels-first: kernel {kernel.shape} takes {taken} channels in the last"
            f" axis. Use x.transpose{(0, *range(2, rank + 2), 1)}."
        )
    if channels != taken:
        raise ValueError(
            f"{op}: x has {channels} channels but kernel {kernel.shape} with groups={groups} takes {taken}."
            " The kernel is (*window, C_in // groups, C_out)."
        )
    if kernel.shape[-1] % groups:
        raise ValueError(
            f"{op}: groups must divide the output channels, got groups={groups} and kernel {kernel.shape}."
            f" Use a multiple of {groups} output channels."
        )


def _fill(op: str, x: Array, pairs: Sequence[tuple[int, int]], mode: str) -> Array:
    for axis, n, pair in zip(arguments.AXES[len(pairs)], x.shape[1:-1], pairs, strict=True):
        if mode == "REFLECT" and max(pair) >= n:
            raise ValueError(
                f"{op}: REFLECT must add fewer pixels than there are, got {max(pair)} for {n} along {axis}."
                " Use REPLICATE, or a smaller kernel."
            )
    return jnp.pad(x, [(0, 0), *pairs, (0, 0)], mode=_FILLED[mode])
