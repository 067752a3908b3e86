"""The two calls of oneDNN, Intel's library of CPU kernels, that jaxlib carries: a convolution and a matrix product.

XLA reaches them as custom calls which no document describes; `probe.py` finds out whether they can be trusted here.
A call that oneDNN rejects ends the process, so callers stay within what tests/cpu/fuzz.py has covered.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from math import prod

import jax
from jax import Array

from cnnjax.cpu.geometry import Geometry, cropped, of_low_images, pad

_CUSTOM_CALL = 2  # XLA's API version of custom calls that take (result, operands, config)
MOST_TAPS = 256  # of a window


def covers(x: Sequence[int], kernel: Sequence[int], geometry: Geometry) -> bool:
    """Whether a convolution of such shapes is among those that the fuzz has covered."""
    window = kernel[:-2]
    small = len(window) in (1, 2, 3) and prod(window) <= MOST_TAPS and max(*geometry.stride, *geometry.dilation) <= 4
    if _is_depthwise(x, kernel):
        return small and covers_depthwise(geometry)
    within = all(max(p) < r or max(p) <= 0 for p, r in zip(geometry.padding, geometry.reach(window), strict=True))
    return small and within and (max(geometry.stride) == 1 or max(geometry.dilation) == 1)


# Of oneDNN's kernels for depthwise convolution, those of its own take images, and volumes without dilation, that need
# little padding. What they refuse gets a general one by matrix products, which writes beyond its memory (oneDNN 3.7).
_PADDING = 4  # at most: the fewest pixels that they compute at once


def covers_depthwise(geometry: Geometry) -> bool:
    """Whether a depthwise convolution steps as those do that the fuzz has covered."""
    steps = max(*geometry.stride, *geometry.dilation)
    return steps <= 4 and (len(geometry.stride) < 3 or max(geometry.dilation) == 1)


def convolution(x: Array, kernel: Array, geometry: Geometry, groups: int = 1) -> Array:
    """x (N, *spatial, C) with kernel (*window, C // groups, O), both channels last: (N, *out_spatial, O)."""
    rank, window = x.ndim - 2, kernel.shape[:-2]
    if rank == 1 and _is_depthwise(x.shape, kernel.shape):
        return convolution(x[:, None], kernel[None], of_low_images(geometry), groups)[:, 0]
    x, geometry = cropped(x, _without_idle_steps(x.shape[1:-1], window, geometry))
    if _is_depthwise(x.shape, kernel.shape) and not _pads_safely(x.shape, kernel.shape, geometry):
        x, geometry = pad(x, geometry.padding), replace(geometry, padding=((0, 0),) * rank)
    out = geometry.out(x.shape[1:-1], window)
    channels_last = {"data": {"batch_dim": 0, "feature_dim": rank + 1, "spatial_dims": list(range(1, rank + 1))}}
    config = {
        "dims": rank + 2,
        "feature_groups": groups,
        "input": channels_last,
        "kernel": {
            "filter": {
                "input_feature_dim": rank,
                "output_feature_dim": rank + 1,
                "spatial_dims": list(range(rank)),
                "shape": list(kernel.shape),
            }
        },
        "output": channels_last,
        "window": {
            "size": list(window),
            "pad_left": [low for low, _ in geometry.padding],
            "pad_right": [high for _, high in geometry.padding],
            "strides": list(geometry.stride),
            "window_dilations": list(geometry.dilation),
        },
    }
    result = jax.ShapeDtypeStruct((x.shape[0], *out, kernel.shape[-1]), x.dtype)
    return _call("__onednn$convolution", result, {"onednn_conv_config": config}, x, kernel)


def _is_depthwise(x: Sequence[int], kernel: Sequence[int]) -> bool:
    return kernel[-2] == 1 < x[-1]


def _pads_safely(x: Sequence[int], kernel: Sequence[int], geometry: Geometry) -> bool:
    """Whether oneDNN may pad for a depthwise convolution."""
    window = kernel[:-2]
    reach, out = geometry.reach(window), geometry.out(x[1:-1], window)
    return (
        (max(geometry.stride) == 1 or (max(geometry.stride) == 2 and max(geometry.dilation) == 1))
        and all(n >= r for n, r in zip(x[1:-1], reach, strict=True))
        and all(max(p) <= min(r // 2, o, _PADDING) for p, r, o in zip(geometry.padding, reach, out, strict=True))
    )


def _without_idle_steps(spatial: Sequence[int], window: Sequence[int], geometry: Geometry) -> Geometry:
    """The same with a stride of 1 where the window stands but once: else oneDNN reads wrong pixels of one channel."""
    stride, padding = list(geometry.stride), list(geometry.padding)
    axes = zip(spatial, geometry.reach(window), geometry.out(spatial, window), geometry.padding, strict=True)
    for axis, (n, reach, out, (low, _)) in enumerate(axes):
        if out == 1:
            stride[axis], padding[axis] = 1, (low, reach - n - low)
    return Geometry(tuple(stride), tuple(padding), geometry.dilation)


def matmul(a: Array, b: Array, *, transpose_a: bool = False) -> Array:
    """a (m, k), or (k, m) with transpose_a, times b (k, n): (m, n)."""
    result = jax.ShapeDtypeStruct((a.shape[1 if transpose_a else 0], b.shape[1]), a.dtype)
    config = {"transpose_a": transpose_a, "transpose_b": False}
    return _call("__onednn$matmul", result, {"onednn_matmul_config": config}, a, b)


def _call(name: str, result: jax.ShapeDtypeStruct, config: dict[str, object], *operands: Array) -> Array:
    call = jax.ffi.ffi_call(
        name, result, custom_call_api_version=_CUSTOM_CALL, legacy_backend_config=json.dumps(_as_text(config))
    )
    return call(*operands)


def _as_text(value: object) -> object:
    """The config as XLA reads it: every number a string."""
    if isinstance(value, dict):
        return {name: _as_text(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_as_text(part) for part in value]
    return value if isinstance(value, bool | str) else str(value)
