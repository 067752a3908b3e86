"""Recognise spoken digits from the waveform alone: a 1-D residual net, without a spectrogram.

python -m experiments.spoken_digits                 the recordings that are there, or telephone tones
python -m experiments.spoken_digits --data FOLDER   recordings such as 7_jackson_32.wav
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import cnnjax
from cnnjax import data, explain, models, train
from experiments import commandline, run, workdir

COMMAND = "experiments.spoken_digits"
RATE = 8000  # samples a second


@dataclass(frozen=True)
class Config(run.Options):
    """Train a 1-D net on spoken digits; by default 40 epochs."""

    data: str = "auto"
    """auto, tfds, embedded (telephone tones), or a FOLDER with recordings."""
    width: int = 32
    """Channels of the first stage."""
    batch_size: int = 64
    """Examples a step, over all devices."""
    learning_rate: float = 4e-3
    """Peak of the one-cycle schedule."""


def build(config: Config) -> models.ResNet1d:
    """Make the untrained net."""
    return models.ResNet1d(blocks=(1, 1, 1, 1), width=config.width, rngs=nnx.Rngs(config.seed))


def optimiser(config: Config, steps: int) -> optax.GradientTransformation:
    """AdamW under a one-cycle schedule over all steps."""
    schedule = optax.schedules.cosine_onecycle_schedule(max(steps, 1), config.learning_rate, pct_start=0.2)
    return optax.adamw(schedule, weight_decay=5e-2)


def make_loss_fn(seed: int) -> train.LossFn:
    """Cross-entropy of recordings, each played a little faster or slower, earlier or later, and in faint noise."""

    def loss_fn(model: Any, batch: train.Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        # A key for every place in the stream of examples: the same changes, however many devices share the batch.
        keys = jax.vmap(lambda position: jax.random.fold_in(jax.random.key(seed), position))(batch["position"])
        logits = train.apply(model, jax.vmap(_changed)(keys, scaled(batch["audio"])), train=True, key=key)
        smooth = optax.smooth_labels(jax.nn.one_hot(batch["label"], logits.shape[-1]), 0.1)
        return optax.losses.softmax_cross_entropy(logits, smooth), {"accuracy": logits.argmax(-1) == batch["label"]}

    return loss_fn


def _changed(key: jax.Array, sound: jax.Array) -> jax.Array:
    first, second, third = jax.random.split(key, 3)
    sound = data.stretch(first, sound, rate=0.15, shift=RATE / 10)
    return sound + 0.1 * jax.random.uniform(second) * jax.random.normal(third, sound.shape)


def metric_fn(model: Any, batch: train.Batch) -> dict[str, jax.Array]:
    """Loss and accuracy of recordings as they are."""
    logits = train.apply(model, scaled(batch["audio"]), train=False)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return {"loss": losses, "accuracy": logits.argmax(-1) == batch["label"]}


def scaled(audio: Any) -> jax.Array:
    """Sounds (N, L, 1) at one loudness: a root mean square of 1."""
    sound = jnp.asarray(audio, jnp.float32)
    return sound * jax.lax.rsqrt(jnp.square(sound).mean((1, 2), keepdims=True) + 1.0)


def main() -> None:
    """Run the command."""
    started = time.perf_counter()
    with commandline.bad_input(COMMAND):
        config = commandline.parse(Config, COMMAND)
        run.check(config)
        if config.width < 1:
            raise ValueError(f"--width must be at least 1, got {config.width}.")
        if config.accelerate:
            cnnjax.accelerate(keep_memory=True)
        dataset = data.load("spoken_digits", config.data)
        examples = len(dataset.train["label"])
        ends = run.ends(config, examples=examples, epochs=40)
        tx = optimiser(config, ends[-1])
        graphdef, state = train.create(build(config), tx)
        settings = {name: asdict(config)[name] for name in ("width", "batch_size", "learning_rate", "seed")}
        settings["data"] = dataset.source
        begun, state = run.begin(config, "spoken_digits", state, settings, ends, started)
    if begun is None:
        return
    print(f"1-D net on {dataset.source}: {examples} sounds, run in {begun.path}")
    wrap = run.wrapper(config)
    step = wrap(train.make_train_step(graphdef, tx, make_loss_fn(config.seed)))
    eval_step = wrap(train.make_eval_step(graphdef, metric_fn))

    def test(state: train.TrainState) -> dict[str, float]:
        return train.evaluate(eval_step, state, data.padded(dataset.test, 4 * config.batch_size))

    batches = data.Batches(dataset.train, config.batch_size, seed=config.seed)
    with commandline.interruption(COMMAND, begun.advice()):
        state = run.train_epochs(begun, state, step, batches, test, seed=config.seed, unit="sounds")
    _report(config, dataset, graphdef, state, begun)


def _report(config: Config, dataset: data.Dataset, graphdef: Any, state: train.TrainState, begun: run.Run) -> None:
    """Test the trained model, draw the pictures, write result.json and say how it went."""
    labels = dataset.test["label"]
    predictions = train.predict(graphdef, state, scaled(dataset.test["audio"])).argmax(1)
    correct, total = int((predictions == labels).sum()), len(labels)
    explain.plot_curve(workdir.read_rows(begun.path)).savefig(begun.path / "learning_curve.png")
    counts = explain.confusion_matrix(labels, predictions, num_classes=len(dataset.class_names))
    explain.plot_confusion(counts, class_names=dataset.class_names).savefig(begun.path / "confusion.png")
    model: Any = train.merge(graphdef, state)
    explain.plot_spectra(model.stem.kernel[...], rate=RATE).savefig(begun.path / "filters.png")
    found = {
        "test_accuracy": correct / total,
        "test_correct": correct,
        "test_total": total,
        "train_examples": len(dataset.train["label"]),
    }
    seconds = run.finish(begun, config, state, found)
    print(f"test accuracy {correct / total:.4f} ({correct}/{total}, {dataset.source}) in {seconds} s")


if __name__ == "__main__":
    main()
