"""Learn CIFAR-10 twice: with little arithmetic, and with a ResNet-18 for reference.

python -m experiments.cifar10                       SpeedNet, 0.3 PFLOP
python -m experiments.cifar10 --recipe resnet18     a ResNet-18 for reference, 18 times the arithmetic
python -m experiments.cifar10 --data FOLDER         the six binary batches, or JPEGs
"""

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import cnnjax
from cnnjax import data, explain, models, ops, train
from cnnjax.data.cifar10 import STAND_IN
from experiments import classifier, commandline, run, workdir

COMMAND = "experiments.cifar10"
GOAL = 0.94
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training pictures, in [0, 1]


@dataclass(frozen=True)
class Config(run.Options):
    """Train a net on CIFAR-10; by default 8 epochs of the speed recipe, or 30 of the ResNet."""

    data: str = "auto"
    """auto, tfds, embedded (digits in its place), or a FOLDER with the six binary batches or two files of JPEGs."""
    recipe: Literal["speed", "resnet18"] = "speed"
    """SpeedNet with Muon, or ResNet-18 with plain momentum."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the computation; bfloat16 on GPU and TPU."""
    batch_size: int = 2000
    """Examples a step, over all devices."""
    learning_rate: float = 0.24
    """Peak of the schedule, of the convolutions' kernels."""
    ema_decay: float | None = None
    """Test with a moving average of the parameters that keeps this share a step, such as 0.9; by default without."""


