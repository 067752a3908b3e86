"""Augmentation: pure functions on one image or one series, a key first, to be vmapped over keys and examples."""

import math
from typing import Any

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


def crop(key: PRNGKeyArray, image: Shaped[Array, "h w c"], *, size: tuple[int, int]) -> Shaped[Array, "i j c"]:
    """Cut a box out of an image, anywhere in it, all places equally likely.

    With `ops.pad` before it, it moves an image as `translate` does, and something else than zeros can move in.

    Args:
        key: PRNG key.
        image: (H, W, C), any dtype.
        size: (height, width) of the box in pixels, at least 1 and no larger than the image.

    Returns:
        (height, width, C), the dtype of `image`.

    Raises:
        ValueError: an image that is not (H, W, C), or a box that does not fit.
        ImportError: dm-pix is not installed.

    Example:
        >>> crop(jax.random.key(3), jnp.arange(12).reshape(3, 4, 1), size=(2, 2))[..., 0].tolist()
        [[1, 2], [5, 6]]

    Source:
        Krizhevsky, Sutskever & Hinton 2012, "ImageNet Classification with Deep CNNs", section 4.1 (extracted patches).
    """
    _check_image("crop", image)
    if len(size) != 2 or not all(1 <= part <= whole for part, whole in zip(size, image.shape, strict=False)):
        raise ValueError(
            f"crop: size must be (height, width) within the image, got {size} for shape {image.shape}. Cut less."
        )
    try:
        import dm_pix
    except ImportError as error:
        raise ImportError("crop: dm-pix is missing. Run pip install 'cnnjax[data]'.") from error
    return jnp.asarray(dm_pix.random_crop(key, image, (*size, image.shape[-1])))


def cutout(key: PRNGKeyArray, image: Shaped[Array, "h w c"], *, size: int) -> Shaped[Array, "h w c"]:
    """Put a square of zeros somewhere on an image, so that a net learns to look at more than one spot.

    Its centre is anywhere in the image, so at the borders a part of the square is outside. Standardise the image
    before, and zero is its mean.

    Args:
        key: PRNG key.
        image: (H, W, C), any dtype.
        size: side of the square in pixels, at least 1.

    Returns:
        (H, W, C), the dtype of `image`.

    Raises:
        ValueError: an image that is not (H, W, C), or a size below 1.

    Example:
        >>> cutout(jax.random.key(0), jnp.ones((3, 4, 1)), size=2)[..., 0]
        Array([[1., 0., 0., 1.],
               [1., 0., 0., 1.],
               [1., 1., 1., 1.]], dtype=float32)

    Source:
        DeVries & Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout".
    """
    _check_image("cutout", image)
    if size < 1:
        raise ValueError(f"cutout: size must be at least 1, got {size}. Give the pixels of a side.")
    height, width, _ = image.shape
    first, second = jax.random.split(key)
    centre = jax.random.randint(first, (), 0, height), jax.random.randint(second, (), 0, width)
    inside = [
        (jnp.arange(length) >= middle - size // 2) & (jnp.arange(length) < middle - size // 2 + size)
        for length, middle in zip((height, width), centre, strict=True)
    ]
    return jnp.where((inside[0][:, None] & inside[1])[..., None], jnp.zeros((), image.dtype), image)


def mixup(key: PRNGKeyArray, first: Any, second: Any, *, alpha: float = 0.2) -> Any:
    """Blend two examples, labels and all: w of the one and 1 - w of the other, w ~ Beta(alpha, alpha).

    Of a batch, blend every example with the one before: `jax.vmap(mixup)(keys, batch, jax.tree.map(lambda x:
    jnp.roll(x, 1, 0), batch))`.

    Args:
        key: PRNG key.
        first: a pytree of float arrays, such as (image, label), the label as probabilities: `jax.nn.one_hot`.
        second: another example of the same structure and shapes.
        alpha: above 0; small values leave most examples nearly as they are.

    Returns:
        The blend, in the structure and dtypes of `first`.

    Raises:
        ValueError: alpha is not above 0.
        TypeError: arrays of integers, of which there is no blend.

    Example:
        >>> one, other = (jnp.zeros(2), jnp.array([1.0, 0.0])), (jnp.ones(2), jnp.array([0.0, 1.0]))
        >>> image, label = mixup(jax.random.key(1), one, other, alpha=1.0)
        >>> bool(image[0] == label[1]), float(label.sum())
        (True, 1.0)

    Source:
        Zhang, Cisse, Dauphin & Lopez-Paz 2018, "mixup: Beyond Empirical Risk Minimization".
    """
    if not alpha > 0:
        raise ValueError(f"mixup: alpha must be above 0, got {alpha}. Use 0.2, or leave mixup out.")
    for leaf in jax.tree.leaves((first, second)):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise TypeError(
                f"mixup: arrays must be floats, got {leaf.dtype}. Scale images first, and use jax.nn.one_hot for"
                " labels."
            )
    weight = jax.random.beta(key, alpha, alpha)
    return jax.tree.map(lambda a, b: (weight * a + (1 - weight) * b).astype(a.dtype), first, second)


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
