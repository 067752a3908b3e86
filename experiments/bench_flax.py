"""The train steps of experiments.bench with Flax NNX: its own modules, and those of cnnjax."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax import Array

from cnnjax import nn, ops
from experiments import workloads_nets as nets
from experiments.bench_child import Program
from experiments.bench_lax import train_program
from experiments.workloads import Workload

Make = Callable[[nets.Layer, int, np.random.Generator], Callable[[Array], Array]]


def stock(workload: Workload) -> list[Program]:
    """Train stock nnx modules."""
    return [_program(workload.case, _stock_layer)]


def ours(workload: Workload) -> list[Program]:
    """Train the modules and ops of cnnjax."""
    return [_program(workload.case, _our_layer)]


class Chain(nnx.Module):
    """Layers one after another; batch-norm of cnnjax asks to be told that this is training."""

    def __init__(self, make: Make, layers: nets.Layers, rank: int, rng: np.random.Generator):
        self.layers = nnx.List([make(layer, rank, rng) for layer in layers])

    def __call__(self, x: Array) -> Array:
        """Apply every layer."""
        for layer in self.layers:
            x = layer(x, train=True) if isinstance(layer, nn.BatchNorm) else layer(x)
        return x


class Residual(nnx.Module):
    """The sum of two branches."""

    def __init__(self, main: Chain, shortcut: Chain):
        self.main, self.shortcut = main, shortcut

    def __call__(self, x: Array) -> Array:
        """Add what the branches make of x."""
        return self.main(x) + self.shortcut(x)


def _program(net: Any, make: Make) -> Program:
    model = Chain(make, net.layers, net.rank, np.random.default_rng(0))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss_fn(params: Any, rest: Any, x: Array, labels: Array) -> tuple[Array, Any]:
        model = nnx.merge(graphdef, params, rest, copy=True)
        loss = optax.losses.softmax_cross_entropy_with_integer_labels(model(x), labels).mean()
        return loss, nnx.split(model, nnx.Param, ...)[2]

    def step(state: tuple[Any, Any], x: Array, labels: Array) -> tuple[tuple[Any, Any], Array]:
        params, rest = state
        (loss, rest), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params, rest, x, labels)
        params = jax.tree.map(lambda p, g: p - nets.LEARNING_RATE * g, params, gradients)
        return (params, rest), loss

    return train_program(step, (params, rest), *net.batch())


def _stock_layer(layer: nets.Layer, rank: int, rng: np.random.Generator) -> Callable[[Array], Array]:
    rngs = nnx.Rngs(0)
    match layer:
        case nets.Conv():
            return nnx.Conv(
                layer.inputs, layer.outputs, (layer.window,) * rank, layer.stride, padding=layer.window // 2,
                feature_group_count=layer.groups, use_bias=layer.bias, kernel_init=_kernel(layer, rank, rng), rngs=rngs,
            )  # fmt: skip
        case nets.Dense():
            return nnx.Linear(layer.inputs, layer.outputs, kernel_init=_kernel(layer, rank, rng), rngs=rngs)
        case nets.Norm():
            return nnx.BatchNorm(layer.features, rngs=rngs)
        case nets.Residual():
            return _residual(_stock_layer, layer, rank, rng)
        case "relu":
            return jax.nn.relu
        case "max-pool":
            return partial(nnx.max_pool, window_shape=(2,) * rank, strides=(2,) * rank)
        case "mean":
            return lambda x: x.mean(tuple(range(1, x.ndim - 1)))
        case "flatten":
            return lambda x: x.reshape(len(x), -1)


def _our_layer(layer: nets.Layer, rank: int, rng: np.random.Generator) -> Callable[[Array], Array]:
    rngs = nnx.Rngs(0)
    match layer:
        case nets.Conv():
            conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
            return conv(
                layer.inputs, layer.outputs, layer.window, stride=layer.stride, padding=layer.window // 2,
                groups=layer.groups, use_bias=layer.bias, kernel_init=_kernel(layer, rank, rng), rngs=rngs,
            )  # fmt: skip
        case nets.Dense():
            return nn.Dense(layer.inputs, layer.outputs, kernel_init=_kernel(layer, rank, rng), rngs=rngs)
        case nets.Norm():
            return nn.BatchNorm(layer.features, rngs=rngs)
        case nets.Residual():
            return _residual(_our_layer, layer, rank, rng)
        case "relu":
            return jax.nn.relu
        case "max-pool":
            return partial((ops.max_pool1d, ops.max_pool2d, ops.max_pool3d)[rank - 1], window=2)
        case "mean":
            return ops.global_avg_pool
        case "flatten":
            return ops.flatten


def _residual(make: Make, layer: nets.Residual, rank: int, rng: np.random.Generator) -> Residual:
    return Residual(Chain(make, layer.main, rank, rng), Chain(make, layer.shortcut, rank, rng))


def _kernel(layer: nets.Conv | nets.Dense, rank: int, rng: np.random.Generator) -> Callable[..., Array]:
    kernel = nets.kernel(layer, rank, rng)
    return lambda *_: jax.numpy.asarray(kernel)
