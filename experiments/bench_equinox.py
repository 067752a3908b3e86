"""The train steps of experiments.bench with Equinox: channels first, one example, mapped over the batch."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
from jax import Array

from experiments import workloads_nets as nets
from experiments.bench_child import Program
from experiments.bench_lax import train_program
from experiments.workloads import Workload

KEY = jax.random.key(0)


def stock(workload: Workload) -> list[Program]:
    """Train stock Equinox modules."""
    net: Any = workload.case
    model, memory = eqx.nn.make_with_state(_chain)(net.layers, net.rank, np.random.default_rng(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    x, labels = net.batch()

    def loss_fn(params: Any, memory: eqx.nn.State, x: Array, labels: Array) -> tuple[Array, eqx.nn.State]:
        batched = jax.vmap(eqx.combine(params, static), axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        logits, memory = batched(x, memory)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), memory

    def step(state: tuple[Any, eqx.nn.State], x: Array, labels: Array) -> tuple[tuple[Any, eqx.nn.State], Array]:
        params, memory = state
        (loss, memory), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params, memory, x, labels)
        params = jax.tree.map(lambda p, g: p - nets.LEARNING_RATE * g, params, gradients)
        return (params, memory), loss

    return [train_program(step, (params, memory), np.ascontiguousarray(np.moveaxis(x, -1, 1)), labels)]


class Residual(eqx.nn.StatefulLayer):
    """The sum of two branches."""

    main: eqx.nn.Sequential
    shortcut: eqx.nn.Sequential

    def __init__(self, main: eqx.nn.Sequential, shortcut: eqx.nn.Sequential):
        self.main, self.shortcut = main, shortcut

    def __call__(self, x: Array, state: eqx.nn.State, *, key: Array | None = None) -> tuple[Array, eqx.nn.State]:
        """Add what the branches make of x."""
        main, state = self.main(x, state)
        shortcut, state = self.shortcut(x, state)
        return main + shortcut, state


def _chain(layers: nets.Layers, rank: int, rng: np.random.Generator) -> eqx.nn.Sequential:
    return eqx.nn.Sequential([_layer(layer, rank, rng) for layer in layers])


def _layer(layer: nets.Layer, rank: int, rng: np.random.Generator) -> Any:
    match layer:
        case nets.Conv():
            module = eqx.nn.Conv(
                rank, layer.inputs, layer.outputs, layer.window, layer.stride, layer.window // 2, groups=layer.groups,
                use_bias=layer.bias, key=KEY,
            )  # fmt: skip
            return _filled(module, nets.kernel(layer, rank, rng))
        case nets.Dense():
            return _filled(eqx.nn.Linear(layer.inputs, layer.outputs, key=KEY), nets.kernel(layer, rank, rng))
        case nets.Norm():
            return eqx.nn.BatchNorm(layer.features, "batch", mode="batch")
        case nets.Residual():
            return Residual(_chain(layer.main, rank, rng), _chain(layer.shortcut, rank, rng))
        case "relu":
            return eqx.nn.Lambda(jax.nn.relu)
        case "max-pool":
            return (eqx.nn.MaxPool1d, eqx.nn.MaxPool2d, eqx.nn.MaxPool3d)[rank - 1](2, 2)
        case "mean":
            return eqx.nn.Lambda(lambda x: x.mean(tuple(range(1, x.ndim))))
        case "flatten":
            # In the channels-last order of the other libraries.
            return eqx.nn.Lambda(lambda x: jax.numpy.moveaxis(x, 0, -1).ravel())


def _filled(module: Any, kernel: np.ndarray) -> Any:
    """The module with (*window, C_in, C_out) as its (C_out, C_in, *window) weight, and no bias yet."""
    weight = jax.numpy.asarray(np.moveaxis(kernel, (-1, -2), (0, 1)))
    module = eqx.tree_at(lambda m: m.weight, module, weight)
    return module if module.bias is None else eqx.tree_at(lambda m: m.bias, module, 0 * module.bias)
