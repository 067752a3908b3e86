"""SpeedNet: the small net with which CIFAR-10 is learned in seconds."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from cnnjax import nn, ops
from cnnjax.models._remat import chain
from cnnjax.ops._arguments import wide


class Whitening(nnx.Variable):
    """A kernel that is computed from the training pictures once, and not trained."""


class SpeedNet(nnx.Module):
    """Classify small pictures: patches of 2x2 are whitened first, then three blocks of two convolutions follow.

    Made to reach an accuracy with as little arithmetic as possible: neighbouring pixels, which are nearly the same, are
    taken apart by a fixed first layer, and kernels begin as the identity.

    Args:
        whitening: (2, 2, C, 2 * 4 * C), of `whitening_kernel`.
        widths: channels of the blocks, each of which halves the pictures.
        num_classes: size of the result.
        dtype: dtype of the computation, bfloat16 say; parameters and logits stay float32.
        remat: whether to compute a block again in the backward pass instead of keeping what is in it.
        rngs: source of the initialisers' keys.

    Raises:
        ValueError: it is called with pictures that its pools do not bring to one pixel.

    Example:
        >>> def logits():
        ...     return SpeedNet(whitening=jnp.zeros((2, 2, 3, 24)), rngs=nnx.Rngs(0))(jnp.zeros((2, 32, 32, 3)))
        >>> nnx.eval_shape(logits).shape
        (2, 10)

    Source:
        Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section 3, after Page 2018, "How to Train Your
        ResNet". Batch-norms have a bias and no scale.
    """

    def __init__(
        self,
        *,
        whitening: ArrayLike,
        widths: Sequence[int] = (64, 256, 256),
        num_classes: int = 10,
        dtype: DTypeLike | None = None,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        kernel = jnp.asarray(whitening, jnp.float32)
        self.whitening = Whitening(kernel)
        self.bias = nnx.Param(jnp.zeros(kernel.shape[-1], jnp.float32))
        self.blocks = nnx.List(
            Block(a, b, dtype=dtype, rngs=rngs) for a, b in itertools.pairwise([kernel.shape[-1], *widths])
        )
        self.output = nn.Dense(
            widths[-1], num_classes, use_bias=False, kernel_init=jax.nn.initializers.normal(1.0), dtype=dtype, rngs=rngs
        )
        self.dtype = dtype
        self.remat = remat

    def features(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute maps (N, 1, 1, widths[-1]) of pictures (N, 32, 32, C); key changes nothing."""
        # The first layer takes a pixel, every block halves, and the last pool makes one pixel of three to five.
        low, high = (3 << len(self.blocks)) + 1, 6 << len(self.blocks)
        if len(x.shape) != 4 or not all(low <= side <= high for side in x.shape[1:3]):
            raise ValueError(
                f"SpeedNet: x must be (N, H, W, C), {low} to {high} pixels high and wide for {len(self.blocks)} blocks,"
                f" got shape {x.shape}. Resize the pictures, or give another number of widths."
            )
        dtype = self.dtype or x.dtype
        operands = (value.astype(dtype) for value in (x, self.whitening[...], self.bias[...]))
        x = chain(self.blocks, jax.nn.gelu(ops.conv2d(*operands, padding="VALID")), train=train, remat=self.remat)
        return ops.max_pool2d(x, 3)

    def head(self, f: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) from maps; train and key change nothing."""
        x = ops.flatten(f)
        return wide(self.output(x)) / x.shape[-1]

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, num_classes) of pictures (N, 32, 32, C) around 0, deviation 1; key changes nothing."""
        return self.head(self.features(x, train=train))


class Block(nnx.Module):
    """Convolve, halve, and convolve again, each normalised and rectified softly.

    Args:
        in_features: number of channels of x.
        out_features: number of channels of the result.
        dtype: as in `SpeedNet`.
        rngs: source of the initialisers' keys.
    """

    def __init__(self, in_features: int, out_features: int, *, dtype: DTypeLike | None, rngs: nnx.Rngs):
        self.conv1 = _conv(in_features, out_features, dtype, rngs)
        self.norm1 = nn.BatchNorm(out_features, decay=0.6, use_scale=False, dtype=dtype, rngs=rngs)
        self.conv2 = _conv(out_features, out_features, dtype, rngs)
        self.norm2 = nn.BatchNorm(out_features, decay=0.6, use_scale=False, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute the block's maps of x (N, H, W, in_features); key changes nothing."""
        x = jax.nn.gelu(self.norm1(ops.max_pool2d(self.conv1(x), 2), train=train))
        return jax.nn.gelu(self.norm2(self.conv2(x), train=train))


def whitening_kernel(images: np.ndarray, *, eps: float = 5e-4) -> np.ndarray:
    """Return the filters whose answers on the 2x2 patches of pictures are uncorrelated and of one size.

    They are the principal components of the patches, each over the square root of its variance, and their negatives,
    because a rectifier follows.

    Args:
        images: (N, H, W, C) of 2x2 pixels or more, some thousands, as the net is given them; of all classes alike, so
            not the first ones of files that are sorted by class.
        eps: added to the variances, so that what hardly varies is not blown up.

    Returns:
        float32 (2, 2, C, 2 * 4 * C).

    Raises:
        ValueError: images that are not (N, H, W, C), or without a patch of 2x2 pixels.

    Example:
        >>> images = np.random.default_rng(0).normal(size=(100, 9, 9, 1))
        >>> kernel = whitening_kernel(images, eps=0)
        >>> answers = ops.conv2d(jnp.asarray(images, jnp.float32), kernel[..., :4], padding="VALID").reshape(-1, 4)
        >>> bool(np.allclose(answers.T @ answers / len(answers), np.eye(4), atol=1e-4))
        True

    Source:
        Jordan 2024, section 3.2; Page 2018, part 8.
    """
    images = np.asarray(images, np.float64)
    if images.ndim != 4 or not images.size or min(images.shape[1:3]) < 2:
        raise ValueError(
            f"whitening_kernel: images must be (N, H, W, C) of 2x2 pixels or more, got shape {images.shape}. Add"
            " missing axes, with [..., None] say."
        )
    windows = np.lib.stride_tricks.sliding_window_view(images, (2, 2), (1, 2))
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 4 * images.shape[-1])
    variances, components = np.linalg.eigh(patches.T @ patches / len(patches))
    filters = components / np.sqrt(variances + eps)
    return np.concatenate([filters, -filters], 1).reshape(2, 2, images.shape[-1], -1).astype(np.float32)


def _conv(a: int, b: int, dtype: DTypeLike | None, rngs: nnx.Rngs) -> nn.Conv2d:
    return nn.Conv2d(a, b, 3, use_bias=False, kernel_init=_identity, dtype=dtype, rngs=rngs)


def _identity(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
    """Filters of which the first hand on a channel each, and the others are uniform, as PyTorch draws them."""
    bound = 1 / math.sqrt(math.prod(shape[:-1]))
    kernel = jax.random.uniform(key, shape, dtype, -bound, bound)
    same = min(shape[-2:])
    return kernel.at[..., :same].set(0).at[1, 1, :same, :same].set(jnp.eye(same, dtype=dtype))
