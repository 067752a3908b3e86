"""The one form in which a data set reaches the rest of the code."""

import dataclasses
from typing import TypeAlias

import numpy as np

Examples: TypeAlias = dict[str, np.ndarray]
"""{"image": uint8 (N, H, W, C), "label": int32 (N,)}."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Hold a data set: training and test examples, and what they are called.

    Args:
        name: the data set, such as "mnist".
        source: where it came from, in words for a sentence: "mnist from idx files".
        train: {"image": uint8 (N, H, W, C), "label": int32 (N,)}.
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
Check that the labels belong to these images.
    """
    classes = len(dataset.class_names)
    for split, examples in (("train", dataset.train), ("test", dataset.test)):
        _check_examples(f"{dataset.name} {split} ({dataset.source})", examples, classes)
    train, test = dataset.train["image"].shape[1:], dataset.test["image"].shape[1:]
    if train != test:
        raise ValueError(
            f"{dataset.name} ({dataset.source}): train and test images must have one size, "
            f"got {train} and {test}. Take both from the same data set."
        )
    return dataset


def _check_examples(where: str, examples: Examples, classes: int) -> None:
    if set(examples) != {"image", "label"}:
        raise ValueError(f"{where}: must hold 'image' and 'label', got {sorted(examples)}. Rename the arrays.")
    image, label = examples["image"], examples["label"]
    if image.dtype != np.uint8 or image.ndim != 4:
        raise ValueError(
            f"{where}: images must be uint8 (N, H, W, C), got {image.dtype} {image.shape}. "
            "Scale to 0..255, cast with .astype(np.uint8), and add missing axes with [..., None]."
        )
    if label.dtype != np.int32 or label.ndim != 1:
        raise ValueError(
            f"{where}: labels must be int32 (N,), got {label.dtype} {label.shape}. "
            "Cast with .astype(np.int32); labels are class numbers, not one-hot."
        )
    if len(image) != len(label):
        raise ValueError(
            f"{where}: there must be one label an image, got {len(image)} images and {len(label)} labels. "
            "Check that the labels belong to these images."
        )
    if image.size == 0:
        raise ValueError(f"{where}: must not be empty, got images {image.shape}. Give at least one example.")
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
            "Check that the labels belong to these images."
        )
