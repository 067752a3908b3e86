"""Batches: for training a pure function of (seed, step), for evaluation every example once."""

import dataclasses
import functools
import operator
from collections.abc import Iterator, Mapping
from typing import SupportsIndex

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """Draw training batches from an endless stream of permuted examples.

    A batch is a pure function of (seed, step): a run resumes from its step alone. Every epoch has its own
    permutation and the stream runs on across epochs, so batches are always full, and one may hold the end
    of an epoch and the start of the next. The permutation is the same for every NumPy version.

    Args:
        examples: arrays of equal length N by name; "position" is reserved.
        batch_size: examples a batch, at least 1; it may exceed N.
        seed: any integer.
        share: (i, n): of every batch only the i-th of n equal parts, for the i-th of n processes.

    Raises:
        ValueError: batch_size below 1, no examples, arrays of different length, a reserved name, or no such share.

    Example:
        >>> batches = Batches({"label": np.arange(3)}, 2, seed=0)
        >>> [batches(step)["label"].tolist() for step in range(3)]
        [[0, 2], [1, 2], [1, 0]]
        >>> batches(2)["position"].tolist()
        [4, 5]
    """

    examples: Mapping[str, np.ndarray] = dataclasses.field(repr=False)
    batch_size: int
    seed: int = dataclasses.field(kw_only=True)
    share: tuple[int, int] = dataclasses.field(default=(0, 1), kw_only=True)

    def __post_init__(self):
        _check_batch_size("Batches", self.batch_size)
        rows("Batches", self.batch_size, self.share)
        if _length("Batches", self.examples, reserved="position") == 0:
            raise ValueError("Batches: examples must not be empty, got 0. Give at least one example.")

    def __call__(self, step: SupportsIndex) -> dict[str, np.ndarray]:
        """Return the batch of a step.

        Args:
            step: number of the step, from 0.

        Returns:
            The examples' arrays, (batch_size / n, ...) each, and "position", uint32 (batch_size / n,): the place
            of each example in the stream, modulo 2 ** 32, from which augmentation keys are folded.

        Raises:
            ValueError: a negative step.
        """
        # A 32-bit scalar of NumPy or JAX would overflow in the product below.
        step = operator.index(step)
        if step < 0:
            raise ValueError(f"Batches: step must be at least 0, got {step}. Count steps from 0.")
        part = rows("Batches", self.batch_size, self.share)
        positions = step * self.batch_size + np.arange(part.start, part.stop)
        size = len(next(iter(self.examples.values())))
        chosen = places(operator.index(self.seed), size, positions)
        batch = {name: array[chosen] for name, array in self.examples.items()}
        return batch | {"position": positions.astype(np.uint32)}


def padded(
    examples: Mapping[str, np.ndarray], batch_size: int, *, share: tuple[int, int] = (0, 1)
) -> Iterator[dict[str, np.ndarray]]:
    """Yield evaluation batches of one size that hold every example exactly once.

    The last batch is filled with zeros, which "mask" marks: weigh every result with it.

    Args:
        examples: arrays of equal length N by name; "mask" is reserved.
        batch_size: examples a batch, at least 1.
        share: (i, n): of every batch only the i-th of n equal parts, for the i-th of n processes.

    Returns:
        An iterator over ceil(N / batch_size) batches: the arrays, (batch_size / n, ...) each, in order, and
        "mask", bool (batch_size / n,), True for examples and False for filling.

    Raises:
        ValueError: batch_size below 1, arrays of different length, no arrays, a reserved name, or no such share.

    Example:
        >>> for batch in padded({"label": np.array([7, 8, 9])}, 2):
        ...     print(batch["label"], batch["mask"])
        [7 8] [ True  True]
        [9 0] [ True False]
    """
    _check_batch_size("padded", batch_size)
    size = _length("padded", examples, reserved="mask")
    part = rows("padded", batch_size, share)
    starts = range(part.start, part.start + size, batch_size)
    return (_padded_batch(examples, start, part.stop - part.start) for start in starts)


def rows(op: str, batch_size: int, share: tuple[int, int]) -> slice:
    """Return which rows of a batch are an equal share of it."""
    part, parts = share
    if not 0 <= part < parts or batch_size % parts:
        raise ValueError(
            f"{op}: share must be (i, n) with i from 0 to n - 1 and n a divisor of the batch size, got {share} for"
            f" {batch_size} examples. Use a multiple of {max(parts, 1)}."
        )
    size = batch_size // parts
    return slice(part * size, (part + 1) * size)


def _padded_batch(examples: Mapping[str, np.ndarray], start: int, batch_size: int) -> dict[str, np.ndarray]:
    parts = {name: array[start : start + batch_size] for name, array in examples.items()}
    count = len(next(iter(parts.values())))
    filled = {name: np.pad(p, [(0, batch_size - count)] + [(0, 0)] * (p.ndim - 1)) for name, p in parts.items()}
    return filled | {"mask": np.arange(batch_size) < count}


def places(seed: int, size: int, positions: np.ndarray) -> np.ndarray:
    """Return which example stands at each of the consecutive positions of the stream."""
    epochs, within = np.divmod(positions, size)
    parts = [_permutation(seed, epoch, size)[within[epochs == epoch]] for epoch in range(epochs[0], epochs[-1] + 1)]
    return np.concatenate(parts)


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    # NumPy promises the raw bits of Philox for ever, but not Generator.permutation.
    key = np.array([seed % 2**64, epoch], np.uint64)
    bits = np.random.Philox(key=key).random_raw(size)
    permutation = np.argsort(bits, kind="stable")
    permutation.flags.writeable = False
    return permutation


def _check_batch_size(op: str, batch_size: int) -> None:
    if operator.index(batch_size) < 1:
        raise ValueError(f"{op}: batch_size must be at least 1, got {batch_size}. Give the examples a batch.")


def _length(op: str, examples: Mapping[str, np.ndarray], *, reserved: str) -> int:
    if reserved in examples or not examples:
        raise ValueError(f"{op}: examples must hold arrays, none called {reserved!r}, got {list(examples)}. Rename it.")
    lengths = {name: len(array) for name, array in examples.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{op}: arrays must have one length, got {lengths}. Cut them to the same examples.")
    return next(iter(lengths.values()))
