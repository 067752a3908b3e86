"""Train a classifier on a folder of your own pictures, one sub-folder a class: cat or not, or anything else.

python -m experiments.images --data pets        with pets/cat/*.jpg, pets/other/*.jpg, ...
python -m experiments.images                    handwritten digits, written out as such a folder first
python -m experiments.predict --of images FILE  what a trained net says to pictures
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import cnnjax
from cnnjax import data, explain, models, train
from experiments import commandline, run, workdir

COMMAND = "experiments.images"
DEMONSTRATION = Path("runs/images/digits")


@dataclass(frozen=True)
class Config(run.Options):
    """Train a net on a folder of pictures; by default as many epochs as show 40,000 of them."""

    data: str = "auto"
    """A FOLDER with a sub-folder of PNG or JPEG pictures a class, or auto: embedded digits, written out as one."""
    size: int = 64
    """Height and width to which pictures are scaled and cut, in pixels."""
    flip: bool = True
    """Mirror half of the pictures while training; not for writing, where left and right matter."""
    skip_broken: bool = False
    """Leave out files that are no pictures instead of stopping."""
    batch_size: int = 32
    """Examples a step, over all devices."""
    learning_rate: float = 2e-3
    """Peak of the one-cycle schedule."""


def build(classes: int, seed: int) -> models.ResNet:
    """Make the untrained net: a narrow ResNet."""
    return models.ResNet(blocks=(1, 1, 1, 1), widths=(32, 64, 128, 256), num_classes=classes, rngs=nnx.Rngs(seed))


def optimiser(config: Config, steps: int) -> optax.GradientTransformation:
    """AdamW under a one-cycle schedule over all steps."""
    schedule = optax.schedules.cosine_onecycle_schedule(max(steps, 1), config.learning_rate, pct_start=0.2)
    return optax.adamw(schedule, weight_decay=5e-2)


def make_loss_fn(seed: int, *, flip: bool) -> train.LossFn:
    """Cross-entropy of pictures, each turned, scaled, moved, brightened, and mirrored or not."""

    def changed(key: jax.Array, image: jax.Array) -> jax.Array:
        first, second, third = jax.random.split(key, 3)
        image = data.affine(first, image, rotation=10, scale=0.15, shift=image.shape[0] / 16)
        image = data.flip(second, image) if flip else image
        return image * jax.random.uniform(third, minval=0.8, maxval=1.2)

    def loss_fn(model: Any, batch: train.Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        # A key for every place in the stream of examples: the same changes, however many devices share the batch.
        keys = jax.vmap(lambda position: jax.random.fold_in(jax.random.key(seed), position))(batch["position"])
        logits = train.apply(model, jax.vmap(changed)(keys, floats(batch["image"])), train=True, key=key)
        smooth = optax.smooth_labels(jax.nn.one_hot(batch["label"], logits.shape[-1]), 0.1)
        return optax.losses.softmax_cross_entropy(logits, smooth), {"accuracy": logits.argmax(-1) == batch["label"]}

    return loss_fn


def metric_fn(model: Any, batch: train.Batch) -> dict[str, jax.Array]:
    """Loss and accuracy of pictures as they are."""
    logits = train.apply(model, floats(batch["image"]), train=False)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return {"loss": losses, "accuracy": logits.argmax(-1) == batch["label"]}


def floats(image: Any) -> jax.Array:
    """Pictures in [0, 1]."""
    return jnp.asarray(image, jnp.float32) / 255


def main() -> None:
    """Run the command."""
    started = time.perf_counter()
    with commandline.bad_input(COMMAND):
        config = commandline.parse(Config, COMMAND)
        run.check(config)
        if config.accelerate:
            cnnjax.accelerate(keep_memory=True)
        folder, flip = Path(config.data), config.flip
        if config.data == "auto":
            folder, flip = DEMONSTRATION, False
            data.write_digits(folder)
            print(f"No --data FOLDER is given: training on handwritten digits, written to {folder}.")
        dataset = data.read_folder(folder, size=config.size, skip_broken=config.skip_broken)
        examples = len(dataset.train["label"])
        ends = run.ends(config, examples=examples, epochs=max(1, round(40_000 / examples)))
        tx = optimiser(config, ends[-1])
        graphdef, state = train.create(build(len(dataset.class_names), config.seed), tx)
        settings = {name: asdict(config)[name] for name in ("size", "batch_size", "learning_rate", "seed")}
        settings |= {"flip": flip, "data": str(folder), "class_names": list(dataset.class_names)}
        begun, state = run.begin(config, "images", state, settings, ends, started)
    if begun is None:
        return
    print(f"{examples} pictures of {', '.join(dataset.class_names)}, run in {begun.path}")
    wrap = run.wrapper(config)
    step = wrap(train.make_train_step(graphdef, tx, make_loss_fn(config.seed, flip=flip)))
    eval_step = wrap(train.make_eval_step(graphdef, metric_fn))

    def test(state: train.TrainState) -> dict[str, float]:
        return train.evaluate(eval_step, state, data.padded(dataset.test, 4 * config.batch_size))

    batches = data.Batches(dataset.train, config.batch_size, seed=config.seed)
    with commandline.interruption(COMMAND, begun.advice()):
        state = run.train_epochs(begun, state, step, batches, test, seed=config.seed, unit="pictures")
    _report(config, dataset, graphdef, state, begun)


def _report(config: Config, dataset: data.Dataset, graphdef: Any, state: train.TrainState, begun: run.Run) -> None:
    """Test the trained model, draw the pictures, write result.json and say how it went."""
    images, labels, names = dataset.test["image"], dataset.test["label"], dataset.class_names
    probabilities = train.predict(graphdef, state, floats(images))
    predictions = probabilities.argmax(1)
    correct, total = int((predictions == labels).sum()), len(labels)
    explain.plot_curve(workdir.read_rows(begun.path)).savefig(begun.path / "learning_curve.png")
    counts = explain.confusion_matrix(labels, predictions, num_classes=len(names))
    explain.plot_confusion(counts, class_names=names).savefig(begun.path / "confusion.png")
    # The surest mistakes first, and where there are none the least sure answers.
    order = np.argsort(np.where(predictions != labels, -1, 1) * probabilities.max(1))[:24]
    titles = [f"{names[labels[i]]}\n{names[predictions[i]]} {probabilities[i].max():.0%}" for i in order]
    explain.plot_pictures(images[order], titles=titles).savefig(begun.path / "hardest.png")
    found = {
        "test_accuracy": correct / total,
        "test_correct": correct,
        "test_total": total,
        "train_examples": len(dataset.train["label"]),
    }
    seconds = run.finish(begun, config, state, found)
    print(f"test accuracy {correct / total:.4f} ({correct}/{total}, {dataset.source}) in {seconds} s")


def load(path: Path) -> tuple[Any, train.TrainState, Mapping[str, Any]]:
    """Read the net of a run, trained as far as its newest checkpoint, and the settings of the run."""
    meta = train.checkpoint.read_meta(path / workdir.CHECKPOINTS)
    if meta is None:
        raise ValueError(f"--workdir must hold a trained run, got {path}. Train one with python -m {COMMAND}.")
    graphdef, state = train.create(build(len(meta["class_names"]), seed=0), optimiser(Config(), steps=1))
    state, _ = train.checkpoint.restore(path / workdir.CHECKPOINTS, state)
    return graphdef, state, meta


if __name__ == "__main__":
    main()
