"""Classify digits in pictures with a trained run: python -m experiments.predict --workdir RUN FILE.png ..."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flax import nnx

from cnnjax import data, train
from experiments import commandline, mnist, workdir

COMMAND = "experiments.predict"


@dataclass(frozen=True)
class Config:
    """Classify digits in pictures."""

    files: tuple[Path, ...]
    """PNG or JPEG pictures of one digit each."""
    workdir: Path | None = None
    """Folder of a run of experiments.mnist; by default the newest in runs/mnist."""


def main() -> None:
    """Run the command."""
    with commandline.bad_input(COMMAND):
        config = commandline.parse(Config, COMMAND)
        if not config.files:
            raise ValueError("there must be a picture to classify, got none. Name PNG or JPEG files.")
        images = np.stack([data.read_digit(file) for file in config.files])
        graphdef, state = load(config.workdir or workdir.newest("mnist"))
    probabilities = train.predict(graphdef, state, images.astype(np.float32) / 255)
    for file, row in zip(config.files, probabilities, strict=True):
        best = np.argsort(-row)[:3]
        print(f"{file}: {best[0]}   " + "  ".join(f"{digit} {row[digit]:.1%}" for digit in best))


def load(path: Path) -> tuple[nnx.GraphDef[nnx.Module], train.TrainState]:
    """Read the model of a run, trained as far as its newest checkpoint."""
    meta = train.checkpoint.read_meta(path / workdir.CHECKPOINTS)
    if meta is None:
        raise ValueError(f"--workdir must hold a trained run, got {path}. Train one with python -m experiments.mnist.")
    tx = mnist.optimiser(mnist.Config(), steps=1)
    graphdef, state = train.create(mnist.build(meta["model"], seed=0), tx)
    state, _ = train.checkpoint.restore(path / workdir.CHECKPOINTS, state)
    return graphdef, state


if __name__ == "__main__":
    main()
