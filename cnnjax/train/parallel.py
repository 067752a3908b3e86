"""The wrappers that run one step on one or many devices, with one meaning: `run(state, batch, ...)`.

A batch is always the global one. The only `pmap` of the project is here.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

AXIS = "batch"


def jit(step: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a train or eval step for one device.

    Args:
        step: from `make_train_step` or `make_eval_step`.

    Returns:
        run(state, batch, *rest), what the step returns.

    Raises:
        Nothing.

    Example:
        >>> train.parallel.jit(lambda state, batch, axis_name=None: state + batch)(1, 2)
        Array(3, dtype=int32, weak_type=True)

    Source:
        jax.jit.
    """
    return jax.jit(partial(step, axis_name=None))


def pmap(step: Callable[..., Any], *, devices: Sequence[Any] | None = None) -> Callable[..., Any]:
    """Run a train or eval step on every device, each on its share of the batch.

    State, key and results are the same on all devices; the batch is split along its first axis. In float64 the
    parameters equal one device's to rounding; noise that is drawn for a whole batch (dropout) differs by shard.

    Args:
        step: from `make_train_step` or `make_eval_step`.
        devices: which ones; None is all local devices.

    Returns:
        run(state, batch, *rest), what the step returns. It raises ValueError for a batch that does not divide over
        the devices.

    Raises:
        Nothing.

    Example:
        >>> total = train.parallel.pmap(lambda state, batch, axis_name: jax.lax.psum(state * batch.sum(), axis_name))
        >>> float(total(2.0, jnp.ones(8)))
        16.0

    Source:
        jax.pmap.
    """
    devices = list(jax.local_devices() if devices is None else devices)

    def split(leaf: Any) -> Any:
        if leaf.shape[0] % len(devices):
            raise ValueError(
                f"pmap: a batch must divide over the devices, got {leaf.shape[0]} examples for {len(devices)} devices."
                f" Use a multiple of {len(devices)}."
            )
        return leaf.reshape(len(devices), leaf.shape[0] // len(devices), *leaf.shape[1:])

    bound = partial(step, axis_name=AXIS)

    def run(state: Any, batch: Any, *rest: Any) -> Any:
        in_axes = (None, 0, *(None for _ in rest))
        mapped = compiled.setdefault(
            len(rest), jax.pmap(bound, axis_name=AXIS, in_axes=in_axes, out_axes=None, devices=devices)
        )
        return mapped(state, jax.tree.map(split, batch), *rest)

    compiled: dict[int, Callable[..., Any]] = {}
    return run
