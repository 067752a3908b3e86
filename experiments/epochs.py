"""The epochs of a run: train, test, and save what came of it."""

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from cnnjax import train
from experiments import commandline, events, run, workdir

History = Mapping[str, np.ndarray]


def train_epochs(
    begun: run.Run,
    options: run.Options,
    state: train.TrainState,
    step: Callable[..., Any],
    batches: Callable[[int], train.Batch],
    evaluate: Callable[[train.TrainState], dict[str, float]],
    *,
    asked: commandline.Asked,
    best: str,
    schedule: Callable[[int], Any],
    unit: str,
) -> train.TrainState:
    """Train epoch by epoch; after each, test, write the metrics and then the checkpoint.

    Within an epoch there is a checkpoint every `--save-minutes`, and one when the run is asked to stop. It holds the
    metrics of the steps since the last test, so that the epoch goes on as if nothing had been.

    Args:
        begun: the run.
        options: its options.
        state: the state to start from, which is used up.
        step: a train step, wrapped.
        batches: the batch of a step.
        evaluate: the test metrics of a state.
        asked: whether to stop; testing can be stopped at once, unless other processes take part in it.
        best: name of the test metric whose largest value marks the checkpoint that is kept besides the last ones.
        schedule: the learning rate of a step.
        unit: what an example is called.

    Returns:
        The last state, whole in every process; but for the first they are to leave the rest to it.
    """
    step, key = _timed(begun, step), jax.random.key(options.seed)
    # Compiled as one program: of its thirty operations each would be one otherwise, which takes a second.
    schedule = jax.jit(schedule)
    history, meta = begun.history, {**begun.settings, "epochs": len(begun.ends)}
    with asked.later(), train.checkpoint.saving(begun.path / workdir.CHECKPOINTS) as save:
        for epoch in range(begun.epochs_done(begun.steps_tested(state)) + 1, len(begun.ends) + 1):
            title, end = f"epoch {epoch}/{len(begun.ends)}", begun.ends[epoch - 1]
            progress = None if jax.process_index() else title
            clock, first = time.perf_counter(), int(state.step)
            while (at := int(state.step)) < end:
                stop = _saving_is_due(options, asked)
                try:
                    state, more = train.fit(
                        step, state, batches, key, steps=end - at, progress=progress, unit=unit, stop=stop
                    )
                except train.Diverged as error:
                    raise _explained(begun, options, batches, schedule, error) from error
                history = {
                    name: np.concatenate([history.get(name, values[:0]), values]) for name, values in more.items()
                }
                if int(state.step) < end:
                    save(state, meta | _untested(begun, epoch, history))
                    if _agreed(asked()):
                        raise commandline.Stopped
            taken, clock = end - first, time.perf_counter() - clock
            try:
                with asked.later(jax.process_count() > 1):
                    test = {name: value for name, value in evaluate(state).items() if name != "count"}
            except commandline.Stopped:
                if taken:
                    save(state, meta | _untested(begun, epoch, history))
                raise
            seconds = begun.seconds()
            print(f"{title}: test {', '.join(f'{name} {value:.4f}' for name, value in test.items())}, {seconds:.1f} s")
            rows = _rows(epoch, end, history, test)
            rows[-1] |= {"learning_rate": float(schedule(end - 1)), "seconds": seconds, **begun.first}
            if taken:
                rows[-1] |= {"examples_per_second": round(taken * options.batch_size / clock, 1)}
            if not jax.process_index():
                workdir.add_rows(begun.path, rows)
                if options.tensorboard:
                    events.write(begun.path, rows)
            save(state, meta | {"epochs_done": epoch, "seconds": seconds}, test[best])
            history = {}
            if _agreed(asked()):
                raise commandline.Stopped
    return train.parallel.gathered(state)


def _saving_is_due(options: run.Options, asked: commandline.Asked) -> Callable[[], bool]:
    """What tells `fit` that the run is asked to stop, or has trained for --save-minutes since now."""
    due = time.monotonic() + 60 * options.save_minutes
    # Agreeing with other processes takes longer than some steps.
    calls, every = itertools.count(1), 1 if jax.process_count() == 1 else 16
    return lambda: next(calls) % every == 0 and _agreed(asked() or time.monotonic() > due)


def _untested(begun: run.Run, epoch: int, history: History) -> dict[str, Any]:
    """What a checkpoint holds of an epoch before its test."""
    values = {name: values.tolist() for name, values in history.items()}
    return {"epochs_done": epoch - 1, "seconds": begun.seconds(), "history": values}


def _agreed(flag: bool) -> bool:
    """Whether any of the processes says so: all of them save, or none."""
    return flag if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(flag)).any())


def _timed(begun: run.Run, step: Callable[..., Any]) -> Callable[..., Any]:
    """The step, which notes when the first one was taken."""

    def timed(state: train.TrainState, batch: train.Batch, key: jax.Array) -> Any:
        results = step(state, batch, key)
        if not begun.first:
            jax.block_until_ready(results)
            begun.first["seconds_to_first_step"] = round(run.IMPORTS + time.perf_counter() - begun.begun, 2)
        return results

    return timed


def _explained(
    begun: run.Run,
    options: run.Options,
    batches: Callable[[int], train.Batch],
    schedule: Callable[[int], Any],
    error: train.Diverged,
) -> FloatingPointError:
    """Keep what the loss was made of, and say where, and what to do."""
    rate = float(schedule(error.step))
    last = train.checkpoint.newest(begun.path / workdir.CHECKPOINTS)
    facts = {"step": error.step, "loss": str(error.loss), "learning_rate": rate, "checkpoint": last}
    facts |= {"key": f"jax.random.fold_in(jax.random.key({options.seed}), {error.step})"}
    if not jax.process_index():
        workdir.write_diverged(begun.path, facts, batches(error.step))
    kept = "There is no checkpoint yet." if last is None else f"The checkpoint of step {last} is intact."
    return FloatingPointError(
        f"{error} It was {rate:.3g} in that step, whose batch is in {begun.path / workdir.DIVERGED[1]}. {kept} With"
        f" --workdir {begun.path} --resume the run comes by the same way again; for another, start anew with a lower"
        " --learning-rate."
    )


def _rows(epoch: int, step: int, history: History, test: Mapping[str, float]) -> list[dict[str, Any]]:
    """Twenty points of training metrics an epoch, each a mean, and the test metrics at its end."""
    steps = len(history["loss"])
    blocks = np.array_split(np.arange(steps), min(20, steps))
    rows: list[dict[str, Any]] = [
        {"epoch": epoch, "step": step - steps + int(block[-1]) + 1}
        | {name: float(values[block].mean()) for name, values in history.items()}
        for block in blocks
    ]
    rows[-1] |= {f"test_{name}": value for name, value in test.items()}
    return rows
