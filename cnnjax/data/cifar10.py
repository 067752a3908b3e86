"""CIFAR-10 from its binary batches or from JPEGs, and digits in its form where there is no CIFAR-10."""

import io
import itertools
import os
import tarfile
from pathlib import Path

import numpy as np

from cnnjax.data import embedded, npz
from cnnjax.data.dataset import Examples, check_labels

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COUNTS = {"train": (5000,) * 10, "test": (1000,) * 10}
STAND_IN = f"{embedded.SOURCE}, in place of CIFAR-10"

_BATCHES = {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]}
_RECORD = 1 + 3 * 32 * 32  # a label, then the red, the green and the blue plane


def read(folder: str | os.PathLike[str]) -> tuple[Examples, Examples, str]:
    """Read the six binary batches, or the two files of JPEGs cifar10_jpeg_train.npz and cifar10_jpeg_test.npz.

    Args:
        folder: where they are, or in its sub-folder cifar-10-batches-bin.

    Returns:
        (train, test, source): each {"image": uint8 (N, 32, 32, 3), "label": int32 (N,)}, and what was read, in words.

    Raises:
        FileNotFoundError: neither is there, or not whole.
        ValueError: a file is damaged.
        ImportError: there are JPEGs, and Pillow is not installed.

    Example:
        >>> read("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: cifar10: 'no/such/folder' must hold data_batch_1.bin to data_batch_5.bin and \
test_batch.bin, or cifar10_jpeg_train.npz and cifar10_jpeg_test.npz. Unpack cifar-10-binary.tar.gz there.
    """
    folder = Path(folder)
    nested = folder / "cifar-10-batches-bin"
    binary = nested if nested.is_dir() else folder
    if all((binary / name).is_file() for names in _BATCHES.values() for name in names):
        train, test = (
            _joined([records(str(binary / name), (binary / name).read_bytes()) for name in names])
            for names in _BATCHES.values()
        )
        return train, test, "cifar10 from binary batches"
    jpegs = [folder / f"cifar10_jpeg_{split}.npz" for split in ("train", "test")]
    if all(path.is_file() for path in jpegs):
        train, test = map(_read_jpegs, jpegs)
        return train, test, "cifar10 from JPEGs"
    raise FileNotFoundError(
        f"cifar10: {str(folder)!r} must hold data_batch_1.bin to data_batch_5.bin and test_batch.bin, or"
        " cifar10_jpeg_train.npz and cifar10_jpeg_test.npz. Unpack cifar-10-binary.tar.gz there."
    )


def read_archive(path: str | os.PathLike[str]) -> tuple[Examples, Examples]:
    """Read the six binary batches in the archive cifar-10-binary.tar.gz."""
    batches = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name.endswith(".bin") and (file := archive.extractfile(member)):
                batches[Path(member.name).name] = records(member.name, file.read())
    train, test = (_joined([batches[name] for name in names]) for names in _BATCHES.values())
    return train, test


def records(name: str, content: bytes) -> Examples:
    """Return the examples of a binary batch.

    Args:
        name: of the file, for messages.
        content: records of a label and three planes of 32x32 pixels.

    Returns:
        {"image": uint8 (N, 32, 32, 3), "label": int32 (N,)}.

    Raises:
        ValueError: a broken record, no record, or a label above 9.

    Example:
        >>> records("one.bin", bytes([7]) + bytes(range(256)) * 12)["image"][0, 0, :3, 0]
        array([0, 1, 2], dtype=uint8)
    """
    if not content or len(content) % _RECORD:
        raise ValueError(
            f"cifar10: {name} must hold records of {_RECORD} bytes, got {len(content)} bytes. Get it again."
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    label = rows[:, 0].astype(np.int32)
    check_labels(f"cifar10: {name}", label, len(CLASS_NAMES))
    return {"image": np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), "label": label}


def stand_in() -> tuple[Examples, Examples]:
    """Return the embedded digits as grey 32x32 pictures of three channels: real, but of another and easier kind."""
    train, test = (
        {"image": np.pad(part["image"], ((0, 0), (2, 2), (2, 2), (0, 0))).repeat(3, -1), "label": part["label"]}
        for part in embedded.read()
    )
    return train, test


def _read_jpegs(path: Path) -> Examples:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("cifar10: Pillow is missing. Run pip install 'cnnjax[data]'.") from error
    blob, offsets, labels = npz.read(path, "blob", "offsets", "labels")
    blob = blob.tobytes()
    images = np.empty((len(labels), 32, 32, 3), np.uint8)
    for number, (begin, end) in enumerate(itertools.pairwise(offsets)):
        images[number] = np.asarray(Image.open(io.BytesIO(blob[begin:end])).convert("RGB"))
    return {"image": images, "label": labels.astype(np.int32)}


def _joined(parts: list[Examples]) -> Examples:
    return {name: np.concatenate([part[name] for part in parts]) for name in ("image", "label")}
