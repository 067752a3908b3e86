"""Train a net on handwritten digits, and leave a checkpoint, a result and pictures behind.

python -m experiments.mnist                      the digits that are there, a small convolutional net
python -m experiments.mnist --data FOLDER        the four original idx files
python -m experiments.mnist --model mlp          the same training without convolutions
"""

import math
import platform
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import cnnjax
from cnnjax import data, explain, models, train
from experiments import commandline, workdir

COMMAND = "experiments.mnist"


@dataclass(frozen=True)
class Config:
    """Train a net on MNIST."""

    data: str = "auto"
    """auto, tfds, embedded, or a FOLDER with the four idx files."""
    model: Literal["lenet", "lenet5", "mlp"] = "lenet"
    """A small net with batch-norm, LeNet-5 of 1998, or a net without convolutions."""
    epochs: int | None = None
    """Passes over the training data; by default 5 of 60,000 digits, more of fewer."""
    batch_size: int = 128
    """Examples a step, over all devices."""
    learning_rate: float = 3e-3
    """Peak of the one-cycle schedule."""
    seed: int = 0
    """Of initial parameters, order, augmentation and dropout."""
    workdir: Path | None = None
    """Folder of the run; by default a new runs/mnist/NUMBER."""
    parallel: Literal["jit", "pmap"] = "jit"
    """One device, or all."""
    accelerate: bool = True
    """On CPU, compute convolution and pooling as cnnjax.accelerate does."""
    resume: bool = False
    """Go on with the run in the workdir."""
    overwrite: bool = False
    """Replace the run in the workdir."""


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
        _check(config)
        workdir.check(config.workdir, resume=config.resume, overwrite=config.overwrite)
        if config.accelerate:
            cnnjax.accelerate(keep_memory=True)
        dataset = data.load("mnist", config.data)
        config = replace(config, epochs=config.epochs or _default_epochs(len(dataset.train["label"])))
        graphdef, state, done, spent = _begin(config, dataset)
        path = config.workdir or workdir.fresh("mnist")
        if config.resume and (path / workdir.RESULT).exists() and done == config.epochs:
            print(f"{path} has finished its {done} epochs already. Train it further with --resume --epochs MORE.")
            return
        if config.resume:
            workdir.keep_rows(path, up_to=int(state.step))
        else:
            workdir.clear(path)
    started -= spent
    print(f"{config.model} on {dataset.source}: {len(dataset.train['label'])} digits, run in {path}")
    with commandline.interruption(COMMAND, f"Finished epochs are kept: go on with --workdir {path} --resume."):
        state = _train(config, dataset, graphdef, state, path, done, started)
    _report(config, dataset, graphdef, state, path, started)


def _check(config: Config) -> None:
    if config.epochs is not None and config.epochs < 1:
        raise ValueError(f"--epochs must be at least 1, got {config.epochs}.")
    if config.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {config.batch_size}.")
    if config.parallel == "pmap" and config.batch_size % jax.device_count():
        raise ValueError(
            f"--batch-size must divide over the devices, got {config.batch_size} for {jax.device_count()}."
            f" Use a multiple of {jax.device_count()}."
        )
    if not (config.learning_rate > 0 and math.isfinite(config.learning_rate)):
        raise ValueError(f"--learning-rate must be a positive number, got {config.learning_rate}.")


def _default_epochs(examples: int) -> int:
    return round(5 * math.sqrt(60_000 / examples))


def _begin(config: Config, dataset: data.Dataset) -> tuple[Any, train.TrainState, int, float]:
    """The first state of a new run, or the last one of the run to resume, its epochs and seconds."""
    steps = _steps(config, dataset, config.epochs)
    graphdef, state = train.create(build(config.model, config.seed), optimiser(config, steps))
    folder = config.workdir / workdir.CHECKPOINTS if config.resume and config.workdir else None
    meta = train.checkpoint.read_meta(folder) if folder else None
    if folder is None or meta is None:
        return graphdef, state, 0, 0.0
    for name, value in {**_identity(config), "data": dataset.source}.items():
        if meta[name] != value:
            raise ValueError(
                f"--resume goes on with the same settings: the run in {config.workdir} has {name} {meta[name]!r},"
                f" got {value!r}. Give the run's own, or start a new one with another --workdir."
            )
    if meta["epochs_done"] > (config.epochs or 0):
        raise ValueError(
            f"--epochs must not be fewer than the run has finished: {config.workdir} has {meta['epochs_done']},"
            f" got {config.epochs}. Give more, or start a new run with another --workdir."
        )
    state, _ = train.checkpoint.restore(folder, state)
    return graphdef, state, meta["epochs_done"], meta["seconds"]