def build(config: Config, images: np.ndarray) -> nnx.Module:
    """Make the untrained net; the first layer of a SpeedNet is computed from some of the training pictures."""
    options: dict[str, Any] = {"dtype": jnp.dtype(config.precision), "rngs": nnx.Rngs(config.seed)}
    if config.recipe == "resnet18":
        return models.resnet18(stem="cifar", num_classes=10, **options)
    # From all over the training pictures: files may be sorted by class.
    kernel = models.whitening_kernel(np.asarray(normalized(images[:: max(1, len(images) // 5000)])))
    return models.SpeedNet(whitening=kernel, **options)


def schedule(config: Config, steps: int) -> optax.Schedule:
    """The learning rate of the kernels of convolutions."""
    if config.recipe == "resnet18":
        return run.one_cycle(config, steps)
    return optax.schedules.linear_schedule(config.learning_rate, 0.0, max(steps, 1))


def optimiser(config: Config, steps: int) -> optax.GradientTransformation:
    """The recipe's optimiser, with a learning rate that falls to zero over all steps."""
    if config.recipe == "resnet18":
        falling = schedule(config, steps)
        return optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(falling, momentum=0.9, nesterov=True))
    return speed_optimiser(config.learning_rate, config.batch_size, steps)


def speed_optimiser(learning_rate: float, batch_size: int, steps: int) -> optax.GradientTransformation:
    """Muon for the convolutions' kernels, which keep their length; momentum for everything else.

    The whitened patches' bias is trained for three eighths of the steps. Jordan 2024, "Muon: An optimizer for hidden
    layers in neural networks", and the same author's record of CIFAR-10; his loss is a sum over the batch, here a mean.
    """

    def momentum(rate: float, steps: int) -> optax.GradientTransformation:
        falling = optax.schedules.linear_schedule(rate, 0.0, max(steps, 1))
        decay = optax.add_decayed_weights(2e-6 * batch_size / rate)
        return optax.chain(optax.scale(batch_size), decay, optax.sgd(falling, momentum=0.85, nesterov=True))

    axes = optax.contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
    muon = optax.chain(
        optax.contrib.scale_by_muon(
            ns_steps=3,
            beta=0.6,
            weight_dimension_numbers=lambda tree: jax.tree.map(lambda leaf: axes, tree),
        ),
        optax.scale_by_learning_rate(optax.schedules.linear_schedule(learning_rate, 0.0, max(steps, 1))),
        optax.stateless(_at_one_length),
    )
    return optax.partition(
        {
            "kernel": muon,
            "output": momentum(0.67, steps),
            "bias": momentum(0.053, steps),
            "first bias": momentum(0.053, round(steps * 3 / 8)),
        },
        lambda params: jax.tree_util.tree_map_with_path(_group, params),
    )


def _group(path: tuple[Any, ...], leaf: jax.Array) -> str:
    names = [str(getattr(entry, "key", entry)) for entry in path]
    if names == ["bias"]:
        return "first bias"
    return "output" if names[0] == "output" else names[-1]


def _at_one_length(updates: Any, params: Any) -> Any:
    """Let the updates also bring each kernel to a root mean square length of 1 a filter before they are added."""

    def updated(update: jax.Array, kernel: jax.Array) -> jax.Array:
        return update + kernel * (math.sqrt(kernel.shape[-1]) / jnp.linalg.norm(kernel) - 1)

    return jax.tree.map(updated, updates, params)


def make_loss_fn(config: Config, examples: int) -> train.LossFn:
    """Cross-entropy of moved and mirrored pictures, with smoothed labels."""
    shift, smoothing = (2, 0.2) if config.recipe == "speed" else (4, 0.0)

    def changed(key: jax.Array, position: jax.Array, number: jax.Array, image: jax.Array) -> jax.Array:
        # Mirrored in every other epoch, the first one drawn: all pictures are seen both ways every two epochs.
        first = jax.random.bernoulli(jax.random.fold_in(key, number)).astype(jnp.uint32)
        mirrored = (first + position // examples) % 2 == 1
        image = jnp.where(mirrored, image[:, ::-1], image)
        start = jax.random.randint(jax.random.fold_in(key, position), (2,), 0, 2 * shift + 1)
        size = (image.shape[0] - 2 * shift, image.shape[1] - 2 * shift, 3)
        return jax.lax.dynamic_slice(image, (*start, 0), size)

    def loss_fn(model: Any, batch: train.Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        images = ops.pad(normalized(batch["image"]), shift, mode="reflect")
        drawn = jax.vmap(changed, (None, 0, 0, 0))
        images = drawn(jax.random.key(config.seed), batch["position"], batch["number"], images)
        logits = train.apply(model, images, train=True, key=key)
        return classifier.judge(logits, batch["label"], smoothing=smoothing)

    return loss_fn


def metric_fn(model: Any, batch: train.Batch) -> dict[str, jax.Array]:
    """Loss and accuracy of pictures as they are; and the accuracy where each is looked at six times."""
    once, six_times = looks(model, normalized(batch["image"]))
    losses, metrics = classifier.judge(once, batch["label"])
    return {"loss": losses, **metrics, "accuracy_of_six": six_times.argmax(-1) == batch["label"]}


def looks(model: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The logits of pictures, and means over six looks.

    Half the mean are a picture and its mirror image, the other half both of them a pixel up and left, and a pixel down
    and right.
    """

    def look(images: jax.Array) -> jax.Array:
        return train.apply(model, images, train=False)

    def mirrored(images: jax.Array) -> jax.Array:
        return look(images[:, :, ::-1])

    once, padded = look(images), ops.pad(images, 1, mode="reflect")
    moved = [padded[:, :-2, :-2], padded[:, 2:, 2:]]
    return once, (once + mirrored(images)) / 4 + sum(look(x) + mirrored(x) for x in moved) / 8


def normalized(image: Any) -> jax.Array:
    """Pictures with mean 0 and deviation 1 a channel, over the training pictures of CIFAR-10."""
    return (jnp.asarray(image, jnp.float32) / 255 - jnp.array(MEAN)) / jnp.array(DEVIATION)


def main() -> None:
    """Run the command."""
    started = time.perf_counter()
    with commandline.bad_input(COMMAND):
        config = run.check(commandline.parse(Config, COMMAND))
        if config.ema_decay is not None and not 0 <= config.ema_decay < 1:
            raise ValueError(f"--ema-decay must be in [0, 1), got {config.ema_decay}.")
        if config.accelerate:
            cnnjax.accelerate(keep_memory=True)
        with train.processes.first():
            dataset = data.load("cifar10", config.data)
        examples = len(dataset.train["label"])
        ends = run.ends(config, examples=examples, epochs=8 if config.recipe == "speed" else 30)
        tx = optimiser(config, ends[-1])
        model = build(config, dataset.train["image"])
        graphdef, state = train.create(model, tx, ema=config.ema_decay is not None)
        names = ("recipe", "precision", "batch_size", "learning_rate", "ema_decay", "seed")
        settings = {name: asdict(config)[name] for name in names}
        settings |= {"data": dataset.source, "train_examples": examples}
        begun, state = run.begin(config, "cifar10", state, settings, ends, started)
    if begun is None:
        return
    print(f"{config.recipe} on {dataset.source}: {examples} pictures, run in {begun.path}")
    step = train.make_train_step(graphdef, tx, make_loss_fn(config, examples), ema_decay=config.ema_decay)
    eval_step = train.make_eval_step(graphdef, metric_fn)
    numbered = replace(dataset, train=dataset.train | {"number": np.arange(examples, dtype=np.uint32)})
    with begun.lock, commandline.interruption(COMMAND, begun.advice()) as asked:
        falling = schedule(config, ends[-1])
        state = classifier.fit(
            begun, config, numbered, state, step, eval_step, asked=asked, schedule=falling, unit="images"
        )
        if jax.process_index():
            return
        _report(config, dataset, train.merge(graphdef, state), state, begun)


def _report(config: Config, dataset: data.Dataset, model: Any, state: train.TrainState, begun: run.Run) -> None:
    """Draw the pictures, write result.json and say how it went, with the arithmetic that it took."""
    rows = [row for row in workdir.read_rows(begun.path) if "test_accuracy" in row]
    flop = classifier.flop(model, normalized(dataset.train["image"][:1]))
    scores = [max(row["test_accuracy"], row["test_accuracy_of_six"]) for row in rows]
    reached = [row["step"] for row, score in zip(rows, scores, strict=True) if score >= GOAL]
    found = {
        "test_accuracy": rows[-1]["test_accuracy"],
        "test_accuracy_of_six": rows[-1]["test_accuracy_of_six"],
        "test_total": len(dataset.test["label"]),
        "pflop": flop * config.batch_size * int(state.step) / 1e15,
    }
    if dataset.source != STAND_IN:
        found["pflop_to_94_percent"] = flop * config.batch_size * reached[0] / 1e15 if reached else None
    explain.plot_curve(workdir.read_rows(begun.path)).savefig(begun.path / "learning_curve.png")
    first = model.whitening if isinstance(model, models.SpeedNet) else model.stem.kernel
    explain.plot_filters(np.asarray(first[...])).savefig(begun.path / "filters.png")
    seconds = run.finish(begun, config, state, found, flop)
    print(
        f"test accuracy {found['test_accuracy']:.4f}, looked at six times {found['test_accuracy_of_six']:.4f}"
        f" ({dataset.source}), {found['pflop']:.3f} PFLOP in {seconds} s"
    )


if __name__ == "__main__":
    main()
