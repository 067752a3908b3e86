"""Training batches of volumes of many sizes: boxes cut out of them."""

import dataclasses
import functools
import operator
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np

from cnnjax.data.batches import Batches
from cnnjax.data.volume import Volume


@dataclasses.dataclass(frozen=True, eq=False)
class Crops:
    """Draw training batches of boxes, each from somewhere in a volume.

    As `Batches`, a batch is a pure function of (seed, step), and volumes come in an endless stream of permutations. A
    box is the same for all volumes, so nothing is padded and a step is compiled once; a volume that is smaller than the
    box along an axis is filled up with zeros there, and so are its labels.

    Args:
        volumes: those to cut from.
        size: (D, H, W) of the box.
        batch_size: boxes a batch, at least 1.
        seed: any integer.
        share: as of `Batches`.

    Raises:
        ValueError: no volumes, a size below 1, a batch size below 1, or no such share.

    Example:
        >>> volumes = data.load_hippocampus("embedded").train
        >>> batch = Crops(volumes, (16, 24, 24), 2, seed=0)(0)
        >>> {name: (array.shape, array.dtype.name) for name, array in batch.items() if name != "position"}
        {'image': ((2, 16, 24, 24, 1), 'float32'), 'label': ((2, 16, 24, 24), 'int32')}
    """

    volumes: Sequence[Volume] = dataclasses.field(repr=False)
    size: tuple[int, int, int]
    batch_size: int
    seed: int = dataclasses.field(kw_only=True)
    share: tuple[int, int] = dataclasses.field(default=(0, 1), kw_only=True)

    def __post_init__(self):
        if len(self.size) != 3 or min(self.size) < 1:
            raise ValueError(f"Crops: size must be three sizes of at least 1, got {self.size}. Give (D, H, W).")
        self._stream  # noqa: B018 - raises where there are no volumes, or no batch size

    @functools.cached_property
    def _stream(self) -> Batches:
        return Batches({"volume": np.arange(len(self.volumes))}, self.batch_size, seed=self.seed, share=self.share)

    @functools.cached_property
    def _images(self) -> list[np.ndarray]:
        return [standardized(volume.image) for volume in self.volumes]

    def __call__(self, step: SupportsIndex) -> dict[str, np.ndarray]:
        """Return the batch of a step.

        Args:
            step: number of the step, from 0.

        Returns:
            "image", float32 (batch_size / n, *size, 1), `standardized`; "label", int32 (batch_size / n, *size);
            "position", as of `Batches`.
        """
        drawn = self._stream(step)
        first = operator.index(step) * self.batch_size + self.share[0] * len(drawn["position"])
        boxes = [self._box(number, first + i) for i, number in enumerate(drawn["volume"].tolist())]
        image, label = (np.stack(arrays) for arrays in zip(*boxes, strict=True))
        return {"image": image[..., None], "label": label.astype(np.int32), "position": drawn["position"]}

    def _box(self, number: int, position: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = self._images[number], self.volumes[number].label
        # NumPy promises the raw bits of Philox for ever, but not what Generator makes of them.
        key = np.array([self.seed % 2**64, position], np.uint64)
        bits = [int(n) for n in np.random.Philox(key=key, counter=[0, 0, 0, 1]).random_raw(3)]
        room = [max(n - s, 0) + 1 for n, s in zip(image.shape, self.size, strict=True)]
        box = tuple(slice(b % r, b % r + s) for b, r, s in zip(bits, room, self.size, strict=True))
        return filled(image[box], self.size), filled(label[box], self.size)


def standardized(image: np.ndarray) -> np.ndarray:
    """Return a volume's intensities with mean 0 and standard deviation 1, float32: scanners do not agree on a scale."""
    image = image.astype(np.float32)
    return (image - image.mean()) / max(float(image.std()), 1e-6)


def filled(array: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return the array with zeros behind it along each axis, up to the size."""
    return np.pad(array, [(0, s - n) for n, s in zip(array.shape, size, strict=True)])
