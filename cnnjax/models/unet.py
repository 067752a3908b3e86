"""U-Net: a class for every pixel, from what is around it and from what is far."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from cnnjax import nn, ops
from cnnjax.models import _arguments as arguments
from cnnjax.models._initializers import he_fan_in, normal
from cnnjax.models._remat import call
from cnnjax.ops._arguments import wide

_CONVS = {2: nn.Conv2d, 3: nn.Conv3d}
_UP_CONVS = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_POOLS = {2: ops.max_pool2d, 3: ops.max_pool3d}


class UNet(nnx.Module):
    """Segment pictures or volumes of any size: down a pyramid of max pools and up again, level joined with level.

    Every convolution is padded, so the logits are as large as the picture. Where a size is odd, the last pool window
    of a level reaches beyond the edge, and what comes back up is cropped to the level's size: no size needs padding.

    Args:
        rank: 2 for pictures, 3 for volumes. Of volumes the first convolution of a level has half the level's channels
            on the way down, and up-convolutions keep all of theirs; of pictures they halve them.
        channels: number of channels of a picture.
        num_classes: size of the logits of a pixel.
        widths: channels of each level, from the picture down; at least 2 for volumes.
        norm: what follows every 3x3 convolution: None, "batch", or "group" for normalisation of gcd(8, channels)
            groups of channels, which suits the small batches that large volumes leave room for.
        dtype: dtype of the computation, bfloat16 say; parameters and logits stay float32.
        remat: whether to compute a level again in the backward pass instead of keeping what is in it.
        rngs: source of the initialisers' keys.

    Raises:
        ValueError: a rank or a norm that is none of these, no widths, or too small ones.

    Example:
        >>> nnx.eval_shape(lambda: unet2d(rngs=nnx.Rngs(0))(jnp.zeros((1, 75, 50, 1)))).shape
        (1, 75, 50, 2)

    Source:
        Ronneberger, Fischer & Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation", figure 1;
        Çiçek et al. 2016, "3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation", figure 2. Theirs
        pad nothing and lose the margin; the first has dropout at the bottom. Convolutions before a norm have no bias,
        nor have the volumes' up-convolutions, which no norm follows. 3x3 kernels start as He et al. 2015 by fan-in, as
        in the first paper, but cut off at 2.27 deviations; the others have the deviation 1 / sqrt(fan-in).
    """

    def __init__(
        self,
        *,
        rank: int,
        channels: int,
        num_classes: int,
        widths: Sequence[int],
        norm: str | None = None,
        dtype: DTypeLike | None = None,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        if rank not in _CONVS:
            raise ValueError(f"UNet: rank must be 2 or 3, got {rank}.")
        if norm not in (None, "batch", "group"):
            raise ValueError(f"UNet: norm must be None, batch or group, got {norm!r}.")
        arguments.stages("UNet", minimum=rank - 1, widths=widths)
        volumes = rank == 3
        options: dict[str, Any] = {"rank": rank, "norm": norm, "dtype": dtype, "rngs": rngs}
        self.encoders = nnx.List(
            Level(a, (b // 2 if volumes else b, b), **options) for a, b in itertools.pairwise([channels, *widths])
        )
        self.ups, self.decoders = nnx.List(), nnx.List()
        for below, width in itertools.pairwise(widths[::-1]):
            up = below if volumes else width
            # Each pixel comes from one window of 2x2, so from `below` values.
            self.ups.append(
                _UP_CONVS[rank](
                    below,
                    up,
                    2,
                    stride=2,
                    use_bias=not volumes,
                    kernel_init=normal(1 / math.sqrt(below)),
                    dtype=dtype,
                    rngs=rngs,
                )
            )
            self.decoders.append(Level(width + up, (width, width), **options))
        self.output = _CONVS[rank](widths[0], num_classes, 1, dtype=dtype, rngs=rngs)
        self.rank = rank
        self.remat = remat

    def features(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute the last maps (N, *spatial, widths[0]) of pictures (N, *spatial, C); key changes nothing."""
        levels = []
        for number, encoder in enumerate(self.encoders):
            x = x if number == 0 else _POOLS[self.rank](x, 2, padding="SAME")
            x = call(encoder, x, train=train, remat=self.remat)
            levels.append(x)
        for up, decoder, level in zip(self.ups, self.decoders, levels[-2::-1], strict=True):
            x = up(x)[(slice(None), *map(slice, level.shape[1:-1]))]
            x = call(decoder, jnp.concatenate([level, x], -1), train=train, remat=self.remat)
        return x

    def head(self, f: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, *spatial, num_classes) from the last maps; train and key change nothing."""
        return wide(self.output(f))

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute logits (N, *spatial, num_classes) of pictures (N, *spatial, C); key changes nothing."""
        return self.head(self.features(x, train=train))


class Level(nnx.Module):
    """Convolve, normalise if asked to, and rectify, for each of some widths.

    Args:
        in_features: number of channels of x.
        widths: channels of each convolution.
        rank: as in `UNet`.
        norm: as in `UNet`.
        dtype: as in `UNet`.
        rngs: source of the initialisers' keys.
    """

    def __init__(
        self,
        in_features: int,
        widths: Sequence[int],
        *,
        rank: int,
        norm: str | None,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ):
        self.convs = nnx.List(
            _CONVS[rank](a, b, 3, use_bias=norm is None, kernel_init=he_fan_in, dtype=dtype, rngs=rngs)
            for a, b in itertools.pairwise([in_features, *widths])
        )
        self.norms = nnx.List(_norm(norm, width, dtype, rngs) for width in widths if norm is not None)

    def __call__(self, x: Array, *, train: bool = False, key: Array | None = None) -> Array:
        """Compute maps (N, *spatial, widths[-1]) of x (N, *spatial, in_features); key changes nothing."""
        for conv, norm in itertools.zip_longest(self.convs, self.norms):
            x = conv(x)
            x = jax.nn.relu(x if norm is None else norm(x, train=train))
        return x


def unet2d(**options: Any) -> UNet:
    """Build the net of 2015, for grey pictures and two classes; the options are `UNet`'s."""
    return UNet(rank=2, **{"channels": 1, "num_classes": 2, "widths": (64, 128, 256, 512, 1024), **options})


def unet3d(**options: Any) -> UNet:
    """Build the net of 2016, for volumes of three channels and three classes; the options are `UNet`'s."""
    published = {"channels": 3, "num_classes": 3, "widths": (64, 128, 256, 512), "norm": "batch"}
    return UNet(rank=3, **{**published, **options})


def _norm(norm: str | None, width: int, dtype: DTypeLike | None, rngs: nnx.Rngs) -> nn.BatchNorm | nn.GroupNorm:
    if norm == "batch":
        return nn.BatchNorm(width, decay=0.9, dtype=dtype, rngs=rngs)
    return nn.GroupNorm(width, groups=math.gcd(8, width), dtype=dtype, rngs=rngs)
