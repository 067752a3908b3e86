"""Pictures from outside: any PNG or JPEG of a digit in the form of MNIST."""

import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE, _BOX = 28, 20
_LARGEST = 560
_CENTRE = 14
_INK = 0.15
_FAINTEST = 16


def read_digit(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a picture of one digit as MNIST would hold it.

    As the authors of MNIST describe: the ink is cropped, scaled to a longer side of 20 pixels with
    antialiasing and put into 28 x 28 pixels with its centre of mass at pixel (14, 14), white on black.
    What is ink and what is ground is told from the border, so dark ink on a bright sheet is inverted.
    A picture of 28 x 28 pixels with a black border is returned as it is.

    Args:
        path: a PNG or JPEG of any size and mode; transparency and EXIF orientation are heeded.

    Returns:
        uint8 (28, 28, 1).

    Raises:
        ValueError: the file cannot be read as a picture, or the picture is blank.
        ImportError: Pillow is not installed.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = tempfile.mkdtemp() + "/one.png"
        >>> sheet = np.full((300, 200), 255, np.uint8)
        >>> sheet[100:200, 90:110] = 0
        >>> Image.fromarray(sheet).save(path)
        >>> digit = read_digit(path)
        >>> rows, columns = np.flatnonzero(digit.any((1, 2))), np.flatnonzero(digit.any((0, 2)))
        >>> len(rows), len(columns), int(digit.max())
        (20, 4, 255)
    """
    gray, opaque = _open(path)
    gray = _on_ground(gray, opaque)
    if gray.shape == (_SIDE, _SIDE) and np.median(_border(gray)) < _FAINTEST <= gray.max():
        return np.round(gray).astype(np.uint8)[..., None]
    ink = _white_on_black(gray)
    if ink is None:
        raise ValueError(f"read_digit: {path} is blank: no ink stands out. Give a picture of one digit.")
    return _centred(_scaled(_cropped(ink)))[..., None]


def _open(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return luminance (H, W) in 0..255 and opacity (H, W) in 0..1."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("read_digit: Pillow is missing. Run pip install 'cnnjax[data]'.") from error
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            # Phone photographs have 12 million pixels; what survives in 20 pixels is seen in 560.
            image.thumbnail((_LARGEST, _LARGEST))
            return _planes(image)
    # A damaged file makes Pillow's decoders raise about anything.
    except Exception as error:
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise ValueError(f"read_digit: {path} cannot be read: {reason}. Give a PNG or JPEG.") from error


def _planes(image: "Image") -> tuple[np.ndarray, np.ndarray]:
    if image.mode.startswith("I"):
        # 16 bits a pixel, which Pillow's own conversion to 8 bits would clip.
        return np.asarray(image, np.float64) * (255 / 65535), np.ones((image.height, image.width))
    rgba = image.convert("RGB" if image.mode == "CMYK" else "RGBA").convert("RGBA")
    gray = np.asarray(rgba.convert("L"), np.float64)
    return gray, np.asarray(rgba.getchannel("A"), np.float64) / 255


def _on_ground(gray: np.ndarray, opaque: np.ndarray) -> np.ndarray:
    """Return the picture laid on the ground that its transparent parts stand for."""
    border, border_opaque = _border(gray), _border(opaque) > 0.5
    if border_opaque.mean() > 0.5:
        ground = np.median(border[border_opaque])
    elif (opaque > 0.5).any():
        # Ink alone on a transparent sheet: the sheet is what the ink is not.
        ground = 0.0 if np.median(gray[opaque > 0.5]) > 127 else 255.0
    else:
        ground = 0.0
    return gray * opaque + ground * (1 - opaque)


def _border(plane: np.ndarray) -> np.ndarray:
    return np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])


def _white_on_black(gray: np.ndarray) -> np.ndarray | None:
    """Return ink in 0..1 on 0, or None where no ink stands out of the ground."""
    difference = gray - np.median(_border(gray))
    ink = np.maximum(difference if difference.max() > -difference.min() else -difference, 0)
    if ink.max() < _FAINTEST:
        return None
    ink = ink / ink.max()
    # What is fainter is the sheet's shading and the noise of JPEG.
    return np.where(ink < _INK, 0, ink)


def _cropped(ink: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _scaled(ink: np.ndarray) -> np.ndarray:
    """Return ink in 0..1 with a longer side of 20 pixels."""
    from PIL import Image

    factor = _BOX / max(ink.shape)
    height, width = (max(1, round(n * factor)) for n in ink.shape)
    image = Image.fromarray(ink.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    scaled = np.clip(np.asarray(image), 0, None)
    return scaled / scaled.max()


def _centred(ink: np.ndarray) -> np.ndarray:
    """Return uint8 (28, 28) with the centre of mass at (14, 14), or as near as the ink fits."""
    canvas = np.zeros((_SIDE, _SIDE))
    axes = [ink.sum(1), ink.sum(0)]
    centres = [np.average(np.arange(len(mass)), weights=mass) for mass in axes]
    top, left = (int(np.clip(round(_CENTRE - c), 0, _SIDE - n)) for c, n in zip(centres, ink.shape, strict=True))
    canvas[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return np.round(canvas * 255).astype(np.uint8)
