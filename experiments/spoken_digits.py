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
from experiments import classifier, commandline, run

COMMAND = "experiments.spoken_digits"
WEIGHT_DECAY = 5e-2
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


def make_loss_fn(seed: int) -> train.LossFn:
    """Cross-entropy of recordings, each played a little faster or slower, earlier or later, and in faint noise."""

    def loss_fn(model: Any, batch: train.Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        changed = jax.vmap(_changed)(data.keys(seed, batch["position"]), scaled(batch["audio"]))
        return classifier.judge(train.apply(model, changed, train=True, key=key), batch["label"], smoothing=0.1)

    return loss_fn


def _changed(key: jax.Array, sound: jax.Array) -> jax.Array:
    first, second, third = jax.random.split(key, 3)
    sound = data.stretch(first, sound, rate=0.15, shift=RATE / 10)
    return sound + 0.1 * jax.random.uniform(second) * jax.random.normal(third, sound.shape)


def scaled(audio: Any) -> jax.Array:
    """Sounds (N, L, 1) at one loudness: a root mean square of 1."""
    sound = jnp.asarray(audio, jnp.float32)
    return sound * jax.lax.rsqrt(jnp.square(sound).mean((1, 2), keepdims=True) + 1.0)


def main() -> None:
    """Run the command."""
    started = time.perf_counter()
    with commandline.bad_input(COMMAND):
        config = run.check(commandline.parse(Config, COMMAND))
        if config.width < 1:
            raise ValueError(f"--width must be at least 1, got {config.width}.")
        if config.accelerate:
            cnnjax.accelerate(keep_memory=True)
        with train.processes.first():
            dataset = data.load("spoken_digits", config.data)
        examples = len(dataset.train["label"])
        ends = run.ends(config, examples=examples, epochs=40)
        schedule = run.one_cycle(config, ends[-1])
        tx = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)
        graphdef, state = train.create(build(config), tx)
        settings = {name: asdict(config)[name] for name in ("width", "batch_size", "learning_rate", "seed")}
        settings |= {"data": dataset.source, "train_examples": examples}
        begun, state = run.begin(config, "spoken_digits", state, settings, ends, started)
    if begun is None:
        return
    print(f"1-D net on {dataset.source}: {examples} sounds, run in {begun.path}")
    step = train.make_train_step(graphdef, tx, make_loss_fn(config.seed))
    eval_step = train.make_eval_step(graphdef, classifier.make_metric_fn(scaled, "audio"))
    with begun.lock, commandline.interruption(COMMAND, begun.advice()) as asked:
        state = classifier.fit(
            begun, config, dataset, state, step, eval_step, asked=asked, schedule=schedule, unit="sounds"
        )
        if jax.process_index():
            return
        probabilities = classifier.probabilities(graphdef, state, dataset.test["audio"], scaled)
        model: Any = train.merge(graphdef, state)
        explain.plot_spectra(model.stem.kernel[...], rate=RATE).savefig(begun.path / "filters.png")
        flop = classifier.flop(model, scaled(dataset.train["audio"][:1]))
        classifier.report(begun, config, dataset, state, probabilities, flop)


if __name__ == "__main__":
    main()
