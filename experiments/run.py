"""A run of an experiment: the options that all experiments share, its epochs, and what it leaves behind."""

import bisect
import dataclasses
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import cnnjax
import experiments
from cnnjax import train
from experiments import events, workdir

IMPORTS = time.perf_counter() - experiments.STARTED
"""Seconds that imports have taken."""


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
    save_minutes: float = 10.0
    """How often to save within an epoch. At its end, and when asked to stop, a run saves anyway."""
    tensorboard: bool = False
    """Also write events for TensorBoard, with tensorboardX."""
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
        begun: when it has begun this time.
        lock: open as long as it trains.
        history: the metrics of every step since the last test, where it was stopped within an epoch.
        first: seconds from the start of the program to the end of the first step; filled in by training.
    """

    path: Path
    settings: Mapping[str, Any]
    ends: tuple[int, ...]
    started: float
    begun: float
    lock: AbstractContextManager[Any] = dataclasses.field(default_factory=nullcontext)
    history: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    first: dict[str, float] = dataclasses.field(default_factory=dict)

    def epochs_done(self, step: int) -> int:
        """How many epochs have ended at a step."""
        return bisect.bisect_right(self.ends, step)

    def steps_tested(self, state: train.TrainState) -> int:
        """How many steps the state that it begins with had taken when it was last tested."""
        return int(state.step) - len(next(iter(self.history.values()), ()))

    def seconds(self) -> float:
        """How long it has run, without the pauses between being stopped and resumed."""
        return round(time.perf_counter() - self.started, 2)

    def advice(self) -> str:
        """What to tell whoever interrupts it."""
        return f"Go on with the same options and --workdir {self.path} --resume."


def check(options: Config) -> Config:
    """Refuse options that no experiment can run with, and a workdir whose contents would be lost; write nothing.

    Where there are several processes, it first joins them.

    Returns:
        The options; of a run to be resumed without --epochs, with the epochs that it was begun with.
    """
    _join(options)
    _keep_programs()
    if options.tensorboard:
        events.check()
    for name, value in (("epochs", options.epochs), ("steps", options.steps), ("batch-size", options.batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}.")
    devices = jax.process_count() if options.parallel == "jit" else jax.device_count()
    if options.batch_size % devices:
        raise ValueError(
            f"--batch-size must divide over the devices, got {options.batch_size} for {devices}."
            f" Use a multiple of {devices}."
        )
    if not options.save_minutes > 0:
        raise ValueError(f"--save-minutes must be a positive number, got {options.save_minutes}.")
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


def _keep_programs() -> None:
    """Keep compiled programs for the next run, where the user has not said where."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "cnnjax" / "xla"))


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
    path = options.workdir or workdir.fresh(experiment)
    with ExitStack() as held:
        # Of several processes of one run the first keeps other runs out.
        held.enter_context(nullcontext() if jax.process_index() else workdir.lock(path))
        if options.resume:
            run, state = _resumed(path, state, settings, ends, started)
            if run is None:
                return None, state
        else:
            run = Run(path, settings, ends, started, started)
            with train.processes.first():
                if not jax.process_index():
                    workdir.clear(path)
        return dataclasses.replace(run, lock=held.pop_all()), state


def _resumed(
    path: Path, state: train.TrainState, settings: Mapping[str, Any], ends: tuple[int, ...], started: float
) -> tuple[Run | None, train.TrainState]:
    """Read what there is of a run, and drop what its newest checkpoint knows nothing of."""
    begun, history = started, {}
    meta = train.checkpoint.read_meta(path / workdir.CHECKPOINTS)
    if meta is not None:
        _check_settings(path, meta, settings)
        state, meta = train.checkpoint.restore(path / workdir.CHECKPOINTS, state)
        if int(state.step) > ends[-1]:
            raise ValueError(
                f"--epochs must not be fewer than the run has finished: {path} has {int(state.step)} steps,"
                f" got {ends[-1]}. Give more, or start a new run with another --workdir."
            )
        started -= meta["seconds"]
        history = {name: np.array(values) for name, values in meta.get("history", {}).items()}
    if (path / workdir.RESULT).exists() and int(state.step) >= ends[-1]:
        print(f"{path} has finished its {len(ends)} epochs already. Train it further with --resume --epochs MORE.")
        return None, state
    run = Run(path, settings, ends, started, begun, history=history)
    if not jax.process_index():
        workdir.keep_rows(path, up_to=run.steps_tested(state))
    return run, state


