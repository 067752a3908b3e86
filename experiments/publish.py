"""Write a trained net without what only training needs: python -m experiments.publish RUN FOLDER.

The net in experiments/lenet was made so: python -m experiments.mnist --data FOLDER --workdir RUN, and this.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import optax

from cnnjax import train
from experiments import commandline, predict, run, workdir

COMMAND = "experiments.publish"


@dataclass(frozen=True)
class Config:
    """Copy a run without the state of its optimiser, a third of the size, for predict and explain."""

    run: Path
    """Folder of a run of experiments.mnist or experiments.images."""
    folder: Path
    """Where to write it; there must be nothing yet."""


def main() -> None:
    """Run the command."""
    with commandline.bad_input(COMMAND):
        config = commandline.parse(Config, COMMAND)
        if config.folder.exists():
            raise ValueError(f"the folder must be a new one, got {config.folder}. Remove it, or name another.")
        _, state, *_ = predict.classifier_of(config.run)
        meta = {name: value for name, value in run.trained(config.run, "mnist", "images").items() if name != "history"}
        published = train.TrainState(
            state.step,
            state.params if state.ema is None else state.ema,
            state.model_state,
            optax.identity().init(state.params),
        )
        train.checkpoint.save(config.folder / workdir.CHECKPOINTS, published, {**meta, "published": True})
        # They say in which folder of this machine it was written, and nothing else.
        for mark in config.folder.rglob("commit_success.txt"):
            mark.unlink()
        if (config.run / workdir.RESULT).exists():
            shutil.copy(config.run / workdir.RESULT, config.folder)
    print(f"{config.folder}: python -m experiments.predict --workdir {config.folder} FILE")


if __name__ == "__main__":
    main()