def _identity(config: Config) -> dict[str, Any]:
    """The settings that a run cannot change on its way."""
    return {name: asdict(config)[name] for name in ("model", "batch_size", "learning_rate", "seed")}


def _steps(config: Config, dataset: data.Dataset, epochs: int | None) -> int:
    return math.ceil((epochs or 0) * len(dataset.train["label"]) / config.batch_size)


def _train(
    config: Config,
    dataset: data.Dataset,
    graphdef: Any,
    state: train.TrainState,
    path: Path,
    done: int,
    started: float,
) -> train.TrainState:
    """Train epoch by epoch; after each, test, write the metrics and then the checkpoint."""
    wrap = train.parallel.pmap if config.parallel == "pmap" else train.parallel.jit
    tx = optimiser(config, _steps(config, dataset, config.epochs))
    train_run = wrap(train.make_train_step(graphdef, tx, make_loss_fn(config.seed)))
    eval_run = wrap(train.make_eval_step(graphdef, metric_fn))
    batches = data.Batches(dataset.train, config.batch_size, seed=config.seed)
    key = jax.random.key(config.seed)
    for epoch in range(done + 1, (config.epochs or 0) + 1):
        steps = _steps(config, dataset, epoch) - int(state.step)
        title = f"epoch {epoch}/{config.epochs}"
        state, history = train.fit(train_run, state, batches, key, steps=steps, progress=title, unit="images")
        test = train.evaluate(eval_run, state, data.padded(dataset.test, 4 * config.batch_size))
        seconds = round(time.perf_counter() - started, 2)
        print(f"{title}: test accuracy {test['accuracy']:.4f}, loss {test['loss']:.4f}, {seconds:.1f} s")
        workdir.add_rows(path, _rows(epoch, int(state.step), history, test, seconds))
        meta = {**_identity(config), "data": dataset.source, "epochs_done": epoch, "seconds": seconds}
        train.checkpoint.save(path / workdir.CHECKPOINTS, state, meta)
    return state


def _rows(
    epoch: int, step: int, history: dict[str, np.ndarray], test: dict[str, float], seconds: float
) -> list[dict[str, Any]]:
    """Twenty points of training metrics an epoch, each a mean, and the test metrics at its end."""
    steps = len(history["loss"])
    blocks = np.array_split(np.arange(steps), min(20, steps))
    rows: list[dict[str, Any]] = [
        {"epoch": epoch, "step": step - steps + int(block[-1]) + 1}
        | {name: float(values[block].mean()) for name, values in history.items()}
        for block in blocks
    ]
    rows[-1] |= {"test_loss": test["loss"], "test_accuracy": test["accuracy"], "seconds": seconds}
    return rows


def _report(
    config: Config, dataset: data.Dataset, graphdef: Any, state: train.TrainState, path: Path, started: float
) -> None:
    """Test the trained model, draw the pictures, write result.json and say how it went."""
    images, labels = dataset.test["image"], dataset.test["label"]
    probabilities = train.predict(graphdef, state, images.astype(np.float32) / 255)
    predictions = probabilities.argmax(1)
    correct, total = int((predictions == labels).sum()), len(labels)
    _draw(config, dataset, graphdef, state, path, probabilities)
    seconds = round(time.perf_counter() - started, 1)
    result = {
        "test_accuracy": correct / total,
        "test_correct": correct,
        "test_total": total,
        "train_examples": len(dataset.train["label"]),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "epochs": config.epochs,
        "steps": int(state.step),
        "seconds": seconds,
        "devices": [str(device) for device in jax.devices()],
        "parallel": config.parallel,
        "accelerated": config.accelerate,
        **_identity(config),
        "data": dataset.source,
        "versions": _versions(),
    }
    workdir.write_result(path, result)
    print(f"test accuracy {correct / total:.4f} ({correct}/{total}, {dataset.source}) in {seconds} s")


def _versions() -> dict[str, str]:
    libraries = {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    return {"python": platform.python_version(), "cnnjax": cnnjax.__version__, **libraries}


def _draw(
    config: Config,
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


def _floats(image: jax.Array) -> jax.Array:
    return image.astype(jnp.float32) / 255


if __name__ == "__main__":
    main()
