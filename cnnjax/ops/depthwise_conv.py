"""Depthwise convolution: every channel by itself, one call of `lax.conv_general_dilated`."""

from collections.abc import Sequence

from jax import Array
from jaxtyping import Inexact

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._arguments import Padding
from cnnjax.ops.conv import _conv


def depthwise_conv1d(
    x: Inexact[Array, "N L C"],
    kernel: Inexact[Array, "K 1 O"],
    bias: Inexact[Array, "O"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
) -> Inexact[Array, "N T O"]:
    """Convolve every channel of a batch of series with filters of its own.

    `depthwise_conv2d` along one axis. "CAUSAL" padding makes every output see its own and earlier steps alone.

    With M = O // C: y[n, t, c * M + m] = bias[c * M + m]
        + sum over k of x[n, t * stride + k * dilation - low, c] * kernel[k, 0, c * M + m]

    Args:
        x: (N, L, C), floating or complex.
        kernel: (K, 1, O), the dtype of x; O a multiple of C.
        bias: (O,), the dtype of x, or None.
        stride: step in samples, at least 1.
        padding: as in `conv1d`.
        dilation: distance between neighbouring taps in samples, at least 1.

    Returns:
        (N, T, O) in the dtype of x, T = `shapes.conv_output_size(L, K, ...)`.

    Raises:
        TypeError: an integer array, or x, kernel and bias of different dtypes.
        ValueError: shapes that do not fit each other, or a kernel that does not fit the padded input.

    Example:
        >>> x = jnp.array([[[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]])
        >>> depthwise_conv1d(x, jnp.array([[[1.0, 0.0]], [[-1.0, 2.0]]]), padding="VALID")
        Array([[[-1., 40.],
                [-2., 80.]]], dtype=float32)

    Source:
        As `depthwise_conv2d`.
    """
    return _depthwise_conv("depthwise_conv1d", 1, x, kernel, bias, stride, padding, dilation)


def depthwise_conv2d(
    x: Inexact[Array, "N H W C"],
    kernel: Inexact[Array, "Kh Kw 1 O"],
    bias: Inexact[Array, "O"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
) -> Inexact[Array, "N Ho Wo O"]:
    """Convolve every channel of a batch of pictures with filters of its own.

    `conv2d` with as many groups as channels: no output mixes two channels. Where they are to be mixed right after,
    `separable_conv2d` does both. The outputs of one channel lie side by side.

    With M = O // C: y[n, i, j, c * M + m] = bias[c * M + m]
        + sum over k, l of x[n, i * s + k * d - low, j * s + l * d - low, c] * kernel[k, l, 0, c * M + m]

    Args:
        x: (N, H, W, C), floating or complex.
        kernel: (Kh, Kw, 1, O), the dtype of x; O a multiple of C. Keras's (Kh, Kw, C, M) is reshaped to it,
            PyTorch's weight is permuted by (2, 3, 1, 0).
        bias: (O,), the dtype of x, or None.
        stride: step of the window in pixels, at least 1: an int, or one an axis.
        padding: as in `conv2d`.
        dilation: distance between neighbouring taps in pixels, at least 1: an int, or one an axis.

    Returns:
        (N, Ho, Wo, O) in the dtype of x, with sizes `shapes.conv_output_size(n, k, ...)` an axis.

    Raises:
        TypeError: an integer array, or x, kernel and bias of different dtypes.
        ValueError: shapes that do not fit each other, or a kernel that does not fit the padded input.

    Example:
        >>> x = jnp.stack([jnp.arange(9.0).reshape(3, 3), jnp.ones((3, 3))], axis=-1)[None]
        >>> kernel = jnp.ones((2, 2, 1, 2)) * jnp.array([1.0, 0.5])
        >>> depthwise_conv2d(x, kernel, padding="VALID")[0, 0]
        Array([[ 8.,  2.],
               [12.,  2.]], dtype=float32)

    Source:
        Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
        equation 3; several filters a channel as TensorFlow's depthwise_conv2d.
    """
    return _depthwise_conv("depthwise_conv2d", 2, x, kernel, bias, stride, padding, dilation)


def depthwise_conv3d(
    x: Inexact[Array, "N D H W C"],
    kernel: Inexact[Array, "Kd Kh Kw 1 O"],
    bias: Inexact[Array, "O"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
) -> Inexact[Array, "N Do Ho Wo O"]:
    """Convolve every channel of a batch of volumes with filters of its own.

    `depthwise_conv2d` with a depth axis.

    Args:
        x: (N, D, H, W, C), floating or complex.
        kernel: (Kd, Kh, Kw, 1, O), the dtype of x; O a multiple of C.
        bias: (O,), the dtype of x, or None.
        stride: as in `depthwise_conv2d`, in voxels.
        padding: as in `conv3d`.
        dilation: as in `depthwise_conv2d`, in voxels.

    Returns:
        (N, Do, Ho, Wo, O) in the dtype of x, with sizes `shapes.conv_output_size(n, k, ...)` an axis.

    Raises:
        TypeError: an integer array, or x, kernel and bias of different dtypes.
        ValueError: shapes that do not fit each other, or a kernel that does not fit the padded input.

    Example:
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2, 1)
        >>> depthwise_conv3d(x, jnp.ones((2, 2, 2, 1, 2)) * jnp.array([1.0, -0.5]), padding="VALID").ravel()
        Array([ 28., -14.], dtype=float32)

    Source:
        As `depthwise_conv2d`.
    """
    return _depthwise_conv("depthwise_conv3d", 3, x, kernel, bias, stride, padding, dilation)


def _depthwise_conv(
    op: str,
    rank: int,
    x: Array,
    kernel: Array,
    bias: Array | None,
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
) -> Array:
    x, kernel = _operands(op, rank, x, kernel, "kernel")
    return _conv(op, rank, x, kernel, bias, stride, padding, dilation, x.shape[-1], None, None)


def _operands(op: str, rank: int, x: Array, kernel: Array, name: str) -> tuple[Array, Array]:
    """Check here what `conv` would blame on a `groups` that nobody gave."""
    x, kernel = arguments.inexact(op, "x", x), arguments.inexact(op, name, kernel)
    arguments.same_dtype(op, x, name, kernel)
    arguments.batched(op, x, rank)
    rule, channels, shape = f"{op}: {name} must be (*window, 1, C * multiplier)", x.shape[-1], kernel.shape
    if len(shape) != rank + 2 or 0 in shape:
        raise ValueError(f"{rule} with {rank} window axes, got shape {shape}.")
    if shape[-2] != 1:
        fix = f" If it is (*window, C, multiplier), use {name}.reshape{(*shape[:rank], 1, shape[-2] * shape[-1])}."
        raise ValueError(f"{rule}, got shape {shape}.{fix if shape[-2] == channels else ''}")
    if channels == 0:
        raise ValueError(f"{op}: x must have channels, got shape {x.shape}. Only the batch axis may be empty.")
    if shape[-1] % channels and x.shape[1] == shape[-1]:
        raise ValueError(
            f"{op}: x {x.shape} looks channels-first: {name} {shape} takes {shape[-1]} channels in the last"
            f" axis. Use x.transpose{(0, *range(2, rank + 2), 1)}."
        )
    if shape[-1] % channels:
        raise ValueError(
            f"{op}: the channels of x must divide the outputs of {name}, got x {x.shape} and {name} {shape}."
            f" The {name} is (*window, 1, C * multiplier), x {arguments.layout(rank)}."
        )
    return x, kernel
