"""The idx format: the four files in which MNIST, Fashion-MNIST, KMNIST and EMNIST are published."""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from cnnjax.data.dataset import Examples, check_labels

_SPLITS = {"train": "train", "t10k": "test"}
_NDIM = {"images": 3, "labels": 1}
_DTYPES = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
_GZIP = b"\x1f\x8b"


def read(folder: str | os.PathLike[str], *, classes: int = 10) -> tuple[Examples, Examples]:
    """Read the four idx files of a folder.

    The files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same with `t10k`, plain or
    with `.gz`; the spelling `train-images.idx3-ubyte` is taken as well. Other data sets use the same names,
    so the names say nothing about the contents.

    Args:
        folder: the folder that holds them.
        classes: number of classes; labels are 0 to classes - 1.

    Returns:
        (train, test), each {"image": uint8 (N, H, W, 1), "label": int32 (N,)}.

    Raises:
        FileNotFoundError: the folder or one of the files is missing.
        NotADirectoryError: the folder is a file.
        ValueError: a file is damaged or no idx file, or labels and images do not belong together.

    Example:
        >>> read("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: idx: no/such/folder does not exist. Give the folder with the four idx files.
    """
    folder = Path(folder)
    paths = _find(folder)
    arrays = {key: read_array(path, ndim=_NDIM[key[1]]) for key, path in paths.items()}
    _check_counts(folder, arrays)
    for key, path in paths.items():
        if key[1] == "labels":
            check_labels(f"idx: {path}", arrays[key], classes)
    train, test = (_examples(arrays[s, "images"], arrays[s, "labels"]) for s in _SPLITS)
    return train, test


def read_array(path: str | os.PathLike[str], *, ndim: int) -> np.ndarray:
    """Read one idx file of unsigned bytes.

    Whether it is compressed is told from its first bytes, not its name: browsers unpack what they save
    and leave the `.gz`.

    Args:
        path: the file, plain or gzip.
        ndim: the number of axes that it must have: 3 for images, 1 for labels.

    Returns:
        uint8 with `ndim` axes; read-only.

    Raises:
        ValueError: the file is damaged, no idx file, or holds something else.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "labels")
        >>> size = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        >>> read_array(path, ndim=1)
        array([7, 2, 1], dtype=uint8)
    """
    path = Path(path)
    data = _unpack(path)
    shape = _header(path, data, ndim)
    start, size = 4 + 4 * ndim, math.prod(shape)
    if len(data) - start != size:
        kind = "is cut short" if len(data) - start < size else "is too long"
        raise ValueError(
            f"idx: {path} {kind}: its header says {shape}, {size} bytes, got {len(data) - start}. Download it again."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _find(folder: Path) -> dict[tuple[str, str], Path]:
    if not folder.exists():
        raise FileNotFoundError(f"idx: {folder} does not exist. Give the folder with the four idx files.")
    if not folder.is_dir():
        raise NotADirectoryError(f"idx: {folder} is a file. Give the folder with the four idx files.")
    stems = {(s, k): f"{s}-{k}-idx{n}-ubyte" for s in _SPLITS for k, n in _NDIM.items()}
    found = {key: _variant(folder, stem) for key, stem in stems.items()}
    missing = [stems[key] for key, path in found.items() if path is None]
    if missing:
        empty = "is empty" if not any(folder.iterdir()) else f"lacks {', '.join(missing)}"
        raise FileNotFoundError(
            f"idx: {folder} {empty}. It must hold the four files {', '.join(stems.values())}, plain or with .gz."
        )
    return {key: path for key, path in found.items() if path is not None}


def _variant(folder: Path, stem: str) -> Path | None:
    # Kaggle's archive holds folders called like the files, hence is_file.
    names = [name + end for name in (stem, stem.replace("-idx", ".idx")) for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _unpack(path: Path) -> bytes:
    data = path.read_bytes()
    if not data.startswith(_GZIP):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"idx: {path} is a damaged gzip file: {error}. Download it again.") from error


def _header(path: Path, data: bytes, ndim: int) -> tuple[int, ...]:
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _DTYPES:
        raise ValueError(
            f"idx: {path} is neither an idx nor a gzip file: it starts with {data[:4]!r}. Download it again."
        )
    if data[2] != 0x08:
        raise ValueError(
            f"idx: {path} must hold unsigned bytes (type code 0x08), got {_DTYPES[data[2]]} "
            f"(0x{data[2]:02X}). Use the files as published."
        )
    if data[3] != ndim:
        raise ValueError(
            f"idx: {path} must hold an array of {ndim} axes, got {data[3]}. "
            "Images have three and labels one: were the files swapped?"
        )
    if len(data) < 4 + 4 * ndim:
        raise ValueError(f"idx: {path} is cut short within its header: {len(data)} bytes. Download it again.")
    return tuple(int(n) for n in np.frombuffer(data, ">u4", count=ndim, offset=4))


def _check_counts(folder: Path, arrays: dict[tuple[str, str], np.ndarray]) -> None:
    counts = {key: len(array) for key, array in arrays.items()}
    for split in _SPLITS:
        images, labels = counts[split, "images"], counts[split, "labels"]
        if images != labels:
            raise ValueError(
                f"idx: {folder}: {split} has {images} images and {labels} labels: these are the labels of "
                "another set, or train and t10k are swapped. Take all four files from one data set."
            )


def _examples(images: np.ndarray, labels: np.ndarray) -> Examples:
    return {"image": images[..., None], "label": labels.astype(np.int32)}
