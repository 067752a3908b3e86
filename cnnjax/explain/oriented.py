"""Filters and pictures with an orientation, as in the primary visual cortex, and which filter answers to what."""

import math
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from cnnjax.ops import conv2d


def oriented_filters(
    count: int, *, size: int = 15, wavelength: float = 7.0, kind: Literal["line", "edge"] = "line"
) -> np.ndarray:
    """Compute Gabor filters, each of which looks for a line or an edge of its own angle.

    Filter i prefers the angle 180° * i / count, counted from the horizontal, anticlockwise. Each sums to 0, so
    that it is blind to even light, and has length 1.

    g(u, v) = exp(-(u² / 4 + v²) / (2 sigma²)) * cos(2 pi v / wavelength - phase), u along the line and v across
    it, sigma = 0.4 * wavelength, phase 0 for lines and pi / 2 for edges

    Args:
        count: how many filters, at least 1.
        size: of a filter in pixels, at least 3.
        wavelength: distance of neighbouring bright lines in pixels, at least 2: a line is half of it wide.
        kind: "line" for a bright line with dark flanks (even), "edge" for bright above dark (odd).

    Returns:
        float32 (size, size, 1, count): a kernel for `ops.conv2d`.

    Raises:
        ValueError: count, size or wavelength is too small, or an unknown kind.

    Example:
        >>> kernel = oriented_filters(4)
        >>> y = ops.conv2d(line_image(90)[None], jnp.asarray(kernel))
        >>> int(y.max((0, 1, 2)).argmax())  # the filter that prefers 180° * 2 / 4
        2

    Source:
        Daugman 1985, "Uncertainty relation for resolution in space, spatial frequency, and orientation optimized by
        two-dimensional visual cortical filters"; Hubel & Wiesel 1962 for the cells.
    """
    for name, value, least in (("count", count, 1), ("size", size, 3), ("wavelength", wavelength, 2)):
        if value < least:
            raise ValueError(f"oriented_filters: {name} must be at least {least}, got {value}.")
    if kind not in ("line", "edge"):
        raise ValueError(f"oriented_filters: kind must be 'line' or 'edge', got {kind!r}. Give one of the two.")
    phase, sigma = (0.0 if kind == "line" else math.pi / 2), 0.4 * wavelength
    filters = []
    for number in range(count):
        along, across = _axes(180 * number / count, size)
        envelope = np.exp(-(along**2 / 4 + across**2) / (2 * sigma**2))
        wave = np.cos(2 * math.pi * across / wavelength - phase)
        # The part of the envelope that balances light and dark, so that the filter still fades out at its border.
        gabor = envelope * (wave - (envelope * wave).sum() / envelope.sum())
        filters.append(gabor / np.linalg.norm(gabor))
    return np.stack(filters, -1)[:, :, None].astype(np.float32)


def line_image(angle: float, *, size: int = 33, width: float = 3.0, length: float | None = None) -> np.ndarray:
    """Draw a bright line or bar through the middle of a dark picture.

    Args:
        angle: in degrees from the horizontal, anticlockwise.
        size: of the picture in pixels, at least 1.
        width: of the line in pixels, above 0.
        length: of a bar in pixels, above 0; None is a line from border to border.

    Returns:
        float32 (size, size, 1) in [0, 1], with soft edges.

    Raises:
        ValueError: size, width or length is too small.

    Example:
        >>> line_image(0, size=5, width=1)[:, :, 0]
        array([[0., 0., 0., 0., 0.],
               [0., 0., 0., 0., 0.],
               [1., 1., 1., 1., 1.],
               [0., 0., 0., 0., 0.],
               [0., 0., 0., 0., 0.]], dtype=float32)

    Source:
        Hubel & Wiesel 1959, "Receptive fields of single neurones in the cat's striate cortex", whose stimuli were
        bars of light.
    """
    reach = 2 * size if length is None else length
    if size < 1 or not (width > 0 and reach > 0):
        raise ValueError(
            f"line_image: size must be at least 1, width and length above 0, got {size}, {width} and {length}."
        )
    along, across = _axes(angle, size)
    # How much of a pixel the line covers, taking the pixel for a unit square that is turned with it.
    bright = np.clip((width + 1) / 2 - np.abs(across), 0, 1) * np.clip((reach + 1) / 2 - np.abs(along), 0, 1)
    return np.minimum(bright, min(width, 1.0)).astype(np.float32)[:, :, None]


