"""What the experiments that classify share: the loss and metrics, training on a data set, the report."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from cnnjax import data, explain, train
from experiments import commandline, epochs, run, workdir

Inputs = Callable[[Any], jax.Array]
"""Turns examples as they are stored into what the model takes."""


def judge(logits: jax.Array, label: jax.Array, *, smoothing: float = 0.0) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross-entropy with smoothed labels, and whether the largest logit is right, of each example."""
    target = optax.smooth_labels(jax.nn.one_hot(label, logits.shape[-1]), smoothing)
    return optax.losses.softmax_cross_entropy(logits, target), {"accuracy": logits.argmax(-1) == label}


def make_metric_fn(inputs: Inputs, name: str = "image") -> train.MetricFn:
    """Loss and accuracy of examples as they are."""

    def metric_fn(model: Any, batch: train.Batch) -> dict[str, jax.Array]:
        loss, metrics = judge(train.apply(model, inputs(batch[name]), train=False), batch["label"])
        return {"loss": loss, **metrics}

    return metric_fn


def fit(
    begun: run.Run,
    options: run.Options,
    dataset: data.Dataset,
    state: train.TrainState,
    step: Callable[..., Any],
    eval_step: Callable[..., Any],
    *,
    asked: commandline.Asked,
    schedule: optax.Schedule,
    unit: str,
    batches: Callable[[int], train.Batch] | None = None,
) -> train.TrainState:
    """Train on the one part of a data set, or on batches of more than memory holds, and after each epoch test."""
    wrap = run.wrapper(options)
    step, eval_step = wrap(step, donate=True), wrap(eval_step)
    at_once = options.batch_size * max(1, 512 // options.batch_size)

    def test(state: train.TrainState) -> dict[str, float]:
        return train.evaluate(eval_step, state, data.padded(dataset.test, at_once, share=run.share()))

    batches = batches or data.Batches(dataset.train, options.batch_size, seed=options.seed, share=run.share())
    return epochs.train_epochs(
        begun, options, state, step, batches, test, asked=asked, best="accuracy", schedule=schedule, unit=unit
    )


def probabilities(graphdef: Any, state: train.TrainState, examples: np.ndarray, inputs: Inputs) -> np.ndarray:
    """Compute the (N, K) class probabilities of examples as they are stored, some at a time."""
    chunks = (examples[start : start + 500] for start in range(0, len(examples), 500))
    return np.concatenate([train.predict(graphdef, state, inputs(chunk)) for chunk in chunks])


def flop(model: nnx.Module, inputs: jax.Array) -> int:
    """Floating-point operations of an example in training: two a product, and three passes of the same size."""
    return 3 * 2 * explain.summary(model, inputs).multiply_adds // len(inputs)


def report(
    begun: run.Run,
    options: run.Options,
    dataset: data.Dataset,
    state: train.TrainState,
    probabilities: np.ndarray,
    flop: int,
) -> None:
    """Draw the learning curve and the confusion matrix, write result.json and say how it went."""
    label, names = dataset.test["label"], dataset.class_names
    predictions = probabilities.argmax(1)
    explain.plot_curve(workdir.read_rows(begun.path)).savefig(begun.path / "learning_curve.png")
    counts = explain.confusion_matrix(label, predictions, num_classes=len(names))
    explain.plot_confusion(counts, class_names=names).savefig(begun.path / "confusion.png")
    correct, total = int((predictions == label).sum()), len(label)
    found = {"test_accuracy": correct / total, "test_correct": correct, "test_total": total}
    seconds = run.finish(begun, options, state, found, flop)
    print(f"test accuracy {correct / total:.4f} ({correct}/{total}, {dataset.source}) in {seconds} s")
