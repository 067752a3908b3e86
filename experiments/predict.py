"""Classify pictures with a trained run: python -m experiments.predict --workdir RUN FILE.png ..."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax import data, train
from experiments import commandline, images, mnist, run, workdir

COMMAND = "experiments.predict"


@dataclass(frozen=True)
class Config:
    """Classify pictures: of digits, or of the classes of your own folder."""

    files: tuple[Path, ...]
    """Pictures; of one digit each for a run of experiments.mnist."""
    workdir: Path | None = None
    """Folder of a run of experiments.mnist or experiments.images; by default the newest in runs/mnist,
    else the one that comes with cnnjax."""


def classifier_of(path: Path) -> tuple[Any, train.TrainState, Sequence[str], Callable[[Path], np.ndarray]]:
    """Read the net of a run, the names of its classes, and how it reads a file: (graphdef, state, names, read)."""
    settings = run.trained(path, "mnist", "images")
    if "class_names" in settings:
        read = functools.partial(data.read_picture, size=settings["size"])
        return *images.load(path), settings["class_names"], read
    return *mnist.load(path), [str(digit) for digit in range(10)], data.read_digit


def main() -> None:
    """Run the command."""
    with commandline.bad_input(COMMAND):
        config = commandline.parse(Config, COMMAND)
        if not config.files:
            raise ValueError("there must be a picture to classify, got none. Name PNG or JPEG files.")
        path = config.workdir or workdir.newest_or_shipped()
        graphdef, state, names, read = classifier_of(path)
        pictures = np.stack([read(file) for file in config.files])
    probabilities = train.predict(graphdef, state, pictures.astype(np.float32) / 255)
    for file, row in zip(config.files, probabilities, strict=True):
        best = np.argsort(-row)[:3]
        print(f"{file}: {names[best[0]]}   " + "  ".join(f"{names[i]} {row[i]:.1%}" for i in best))


if __name__ == "__main__":
    main()
