"""One training step and one evaluation step, as pure functions over a pytree."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax

from cnnjax import nn
from cnnjax.train.apply import mode
from cnnjax.train.state import TrainState, merge

Batch = Mapping[str, Any]
LossFn = Callable[[Any, Batch, Array], tuple[Array, Mapping[str, Array]]]
MetricFn = Callable[[Any, Batch], Mapping[str, Array]]


class TrainStep(Protocol):
    """The step of `make_train_step`; the wrappers of `train.parallel` alone pass `axis_name`."""

    def __call__(
        self, state: TrainState, batch: Batch, key: Array, *, axis_name: str | None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        """Take one step."""
        ...


class EvalStep(Protocol):
    """The step of `make_eval_step`; the wrappers of `train.parallel` alone pass `axis_name`."""

    def __call__(self, state: TrainState, batch: Batch, *, axis_name: str | None = None) -> dict[str, Array]:
        """Sum the metrics of one batch."""
        ...


def make_train_step(
    graphdef: nnx.GraphDef[Any],
    tx: optax.GradientTransformation,
    loss_fn: LossFn,
    *,
    ema_decay: float | None = None,
    accumulate: int = 1,
) -> TrainStep:
    """Make the pure, unjitted function that takes one optimiser step.

    Wrap it with one of `train.parallel`: the wrapper binds `axis_name`, and loss, gradients and batch-norm
    statistics are then all means over the global batch. The noise is a function of (key, state.step, shard): the
    same key serves every step, and a resumed run draws what an unbroken one would.

    Args:
        graphdef: from `create`.
        tx: the optimiser that `create` was given.
        loss_fn: `loss_fn(model, batch, key) -> (losses (N,), {name: (N,)})`, one value an example. Call the model
            with train=True and the key; a stock one is in training mode and draws from the key by itself.
        ema_decay: share of the averaged parameters kept in a step, in [0, 1); needs `create(..., ema=True)`. Batch
            statistics are those of the last steps: with batch-norm, average over no more steps than its decay does.
        accumulate: in how many parts a batch is worked through, at least 1, one after the other; the gradients are
            added up. It takes less memory and more time. Example i is in part i modulo `accumulate`; each part has
            its own noise and batch statistics.

    Returns:
        step(state, batch, key, *, axis_name=None) -> (state, {"loss": (), name: ()}).

    Raises:
        ValueError: accumulate below 1; when called, if the losses are not one an example, one of ema_decay and
            state.ema is missing, or a device's share of the batch does not divide by accumulate.

    Example:
        >>> def loss_fn(model, batch, key):
        ...     return jnp.square(model(batch["x"]) - batch["y"])[:, 0], {}
        >>> tx = optax.sgd(0.1)
        >>> graphdef, state = train.create(nnx.Linear(1, 1, use_bias=False, rngs=nnx.Rngs(0)), tx)
        >>> step = train.make_train_step(graphdef, tx, loss_fn)
        >>> state, metrics = step(state, {"x": jnp.ones((4, 1)), "y": jnp.ones((4, 1))}, jax.random.key(0))
        >>> int(state.step), list(metrics)
        (1, ['loss'])

    Source:
        Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 3, for means over the global batch.
    """

    if accumulate < 1:
        raise ValueError(f"make_train_step: accumulate must be at least 1, got {accumulate}. Use 1 for whole batches.")

    def step(
        state: TrainState, batch: Batch, key: Array, *, axis_name: str | None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        if (state.ema is None) != (ema_decay is None):
            raise ValueError(
                f"make_train_step: ema_decay and create(..., ema=True) go together, got ema_decay={ema_decay} and"
                f" {'no average' if state.ema is None else 'an average'} in the state."
            )
        key = jax.random.fold_in(key, state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, lax.axis_index(axis_name))

        def mean_loss(params: Any, model_state: Any, batch: Batch, key: Array) -> tuple[Array, tuple[Any, Any]]:
            model = nnx.merge(graphdef, params, model_state)
            _bind(model, axis_name)
            with mode(model, train=True, key=key):
                losses, metrics = loss_fn(model, batch, key)
            if losses.ndim != 1:
                raise ValueError(
                    f"make_train_step: loss_fn must return one loss an example, (N,), got shape {losses.shape}."
                    " The step takes the mean itself."
                )
            means = {name: values.mean(dtype=losses.dtype) for name, values in {"loss": losses, **metrics}.items()}
            _, _, model_state = nnx.split(model, nnx.Param, ...)
            return means["loss"], (means, nnx.to_pure_dict(model_state))

        def work(model_state: Any, part: tuple[Batch, Array]) -> tuple[Any, tuple[Any, dict[str, Array]]]:
            grads, (means, model_state) = jax.grad(mean_loss, has_aux=True)(state.params, model_state, *part)
            return model_state, (grads, means)

        if accumulate == 1:
            model_state, (grads, metrics) = work(state.model_state, (batch, key))
        else:
            parts = jax.tree.map(partial(_in_parts, accumulate), batch), jax.random.split(key, accumulate)
            model_state, (grads, metrics) = _scan_mean(work, state.model_state, parts)
        if axis_name is not None:
            grads, metrics = lax.pmean((grads, metrics), axis_name)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema if ema_decay is None else optax.incremental_update(params, state.ema, 1 - ema_decay)
        return replace(
            state, step=state.step + 1, params=params, model_state=model_state, opt_state=opt_state, ema=ema
        ), metrics

    return step


def make_eval_step(graphdef: nnx.GraphDef[Any], metric_fn: MetricFn) -> EvalStep:
    """Make the pure, unjitted function that sums metrics over the examples of one batch.

    Wrap it with one of `train.parallel`; `evaluate` adds the sums up. Examples whose `batch["mask"]` is False are
    filling and count nowhere.

    Args:
        graphdef: from `create`.
        metric_fn: `metric_fn(model, batch) -> {name: (N,)}`, one value an example. The model is to be
            called with train=False, its default; a stock one is in evaluation mode by itself.

    Returns:
        step(state, batch, *, axis_name=None) -> {name: (), "count": ()}: sums, and how many examples they are of.

    Raises:
        ValueError: when called, if the batch has no mask.

    Example:
        >>> graphdef, state = train.create(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), optax.sgd(0.1))
        >>> step = train.make_eval_step(graphdef, lambda model, batch: {"square": jnp.square(batch["x"])})
        >>> step(state, {"x": jnp.array([1.0, 2.0, 9.0]), "mask": jnp.array([True, True, False])})
        {'square': Array(5., dtype=float32), 'count': Array(2, dtype=int32)}

    Source:
        Counting: every example once, whatever the batch size and the number of devices.
    """

    def step(state: TrainState, batch: Batch, *, axis_name: str | None = None) -> dict[str, Array]:
        if "mask" not in batch:
            raise ValueError("make_eval_step: the batch must have a bool mask (N,), got none. See data.padded.")
        mask = batch["mask"]
        model = merge(graphdef, state)
        with mode(model, train=False):
            metrics = metric_fn(model, batch)
        sums = {name: jnp.where(mask, values, 0).sum() for name, values in metrics.items()}
        sums["count"] = mask.sum()
        return sums if axis_name is None else lax.psum(sums, axis_name)

    return step


def _in_parts(count: int, leaf: Array) -> Array:
    """Return (count, N / count, ...), part i of examples i, i + count and so on: of a split batch, every device's."""
    if leaf.shape[0] % count:
        raise ValueError(
            f"make_train_step: accumulate must divide a device's share of the batch, got {count} for {leaf.shape[0]}"
            f" examples. Use a multiple of {count}."
        )
    return jnp.moveaxis(leaf.reshape(leaf.shape[0] // count, count, *leaf.shape[1:]), 1, 0)


def _scan_mean(work: Callable[[Any, Any], tuple[Any, Any]], carry: Any, parts: Any) -> tuple[Any, Any]:
    """Return the last carry and the mean of the results, of which one at a time is kept."""
    count = len(jax.tree.leaves(parts)[0])
    first, rest = (jax.tree.map(operator.itemgetter(i), parts) for i in (0, slice(1, None)))

    def add(done: tuple[Any, Any], part: Any) -> tuple[tuple[Any, Any], None]:
        carry, result = work(done[0], part)
        return (carry, jax.tree.map(jnp.add, done[1], result)), None

    (carry, total), _ = lax.scan(add, work(carry, first), rest)
    return carry, jax.tree.map(lambda leaf: leaf / count, total)


def _bind(model: nnx.Module, axis_name: str | None) -> None:
    # By type: stock LayerNorms have an axis_name too, and must not average over examples.
    model.set_attributes(nn.BatchNorm, nnx.BatchNorm, raise_if_not_found=False, axis_name=axis_name)
