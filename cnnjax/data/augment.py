"""Augmentation: pure functions on one image or one series, a key first, to be vmapped over keys and examples."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Integer, Key, PRNGKeyArray, Shaped


def keys(seed: int, position: Integer[Array, "n"]) -> Key[Array, "n"]:
    """Return a key for every place in the stream of examples.

    An example's key depends on its place alone, not on the batch, the device or the host that it is in: a run draws the
    same however many devices share the batch, and again after it is resumed. Keys split for a batch do neither.

    Args:
        seed: any integer of 32 bits.
        position: integers (N,), "position" of `Batches` or `Crops`.

    Returns:
        PRNG keys (N,).

    Raises:
        ValueError: positions that are not (N,).

    Example:
        >>> whole, half = keys(0, jnp.arange(4)), keys(0, jnp.arange(2, 4))
        >>> bool((whole[2:] == half).all())
        True

    Source:
        Salmon, Moraes, Dror & Shaw 2011, "Parallel Random Numbers: As Easy as 1, 2, 3" (numbers as a function of a
        key and a counter).
    """
    if position.ndim != 1:
        raise ValueError(f"keys: position must be (N,), got shape {position.shape}. Give a batch's positions.")
    return jax.vmap(lambda place: jax.random.fold_in(jax.random.key(seed), place))(position)


def translate(key: PRNGKeyArray, image: Shaped[Array, "h w c"], *, max_shift: int) -> Shaped[Array, "h w c"]:
    """Shift an image by whole pixels in a random direction; zeros move in.

    Cheaper than `affine`, and exact: no pixel changes its value.

    Args:
        key: PRNG key.
        image: (H, W, C), any dtype.
        max_shift: pixels, at least 0; each axis is shifted by -max_shift to max_shift, all equally likely.

    Returns:
        (H, W, C), the dtype of `image`.

    Raises:
        ValueError: an image that is not (H, W, C), or a negative max_shift.

    Example:
        >>> image = jnp.zeros((3, 3, 1)).at[1, 1].set(1)
        >>> translate(jax.random.key(0), image, max_shift=1)[..., 0]
        Array([[0., 0., 0.],
               [0., 0., 1.],
               [0., 0., 0.]], dtype=float32)

    Source:
        Krizhevsky, Sutskever & Hinton 2012, "ImageNet Classification with Deep CNNs", section 4.1 (translations).
    """
    _check_image("translate", image)
    if max_shift < 0:
        raise ValueError(f"translate: max_shift must be at least 0, got {max_shift}. Give pixels.")
    start = jax.random.randint(key, (2,), 0, 2 * max_shift + 1)
    padding = ((max_shift, max_shift), (max_shift, max_shift), (0, 0))
    return lax.dynamic_slice(jnp.pad(image, padding), (*start, 0), image.shape)


def affine(
    key: PRNGKeyArray,
    image: Shaped[Array, "h w c"],
    *,
    rotation: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    shift: float = 0.0,
) -> Shaped[Array, "h w c"]:
    """Rotate, scale, shear and shift an image at random about its centre; zeros move in.

    Pixels are interpolated linearly. Each amount is drawn uniformly from minus to plus its bound.

    Args:
        key: PRNG key.
        image: (H, W, C), any real dtype.
        rotation: bound in degrees.
        scale: bound as a fraction: 0.1 draws each of height and width from 0.9 to 1.1 times. Below 1.
        shear: bound in degrees, below 90.
        shift: bound in pixels.

    Returns:
        (H, W, C), the dtype of `image`.

    Raises:
        ValueError: an image that is not (H, W, C), or a bound outside its range.

    Example:
        >>> image = jnp.arange(12.0).reshape(3, 4, 1)
        >>> bool(jnp.allclose(affine(jax.random.key(0), image), image, atol=1e-4))
        True

    Source:
        Simard, Steinkraus & Platt 2003, "Best Practices for Convolutional Neural Networks", section 2.
    """
    _check_image("affine", image)
    _check_bounds("affine", rotation=(rotation, math.inf), scale=(scale, 1), shear=(shear, 90), shift=(shift, math.inf))
    bounds = jnp.array([rotation, scale, scale, shear, shift, shift])
    angle, tall, wide, slant, down, right = bounds * jax.random.uniform(key, (6,), minval=-1, maxval=1)
    matrix = _output_to_input(jnp.deg2rad(angle), 1 + tall, 1 + wide, jnp.deg2rad(slant))
    centre = (jnp.array(image.shape[:2], jnp.float32)[:, None, None] - 1) / 2
    there = jnp.stack(jnp.meshgrid(*(jnp.arange(n) for n in image.shape[:2]), indexing="ij")) - centre
    offset = jnp.stack([down, right])[:, None, None]
    here = jnp.einsum("ij,jhw->ihw", matrix, there - offset) + centre
    sample = jax.vmap(lambda plane: map_coordinates(plane, list(here), order=1), in_axes=-1, out_axes=-1)
    return sample(image)


def flip(key: PRNGKeyArray, image: Shaped[Array, "h w c"]) -> Shaped[Array, "h w c"]:
    """Mirror an image left to right, or not, equally likely.

    Args:
        key: PRNG key.
        image: (H, W, C), any dtype.

    Returns:
        (H, W, C), the dtype of `image`.

    Raises:
        ValueError: an image that is not (H, W, C).

    Example:
        >>> flip(jax.random.key(0), jnp.arange(3).reshape(1, 3, 1))[0, :, 0].tolist() in ([0, 1, 2], [2, 1, 0])
        True

    Source:
        Krizhevsky, Sutskever & Hinton 2012, "ImageNet Classification with Deep CNNs", section 4.1 (reflections).
    """
    _check_image("flip", image)
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def stretch(
    key: PRNGKeyArray, series: Shaped[Array, "l c"], *, rate: float = 0.0, shift: float = 0.0
) -> Shaped[Array, "l c"]:
    """Play a series faster or slower, from a little earlier or later; zeros move in at its ends.

    Samples are interpolated linearly, so a recording's pitch changes with its speed.

    Args:
        key: PRNG key.
        series: (L, C), any float dtype.
        rate: bound as a fraction: 0.1 draws the speed from 0.9 to 1.1. Below 1.
        shift: bound in samples.

    Returns:
        (L, C), the dtype of `series`.

    Raises:
        ValueError: a series that is not (L, C), or a bound outside its range.

    Example:
        >>> series = jnp.arange(5.0)[:, None]
        >>> stretch(jax.random.key(0), series)[:, 0].tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0]

    Source:
        Ko, Peddinti, Povey & Khudanpur 2015, "Audio Augmentation for Speech Recognition", section 2 (speed).
    """
    if series.ndim != 2:
        raise ValueError(f"stretch: series must be (L, C), got shape {series.shape}. Augment a batch with jax.vmap.")
    _check_bounds("stretch", rate=(rate, 1), shift=(shift, math.inf))
    faster, later = jax.random.uniform(key, (2,), minval=-1, maxval=1)
    centre = (len(series) - 1) / 2
    places = (jnp.arange(len(series)) - centre - later * shift) * (1 + faster * rate) + centre
    sample = jax.vmap(lambda channel: map_coordinates(channel, [places], order=1), in_axes=-1, out_axes=-1)
    return sample(series)


def _output_to_input(angle, tall, wide, slant):
    """Return the inverse of rotation @ shear @ scaling, on (row, column)."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rotation = jnp.array([[cos, -sin], [sin, cos]])
    shear = jnp.array([[1, 0], [jnp.tan(slant), 1]])
    return jnp.array([[1 / tall, 0], [0, 1 / wide]]) @ jnp.linalg.inv(rotation @ shear)


def _check_image(op: str, image: Array) -> None:
    if image.ndim != 3:
        raise ValueError(f"{op}: image must be (H, W, C), got shape {image.shape}. Augment a batch with jax.vmap.")


def _check_bounds(op: str, **bounds: tuple[float, float]) -> None:
    for name, (value, limit) in bounds.items():
        if not 0 <= value < limit:
            below = "" if limit == math.inf else f" and below {limit}"
            raise ValueError(f"{op}: {name} must be at least 0{below}, got {value}. Give the largest amount to draw.")