def grating_image(angle: float, *, size: int = 33, wavelength: float = 7.0, phase: float = 0.0) -> np.ndarray:
    """Draw a grating: parallel soft stripes.

    Args:
        angle: of the stripes in degrees from the horizontal, anticlockwise.
        size: of the picture in pixels, at least 1.
        wavelength: distance of neighbouring bright stripes in pixels, above 0.
        phase: in degrees; 0 is a bright stripe through the middle, 90 an edge that is bright above dark.

    Returns:
        float32 (size, size, 1) in [0, 1].

    Raises:
        ValueError: size or wavelength is too small.

    Example:
        >>> grating_image(90, size=5, wavelength=4)[0, :, 0].round(1)
        array([0. , 0.5, 1. , 0.5, 0. ], dtype=float32)

    Source:
        Campbell & Robson 1968, "Application of Fourier analysis to the visibility of gratings".
    """
    if size < 1 or not wavelength > 0:
        raise ValueError(f"grating_image: size must be at least 1 and wavelength above 0, got {size} and {wavelength}.")
    _, across = _axes(angle, size)
    wave = np.cos(2 * math.pi * across / wavelength - math.radians(phase))
    return ((1 + wave) / 2).astype(np.float32)[:, :, None]


def orientation_tuning(
    kernel: ArrayLike,
    *,
    angles: ArrayLike = tuple(range(0, 180, 5)),
    stimulus: Callable[[float], ArrayLike] = line_image,
) -> np.ndarray:
    """Compute how strongly each filter answers to lines of each angle.

    The answer is the strongest of the feature map after a ReLU: a unit that does not care where the line is. It
    takes learned filters as well; of several input channels all see the same picture.

    Args:
        kernel: (Kh, Kw, C_in, C_out), floating.
        angles: (A,), in degrees.
        stimulus: the picture (H, W, 1) of an angle: `line_image`, `grating_image`, or your own.

    Returns:
        float32 (A, C_out), at least 0.

    Raises:
        ValueError: a kernel that is not (Kh, Kw, C_in, C_out), no angles, or a picture that is not (H, W, 1).

    Example:
        >>> orientation_tuning(oriented_filters(4), angles=[0, 45, 90, 135]).argmax(0)
        array([0, 1, 2, 3])

    Source:
        Hubel & Wiesel 1962, "Receptive fields, binocular interaction and functional architecture in the cat's visual
        cortex", complex cells.
    """
    weights = np.asarray(kernel, np.float32)
    if weights.ndim != 4:
        raise ValueError(f"orientation_tuning: kernel must be (Kh, Kw, C_in, C_out), got shape {weights.shape}.")
    directions = np.ravel(np.asarray(angles, float)).tolist()
    if not directions:
        raise ValueError("orientation_tuning: there must be an angle, got none. Give degrees, as in range(0, 180, 5).")
    pictures = np.stack([np.asarray(stimulus(angle), np.float32) for angle in directions])
    if pictures.ndim != 4 or pictures.shape[-1] != 1:
        raise ValueError(f"orientation_tuning: stimulus must give (H, W, 1), got shape {pictures.shape[1:]}.")
    x = jnp.asarray(np.repeat(pictures, weights.shape[2], axis=-1))
    # VALID: the border of a picture on black is an edge of its own.
    maps = conv2d(x, jnp.asarray(weights), padding="VALID")
    return np.maximum(np.asarray(maps.max((1, 2))), 0)


def _axes(angle: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pixel's distance from the middle along a line of that angle, and across it, upwards."""
    middle = (size - 1) / 2
    x, y = np.meshgrid(np.arange(size) - middle, middle - np.arange(size))
    # Rounded, so that at 90 degrees the cosine is 0.
    cosine, sine = (round(function(math.radians(angle)), 12) for function in (math.cos, math.sin))
    return x * cosine + y * sine, y * cosine - x * sine
