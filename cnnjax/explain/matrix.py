"""A convolution as the matrix that it is: mostly zeros, and the same few weights again and again."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from cnnjax.explain import _style as style
from cnnjax.explain._slide import number, times
from cnnjax.ops import conv1d, conv2d, conv3d
from cnnjax.ops._arguments import Padding

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CONV: dict[int, Callable[..., Array]] = {3: conv1d, 4: conv2d, 5: conv3d}
_MOST_INPUTS = 8192


def conv_matrix(
    kernel: ArrayLike,
    input_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
) -> np.ndarray:
    """Compute the matrix that does to a flattened picture what a convolution does to the picture.

    flatten(conv(x)) = M @ flatten(x). Column j is the convolution's answer to a picture that is 1 at pixel j and
    0 elsewhere. For looking at: the matrix has the inputs times the outputs in entries.

    Args:
        kernel: (*window, C_in, C_out) with one to three window axes.
        input_shape: (*spatial, C_in), without a batch axis.
        stride: as in `ops.conv2d`.
        padding: as in `ops.conv2d`.
        dilation: as in `ops.conv2d`.

    Returns:
        (outputs, inputs), floating, each flattened in the order (*spatial, channel).

    Raises:
        ValueError: a kernel of another rank, an input shape that does not fit it, or more than 8192 inputs.

    Example:
        >>> conv_matrix([[[1.0]], [[-1.0]]], (4, 1), padding="VALID")
        array([[ 1., -1.,  0.,  0.],
               [ 0.,  1., -1.,  0.],
               [ 0.,  0.,  1., -1.]], dtype=float32)

    Source:
        Goodfellow, Bengio & Courville 2016, "Deep Learning", section 9.1: a doubly block circulant matrix, but for
        its borders.
    """
    answers = _answers("conv_matrix", kernel, input_shape, stride, padding, dilation)
    return answers.reshape(len(answers), -1).T


def plot_conv_matrix(
    kernel: ArrayLike,
    input_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
) -> "Figure":
    """Draw the matrix of a convolution beside its kernel: the same weight has the same colour, no weight is white.

    A dense layer would fill the whole matrix with weights of its own. A convolution has fewer, as an output sees
    only its window, and even fewer, as all windows share the kernel.

    Args:
        kernel: as in `conv_matrix`, of at most 128 weights.
        input_shape: as in `conv_matrix`, of at most 256 inputs, and as many outputs.
        stride: as in `conv_matrix`.
        padding: as in `conv_matrix`.
        dilation: as in `conv_matrix`.

    Returns:
        A matplotlib Figure, kernel left and matrix right.

    Raises:
        ValueError: as `conv_matrix`; too many weights, inputs or outputs to be seen; or a padding that adds up
            several weights on one pixel.
        ImportError: matplotlib is missing.

    Example:
        >>> figure = plot_conv_matrix(np.ones((3, 3, 1, 1)), (6, 6, 1), padding="VALID")
        >>> figure.axes[1].get_title("left").splitlines()
        ['a dense layer: 16 × 36 = 576 weights', 'only its window: 144 connections', 'one kernel for all: 9 weights']

    Source:
        As `conv_matrix`.
    """
    weights = np.asarray(kernel, np.float32)
    seen = _answers("plot_conv_matrix", np.ones_like(weights), input_shape, stride, padding, dilation)
    inputs, outputs = len(seen), seen[0].size
    if weights.size > 128 or max(outputs, inputs) > 256:
        raise ValueError(
            f"plot_conv_matrix: at most 128 weights, 256 inputs and 256 outputs can be seen, got {weights.size},"
            f" {inputs} and {outputs}. Use a smaller kernel or input."
        )
    if seen.max() > 1:
        raise ValueError(
            f"plot_conv_matrix: every entry must be one weight, but padding {padding!r} adds up"
            f" {int(seen.max())} of them. Pad with zeros, or use a larger input."
        )
    # One more than the place in the kernel; 0 is no connection.
    places = np.arange(1, weights.size + 1, dtype=np.float32).reshape(weights.shape)
    matrix = np.rint(conv_matrix(places, input_shape, stride=stride, padding=padding, dilation=dilation)).astype(int)
    # Square entries, where that is not too flat or too tall.
    high = min(max(5.7 * outputs / inputs, 2.4), 4.8)
    figure, (left, right) = style.axes(1, 2, size=(8.18, high + 1.15))
    grid = left.get_gridspec()
    if grid is not None:
        grid.set_width_ratios([1, 3.2])
    colours = _colours(weights.size)
    _draw_kernel(left, weights, colours)
    _draw_matrix(right, matrix, colours, tuple(input_shape), seen.shape[1:])
    right.set_title(
        f"a dense layer: {outputs} × {inputs} = {matrix.size:,} weights\n"
        f"only its window: {np.count_nonzero(matrix):,} connections\n"
        f"one kernel for all: {weights.size} weights",
        loc="left",
    )
    return figure


def _colours(count: int) -> np.ndarray:
    """A colour (R, G, B) for each weight, from dark to light for every kind of colour vision."""
    import matplotlib

    return matplotlib.colormaps["viridis"](np.linspace(0.12, 0.95, count))[:, :3]


def _draw_kernel(ax: "Axes", weights: np.ndarray, colours: np.ndarray) -> None:
    """The kernels as tables, one for each pair of channels; outputs lie across for pictures, inputs for series."""
    from matplotlib.patches import Rectangle

    depth, high, wide = (1, 1, 1, *weights.shape[:-2])[-3:]
    blocks = weights.reshape(depth, high, wide, *weights.shape[-2:])
    ins, outs = weights.shape[-2:]
    across, down = (ins, outs) if weights.ndim == 3 else (outs, ins * depth)
    columns, rows = across * (wide + 0.5) - 0.5, down * (high + 0.5) - 0.5
    size = min(11, 48 / columns)
    for place, at in enumerate(np.ndindex(*blocks.shape)):
        d, h, w, c, o = at
        block, line = (c, o) if weights.ndim == 3 else (o, c * depth + d)
        x, y = block * (wide + 0.5) + w, line * (high + 0.5) + h
        ax.add_patch(Rectangle((x, y), 1, 1, facecolor=tuple(colours[place]), edgecolor="white", linewidth=1))
        if size > 5:
            ink = "white" if colours[place] @ (0.3, 0.59, 0.11) < 0.5 else style.INK
            ax.text(x + 0.5, y + 0.5, number(float(blocks[at])), size=size, color=ink, ha="center", va="center")
    style.bare(ax)
    ax.set_aspect("equal")
    ax.set_xlim(0, columns)
    ax.set_ylim(rows, 0)
    ax.set_title(f"kernel, {times(weights.shape)}")
    ax.set_xlabel("one colour a weight,\nwhite where there is none")


def _draw_matrix(
    ax: "Axes", matrix: np.ndarray, colours: np.ndarray, inputs: tuple[int, ...], outputs: tuple[int, ...]
) -> None:
    """The matrix, with a line after each row of the picture."""
    from matplotlib.ticker import MultipleLocator

    picture = np.concatenate([np.ones((1, 3)), colours])[matrix]
    rows, columns = matrix.shape
    ax.imshow(picture, interpolation="nearest", aspect="auto", extent=(0, columns, rows, 0))
    for axis, shape, count in ((ax.xaxis, inputs, columns), (ax.yaxis, outputs, rows)):
        row = math.prod(shape[1:] if len(shape) == 2 else shape[-2:])
        axis.set_major_locator(MultipleLocator(row if 1 < row < count else max(count // 8, 1)))
        if count <= 80:
            axis.set_minor_locator(MultipleLocator(1))
        axis.grid(True, which="minor", color="#ececec", linewidth=0.5)
        axis.grid(True, which="major", color="#a8a8a8" if 1 < row < count else "#ececec", linewidth=0.8)
        axis.set_tick_params(which="both", length=0)
    ax.spines[:].set_visible(True)
    ax.set_xlabel(f"input, {times(inputs)}, flattened")
    ax.set_ylabel(f"output, {times(outputs)}, flattened")


def _answers(
    op: str,
    kernel: ArrayLike,
    input_shape: Sequence[int],
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
) -> np.ndarray:
    """The convolution's answer to every picture that is 1 at one pixel and 0 elsewhere, (inputs, *output)."""
    weights = jnp.asarray(kernel)
    weights = weights if jnp.issubdtype(weights.dtype, jnp.floating) else weights.astype(jnp.float32)
    if weights.ndim not in _CONV:
        raise ValueError(
            f"{op}: kernel must be (*window, C_in, C_out) with 1 to 3 window axes, got shape {weights.shape}."
            " Add channels with kernel[..., None, None]."
        )
    shape = tuple(input_shape)
    if len(shape) != weights.ndim - 1 or min(shape) < 1:
        raise ValueError(
            f"{op}: input_shape must be (*spatial, C_in) with {weights.ndim - 2} spatial axes, got {shape}."
            " Leave out the batch axis."
        )
    inputs = math.prod(shape)
    if inputs > _MOST_INPUTS:
        raise ValueError(f"{op}: at most {_MOST_INPUTS} inputs are taken, got {inputs}. Use a smaller input.")
    pixels = jnp.eye(inputs, dtype=weights.dtype).reshape(inputs, *shape)
    answers = _CONV[weights.ndim](pixels, weights, stride=stride, padding=padding, dilation=dilation)
    return np.asarray(answers)
