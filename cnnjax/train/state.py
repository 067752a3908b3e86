"""What training carries from step to step."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

Tree = Any
"""A pytree of arrays; here nested dicts, as `nnx.to_pure_dict` makes them."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that a step reads and writes: one pytree of plain arrays.

    Args:
        step: () int32, how many steps were taken.
        params: the model's `nnx.Param`s.
        model_state: every other variable of the model, batch statistics above all.
        opt_state: the optimiser's state.
        ema: exponential moving average of the params, or None.
    """

    step: Array
    params: Tree
    model_state: Tree
    opt_state: optax.OptState
    ema: Tree = None


def create(
    model: nnx.Module, tx: optax.GradientTransformation, *, ema: bool = False
) -> tuple[nnx.GraphDef[nnx.Module], TrainState]:
    """Split a model into its structure and the first train state.

    The model itself is not changed by training: read the result with `merge`.

    Args:
        model: any `nnx.Module`, ours or stock.
        tx: the optax optimiser.
        ema: whether to keep a moving average of the parameters (`make_train_step` needs its `ema_decay`).

    Returns:
        (graphdef, state).

    Raises:
        Nothing.

    Example:
        >>> graphdef, state = train.create(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), optax.sgd(0.1))
        >>> jax.tree.map(jnp.shape, state.params)
        {'bias': (3,), 'kernel': (2, 3)}

    Source:
        optax's convention of explicit state; nnx's split.
    """
    graphdef, params, model_state = nnx.split(model, nnx.Param, ...)
    params, model_state = jax.tree.map(_strong, (nnx.to_pure_dict(params), nnx.to_pure_dict(model_state)))
    step = jnp.zeros((), jnp.int32)
    return graphdef, TrainState(
        step, params, model_state, tx.init(params), jax.tree.map(jnp.copy, params) if ema else None
    )


def _strong(leaf: Array) -> Array:
    # A weakly typed parameter, as jnp.asarray(2.0) is, turns strong in the first step and would compile the next anew.
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.asarray(leaf, leaf.dtype)


def merge(graphdef: nnx.GraphDef[nnx.Module], state: TrainState) -> nnx.Module:
    """Build the model that a train state describes, for evaluation: with the averaged parameters if there are any.

    Args:
        graphdef: from `create`.
        state: a train state of the same model.

    Returns:
        A new `nnx.Module`; changing it leaves the state alone.

    Raises:
        Nothing.

    Example:
        >>> train.merge(*train.create(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), optax.sgd(0.1)))(jnp.ones((1, 2))).shape
        (1, 3)

    Source:
        nnx's merge.
    """
    return nnx.merge(graphdef, state.params if state.ema is None else state.ema, state.model_state)
