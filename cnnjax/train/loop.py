"""The loops around the steps: fit, evaluate, predict."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from tqdm import tqdm

from cnnjax.train.apply import apply
from cnnjax.train.state import TrainState, merge
from cnnjax.train.step import Batch

# How many steps the metrics may lag behind, so that fetching them never waits for the device.
_LAG = 4


class Diverged(FloatingPointError):
    """The loss, or a parameter, is not finite any more.

    Args:
        step: in which step.
        loss: what it is, nan or an infinity; or finite, where it is a parameter that the step has made so.
    """

    def __init__(self, step: int, loss: float):
        what = "parameters" if math.isfinite(loss) else "loss"
        found = f"some that are not, after a loss of {loss}," if math.isfinite(loss) else loss
        super().__init__(f"fit: the {what} must stay finite, got {found} in step {step}. Lower the learning rate.")
        self.step = step
        self.loss = loss


def fit(
    run: Callable[..., tuple[TrainState, dict[str, Array]]],
    state: TrainState,
    batches: Callable[[int], Batch],
    key: Array,
    *,
    steps: int,
    progress: str | None = None,
    unit: str = "examples",
    stop: Callable[[], bool] | None = None,
) -> tuple[TrainState, dict[str, np.ndarray]]:
    """Take a number of training steps.

    Starts at `state.step`, so a state read from a checkpoint goes on where it was.

    Args:
        run: a train step wrapped by `train.parallel`.
        state: the state to start from.
        batches: `batches(step)` gives the batch of a step: a pure function, so that a run can be resumed.
        key: PRNG key, the same for the whole run.
        steps: how many steps to take, at least 0.
        progress: title of a progress bar with the metrics and the speed; None shows none.
        unit: what the progress bar calls an example.
        stop: asked after every step whether to take no more.

    Returns:
        (state, history): history maps each metric's name to its value in every step, float arrays (steps,).

    Raises:
        Diverged: the loss of a step is not finite, or after the last one a parameter. The state that was passed in is
            untouched, unless `run` donates it.

    Example:
        >>> tx = optax.sgd(0.1)
        >>> graphdef, state = train.create(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), tx)
        >>> loss_fn = lambda model, batch, key: (jnp.square(model(batch["x"]) - 3.0)[:, 0], {})
        >>> run = train.parallel.jit(train.make_train_step(graphdef, tx, loss_fn))
        >>> state, history = train.fit(run, state, lambda step: {"x": jnp.ones((8, 1))}, jax.random.key(0), steps=50)
        >>> bool(history["loss"][-1] < 1e-4)
        True

    Source:
        None.
    """
    start = int(state.step)
    pending: list[dict[str, Array]] = []
    history: list[dict[str, float]] = []
    with tqdm(total=steps, desc=progress, disable=progress is None, unit="step", mininterval=0.2) as bar:
        for step in range(start, start + steps):
            batch = batches(step)
            state, metrics = run(state, batch, key)
            for value in metrics.values():
                value.copy_to_host_async()
            pending.append(metrics)
            if len(pending) > _LAG:
                history.append(_fetch(pending.pop(0), start + len(history)))
                if not bar.disable:
                    rate = (bar.format_dict["rate"] or 0) * len(jax.tree.leaves(batch)[0])
                    bar.set_postfix({**_rounded(history[-1]), f"{unit}/s": f"{rate:.0f}"}, refresh=False)
            bar.update()
            if stop is not None and stop():
                break
        for metrics in pending:
            history.append(_fetch(metrics, start + len(history)))
    # The loss would tell one step later, when the state may have been saved.
    if history and not _all_finite(state.params):
        raise Diverged(start + len(history) - 1, history[-1]["loss"])
    names = history[0] if history else {}
    return state, {name: np.array([metrics[name] for metrics in history]) for name in names}


def evaluate(run: Callable[..., dict[str, Array]], state: TrainState, batches: Iterable[Batch]) -> dict[str, float]:
    """Take the mean of every metric over all examples, each counted once.

    Args:
        run: an eval step wrapped by `train.parallel`.
        state: the state to evaluate, with its averaged parameters if it has any.
        batches: batches of equal size with a bool `mask`, as `data.padded` makes them.

    Returns:
        {name: mean, "count": number of examples}.

    Raises:
        ValueError: there is nothing to evaluate.

    Example:
        >>> graphdef, state = train.create(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), optax.sgd(0.1))
        >>> run = train.parallel.jit(train.make_eval_step(graphdef, lambda model, batch: {"x": batch["x"]}))
        >>> train.evaluate(run, state, [{"x": jnp.array([1.0, 5.0]), "mask": jnp.array([True, False])}])
        {'x': 1.0, 'count': 1}

    Source:
        Counting.
    """
    sums: dict[str, float] = {}
    for batch_sums in [run(state, batch) for batch in batches]:
        for name, value in batch_sums.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    count = int(sums.pop("count", 0))
    if count == 0:
        raise ValueError("evaluate: there must be an example to evaluate, got none. Check the batches and their mask.")
    return {**{name: value / count for name, value in sums.items()}, "count": count}


def predict(
    graphdef: nnx.GraphDef[Any], state: TrainState, x: np.ndarray | Array, *, batch_size: int = 500
) -> np.ndarray:
    """Compute the class probabilities of many examples.

    Args:
        graphdef: from `create`.
        state: the trained state, with its averaged parameters if it has any.
        x: (N, ...), what the model takes; its logits are (N, K).
        batch_size: how many examples at once, at least 1; bounds the memory.

    Returns:
        (N, K) probabilities, the softmax of the logits.

    Raises:
        ValueError: x is empty, or the batch size below 1.

    Example:
        >>> graphdef, state = train.create(nnx.Linear(4, 2, rngs=nnx.Rngs(0)), optax.sgd(0.1))
        >>> train.predict(graphdef, state, np.zeros((3, 4), np.float32))
        array([[0.5, 0.5],
               [0.5, 0.5],
               [0.5, 0.5]], dtype=float32)

    Source:
        Bridle 1990, "Probabilistic Interpretation of Feedforward Classification Network Outputs" (softmax).
    """
    if batch_size < 1 or len(x) == 0:
        raise ValueError(f"predict: needs examples and a batch size, got {len(x)} examples and size {batch_size}.")
    parts: Sequence[Array] = [
        _probabilities(graphdef, state, x[start : start + batch_size]) for start in range(0, len(x), batch_size)
    ]
    return np.concatenate(parts)


@partial(jax.jit, static_argnums=0)
def _probabilities(graphdef: nnx.GraphDef[Any], state: TrainState, x: Array) -> Array:
    return jax.nn.softmax(apply(merge(graphdef, state), x, train=False))


@jax.jit
def _all_finite(params: Any) -> Array:
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()


def _fetch(metrics: dict[str, Array], step: int) -> dict[str, float]:
    values = {name: float(value) for name, value in metrics.items()}
    if not math.isfinite(values["loss"]):
        raise Diverged(step, values["loss"])
    return values


def _rounded(metrics: dict[str, float]) -> dict[str, str]:
    return {name: f"{value:.4f}" for name, value in metrics.items()}
