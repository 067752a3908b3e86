"""Classify pictures with a trained run: python -m experiments.predict --workdir RUN FILE.png ..."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cnnjax import data, train
from experiments import commandline, images, mnist, workdir

COMMAND = "experiments.predict"


@dataclass(frozen=True)
class Config:
    """Classify pictures: of digits, or of the classes of your own folder."""

    files: tuple[Path, ...]
    """PNG or JPEG pictures; of one digit each for a run of experiments.mnist."""
    of: Literal["mnist", "images"] = "mnist"
    """Which experiment has trained the net."""
    workdir: Path | None = None
    """Folder of a run of that experiment; by default the newest in runs/mnist or runs/images."""


def main() -> None:
    """Run the command."""
    with commandline.bad_input(COMMAND):
        config = commandline.parse(Config, COMMAND)
        if not config.files:
            raise ValueError("there must be a picture to classify, got none. Name PNG or JPEG files.")
        if config.of == "mnist":
            pictures = np.stack([data.read_digit(file) for file in config.files])
            graphdef, state = mnist.load(config.workdir or workdir.newest("mnist"))
            names = [str(digit) for digit in range(10)]
        else:
            graphdef, state, settings = images.load(config.workdir or workdir.newest("images"))
            pictures = np.stack([data.read_picture(file, size=settings["size"]) for file in config.files])
            names = settings["class_names"]
    probabilities = train.predict(graphdef, state, pictures.astype(np.float32) / 255)
    for file, row in zip(config.files, probabilities, strict=True):
        best = np.argsort(-row)[:3]
        print(f"{file}: {names[best[0]]}   " + "  ".join(f"{names[i]} {row[i]:.1%}" for i in best))


if __name__ == "__main__":
    main()
