"""What surrounds the arithmetic of training: the loop, the input, the start.

python -m experiments.bench_training

Prints Markdown; about five minutes on 2 cores.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import cnnjax
from cnnjax import data, models, train
from experiments import classifier, images, mnist

REPEATS = 5


def seconds(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """The median time of a call, without the first."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return median(times[1:])


def overhead() -> None:
    """What a step costs that computes next to nothing: dispatch, batches, metrics."""
    tx = optax.sgd(0.1)
    graphdef, state = train.create(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), tx)
    loss_fn = lambda model, batch, key: (jnp.square(model(batch["x"]))[:, 0], {})  # noqa: E731
    run = train.parallel.jit(train.make_train_step(graphdef, tx, loss_fn))
    batch, steps = {"x": np.ones((8, 1), np.float32)}, 2000
    took = seconds(lambda: train.fit(run, state, lambda step: batch, jax.random.key(0), steps=steps)[0])
    lenet, lenet_state, batches = _lenet()
    whole = seconds(lambda: train.fit(lenet, lenet_state, batches, jax.random.key(0), steps=50)[0]) / 50
    print("| loop | ms a step |\n|---|---|")
    print(f"| `fit`, a step that computes next to nothing | {1e3 * took / steps:.3f} |")
    print(f"| LeNet in `fit`, with `Batches` | {1e3 * whole:.2f} |")


def _lenet(name: str = "lenet") -> tuple[Callable[..., Any], train.TrainState, data.Batches]:
    tx = optax.adamw(1e-3)
    graphdef, state = train.create(mnist.build(name, 0), tx)
    run = train.parallel.jit(train.make_train_step(graphdef, tx, mnist.make_loss_fn(0)))
    dataset = data.load("mnist", "embedded")
    return run, state, data.Batches(dataset.train, 128, seed=0)


def reading() -> None:
    """Examples a second that every way of reading delivers, and that nets eat."""
    from PIL import Image

    print("\n| input, 64x64 colours | pictures a second |\n|---|---|")
    digits = data.load("mnist", "embedded").train["image"][:1000, ..., 0]
    with tempfile.TemporaryDirectory() as folder:
        for number, digit in enumerate(digits):
            noise = np.random.default_rng(number).integers(0, 40, (256, 256, 3)).astype(np.uint8)
            large = np.asarray(Image.fromarray(digit).resize((256, 256)))[..., None] // 2 + noise
            path = Path(folder, str(number % 2), f"{number}.jpg")
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(large).save(path)
        source, _, _ = data.open_folder(folder, size=64)
        everything = {name: np.stack([source[i][name] for i in range(len(source))]) for name in ("image", "label")}
        rows = [dict(zip(everything, arrays, strict=True)) for arrays in zip(*everything.values(), strict=True)]
        print(f"| `Batches`, in memory | {_rate(data.Batches(everything, 32, seed=0)):,.0f} |")
        print(f"| `Stream` of decoded pictures | {_rate(data.Stream(rows, 32, seed=0)):,.0f} |")
        for workers in (0, 1, 2):
            stream = data.Stream(source, 32, seed=0, workers=workers)
            print(f"| `Stream` of JPEGs of 256x256, {workers} workers | {_rate(stream):,.0f} |", flush=True)
    nets = {
        "the ResNet of `experiments.images`": (images.build(2, 0), images.make_loss_fn(0, flip=True), 64),
        "ResNet-18": (models.resnet18(stem="cifar", num_classes=2, rngs=nnx.Rngs(0)), _plain, 64),
    }
    for name, (model, loss_fn, size) in nets.items():
        tx = optax.sgd(0.1)
        graphdef, state = train.create(model, tx)
        run = train.parallel.jit(train.make_train_step(graphdef, tx, loss_fn))
        batch = {"image": np.zeros((32, size, size, 3), np.uint8), "label": np.zeros(32, np.int32)}
        batch["position"] = np.arange(32, dtype=np.uint32)
        took = seconds(functools.partial(run, state, batch, jax.random.key(0)))
        print(f"| {name} takes, in training | {32 / took:,.0f} |", flush=True)


def _plain(model: Any, batch: train.Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    logits = model(jnp.asarray(batch["image"], jnp.float32) / 255, train=True)
    return classifier.judge(logits, batch["label"])


def _rate(batches: Callable[[int], Any], warm: int = 20, count: int = 60) -> float:
    for step in range(warm):
        batches(step)
    start = time.perf_counter()
    for step in range(warm, warm + count):
        batches(step)
    return count * 32 / (time.perf_counter() - start)


def starting() -> None:
    """Imports, and the way to the first step."""
    print("\n| start | seconds |\n|---|---|")
    times: dict[str, list[float]] = {"import flax.nnx": [], "import cnnjax": []}
    # pip compiles what it installs, so the first import, which compiles a checkout, does not count.
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(1 + 4 * REPEATS):
        for line, found in times.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", line], check=True, env=compiled)
            found.append(time.perf_counter() - start)
    for line, found in times.items():
        print(f"| `{line}`, the whole process, the fastest of {4 * REPEATS} | {min(found[1:]):.2f} |")
    for extra in ([], ["--no-accelerate"], ["--no-accelerate"]):
        with tempfile.TemporaryDirectory() as folder:
            options = ["--data", "embedded", "--steps", "3", "--workdir", folder, *extra]
            command = [sys.executable, "-m", "experiments.mnist", *options]
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            whole = time.perf_counter() - start
            result = json.loads(Path(folder, "result.json").read_text())
        said = f"`experiments.mnist{''.join(f' {word}' for word in extra)}` to its first step"
        print(f"| {said} | {result['seconds_to_first_step']:.2f} (all of a run of 3 steps: {whole:.1f}) |", flush=True)


if __name__ == "__main__":
    cnnjax.accelerate(keep_memory=True)
    for part in (overhead, reading, starting):
        part()
