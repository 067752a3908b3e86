"""Local response normalisation, as in AlexNet."""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from cnnjax.ops import _arguments as arguments


def local_response_norm(
    x: Float[Array, "N *spatial C"],
    *,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
) -> Float[Array, "N *spatial C"]:
    """Divide every channel by a power of the energy in the channels beside it.

    Here for the networks of its time (AlexNet, GoogLeNet); `batch_norm` and `group_norm` have replaced it. Channels
    beyond the first and last count as zeros. In float32 for half precision.

    y[..., c] = x[..., c] / (k + alpha / size * energy[..., c]) ** beta, where energy[..., c] is the sum of x[..., i]²
    over c - size // 2 <= i <= c + (size - 1) // 2

    Args:
        x: (N, *spatial, C), floating; (N, C) too.
        size: how many channels are summed, at least 1. An even one takes the extra channel before the centre, as in
            PyTorch; in ONNX after it: flip the channels before and again behind.
        alpha: factor of their mean square. AlexNet's and tf.nn.lrn's is one of the sum: give size times theirs (tf's
            depth_radius r is size 2 * r + 1).
        beta: the power. AlexNet: 0.75.
        k: added to the energy; above 0, or zeros become NaN. AlexNet: 2.

    Returns:
        The shape and dtype of x.

    Raises:
        TypeError: an integer or complex array, or a size that is no int.
        ValueError: x of fewer than two axes, or a size below 1.

    Example:
        >>> local_response_norm(jnp.ones((1, 4)), size=3, alpha=3.0, beta=1.0, k=2.0)
        Array([[0.25, 0.2 , 0.2 , 0.25]], dtype=float32)

    Source:
        Krizhevsky, Sutskever & Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks",
        section 3.3, with alpha divided by size as in torch.nn.functional.local_response_norm and ONNX's LRN.
    """
    x = arguments.floating("local_response_norm", "x", x)
    if x.ndim < 2:
        raise ValueError(
            f"local_response_norm: x must be (N, *spatial, C), got shape {x.shape}. Add a batch axis with x[None]."
        )
    size = arguments.count("local_response_norm", "size", size)
    wide, pixels = arguments.wide(x), x.ndim - 1
    energy = lax.reduce_window(
        jnp.square(wide),
        np.zeros((), wide.dtype),
        lax.add,
        (1,) * pixels + (size,),
        (1,) * x.ndim,
        [(0, 0)] * pixels + [(size // 2, (size - 1) // 2)],
    )
    return (wide / (k + alpha / size * energy) ** beta).astype(x.dtype)
