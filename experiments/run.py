"""A run of an experiment: the options that all experiments share, its epochs, and what it leaves behind."""

import bisect
import dataclasses
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import numpy as np
import optax

import cnnjax
from cnnjax import train
from experiments import workdir


@dataclass(frozen=True)
class Options:
    """What every experiment takes; it adds its own and sets its defaults."""

    epochs: int | None = None
    """Passes over the training data; by default as many as the experiment needs."""
    steps: int | None = None
    """Stop after so many steps: a short run to see that everything works."""
    batch_size: int = 128
    """Examples a step, over all devices."""
    learning_rate: float = 1e-3
    """Peak of the schedule."""
    seed: int = 0
    """Of initial parameters, order, augmentation and dropout."""
    workdir: Path | None = None
    """Folder of the run; by default a new runs/EXPERIMENT/NUMBER."""
    parallel: Literal["jit", "pmap", "sharded"] = "jit"
    """One device; or all, each with the whole net, or with its share of it."""
    coordinator: str | None = None
    """Where several processes train as one: HOST:PORT of process 0; or auto, on a cluster that JAX detects."""
    num_processes: int | None = None
    """How many processes."""
    process_id: int | None = None
    """The number of this one, from 0; 0 alone reports and writes."""
    accelerate: bool = True
    """On CPU, compute convolution and pooling as cnnjax.accelerate does."""
    resume: bool = False
    """Go on with the run in the workdir."""
    overwrite: bool = False
    """Replace the run in the workdir."""


Config = TypeVar("Config", bound=Options)


@dataclass(frozen=True)
class Run:
    """A run that may begin or go on.

    Args:
        path: its folder.
        settings: what it may not change on its way, as the checkpoints hold it.
        ends: the steps at which its epochs end.
        started: when it would have begun, had it never been stopped; as time.perf_counter.
    """

    path: Path
    settings: Mapping[str, Any]
    ends: tuple[int, ...]
    started: float

    def epochs_done(self, step: int) -> int:
        """How many epochs have ended at a step."""
        return bisect.bisect_right(self.ends, step)

    def seconds(self) -> float:
        """How long it has run, without the pauses between being stopped and resumed."""
        return round(time.perf_counter() - self.started, 2)

    def advice(self) -> str:
        """What to tell whoever interrupts it."""
        return f"Finished epochs are kept: go on with the same options and --workdir {self.path} --resume."


