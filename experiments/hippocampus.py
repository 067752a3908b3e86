"""Find the two parts of the hippocampus in MRI volumes: a 3-D U-Net that gives every voxel a class.

python -m experiments.hippocampus --data FOLDER   Task04_Hippocampus of the Medical Segmentation Decathlon
python -m experiments.hippocampus                 volumes made of handwritten digits, in its place
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import cnnjax
from cnnjax import data, explain, models, train
from experiments import commandline, run, workdir

COMMAND = "experiments.hippocampus"
STEP = 8  # a volume is filled up to multiples of it, so that one program serves many sizes


@dataclass(frozen=True)
class Config(run.Options):
    """Train a 3-D U-Net on volumes; by default 20 epochs."""

    data: str = "auto"
    """auto or embedded (volumes made of digits), or a FOLDER with imagesTr and labelsTr."""
    box: tuple[int, int, int] = (32, 40, 32)
    """Voxels of the boxes that are cut out of the volumes for training."""
    widths: tuple[int, ...] = (16, 32, 64, 128)
    """Channels of the net's levels."""
    batch_size: int = 4
    """Boxes a step, over all devices."""
    learning_rate: float = 3e-3
    """Peak of the one-cycle schedule."""


def build(config: Config, classes: int) -> models.UNet:
    """Make the untrained net."""
    return models.unet3d(
        channels=1, num_classes=classes, widths=config.widths, norm="batch", rngs=nnx.Rngs(config.seed)
    )


def optimiser(config: Config, steps: int) -> optax.GradientTransformation:
    """AdamW under a one-cycle schedule over all steps."""
    schedule = optax.schedules.cosine_onecycle_schedule(max(steps, 1), config.learning_rate, pct_start=0.2)
    return optax.adamw(schedule, weight_decay=1e-2)


def make_loss_fn(seed: int) -> train.LossFn:
    """Cross-entropy of the voxels plus the Dice loss of the foreground, of boxes mirrored left to right or not."""

    def loss_fn(model: Any, batch: train.Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        keys = jax.vmap(lambda position: jax.random.fold_in(jax.random.key(seed), position))(batch["position"])
        image, label = jax.vmap(_changed)(keys, batch["image"], batch["label"])
        logits = train.apply(model, image, train=True, key=key)
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, label).mean((1, 2, 3))
        truth = jax.nn.one_hot(label, logits.shape[-1])
        losses += optax.losses.dice_loss(logits, truth, ignore_background=True)
        return losses, {"dice": dice(_hard(logits), truth)}

    return loss_fn


def _changed(key: jax.Array, image: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    first, second = jax.random.split(key)
    mirrored = jax.random.bernoulli(first)
    gain, offset = jax.random.uniform(second, (2,), minval=-0.2, maxval=0.2)
    image, label = (jnp.where(mirrored, array[::-1], array) for array in (image, label))
    return image * (1 + gain) + offset, label


def dice(prediction: jax.Array, truth: jax.Array) -> jax.Array:
    """2 |A and B| / (|A| + |B|), of each foreground class (last axis), then their mean; 1 where neither has a voxel.

    Both are (N, *spatial, classes): shares of each voxel. Dice 1945, "Measures of the Amount of Ecologic Association".
    """
    axes = tuple(range(1, truth.ndim - 1))
    prediction, truth = prediction[..., 1:], truth[..., 1:]
    both, total = 2 * (prediction * truth).sum(axes), prediction.sum(axes) + truth.sum(axes)
    return ((both + 1e-3) / (total + 1e-3)).mean(-1)


def _hard(logits: jax.Array) -> jax.Array:
    return jax.nn.one_hot(logits.argmax(-1), logits.shape[-1])


def metric_fn(model: Any, batch: train.Batch) -> dict[str, jax.Array]:
    """Loss and Dice of whole volumes; what they were filled up with counts as background that was found."""
    logits = train.apply(model, batch["image"], train=False)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    inside = batch["inside"]
    truth = jax.nn.one_hot(batch["label"], logits.shape[-1])
    losses = (losses * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3))
    return {"loss": losses, "dice": dice(_hard(logits) * inside[..., None], truth)}