def _check_settings(path: Path, meta: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    if meta.get("published"):
        raise ValueError(
            f"--resume needs the state of the optimiser, but {path} was published without it."
            " Go on with the run that it was made of, or start a new one with another --workdir."
        )
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


def load(
    path: Path, model: nnx.Module, tx: optax.GradientTransformation
) -> tuple[nnx.GraphDef[nnx.Module], train.TrainState]:
    """Read the net of a run, trained as far as its newest checkpoint.

    Args:
        path: the run's folder.
        model: the untrained model.
        tx: the optimiser that it was trained with; of a published run there is none.
    """
    published = (train.checkpoint.read_meta(path / workdir.CHECKPOINTS) or {}).get("published")
    graphdef, state = train.create(model, optax.identity() if published else tx)
    return graphdef, train.checkpoint.restore(path / workdir.CHECKPOINTS, state)[0]


def finish(
    run: Run, options: Options, state: train.TrainState, found: Mapping[str, Any], flop: float | None = None
) -> float:
    """Write result.json: what was found, and how; return the seconds that the run took.

    Args:
        run: the run.
        options: its options.
        state: what it ended with.
        found: the results.
        flop: floating-point operations of an example in training, where they are known.
    """
    seconds = round(run.seconds(), 1)
    libraries = {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    result = {
        **found,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "epochs": len(run.ends),
        "steps": int(state.step),
        "seconds": seconds,
        **_speed(run, flop),
        "devices": [str(device) for device in jax.devices()],
        "parallel": options.parallel,
        "accelerated": options.accelerate,
        **run.settings,
        "versions": {"python": platform.python_version(), "cnnjax": cnnjax.__version__, **libraries},
    }
    workdir.write_result(run.path, result)
    return seconds


def _speed(run: Run, flop: float | None) -> dict[str, float]:
    """How fast the last epoch was, and which part of the speed of a matrix product on all devices that is."""
    rows = [row for row in workdir.read_rows(run.path) if "examples_per_second" in row]
    if not rows:
        return {}
    found = {"examples_per_second": rows[-1]["examples_per_second"], **run.first}
    part = ""
    if flop is not None:
        found["part_of_peak"] = round(flop * rows[-1]["examples_per_second"] / matmul_peak(), 3)
        part = f", {found['part_of_peak']:.0%} of a matrix product's speed"
    first = "".join(f"first step after {seconds} s, then " for seconds in run.first.values())
    print(f"{first}{found['examples_per_second']:,.0f} examples/s{part}")
    return found


def matmul_peak() -> float:
    """Floating-point operations a second of a large matrix product in float32, by all devices; the best of ten."""
    n = 1024 if jax.default_backend() == "cpu" else 8192
    product, x = jax.jit(jnp.dot), jnp.ones((n, n))
    product(x, x).block_until_ready()
    times = []
    for _ in range(10):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        times.append(time.perf_counter() - start)
    # Virtual devices of a CPU share its processors.
    return 2 * n**3 / min(times) * (1 if jax.default_backend() == "cpu" else jax.device_count())


def one_cycle(options: Options, steps: int) -> optax.Schedule:
    """A learning rate that rises for a fifth of all steps and falls for the rest."""
    return optax.schedules.cosine_onecycle_schedule(max(steps, 1), options.learning_rate, pct_start=0.2)


def wrapper(options: Options) -> Callable[..., Callable[..., Any]]:
    """The wrapper of `train.parallel` that --parallel names."""
    return getattr(train.parallel, options.parallel)
