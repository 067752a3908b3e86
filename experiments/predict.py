"""Classify pictures with a trained run: python -m experiments.predict --workdir RUN FILE.png ..."""

from dataclasses import dataclass
from pathlib import Path

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
    """Folder of a run of experiments.mnist or experiments.images; by default the newest in runs/mnist."""


def main() -> None:
    """Run the command."""
    with commandline.bad_input(COMMAND):
        config = commandline.parse(Config, COMMAND)
        if not config.files:
            raise ValueError("there must be a picture to classify, got none. Name PNG or JPEG files.")
        path = config.workdir or workdir.newest("mnist")
        settings = run.trained(path, "mnist", "images")
        if "class_names" in settings:
            pictures = np.stack([data.read_picture(file, size=settings["size"]) for file in config.files])
            graphdef, state = images.load(path)
        else:
            pictures = np.stack([data.read_digit(file) for file in config.files])
            graphdef, state = mnist.load(path)
        names = settings.get("class_names", range(10))
    probabilities = train.predict(graphdef, state, pictures.astype(np.float32) / 255)
    for file, row in zip(config.files, probabilities, strict=True):
        best = np.argsort(-row)[:3]
        print(f"{file}: {names[best[0]]}   " + "  ".join(f"{names[i]} {row[i]:.1%}" for i in best))


if __name__ == "__main__":
    main()
