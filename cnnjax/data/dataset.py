"""The one form in which a data set reaches the rest of the code."""

import dataclasses
from typing import TypeAlias

import numpy as np

Examples: TypeAlias = dict[str, np.ndarray]
"""{"image": uint8 (N, H, W, C), "label": int32 (N,)}, or of sounds {"audio": int16 (N, L, C), "label": int32 (N,)}."""


_KINDS = {"image": ("images", np.uint8, "(N, H, W, C)"), "audio": ("sounds", np.int16, "(N, L, C)")}


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Hold a data set: training and test examples, and what they are called.

    Args:
        name: the data set, such as "mnist".
        source: where it came from, in words for a sentence: "mnist from idx files".
        train: {"image": uint8 (N, H, W, C), "label": int32 (N,)}, or "audio", int16 (N, L, C), instead of images.
        test: the same for the test examples.
        class_names: one name a class; label i is called class_names[i].

    Example:
        >>> examples = {"image": np.zeros((2, 28, 28, 1), np.uint8), "label": np.array([0, 1], np.int32)}
        >>> Dataset("toy", "two black pictures", examples, examples, ("zero", "one"))
        Dataset(name='toy', source='two black pictures', class_names=('zero', 'one'))
    """

    name: str
    source: str
    train: Examples = dataclasses.field(repr=False)
    test: Examples = dataclasses.field(repr=False)
    class_names: tuple[str, ...]


def check(dataset: Dataset) -> Dataset:
    """Return the data set, after checking that it keeps the contract of `Dataset`.

    Args:
        dataset: the data set to check.

    Returns:
        The same object.

    Raises:
        ValueError: a wrong dtype or shape, no examples, images and labels of different number, a label
            that is no class, or training and test images of different size.

    Example:
        >>> examples = {"image": np.zeros((2, 28, 28, 1), np.uint8), "label": np.array([0, 7], np.int32)}
        >>> check(Dataset("toy", "memory", examples, examples, ("zero", "one")))
        Traceback (most recent call last):
        ValueError: toy train (memory): labels must be 0 to 1, got 7 at example 1. \
Check that the labels belong to these examples.
    """
    classes = len(dataset.class_names)
    kind = "audio" if "audio" in dataset.train else "image"
    for split, examples in (("train", dataset.train), ("test", dataset.test)):
        _check_examples(kind, f"{dataset.name} {split} ({dataset.source})", examples, classes)
    train, test = dataset.train[kind].shape[1:], dataset.test[kind].shape[1:]
    if train != test:
        raise ValueError(
            f"{dataset.name} ({dataset.source}): train and test {_KINDS[kind][0]} must have one size, "
            f"got {train} and {test}. Take both from the same data set."
        )
    return dataset


def _check_examples(kind: str, where: str, examples: Examples, classes: int) -> None:
    if set(examples) != {kind, "label"}:
        raise ValueError(f"{where}: must hold {kind!r} and 'label', got {sorted(examples)}. Rename the arrays.")
    values, label = examples[kind], examples["label"]
    words, dtype, axes = _KINDS[kind]
    if values.dtype != dtype or values.ndim != len(axes.split()):
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        raise ValueError(
            f"{where}: {words} must be {dtype.__name__} {axes}, got {values.dtype} {values.shape}. "
            f"Scale to {low}..{high}, cast with .astype(np.{dtype.__name__}), and add missing axes with [..., None]."
        )
    if label.dtype != np.int32 or label.ndim != 1:
        raise ValueError(
            f"{where}: labels must be int32 (N,), got {label.dtype} {label.shape}. "
            "Cast with .astype(np.int32); labels are class numbers, not one-hot."
        )
    if len(values) != len(label):
        raise ValueError(
            f"{where}: there must be one label an example, got {len(values)} {words} and {len(label)} labels. "
            f"Check that the labels belong to these {words}."
        )
    if values.size == 0:
        raise ValueError(f"{where}: must not be empty, got {words} {values.shape}. Give at least one example.")
    check_labels(where, label, classes)


def check_labels(where: str, label: np.ndarray, classes: int) -> None:
    """Raise a ValueError that names the first label outside 0 to classes - 1, and its place.

    Args:
        where: what the labels are, for the message.
        label: integers (N,).
        classes: number of classes.

    Raises:
        ValueError: a label is no class.

    Example:
        >>> check_labels("toy", np.array([0, 1, 1]), 2)
    """
    wrong = np.flatnonzero((label < 0) | (label >= classes))
    if wrong.size:
        raise ValueError(
            f"{where}: labels must be 0 to {classes - 1}, got {label[wrong[0]]} at example {wrong[0]}. "
            "Check that the labels belong to these examples."
        )
