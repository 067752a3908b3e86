"""The fully connected layer, and the flattening that leads to it."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Inexact, Shaped

from cnnjax.ops import _arguments as arguments


def dense(
    x: Inexact[Array, "*leading I"], kernel: Inexact[Array, "I O"], bias: Inexact[Array, "O"] | None = None
) -> Inexact[Array, "*leading O"]:
    """Multiply by a matrix and add a bias.

    Acts on the last axis, so any number of leading axes will do. Half precision is accumulated in float32.

    y = x @ kernel + bias

    Args:
        x: (..., I), floating or complex.
        kernel: (I, O), the dtype of x.
        bias: (O,), the dtype of x, or None.

    Returns:
        (..., O) in the dtype of x.

    Raises:
        TypeError: an integer array, or x, kernel and bias of different dtypes.
        ValueError: shapes that do not fit each other.

    Example:
        >>> dense(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0], [10.0, 1.0]]), jnp.array([0.5, 0.5]))
        Array([[21.5,  2.5]], dtype=float32)

    Source:
        Rosenblatt 1958, "The Perceptron"; torch.nn.functional.linear takes the transposed kernel.
    """
    x, kernel = arguments.inexact("dense", "x", x), arguments.inexact("dense", "kernel", kernel)
    arguments.same_dtype("dense", x, "kernel", kernel)
    if kernel.ndim != 2:
        raise ValueError(f"dense: kernel must be (I, O), got shape {kernel.shape}.")
    if x.ndim < 1 or x.shape[-1] != kernel.shape[0]:
        hint = " Flatten x first with ops.flatten(x)." if x.ndim > 2 else ""
        raise ValueError(f"dense: the last axis of x must be {kernel.shape[0]}, got shape {x.shape}.{hint}")
    bias = arguments.checked_bias("dense", x, bias, kernel.shape[1])
    return arguments.add_bias(jnp.matmul(x, kernel), bias)


def flatten(x: Shaped[ArrayLike, "N *rest"]) -> Shaped[Array, "N M"]:
    """Lay out every example as one row.

    The order is (H, W, C), channels fastest. PyTorch's is (C, H, W): to use the weight of its next linear layer,
    permute its columns.

    Args:
        x: (N, ...), any dtype.

    Returns:
        (N, M) in the dtype of x, M the product of all axes but the first.

    Raises:
        ValueError: x has no batch axis.

    Example:
        >>> flatten(jnp.arange(8).reshape(1, 2, 2, 2))
        Array([[0, 1, 2, 3, 4, 5, 6, 7]], dtype=int32)

    Source:
        torch.nn.Flatten, but for the order.
    """
    x = jnp.asarray(x)
    if x.ndim < 1:
        raise ValueError("flatten: x must have a batch axis, got a scalar. Use x[None].")
    size = 1
    for n in x.shape[1:]:
        size *= n
    return x.reshape(x.shape[0], size)
