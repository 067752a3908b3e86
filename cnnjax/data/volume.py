"""The form of volumes with a class for every voxel."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """Hold one volume.

    Args:
        name: of its file.
        image: (D, H, W) intensities: uint8, or float32 as they are in a NIfTI file; of MRI the axes run from left to
            right, from back to front and upwards.
        label: uint8 (D, H, W).
    """

    name: str
    image: np.ndarray = dataclasses.field(repr=False)
    label: np.ndarray = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Volumes:
    """Hold volumes of any sizes, split for training and testing.

    Args:
        source: where they came from, in words for a sentence.
        train: volumes to train on.
        test: volumes that are held out.
        class_names: one name a class; a voxel labelled i is of class_names[i], and 0 is the background.
    """

    source: str
    train: Sequence[Volume] = dataclasses.field(repr=False)
    test: Sequence[Volume] = dataclasses.field(repr=False)
    class_names: tuple[str, ...]
