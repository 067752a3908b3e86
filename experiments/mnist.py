"""Train a net on handwritten digits, and leave a checkpoint, a result and pictures behind.

python -m experiments.mnist                      the digits that are there, a small convolutional net
python -m experiments.mnist --data FOLDER        the four original idx files
python -m experiments.mnist --model mlp          the same training without convolutions
"""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import cnnjax
from cnnjax import data, explain, models, train
from experiments import classifier, commandline, run

COMMAND = "experiments.mnist"
WEIGHT_DECAY = 1e-2


@dataclass(frozen=True)
class Config(run.Options):
    """Train a net on MNIST; by default 5 epochs of 60,000 digits, more of fewer."""

    data: str = "auto"
    """auto, tfds, embedded, or a FOLDER with the four idx files."""
    model: Literal["lenet", "lenet5", "mlp"] = "lenet"
    """A small net with batch-norm, LeNet-5 of 1998, or a net without convolutions."""
    learning_rate: float = 3e-3
    """Peak of the one-cycle schedule."""


def build(name: str, seed: int) -> nnx.Module:
    """Make an untrained model by its name on the command line."""
    rngs = nnx.Rngs(seed)
    match name:
        case "lenet":
            return models.LeNet(rngs=rngs)
        case "lenet5":
            return models.LeNet5(rngs=rngs)
        case "mlp":
            return models.MLP(rngs=rngs)
    raise ValueError(f"--model must be lenet, lenet5 or mlp, got {name!r}.")


def make_loss_fn(seed: int) -> train.LossFn:
    """Cross-entropy of digits, each moved by up to two pixels."""

    def loss_fn(model: Any, batch: train.Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        keys = data.keys(seed, batch["position"])
        moved = jax.vmap(lambda k, image: data.translate(k, image, max_shift=2))(keys, batch["image"])
        logits = train.apply(model, floats(moved), train=True, key=key)
        return classifier.judge(logits, batch["label"])

    return loss_fn


def floats(image: Any) -> jax.Array:
    """Pictures in [0, 1]."""
    return jnp.asarray(image, jnp.float32) / 255


def main() -> None:
    """Run the command."""
    started = time.perf_counter()
    with commandline.bad_input(COMMAND):
        config = run.check(commandline.parse(Config, COMMAND))
        if config.accelerate:
            cnnjax.accelerate(keep_memory=True)
        with train.processes.first():
            dataset = data.load("mnist", config.data)
        examples = len(dataset.train["label"])
        ends = run.ends(config, examples=examples, epochs=round(5 * math.sqrt(60_000 / examples)))
        schedule = run.one_cycle(config, ends[-1])
        tx = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)
        graphdef, state = train.create(build(config.model, config.seed), tx)
        settings = {name: asdict(config)[name] for name in ("model", "batch_size", "learning_rate", "seed")}
        settings |= {"data": dataset.source, "train_examples": examples}
        begun, state = run.begin(config, "mnist", state, settings, ends, started)
    if begun is None:
        return
    print(f"{config.model} on {dataset.source}: {examples} digits, run in {begun.path}")
    step = train.make_train_step(graphdef, tx, make_loss_fn(config.seed))
    eval_step = train.make_eval_step(graphdef, classifier.make_metric_fn(floats))
    with begun.lock, commandline.interruption(COMMAND, begun.advice()) as asked:
        state = classifier.fit(
            begun, config, dataset, state, step, eval_step, asked=asked, schedule=schedule, unit="images"
        )
        if jax.process_index():
            return
        probabilities = classifier.probabilities(graphdef, state, dataset.test["image"], floats)
        model = train.merge(graphdef, state)
        _draw(dataset, model, probabilities, begun.path)
        flop = classifier.flop(model, floats(dataset.train["image"][:1]))
        classifier.report(begun, config, dataset, state, probabilities, flop)


def _draw(dataset: data.Dataset, model: nnx.Module, probabilities: np.ndarray, path: Path) -> None:
    labels, predictions = dataset.test["label"], probabilities.argmax(1)
    explain.plot_filters(_first_kernel(model)).savefig(path / "filters.png")
    wrong = np.flatnonzero(predictions != labels)
    worst = wrong[np.argsort(-probabilities.max(1)[wrong])][:24]
    if len(worst):
        titles = [f"{labels[i]}, not {predictions[i]}\n{probabilities[i].max():.0%}" for i in worst]
        explain.plot_pictures(dataset.test["image"][worst], titles=titles).savefig(path / "mistakes.png")


def _first_kernel(model: nnx.Module) -> np.ndarray:
    """What the first layer weighs, as (Kh, Kw, C_in, C_out); of a dense layer the first 32 units."""
    match model:
        case models.LeNet():
            return np.asarray(model.convs[0].kernel[...])
        case models.LeNet5():
            return np.asarray(model.c1.kernel[...])
        case models.MLP():
            return np.asarray(model.hidden[0].kernel[...])[:, :32].reshape(28, 28, 1, 32)
    raise TypeError(f"no picture of the first layer of {type(model).__name__}")


def load(path: Path) -> tuple[nnx.GraphDef[nnx.Module], train.TrainState]:
    """Read the model of a run, trained as far as its newest checkpoint."""
    model = build(run.trained(path, "mnist")["model"], seed=0)
    return run.load(path, model, optax.adamw(run.one_cycle(Config(), 1), weight_decay=WEIGHT_DECAY))


if __name__ == "__main__":
    main()
