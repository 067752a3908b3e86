"""Depthwise separable convolution: each channel is filtered, then the channels are mixed; two calls of lax."""

from collections.abc import Sequence

from jax import Array
from jaxtyping import Inexact

from cnnjax.ops import _arguments as arguments
from cnnjax.ops._arguments import Padding
from cnnjax.ops.conv import _conv
from cnnjax.ops.depthwise_conv import _operands


def separable_conv1d(
    x: Inexact[Array, "N L C"],
    depthwise_kernel: Inexact[Array, "K 1 I"],
    pointwise_kernel: Inexact[Array, "1 I O"],
    bias: Inexact[Array, "O"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
) -> Inexact[Array, "N T O"]:
    """Filter every channel of a batch of series, then mix the channels.

    `separable_conv2d` along one axis. "CAUSAL" padding makes every output see its own and earlier steps alone.

    y = conv1d(depthwise_conv1d(x, depthwise_kernel, ...), pointwise_kernel, bias)

    Args:
        x: (N, L, C), floating or complex.
        depthwise_kernel: (K, 1, I), the dtype of x; I a multiple of C.
        pointwise_kernel: (1, I, O), the dtype of x.
        bias: (O,), the dtype of x, or None.
        stride: of the depthwise part: step in samples, at least 1.
        padding: of the depthwise part, as in `conv1d`.
        dilation: of the depthwise part: distance between neighbouring taps in samples, at least 1.

    Returns:
        (N, T, O) in the dtype of x, T = `shapes.conv_output_size(L, K, ...)`.

    Raises:
        TypeError: an integer array, or x, kernels and bias of different dtypes.
        ValueError: shapes that do not fit each other, or a kernel that does not fit the padded input.

    Example:
        >>> x = jnp.array([[[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]])
        >>> depthwise_kernel = jnp.array([[[1.0, 0.0]], [[-1.0, 2.0]]])
        >>> separable_conv1d(x, depthwise_kernel, jnp.array([[[1.0], [0.5]]]), padding="VALID").ravel()
        Array([19., 38.], dtype=float32)

    Source:
        As `separable_conv2d`.
    """
    return _separable_conv(
        "separable_conv1d", 1, x, depthwise_kernel, pointwise_kernel, bias, stride, padding, dilation
    )


def separable_conv2d(
    x: Inexact[Array, "N H W C"],
    depthwise_kernel: Inexact[Array, "Kh Kw 1 I"],
    pointwise_kernel: Inexact[Array, "1 1 I O"],
    bias: Inexact[Array, "O"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
) -> Inexact[Array, "N Ho Wo O"]:
    """Filter every channel of a batch of pictures, then mix the channels.

    A `conv2d` whose kernel is a product of filters and mixtures: with one filter a channel it costs C * (Kh * Kw + O)
    multiplications a pixel, not C * Kh * Kw * O. Nothing lies between the two parts but the rounding of half
    precision: for the normalisation and activation of MobileNets call `depthwise_conv2d` and `conv2d`.

    y = conv2d(depthwise_conv2d(x, depthwise_kernel, ...), pointwise_kernel, bias)

    Args:
        x: (N, H, W, C), floating or complex.
        depthwise_kernel: (Kh, Kw, 1, I), the dtype of x; I a multiple of C. Keras's (Kh, Kw, C, M) is reshaped to
            it, PyTorch's weight of a grouped Conv2d is permuted by (2, 3, 1, 0).
        pointwise_kernel: (1, 1, I, O), the dtype of x: Keras's as it is, PyTorch's permuted by (2, 3, 1, 0).
        bias: (O,), the dtype of x, or None.
        stride: of the depthwise part: step of the window in pixels, at least 1: an int, or one an axis.
        padding: of the depthwise part, as in `conv2d`.
        dilation: of the depthwise part: distance between neighbouring taps in pixels, at least 1: an int, or one an
            axis.

    Returns:
        (N, Ho, Wo, O) in the dtype of x, with sizes `shapes.conv_output_size(n, k, ...)` an axis.

    Raises:
        TypeError: an integer array, or x, kernels and bias of different dtypes.
        ValueError: shapes that do not fit each other, or a kernel that does not fit the padded input.

    Example:
        >>> x = jnp.stack([jnp.arange(9.0).reshape(3, 3), jnp.ones((3, 3))], axis=-1)[None]
        >>> depthwise_kernel = jnp.ones((2, 2, 1, 2)) * jnp.array([1.0, 0.5])
        >>> pointwise_kernel = jnp.array([[[[1.0, 0.0], [10.0, 1.0]]]])
        >>> separable_conv2d(x, depthwise_kernel, pointwise_kernel, padding="VALID")[0, 0]
        Array([[28.,  2.],
               [32.,  2.]], dtype=float32)

    Source:
        Chollet 2017, "Xception: Deep Learning with Depthwise Separable Convolutions", section 1.2.
    """
    return _separable_conv(
        "separable_conv2d", 2, x, depthwise_kernel, pointwise_kernel, bias, stride, padding, dilation
    )


def separable_conv3d(
    x: Inexact[Array, "N D H W C"],
    depthwise_kernel: Inexact[Array, "Kd Kh Kw 1 I"],
    pointwise_kernel: Inexact[Array, "1 1 1 I O"],
    bias: Inexact[Array, "O"] | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
) -> Inexact[Array, "N Do Ho Wo O"]:
    """Filter every channel of a batch of volumes, then mix the channels.

    `separable_conv2d` with a depth axis.

    Args:
        x: (N, D, H, W, C), floating or complex.
        depthwise_kernel: (Kd, Kh, Kw, 1, I), the dtype of x; I a multiple of C.
        pointwise_kernel: (1, 1, 1, I, O), the dtype of x.
        bias: (O,), the dtype of x, or None.
        stride: as in `separable_conv2d`, in voxels.
        padding: of the depthwise part, as in `conv3d`.
        dilation: as in `separable_conv2d`, in voxels.

    Returns:
        (N, Do, Ho, Wo, O) in the dtype of x, with sizes `shapes.conv_output_size(n, k, ...)` an axis.

    Raises:
        TypeError: an integer array, or x, kernels and bias of different dtypes.
        ValueError: shapes that do not fit each other, or a kernel that does not fit the padded input.

    Example:
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2, 1)
        >>> depthwise_kernel = jnp.ones((2, 2, 2, 1, 2)) * jnp.array([1.0, -0.5])
        >>> pointwise_kernel = jnp.array([1.0, 3.0]).reshape(1, 1, 1, 2, 1)
        >>> separable_conv3d(x, depthwise_kernel, pointwise_kernel, padding="VALID").ravel()
        Array([-14.], dtype=float32)

    Source:
        As `separable_conv2d`.
    """
    return _separable_conv(
        "separable_conv3d", 3, x, depthwise_kernel, pointwise_kernel, bias, stride, padding, dilation
    )


def _separable_conv(
    op: str,
    rank: int,
    x: Array,
    depthwise_kernel: Array,
    pointwise_kernel: Array,
    bias: Array | None,
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
) -> Array:
    x, depthwise = _operands(op, rank, x, depthwise_kernel, "depthwise_kernel")
    pointwise = arguments.inexact(op, "pointwise_kernel", pointwise_kernel)
    arguments.same_dtype(op, x, "pointwise_kernel", pointwise)
    _check_pointwise(op, rank, depthwise, pointwise)
    bias = arguments.checked_bias(op, x, bias, pointwise.shape[-1])
    y = _conv(op, rank, x, depthwise, None, stride, padding, dilation, x.shape[-1], None, None)
    return _conv(op, rank, y, pointwise, bias, 1, "VALID", 1, 1, None, None)


def _check_pointwise(op: str, rank: int, depthwise: Array, pointwise: Array) -> None:
    shape = pointwise.shape
    if len(shape) != rank + 2 or shape[:rank] != (1,) * rank:
        fix = f" Use pointwise_kernel.reshape{((1,) * rank + shape)}." if len(shape) == 2 else ""
        raise ValueError(
            f"{op}: pointwise_kernel must be ({'1, ' * rank}C * multiplier, C_out), got shape {shape}.{fix}"
        )
    if shape[-2] != depthwise.shape[-1]:
        raise ValueError(
            f"{op}: pointwise_kernel {shape} takes {shape[-2]} channels but depthwise_kernel {depthwise.shape} gives"
            f" {depthwise.shape[-1]}. The first is ({'1, ' * rank}C * multiplier, C_out)."
        )
