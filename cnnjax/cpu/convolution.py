"""Which formulation computes a convolution: the one place that chooses.

`lax.conv_general_dilated` is one primitive for many things. Its gradients are such convolutions again, so they are told
apart here by their parameters: the gradient with respect to the input has zeros between the pixels of its input where
the stride was not 1; the gradient with respect to the kernel has batch and features exchanged, and the groups, if any,
in the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from cnnjax.cpu import onednn
from cnnjax.cpu.depthwise import depthwise, depthwise_kernel_gradient, repeated
from cnnjax.cpu.geometry import Geometry, convolve, pad
from cnnjax.cpu.grouped import feasible, grouped
from cnnjax.cpu.kernel_gradient import grouped_kernel_gradient, kernel_gradient
from cnnjax.cpu.library import Library, plain
from cnnjax.cpu.transposed import transposed
from cnnjax.cpu.volume import volume

_MOST_TAPS = 64  # of a window whose taps become operations of the program, one each


@dataclass(frozen=True)
class _Asked:
    """A convolution as lax describes it: the shapes of its operands and the spatial one of its result."""

    lhs: tuple[int, ...]
    rhs: tuple[int, ...]
    geometry: Geometry
    between: tuple[int, ...]  # the pixels of lhs are so far apart, with zeros between them
    groups: int
    out: tuple[int, ...]


# Takes both operands, channels last; gives the result, channels last.
Formulation = Callable[[Array, Array], Array]


def choose(
    lhs: Any,
    rhs: Any,
    *,
    library: Library,
    dimension_numbers: lax.ConvDimensionNumbers,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    feature_group_count: int,
    batch_group_count: int,
    preferred_element_type: DTypeLike | None,
    **_: Any,
) -> Formulation | None:
    """A function of both operands for the convolution that the parameters describe, or None to leave it to XLA."""
    dtype = np.dtype(lhs.dtype)
    if lhs.dtype != rhs.dtype or dtype not in _COMPUTED_IN or len(window_strides) not in (1, 2, 3):
        return None
    lhs_spec, rhs_spec, out_spec = dimension_numbers
    geometry = Geometry(tuple(window_strides), tuple((int(a), int(b)) for a, b in padding), tuple(rhs_dilation))
    window = tuple(rhs.shape[axis] for axis in rhs_spec[2:])
    spatial = tuple((lhs.shape[axis] - 1) * d + 1 for axis, d in zip(lhs_spec[2:], lhs_dilation, strict=True))
    out = geometry.out(spatial, window)
    if 0 in (*lhs.shape, *rhs.shape) or min(out) < 1:
        return None
    if dtype == np.float64:
        library = plain

    is_gradient = _is_kernel_gradient(lhs_spec, batch_group_count, window, out)
    last = 0 if is_gradient else 1  # the operands with the axis last that holds channels of the convolution asked for
    x_axes = (lhs_spec[1 - last], *lhs_spec[2:], lhs_spec[last])
    kernel_axes = (
        (rhs_spec[1], *rhs_spec[2:], rhs_spec[0]) if is_gradient else (*rhs_spec[2:], rhs_spec[1], rhs_spec[0])
    )
    out_axes = (*out_spec[2:], *out_spec[:2]) if is_gradient else (out_spec[0], *out_spec[2:], out_spec[1])
    if is_gradient and feature_group_count > 1:
        return None
    asked = _Asked(
        tuple(lhs.shape[axis] for axis in x_axes),
        tuple(rhs.shape[axis] for axis in kernel_axes),
        geometry,
        tuple(lhs_dilation),
        batch_group_count if is_gradient else feature_group_count,
        out,
    )
    formulation = _choose_gradient(asked, library) if is_gradient else _choose_forward(asked, library)
    if formulation is None:
        return None

    def convolution(lhs: Array, rhs: Array) -> Array:
        x, kernel = lhs.transpose(x_axes), rhs.transpose(kernel_axes)
        y = formulation(x.astype(_COMPUTED_IN[dtype]), kernel.astype(_COMPUTED_IN[dtype]))
        return y.transpose(np.argsort(out_axes)).astype(preferred_element_type or dtype)

    return convolution


# Sums of low precision are taken in float32.
_COMPUTED_IN = {
    np.dtype(jnp.bfloat16): jnp.float32,
    np.dtype(np.float16): jnp.float32,
    np.dtype(np.float32): jnp.float32,
    np.dtype(np.float64): jnp.float64,
}


def _is_kernel_gradient(lhs_spec: Sequence[int], batch_groups: int, window: Sequence[int], out: Sequence[int]) -> bool:
    """Whether batch and features are exchanged, and the window (then the output's gradient) is no small one."""
    exchanged = lhs_spec[1] < lhs_spec[0] and prod(out) <= max(128, 16 * prod(window))
    return batch_groups > 1 or exchanged


def _choose_forward(asked: _Asked, library: Library) -> Formulation | None:
    x, kernel, geometry, groups, out = asked.lhs, asked.rhs, asked.geometry, asked.groups, asked.out
    window, rank = kernel[:-2], len(out)
    ones = (1,) * rank
    if asked.between != ones:
        if geometry.stride != ones or prod(asked.between) > _MOST_TAPS:
            return None
        return lambda x, kernel: transposed(x, kernel, geometry, asked.between, out, groups)
    if min(amount for pair in geometry.padding for amount in pair) < 0:
        return lambda x, kernel: convolve(x, kernel, geometry, groups)
    unpadded = geometry.padding == ((0, 0),) * rank
    if groups == 1 and unpadded and out == ones and window == x[1:-1]:
        return lambda x, kernel: _dense(x, kernel, library)
    if library.convolution is not None and onednn.covers(x, kernel, geometry):
        direct = library.convolution
        if kernel[-2] == 1 and kernel[-1] != groups > 1:  # oneDNN is quick for as many inputs as outputs
            return lambda x, kernel: direct(repeated(x, kernel.shape[-1]), kernel, geometry, kernel.shape[-1])
        return lambda x, kernel: direct(x, kernel, geometry, groups)
    if groups == 1 and window == ones:
        return lambda x, kernel: _pointwise(x, kernel, geometry, library)
    if groups > 1 and kernel[-2] == 1:
        return (lambda x, kernel: depthwise(x, kernel, geometry)) if prod(window) <= _MOST_TAPS else None
    if groups > 1:
        return (lambda x, kernel: grouped(x, kernel, geometry, groups)) if feasible(x[-1], groups) else None
    if rank == 3 and window[0] <= _MOST_TAPS:
        return lambda x, kernel: volume(x, kernel, geometry)
    return None


def _choose_gradient(asked: _Asked, library: Library) -> Formulation | None:
    x, dy, groups, out = asked.lhs, asked.rhs, asked.groups, asked.out
    ones = (1,) * len(out)
    # What strides over x here was the dilation of the kernel, and what dilates dy was the stride.
    geometry = Geometry(asked.geometry.dilation, asked.geometry.padding, asked.geometry.stride)
    if prod(out) > _MOST_TAPS and dy[1:-1] != ones:
        return None
    if asked.between != ones:
        return _choose_of_transposed(asked, library) if geometry.stride == ones else None
    if groups == 1:
        return lambda x, dy: kernel_gradient(x, dy, geometry, out, library)
    if x[-1] == groups:
        direct = library.convolution if onednn.covers_depthwise(asked.geometry) else None
        return lambda x, dy: depthwise_kernel_gradient(x, dy, geometry, out, direct)
    if feasible(x[-1], groups):
        return lambda x, dy: grouped_kernel_gradient(x, dy, geometry, out, groups, library)
    return None


def _choose_of_transposed(asked: _Asked, library: Library) -> Formulation | None:
    """The kernel's gradient of a transposed convolution: that of a strided one, whose input is our dy, mirrored."""
    geometry, out, groups = asked.geometry, asked.out, asked.groups
    low = [(k - 1) * s - p for k, s, (p, _) in zip(out, geometry.stride, geometry.padding, strict=True)]
    mirrored = Geometry(geometry.stride, tuple((n, 0) for n in low), asked.between)
    strided = _Asked(asked.rhs, asked.lhs, mirrored, (1,) * len(out), groups, out)
    gradient = _choose_gradient(strided, library)
    if gradient is None:
        return None

    def formulation(x: Array, dy: Array) -> Array:
        y = jnp.flip(gradient(dy, x), range(len(out)))  # (*window, O // groups, I)
        y = y.reshape(*y.shape[:-1], groups, -1).swapaxes(-1, -3)
        return y.reshape(*y.shape[:-2], -1)

    return formulation


def _dense(x: Array, kernel: Array, library: Library) -> Array:
    """One window that covers all of x: a dense layer."""
    y = library.matmul(x.reshape(x.shape[0], -1), kernel.reshape(-1, kernel.shape[-1]))
    return y.reshape(x.shape[0], *(1 for _ in x.shape[1:-1]), -1)


def _pointwise(x: Array, kernel: Array, geometry: Geometry, library: Library) -> Array:
    """A window of one pixel: a matrix product."""
    x = pad(x, geometry.padding)[(slice(None), *(slice(None, None, s) for s in geometry.stride))]
    y = library.matmul(x.reshape(-1, x.shape[-1]), kernel.reshape(kernel.shape[-2:]))
    return y.reshape(*x.shape[:-1], kernel.shape[-1])