def whole(volumes: Sequence[data.Volume]) -> Iterator[train.Batch]:
    """Every volume as a batch of one, filled up with zeros at its ends to multiples of 8."""
    for volume in volumes:
        up = [(0, -n % STEP) for n in volume.label.shape]
        yield {
            "image": np.pad(data.standardized(volume.image), up)[None, ..., None],
            "label": np.pad(volume.label, up).astype(np.int32)[None],
            "inside": np.pad(np.ones(volume.label.shape, np.float32), up)[None],
            "mask": np.ones(1, bool),
        }


def main() -> None:
    """Run the command."""
    started = time.perf_counter()
    with commandline.bad_input(COMMAND):
        config = commandline.parse(Config, COMMAND)
        run.check(config)
        if config.accelerate:
            cnnjax.accelerate(keep_memory=True)
        volumes = data.load_hippocampus(config.data)
        ends = run.ends(config, examples=len(volumes.train), epochs=20)
        batches = data.Crops(volumes.train, config.box, config.batch_size, seed=config.seed)
        tx = optimiser(config, ends[-1])
        graphdef, state = train.create(build(config, len(volumes.class_names)), tx)
        settings = {n: asdict(config)[n] for n in ("batch_size", "learning_rate", "seed")}
        settings |= {"box": list(config.box), "widths": list(config.widths), "data": volumes.source}
        begun, state = run.begin(config, "hippocampus", state, settings, ends, started)
    if begun is None:
        return
    print(f"3-D U-Net on {volumes.source}: {len(volumes.train)} volumes, run in {begun.path}")
    step = run.wrapper(config)(train.make_train_step(graphdef, tx, make_loss_fn(config.seed)))
    eval_step = train.parallel.jit(train.make_eval_step(graphdef, metric_fn))

    def test(state: train.TrainState) -> dict[str, float]:
        return train.evaluate(eval_step, state, whole(volumes.test))

    with commandline.interruption(COMMAND, begun.advice()):
        state = run.train_epochs(begun, state, step, batches, test, seed=config.seed, unit="boxes")
    _report(config, volumes, graphdef, state, begun)


def _report(config: Config, volumes: data.Volumes, graphdef: Any, state: train.TrainState, begun: run.Run) -> None:
    """Measure every held-out volume, draw the worst, the median and the best, and write result.json."""
    predict = jax.jit(lambda state, image: train.apply(train.merge(graphdef, state), image, train=False).argmax(-1))
    scores, predictions = [], []
    for volume, batch in zip(volumes.test, whole(volumes.test), strict=True):
        found = np.asarray(predict(state, batch["image"]))[0][tuple(map(slice, volume.label.shape))]
        predictions.append(found)
        scores.append([_dice_of(found == k, volume.label == k) for k in range(1, len(volumes.class_names))])
    table = np.array(scores)
    order = np.argsort(table.mean(1))
    for name, place in (("worst", order[0]), ("median", order[len(order) // 2]), ("best", order[-1])):
        volume = volumes.test[place]
        figure = explain.plot_slices(volume.image, volume.label, predictions[place], class_names=volumes.class_names)
        figure.suptitle(f"{volume.name}: Dice {table[place].mean():.3f}, the {name} of {len(table)}")
        figure.savefig(begun.path / f"{name}.png")
    explain.plot_curve(workdir.read_rows(begun.path), metric="dice").savefig(begun.path / "learning_curve.png")
    mean = float(table.mean())
    found = {
        "test_dice": mean,
        "test_dice_of_classes": dict(zip(volumes.class_names[1:], table.mean(0).tolist(), strict=True)),
        "test_volumes": len(volumes.test),
        "train_examples": len(volumes.train),
    }
    seconds = run.finish(begun, config, state, found)
    print(f"test Dice {mean:.4f} ({len(volumes.test)} volumes, {volumes.source}) in {seconds} s")


def _dice_of(prediction: np.ndarray, truth: np.ndarray) -> float:
    total = int(prediction.sum() + truth.sum())
    return 2 * int((prediction & truth).sum()) / total if total else 1.0


if __name__ == "__main__":
    main()
