"""Classify digits in pictures with a trained run: python -m experiments.predict --workdir RUN FILE.png ..."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnjax import data, train
from experiments import commandline, mnist, workdir

COMMAND = "experiments.predict"


@dataclass(frozen=True)
class Config:
    """Classify digits in pictures."""

    workdir: Path
    """Folder of a run of experiments.mnist."""
    files: tyro.conf.Positional[tuple[Path, ...]]
    """PNG or JPEG pictures of one digit each."""


def main() -> None:
    """Run the command."""
    with commandline.bad_input(COMMAND):
        config = _parse()
        images = np.stack([data.read_digit(file) for file in config.files])
        graphdef, state = load(config.workdir)
    probabilities = train.predict(graphdef, state, np.float32(images) / 255)
    for file, row in zip(config.files, probabilities, strict=True):
        best = np.argsort(-row)[:3]
        print(f"{file}: {best[0]}   " + "  ".join(f"{digit} {row[digit]:.1%}" for digit in best))


def load(path: Path) -> tuple[mnist.nnx.GraphDef, train.TrainState]:
    """Read the model of a run, trained as far as its newest checkpoint."""
    meta = train.checkpoint.read_meta(path / workdir.CHECKPOINTS)
    if meta is None:
        raise ValueError(f"--workdir must hold a trained run, got {path}. Train one with python -m experiments.mnist.")
    tx = mnist.optimiser(mnist.Config(), steps=1)
    graphdef, state = train.create(mnist.build(meta["model"], seed=0), tx)
    state, _ = train.checkpoint.restore(path / workdir.CHECKPOINTS, state)
    return graphdef, state


def _parse() -> Config:
    import tyro

    return tyro.cli(Config, prog=f"python -m {COMMAND}", config=(tyro.conf.PositionalRequiredArgs,))


if __name__ == "__main__":
    main()
