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
from experiments import commandline, run, workdir

COMMAND = "experiments.mnist"


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


def optimiser(config: Config, steps: int) -> optax.GradientTransformation:
    """AdamW under a one-cycle schedule over all steps."""
    schedule = optax.schedules.cosine_onecycle_schedule(max(steps, 1), config.learning_rate, pct_start=0.2)
    return optax.adamw(schedule, weight_decay=1e-2)


def make_loss_fn(seed: int) -> train.LossFn:
    """Cross-entropy of digits, each moved by up to two pixels."""

    def loss_fn(model: Any, batch: train.Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        # A key for every place in the stream of examples: the same moves, however many devices share the batch.
        keys = jax.vmap(lambda position: jax.random.fold_in(jax.random.key(seed), position))(batch["position"])
        moved = jax.vmap(lambda k, image: data.translate(k, image, max_shift=2))(keys, batch["image"])
        logits = train.apply(model, _floats(moved), train=True, key=key)
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return losses, {"accuracy": logits.argmax(-1) == batch["label"]}

    return loss_fn


def metric_fn(model: Any, batch: train.Batch) -> dict[str, jax.Array]:
    """Loss and accuracy of digits as they are."""
    logits = train.apply(model, _floats(batch["image"]), train=False)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return {"loss": losses, "accuracy": logits.argmax(-1) == batch["label"]}


def main() -> None:
    """Run the command."""
    started = time.perf_counter()
    with commandline.bad_input(COMMAND):
        config = commandline.parse(Config, COMMAND)
        run.check(config)
        if config.accelerate:
            cnnjax.accelerate(keep_memory=True)
        dataset = data.load("mnist", config.data)
        examples = len(dataset.train["label"])
        ends = run.ends(config, examples=examples, epochs=round(5 * math.sqrt(60_000 / examples)))
        tx = optimiser(config, ends[-1])
        graphdef, state = train.create(build(config.model, config.seed), tx)
        settings = {name: asdict(config)[name] for name in ("model", "batch_size", "learning_rate", "seed")}
        settings["data"] = dataset.source
        begun, state = run.begin(config, "mnist", state, settings, ends, started)
    if begun is None:
        return
    print(f"{config.model} on {dataset.source}: {examples} digits, run in {begun.path}")
    wrap = run.wrapper(config)
    step = wrap(train.make_train_step(graphdef, tx, make_loss_fn(config.seed)))
    eval_step = wrap(train.make_eval_step(graphdef, metric_fn))

    def test(state: train.TrainState) -> dict[str, float]:
        return train.evaluate(eval_step, state, data.padded(dataset.test, 4 * config.batch_size))

    batches = data.Batches(dataset.train, config.batch_size, seed=config.seed)
    with commandline.interruption(COMMAND, begun.advice()):
        state = run.train_epochs(begun, state, step, batches, test, seed=config.seed, unit="images")
    _report(config, dataset, graphdef, state, begun)


def _report(config: Config, dataset: data.Dataset, graphdef: Any, state: train.TrainState, begun: run.Run) -> None:
    """Test the trained model, draw the pictures, write result.json and say how it went."""
    images, labels = dataset.test["image"], dataset.test["label"]
    probabilities = train.predict(graphdef, state, images.astype(np.float32) / 255)
    correct, total = int((probabilities.argmax(1) == labels).sum()), len(labels)
    _draw(dataset, graphdef, state, begun.path, probabilities)
    found = {
        "test_accuracy": correct / total,
        "test_correct": correct,
        "test_total": total,
        "train_examples": len(dataset.train["label"]),
    }
    seconds = run.finish(begun, config, state, found)
    print(f"test accuracy {correct / total:.4f} ({correct}/{total}, {dataset.source}) in {seconds} s")


def _draw(
    dataset: data.Dataset,
    graphdef: Any,
    state: train.TrainState,
    path: Path,
    probabilities: np.ndarray,
) -> None:
    labels, predictions = dataset.test["label"], probabilities.argmax(1)
    explain.plot_curve(workdir.read_rows(path)).savefig(path / "learning_curve.png")
    counts = explain.confusion_matrix(labels, predictions, num_classes=len(dataset.class_names))
    explain.plot_confusion(counts, class_names=dataset.class_names).savefig(path / "confusion.png")
    explain.plot_filters(_first_kernel(train.merge(graphdef, state))).savefig(path / "filters.png")
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
    meta = train.checkpoint.read_meta(path / workdir.CHECKPOINTS)
    if meta is None:
        raise ValueError(f"--workdir must hold a trained run, got {path}. Train one with python -m {COMMAND}.")
    graphdef, state = train.create(build(meta["model"], seed=0), optimiser(Config(), steps=1))
    state, _ = train.checkpoint.restore(path / workdir.CHECKPOINTS, state)
    return graphdef, state


def _floats(image: jax.Array) -> jax.Array:
    return image.astype(jnp.float32) / 255


if __name__ == "__main__":
    main()
