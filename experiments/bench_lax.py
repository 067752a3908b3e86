"""The programs of experiments.bench in JAX: operations as one writes them with lax, and any train step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cnnjax import ops
from experiments.bench_child import Program
from experiments.workloads import BatchNorm, Conv, Pool, Workload

SAME_AXES = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}


def stock(workload: Workload) -> list[Program]:
    """Make the operation of lax, and batch-norm by the formula of Flax."""
    return [_operation(workload, _flax_norm)]


def ours(workload: Workload) -> list[Program]:
    """Make the same, but batch-norm by ops."""
    return [_operation(workload, partial(ops.batch_norm, train=True))]


def train_program(step: Callable[..., Any], state: Any, *batch: np.ndarray) -> Program:
    """Make what trains for another step whenever it runs: step(state, *batch) -> (state, loss)."""
    on_device = jax.device_put(batch)

    def compile() -> Callable[[], Array]:
        compiled = jax.jit(step, donate_argnums=0).lower(state, *on_device).compile()
        latest = state

        def run() -> Array:
            nonlocal latest
            latest, loss = jax.block_until_ready(compiled(latest, *on_device))
            return loss

        return run

    return Program(compile)


def _operation(workload: Workload, batch_norm: Callable[..., Any]) -> Program:
    function, arguments = _function(workload, batch_norm)
    if workload.scan:
        function = partial(_scanned, function, workload.steps)
    on_device = jax.device_put(arguments)

    def compile() -> Callable[[], Any]:
        compiled = jax.jit(function).lower(*on_device).compile()
        if workload.scan or workload.steps == 1:
            return lambda: jax.block_until_ready(compiled(*on_device))
        return lambda: [jax.block_until_ready(compiled(*on_device)) for _ in range(workload.steps)][-1]

    return Program(compile)


def _function(workload: Workload, batch_norm: Callable[..., Any]) -> tuple[Callable[..., Any], tuple[np.ndarray, ...]]:
    case, what = workload.case, workload.what
    if isinstance(case, Conv):
        x, kernel, dy = case.inputs()
        convolve = partial(_conv, case)
        if what == "d-input":
            return lambda dy, kernel: jax.vjp(lambda x: convolve(x, kernel), jnp.zeros_like(x))[1](dy)[0], (dy, kernel)
        if what == "d-kernel":
            return lambda dy, x: jax.vjp(lambda k: convolve(x, k), jnp.zeros_like(kernel))[1](dy)[0], (dy, x)
        return convolve, (x, kernel)
    if isinstance(case, Pool):
        forward, (*arguments, dy) = partial(_pool, case), case.inputs()
    elif isinstance(case, BatchNorm):
        zeros, ones = np.zeros(case.shape[-1:], np.float32), np.ones(case.shape[-1:], np.float32)
        forward, (*arguments, dy) = lambda *given: batch_norm(*given, zeros, ones), case.inputs()
    else:
        raise TypeError(f"{case.name} is no operation")
    if what == "forward":
        return forward, tuple(arguments)
    return partial(_forward_and_backward, forward), (dy, *arguments)


def _conv(case: Conv, x: Array, kernel: Array) -> Array:
    # The gradient of a convolution pads what its window reaches beyond the padding, and dilates x by the stride.
    pad = case.dilation * (case.window - 1) - case.pad if case.transposed else case.pad
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1 if case.transposed else case.stride,) * case.rank,
        padding=((pad, pad),) * case.rank,
        lhs_dilation=(case.stride if case.transposed else 1,) * case.rank,
        rhs_dilation=(case.dilation,) * case.rank,
        dimension_numbers=SAME_AXES[case.rank],
        feature_group_count=case.groups,
    )


def _pool(case: Pool, x: Array) -> Array:
    rank = x.ndim - 2
    window, stride = ((1, *(n,) * rank, 1) for n in (case.window, case.stride))
    padding = ((0, 0), *((case.padding, case.padding),) * rank, (0, 0))
    if case.average:
        return lax.reduce_window(x, 0.0, lax.add, window, stride, padding) / case.window**rank
    return lax.reduce_window(x, -jnp.inf, lax.max, window, stride, padding)


def _flax_norm(x: Array, scale: Array, bias: Array, mean: Array, var: Array) -> tuple[Array, Array, Array]:
    axes = tuple(range(x.ndim - 1))
    m = x.mean(axes)
    v = jnp.maximum(0, jnp.square(x).mean(axes) - jnp.square(m))
    y = (x - m) * (lax.rsqrt(v + 1e-5) * scale) + bias
    return y, 0.99 * mean + 0.01 * m, 0.99 * var + 0.01 * v


def _forward_and_backward(forward: Callable[..., Any], dy: Array, *arguments: Array) -> tuple[Any, ...]:
    """The result, and the gradients of y with respect to everything."""

    def y_and_rest(*arguments: Array) -> tuple[Array, Any]:
        result = forward(*arguments)
        return (result[0], result[1:]) if isinstance(result, tuple) else (result, ())

    y, pullback, rest = jax.vjp(y_and_rest, *arguments, has_aux=True)
    return y, *pullback(dy), *rest


def _scanned(function: Callable[..., Array], steps: int, first: Array, other: Array) -> Array:
    def body(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        first, result = carry
        # One number of the last result goes in, or XLA would compute the loop's only result before the loop.
        first = first.at[(0,) * first.ndim].set(result.ravel()[0])
        return (first, function(first, other)), None

    return lax.scan(body, (first, function(first, other)), length=steps - 1)[0][1]
