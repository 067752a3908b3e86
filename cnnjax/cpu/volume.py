"""Three-dimensional convolution in plain JAX: XLA is fast in two dimensions only, so the depth becomes channels."""

import jax.numpy as jnp
from jax import Array

from cnnjax.cpu.geometry import Geometry, convolve, pad, take


def volume(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """x (N, D, H, W, C) with kernel (D, H, W, C, O): slices that one tap of depth apart see, side by side."""
    depth = kernel.shape[0]
    x = pad(x, (geometry.padding[0], (0, 0), (0, 0)))
    out = (x.shape[1] - (depth - 1) * geometry.dilation[0] - 1) // geometry.stride[0] + 1
    size, step = (out, *x.shape[2:-1]), (geometry.stride[0], 1, 1)
    slices = jnp.concatenate([take(x, (k * geometry.dilation[0], 0, 0), size, step) for k in range(depth)], axis=-1)
    flat = Geometry(geometry.stride[1:], geometry.padding[1:], geometry.dilation[1:])
    kernel = jnp.moveaxis(kernel, 0, 2).reshape(*kernel.shape[1:3], depth * x.shape[-1], kernel.shape[-1])
    y = convolve(slices.reshape(-1, *slices.shape[2:]), kernel, flat)
    return y.reshape(x.shape[0], out, *y.shape[1:])
