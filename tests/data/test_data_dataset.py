import numpy as np
import pytest

from cnnjax.data import Dataset, check


def examples(n=3, **changes):
    return {"image": np.zeros((n, 4, 5, 1), np.uint8), "label": np.arange(n, dtype=np.int32)} | changes


def dataset(train, test=None):
    return Dataset("toy", "memory", train, test or examples(), ("a", "b", "c"))


def test_what_keeps_the_contract_is_returned():
    good = dataset(examples())
    assert check(good) is good


@pytest.mark.parametrize(
    ("train", "text"),
    [
        (examples(image=np.zeros((3, 4, 5, 1))), r"toy train \(memory\): images must be uint8 .* got float64"),
        (examples(image=np.zeros((3, 4, 5), np.uint8)), r"images must be uint8 \(N, H, W, C\), got uint8 \(3, 4, 5\)"),
        (examples(label=np.arange(3)), r"labels must be int32 \(N,\), got int64 \(3,\).*astype\(np.int32\)"),
        (examples(label=np.zeros((3, 3), np.int32)), r"labels must be int32 \(N,\), got int32 \(3, 3\).*one-hot"),
        (examples(label=np.zeros(2, np.int32)), "one label an example, got 3 images and 2 labels"),
        (examples(0), r"must not be empty, got images \(0, 4, 5, 1\)"),
        (examples(label=np.array([0, 3, 1], np.int32)), "labels must be 0 to 2, got 3 at example 1"),
        (examples(label=np.array([0, 2, -1], np.int32)), "labels must be 0 to 2, got -1 at example 2"),
        (examples(image=np.zeros((3, 4, 4, 1), np.uint8)), r"one size, got \(4, 4, 1\) and \(4, 5, 1\)"),
        ({"image": np.zeros((3, 4, 5, 1), np.uint8)}, r"must hold 'image' and 'label', got \['image'\]"),
    ],
)
def test_a_broken_contract_is_named(train, text):
    with pytest.raises(ValueError, match=text):
        check(dataset(train))


def test_the_test_split_is_checked_too():
    with pytest.raises(ValueError, match=r"toy test \(memory\): labels must be 0 to 2, got 9 at example 0"):
        check(dataset(examples(), examples(label=np.array([9, 0, 0], np.int32))))
