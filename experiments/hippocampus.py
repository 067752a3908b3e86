"""Find the two parts of the hippocampus in MRI volumes: a 3-D U-Net that gives every voxel a class.

python -m experiments.hippocampus --data FOLDER   Task04_Hippocampus of the Medical Segmentation Decathlon
python -m experiments.hippocampus                 volumes made of handwritten digits, in its place
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import cnnjax
from cnnjax import data, explain, models, train
from experiments import classifier, commandline, epochs, run, workdir

COMMAND = "experiments.hippocampus"
STEP = 8  # a volume is filled up to multiples of it, so that one program serves many sizes


@dataclass(frozen=True)
class Config(run.Options):
    """Train a 3-D U-Net on volumes; by default 12 epochs."""

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


def make_loss_fn(seed: int) -> train.LossFn:
    """The loss of boxes, each mirrored left to right or not, brighter or darker."""

    def loss_fn(model: Any, batch: train.Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        image, label = jax.vmap(_changed)(data.keys(seed, batch["position"]), batch["image"], batch["label"])
        logits = train.apply(model, image, train=True, key=key)
        truth = jax.nn.one_hot(label, logits.shape[-1])
        return losses(logits, truth), {"dice": dice(_hard(logits), truth).mean(-1)}

    return loss_fn


def losses(logits: jax.Array, truth: jax.Array) -> jax.Array:
    """Cross-entropy of the voxels plus the Dice loss of the foreground, of each of (N, D, H, W, classes)."""
    entropy = optax.losses.softmax_cross_entropy(logits, truth).mean((1, 2, 3))
    return entropy + optax.losses.dice_loss(logits, truth, ignore_background=True)


def _changed(key: jax.Array, image: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    first, second = jax.random.split(key)
    mirrored = jax.random.bernoulli(first)
    gain, offset = jax.random.uniform(second, (2,), minval=-0.2, maxval=0.2)
    image, label = (jnp.where(mirrored, array[::-1], array) for array in (image, label))
    return image * (1 + gain) + offset, label


def dice(prediction: jax.Array, truth: jax.Array) -> jax.Array:
    """2 |A and B| / (|A| + |B|) of each foreground class (last axis), 1 where neither has a voxel.

    Both are (N, *spatial, classes), 0 or 1. Dice 1945, "Measures of the Amount of Ecologic Association".
    """
    axes = tuple(range(1, truth.ndim - 1))
    prediction, truth = prediction[..., 1:], truth[..., 1:]
    both, total = 2 * (prediction * truth).sum(axes), prediction.sum(axes) + truth.sum(axes)
    return jnp.where(total > 0, both / jnp.maximum(total, 1), 1.0)


def _hard(logits: jax.Array) -> jax.Array:
    return jax.nn.one_hot(logits.argmax(-1), logits.shape[-1])


def look(model: Any, batch: train.Batch) -> dict[str, jax.Array]:
    """What the model finds in whole volumes; what they were filled up with counts as background that was found."""
    logits = train.apply(model, batch["image"], train=False)
    background = 20.0 * jax.nn.one_hot(0, logits.shape[-1])
    logits = jnp.where(batch["inside"][..., None], logits, background)
    truth = jax.nn.one_hot(batch["label"], logits.shape[-1])
    return {"loss": losses(logits, truth), "dice": dice(_hard(logits), truth), "label": logits.argmax(-1)}


def whole(volume: data.Volume) -> train.Batch:
    """A volume as a batch of one, filled up with zeros at its ends to multiples of 8."""
    up = [(0, -n % STEP) for n in volume.label.shape]
    return {
        "image": np.pad(data.standardized(volume.image), up)[None, ..., None],
        "label": np.pad(volume.label, up).astype(np.int32)[None],
        "inside": np.pad(np.ones(volume.label.shape, bool), up)[None],
    }


def main() -> None:
    """Run the command."""
    started = time.perf_counter()
    with commandline.bad_input(COMMAND):
        config = run.check(commandline.parse(Config, COMMAND))
        if not config.widths or min(config.widths) < 1:
            raise ValueError(f"--widths must be numbers of at least 1, got {config.widths}.")
        if config.accelerate:
            cnnjax.accelerate(keep_memory=True)
        with train.processes.first():
            volumes = data.load_hippocampus(config.data)
        ends = run.ends(config, examples=len(volumes.train), epochs=12)
        batches = data.Crops(volumes.train, config.box, config.batch_size, seed=config.seed, share=run.share())
        schedule = run.one_cycle(config, ends[-1])
        tx = optax.adamw(schedule, weight_decay=1e-2)
        graphdef, state = train.create(build(config, len(volumes.class_names)), tx)
        settings = {n: asdict(config)[n] for n in ("batch_size", "learning_rate", "seed")}
        settings |= {"box": list(config.box), "widths": list(config.widths)}
        settings |= {"data": volumes.source, "train_examples": len(volumes.train)}
        begun, state = run.begin(config, "hippocampus", state, settings, ends, started)
    if begun is None:
        return
    print(f"3-D U-Net on {volumes.source}: {len(volumes.train)} volumes, run in {begun.path}")
    step = run.wrapper(config)(train.make_train_step(graphdef, tx, make_loss_fn(config.seed)), donate=True)
    compiled = jax.jit(lambda state, batch: look(train.merge(graphdef, state), batch))

    def looks(state: train.TrainState) -> list[dict[str, np.ndarray]]:
        whole_state = train.parallel.gathered(state)
        return [jax.device_get(compiled(whole_state, whole(volume))) for volume in volumes.test]

    def test(state: train.TrainState) -> dict[str, float]:
        found = looks(state)
        return {name: float(np.mean([one[name] for one in found])) for name in ("dice", "loss")}

    with begun.lock, commandline.interruption(COMMAND, begun.advice()) as asked:
        state = epochs.train_epochs(
            begun, config, state, step, batches, test, asked=asked, best="dice", schedule=schedule, unit="boxes"
        )
        if jax.process_index():
            return
        flop = classifier.flop(train.merge(graphdef, state), jnp.zeros((1, *config.box, 1)))
        _report(config, volumes, looks(state), state, begun, flop)


def _report(
    config: Config,
    volumes: data.Volumes,
    found: list[dict[str, np.ndarray]],
    state: train.TrainState,
    begun: run.Run,
    flop: int,
) -> None:
    """Draw the worst, the median and the best volume, write result.json and say how it went."""
    table = np.concatenate([one["dice"] for one in found])
    order = np.argsort(table.mean(1))
    for name, place in (("worst", order[0]), ("median", order[len(order) // 2]), ("best", order[-1])):
        volume = volumes.test[place]
        label = found[place]["label"][0][tuple(map(slice, volume.label.shape))]
        figure = explain.plot_slices(volume.image, volume.label, label, class_names=volumes.class_names)
        figure.suptitle(f"{volume.name}: Dice {table[place].mean():.3f}, the {name} of {len(table)}")
        figure.savefig(begun.path / f"{name}.png")
    explain.plot_curve(workdir.read_rows(begun.path), metric="dice").savefig(begun.path / "learning_curve.png")
    score = {
        "test_dice": float(table.mean()),
        "test_dice_of_classes": dict(zip(volumes.class_names[1:], table.mean(0).tolist(), strict=True)),
        "test_volumes": len(volumes.test),
    }
    seconds = run.finish(begun, config, state, score, flop)
    print(f"test Dice {table.mean():.4f} ({len(volumes.test)} volumes, {volumes.source}) in {seconds} s")


if __name__ == "__main__":
    main()
