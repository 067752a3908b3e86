"""What training over many devices moves, and what that lets one expect: a ResNet-50 on 256.

python -m experiments.bench_scaling

Compiles a training step under every wrapper of `train.parallel` for eight virtual devices, adds up the collective
operations of the compiled programs, and measures a step on this machine's CPU. Prints Markdown.
"""

import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
import optax
import tyro
from flax import nnx

import cnnjax
from cnnjax import models, train

DEVICES = 8
WRAPPERS = {
    "pmap": "`pmap`",
    "data": "`sharded`, mesh (data: 8)",
    "fsdp": "`sharded`, mesh (fsdp: 8)",
    "both": "`sharded`, mesh (data: 2, fsdp: 4)",
}
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "f64": 8}
# Of the bytes of its result: what each of n devices sends, by a ring.
RING = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: n - 1,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
}
# Bytes a second that a device sends, and seconds a hop.
NETWORKS = [
    ("10 Gbit/s, 20 µs", 1.25e9, 20e-6),
    ("100 Gbit/s, 5 µs", 12.5e9, 5e-6),
    ("400 Gbit/s, 2 µs", 50e9, 2e-6),
]
COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(RING)})(?:-start)?\(.*?replica_groups=(.*?), (?:use_global|dim|to_)")


@dataclass(frozen=True)
class Config:
    """Count what the wrappers move, and predict the training of a ResNet-50 on 256 devices."""

    batch_size: int = 16
    """Pictures a device and step in the measurement."""
    repeats: int = 10
    """Measured steps."""
    child: str | None = None
    """Compile under one wrapper and leave: for the processes that this command starts."""


def make(batch_size: int, size: int) -> tuple[train.TrainState, train.Batch, train.TrainStep]:
    """A ResNet-50 with momentum, a batch, and its training step."""
    tx = optax.sgd(0.1, momentum=0.9)
    graphdef, state = train.create(models.resnet50(rngs=nnx.Rngs(0)), tx)

    def loss_fn(model: models.ResNet, batch: train.Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits = model(batch["image"], train=True)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["label"]), {}

    images = np.random.default_rng(0).normal(size=(batch_size, size, size, 3)).astype(np.float32)
    batch = {"image": images, "label": np.arange(batch_size, dtype=np.int32)}
    return state, batch, train.make_train_step(graphdef, tx, loss_fn)


def compile_one(name: str) -> None:
    """Compile for eight devices; the size of pictures changes nothing that is moved."""
    state, batch, step = make(DEVICES, 64)
    devices = np.array(jax.devices())
    meshes = {
        "data": jax.sharding.Mesh(devices, ("data",)),
        "fsdp": jax.sharding.Mesh(devices, ("fsdp",)),
        "both": jax.sharding.Mesh(devices.reshape(2, 4), ("data", "fsdp")),
    }
    run = train.parallel.pmap(step) if name == "pmap" else train.parallel.sharded(step, meshes[name])
    jax.block_until_ready(run(state, batch, jax.random.key(0)))


def collectives(name: str) -> list[tuple[str, int, int]]:
    """The kind, bytes and number of partners of every collective operation in a compiled step."""
    with tempfile.TemporaryDirectory() as folder:
        flags = f"--xla_force_host_platform_device_count={DEVICES} --xla_dump_to={folder} --xla_dump_hlo_as_text"
        command = [sys.executable, "-m", "experiments.bench_scaling", "--child", name]
        light = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        subprocess.run(command, check=True, env=os.environ | light | {"XLA_FLAGS": flags})
        programs = [path.read_text() for path in Path(folder).glob("*after_optimizations.txt")]
    step = max(programs, key=len)
    found = [match.groups() for line in step.splitlines() if (match := COLLECTIVE.search(line))]
    return [(kind, bytes_of(shape), partners(groups)) for shape, kind, groups in found]


def bytes_of(shape: str) -> int:
    """The bytes of an HLO shape, such as f32[64,3]{1,0} or a tuple of some."""
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", shape)
    return sum(BYTES[dtype] * math.prod(int(n) for n in sizes.split(",") if n) for dtype, sizes in arrays)


def partners(groups: str) -> int:
    """How many devices take part: of {{0,1},{2,3}} 2, of [2,4]<=[8] or mesh['a'=2,'b'=4] {'b'} 4."""
    if groups.startswith("mesh"):
        sizes = dict(re.findall(r"('\w+')=(\d+)", groups))
        axes = groups.split("{")[1].rstrip("}")
        return math.prod(int(sizes[axis]) for axis in axes.split(","))
    if groups.startswith("["):
        return int(groups[1:].split("]")[0].split(",")[1])
    return len(groups.split("}")[0].strip("{").split(","))


def movement(name: str) -> list[tuple[str, int]]:
    """Print the row of a wrapper; the kind and bytes of each operation."""
    found = collectives(name)
    counts, sizes = Counter(kind for kind, _, _ in found), Counter[str]()
    for kind, size, _ in found:
        sizes[kind] += size
    sent = sum(size * RING[kind](n) for kind, size, n in found)
    listed = ", ".join(f"{counts[kind]} {kind} of {sizes[kind] / 1e6:.1f} MB" for kind in sorted(counts))
    print(f"| {WRAPPERS[name]} | {listed} | {sent / 1e6:.0f} MB |", flush=True)
    return [(kind, size) for kind, size, _ in found]


def measured(config: Config) -> tuple[float, float]:
    """Seconds of a forward pass and of a whole step on one device, at 224 pixels."""
    cnnjax.accelerate(keep_memory=True)
    state, batch, step = make(config.batch_size, 224)
    batch = jax.device_put(batch)
    graphdef, _ = train.create(models.resnet50(rngs=nnx.Rngs(0)), optax.sgd(0.0))
    forward = jax.jit(lambda state, images: train.apply(train.merge(graphdef, state), images, train=True))
    run = train.parallel.jit(step)
    return (
        seconds(lambda: forward(state, batch["image"]), config.repeats),
        seconds(lambda: run(state, batch, jax.random.key(0)), config.repeats),
    )


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """The median time of a call, without the first."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return median(times[1:])


def predicted(step: float, sent: float, waits: int, n: int, bandwidth: float, latency: float) -> tuple[float, float]:
    """Seconds of a step on n devices, where nothing that is sent hides behind the computation, and where all does.

    Args:
        step: seconds on one device.
        sent: bytes of gradients; by a ring each device sends 2 (n - 1) / n of them.
        waits: collective operations that the next layer waits for, as synchronised batch-norms are.
        n: number of devices.
        bandwidth: bytes a second that a device sends.
        latency: seconds of one hop; a small all-reduce goes up and down a tree.
    """
    moving = 2 * (n - 1) / n * sent / bandwidth
    waiting = waits * 2 * math.log2(n) * latency
    return step + moving + waiting, max(step, moving) + waiting


def main(config: Config) -> None:
    """Run the command."""
    if config.child is not None:
        compile_one(config.child)
        return
    print("| wrapper | in the compiled step | a device sends |\n|---|---|---|")
    moved = {name: movement(name) for name in WRAPPERS}
    forward, step = measured(config)
    rate = config.batch_size / step
    print(f"\nOne device: forward {forward:.2f} s, step {step:.2f} s, {rate:.1f} pictures/s.\n")
    print("| device, pictures a step | network | nothing hidden | all hidden |\n|---|---|---|---|")
    sent = 4 * sum(leaf.size for leaf in jax.tree.leaves(make(1, 32)[0].params))
    # Those of batch-norm are small; the gradients' may come in any number.
    waits = sum(kind == "all-reduce" and size < 20_000 for kind, size in moved["pmap"])
    for device, batch, one in (("this CPU", config.batch_size, step), ("2,500 pictures/s", 128, 128 / 2500)):
        for network, bandwidth, latency in NETWORKS:
            both = predicted(one, sent, waits, 256, bandwidth, latency)
            cells = " | ".join(f"{256 * batch / t:,.0f} pictures/s, {one / t:.0%}" for t in both)
            print(f"| {device}, {batch} | {network} | {cells} |")


if __name__ == "__main__":
    main(tyro.cli(Config))