def check(options: Config) -> Config:
    """Refuse options that no experiment can run with, and a workdir whose contents would be lost; write nothing.

    Where there are several processes, it first joins them.

    Returns:
        The options; of a run to be resumed without --epochs, with the epochs that it was begun with.
    """
    _join(options)
    for name, value in (("epochs", options.epochs), ("steps", options.steps), ("batch-size", options.batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}.")
    devices = jax.process_count() if options.parallel == "jit" else jax.device_count()
    if options.batch_size % devices:
        raise ValueError(
            f"--batch-size must divide over the devices, got {options.batch_size} for {devices}."
            f" Use a multiple of {devices}."
        )
    if not (options.learning_rate > 0 and math.isfinite(options.learning_rate)):
        raise ValueError(f"--learning-rate must be a positive number, got {options.learning_rate}.")
    workdir.check(options.workdir, resume=options.resume, overwrite=options.overwrite)
    if options.resume and options.workdir and options.epochs is None and options.steps is None:
        meta = train.checkpoint.read_meta(options.workdir / workdir.CHECKPOINTS) or {}
        return dataclasses.replace(options, epochs=meta.get("epochs"))
    return options


def _join(options: Options) -> None:
    given = (options.coordinator, options.num_processes, options.process_id)
    if all(option is None for option in given):
        return
    if options.workdir is None:
        raise ValueError("several processes must share a run, got no --workdir. Name one folder for all of them.")
    train.processes.join(*((None, None, None) if given == ("auto", None, None) else given))
    if jax.process_index():
        # What process 0 says is said; Gloo's own lines go the same way.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def share() -> tuple[int, int]:
    """Which part of every batch this process reads, of how many."""
    return jax.process_index(), jax.process_count()


def ends(options: Options, *, examples: int, epochs: int) -> tuple[int, ...]:
    """The steps at which the epochs end; `epochs` is the experiment's own number. The stream runs on across them."""
    epochs = options.epochs or epochs
    # Where a batch is larger than the data, a step is an epoch.
    steps = [max(n, math.ceil(n * examples / options.batch_size)) for n in range(1, epochs + 1)]
    last = min(options.steps or steps[-1], steps[-1])
    return (*(step for step in steps if step < last), last)


def begin(
    options: Options,
    experiment: str,
    state: train.TrainState,
    settings: Mapping[str, Any],
    ends: tuple[int, ...],
    started: float,
) -> tuple[Run | None, train.TrainState]:
    """Make the folder of a run, or read the state of the one to resume; no run where that has finished already."""
    settings = {"experiment": experiment, **settings}
    if not (options.resume and options.workdir):
        path = options.workdir or workdir.fresh(experiment)
        with train.processes.first():
            if not jax.process_index():
                workdir.clear(path)
        return Run(path, settings, ends, started), state
    meta = train.checkpoint.read_meta(options.workdir / workdir.CHECKPOINTS)
    if meta is not None:
        _check_settings(options.workdir, meta, settings)
        state, _ = train.checkpoint.restore(options.workdir / workdir.CHECKPOINTS, state)
        if int(state.step) > ends[-1]:
            raise ValueError(
                f"--epochs must not be fewer than the run has finished: {options.workdir} has {int(state.step)} steps,"
                f" got {ends[-1]}. Give more, or start a new run with another --workdir."
            )
        started -= meta["seconds"]
    run = Run(options.workdir, settings, ends, started)
    if (run.path / workdir.RESULT).exists() and int(state.step) >= ends[-1]:
        print(f"{run.path} has finished its {len(ends)} epochs already. Train it further with --resume --epochs MORE.")
        return None, state
    if not jax.process_index():
        workdir.keep_rows(run.path, up_to=int(state.step))
    return run, state


def _check_settings(path: Path, meta: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        if meta.get(name, value) != value:
            raise ValueError(
                f"--resume goes on with the same settings: the run in {path} has {name} {meta[name]!r},"
                f" got {value!r}. Give the run's own, or start a new one with another --workdir."
            )


def trained(path: Path, *experiments: str) -> Mapping[str, Any]:
    """Read what the newest checkpoint of a run says of it, which must be a run of one of these experiments."""
    meta = train.checkpoint.read_meta(path / workdir.CHECKPOINTS)
    found = meta and meta.get("experiment", "mnist")
    if meta is None or found not in experiments:
        raise ValueError(
            f"--workdir must hold a trained run of experiments.{' or experiments.'.join(experiments)}, got"
            f" {path}{f' with one of experiments.{found}' if found else ''}."
            f" Train one with python -m experiments.{experiments[0]}."
        )
    return meta


def train_epochs(
    run: Run,
    state: train.TrainState,
    step: Callable[..., Any],
    batches: Callable[[int], train.Batch],
    evaluate: Callable[[train.TrainState], dict[str, float]],
    *,
    seed: int,
    unit: str,
) -> train.TrainState:
    """Train epoch by epoch; after each, test, write the metrics and then the checkpoint.

    Returns:
        The last state, whole in every process; but for the first they are to leave the rest to it.
    """
    for epoch in range(run.epochs_done(int(state.step)) + 1, len(run.ends) + 1):
        title = f"epoch {epoch}/{len(run.ends)}"
        steps = run.ends[epoch - 1] - int(state.step)
        progress = None if jax.process_index() else title
        state, history = train.fit(
            step, state, batches, jax.random.key(seed), steps=steps, progress=progress, unit=unit
        )
        test = {name: value for name, value in evaluate(state).items() if name != "count"}
        seconds = run.seconds()
        print(f"{title}: test {', '.join(f'{name} {value:.4f}' for name, value in test.items())}, {seconds:.1f} s")
        if not jax.process_index():
            workdir.add_rows(run.path, _rows(epoch, int(state.step), history, test, seconds))
        meta = {**run.settings, "epochs": len(run.ends), "epochs_done": epoch, "seconds": seconds}
        train.checkpoint.save(run.path / workdir.CHECKPOINTS, state, meta)
    return train.parallel.gathered(state)


def _rows(
    epoch: int, step: int, history: Mapping[str, np.ndarray], test: Mapping[str, float], seconds: float
) -> list[dict[str, Any]]:
    """Twenty points of training metrics an epoch, each a mean, and the test metrics at its end."""
    steps = len(history["loss"])
    blocks = np.array_split(np.arange(steps), min(20, steps))
    rows: list[dict[str, Any]] = [
        {"epoch": epoch, "step": step - steps + int(block[-1]) + 1}
        | {name: float(values[block].mean()) for name, values in history.items()}
        for block in blocks
    ]
    rows[-1] |= {f"test_{name}": value for name, value in test.items()} | {"seconds": seconds}
    return rows


def finish(run: Run, options: Options, state: train.TrainState, found: Mapping[str, Any]) -> float:
    """Write result.json: what was found, and how; return the seconds that the run took."""
    seconds = round(run.seconds(), 1)
    libraries = {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    result = {
        **found,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "epochs": len(run.ends),
        "steps": int(state.step),
        "seconds": seconds,
        "devices": [str(device) for device in jax.devices()],
        "parallel": options.parallel,
        "accelerated": options.accelerate,
        **run.settings,
        "versions": {"python": platform.python_version(), "cnnjax": cnnjax.__version__, **libraries},
    }
    workdir.write_result(run.path, result)
    return seconds


def one_cycle(options: Options, steps: int, *, weight_decay: float) -> optax.GradientTransformation:
    """AdamW under a one-cycle schedule over all steps."""
    schedule = optax.schedules.cosine_onecycle_schedule(max(steps, 1), options.learning_rate, pct_start=0.2)
    return optax.adamw(schedule, weight_decay=weight_decay)


def wrapper(options: Options) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The wrapper of `train.parallel` that --parallel names."""
    return getattr(train.parallel, options.parallel)
