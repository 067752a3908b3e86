"""The programs of experiments.bench in PyTorch, eager, in both of its memory layouts."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from experiments import workloads_nets as nets
from experiments.bench_child import Program
from experiments.workloads import BatchNorm, Conv, Pool, Workload

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def programs(workload: Workload) -> list[Program]:
    """Make one program a memory layout."""
    rank = len(workload.case.shape) - 2
    layouts = [torch.contiguous_format, *([CHANNELS_LAST[rank]] if rank in CHANNELS_LAST else [])]
    return [_program(workload, layout) for layout in layouts]


def _program(workload: Workload, layout: torch.memory_format) -> Program:
    case = workload.case
    if isinstance(case, nets.Net):
        run = _train_step(case, layout)
    elif isinstance(case, Conv):
        run = _conv(case, workload.what, layout)
    elif isinstance(case, Pool):
        run = _forward_or_both(partial(_pool, case), workload.what, [_x(array, layout) for array in case.inputs()])
    else:
        run = _forward_or_both(_norm(case), workload.what, [_x(array, layout) for array in case.inputs()])
    steps = workload.steps
    return Program(lambda: run if steps == 1 else lambda: [run() for _ in range(steps)][-1], str(layout))


def _x(array: np.ndarray, layout: torch.memory_format) -> torch.Tensor:
    """Channels second, if there are any axes between batch and channels."""
    moved = torch.from_numpy(array).movedim(-1, 1) if array.ndim > 2 else torch.from_numpy(array)
    return moved.contiguous(memory_format=layout) if array.ndim > 2 else moved


def _kernel(array: np.ndarray) -> torch.Tensor:
    """(*window, C_in, C_out) to (C_out, C_in, *window)."""
    return torch.from_numpy(array).movedim((-1, -2), (0, 1))


def _conv(case: Conv, what: str, layout: torch.memory_format) -> Callable[[], Any]:
    arrays = case.inputs()
    x, dy, kernel = _x(arrays[0], layout), _x(arrays[2], layout), _kernel(arrays[1])
    if case.transposed:
        # lax slides a kernel over dilated x where torch scatters one: flipped, and with C_in first.
        kernel = kernel.flip(tuple(range(2, kernel.ndim))).transpose(0, 1)
    kernel = kernel.contiguous(memory_format=layout)
    stride, pad, dilation = ([n] * case.rank for n in (case.stride, case.pad, case.dilation))
    options = (stride, pad, dilation, case.transposed, [0] * case.rank, case.groups)
    if what == "forward":
        return lambda: torch.convolution(x, kernel, None, *options)
    mask = [what == "d-input", what == "d-kernel", False]
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(dy, x, kernel, None, *options, mask)[mask.index(True)]


def _pool(case: Pool, x: torch.Tensor) -> torch.Tensor:
    pool: Any = getattr(F, f"{'avg' if case.average else 'max'}_pool{x.ndim - 2}d")
    return pool(x, case.window, case.stride, case.padding)


def _norm(case: BatchNorm) -> Callable[..., torch.Tensor]:
    mean, var = torch.zeros(case.shape[-1]), torch.ones(case.shape[-1])
    return lambda x, scale, bias: F.batch_norm(x, mean, var, scale, bias, training=True, momentum=0.01, eps=1e-5)


def _forward_or_both(function: Callable[..., Any], what: str, tensors: list[torch.Tensor]) -> Callable[[], Any]:
    *arguments, dy = tensors
    if what == "forward":
        return lambda: function(*arguments)
    for argument in arguments:
        argument.requires_grad_()

    def both() -> tuple[torch.Tensor, ...]:
        y = function(*arguments)
        return y.detach(), *torch.autograd.grad(y, arguments, dy)

    return both


class Residual(torch.nn.Module):
    """The sum of two branches."""

    def __init__(self, main: torch.nn.Module, shortcut: torch.nn.Module):
        super().__init__()
        self.main, self.shortcut = main, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add what the branches make of x."""
        return self.main(x) + self.shortcut(x)


class Mean(torch.nn.Module):
    """The mean over all pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Average x (N, C, *spatial) to (N, C)."""
        return x.mean(tuple(range(2, x.ndim)))


class Flatten(torch.nn.Module):
    """The pixels in the channels-last order of the other libraries."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Reshape x (N, C, *spatial) to (N, features)."""
        return x.movedim(1, -1).flatten(1)


def _train_step(net: nets.Net, layout: torch.memory_format) -> Callable[[], Any]:
    model: Any = _chain(net.layers, net.rank, np.random.default_rng(0))
    model.to(memory_format=layout)
    x, labels = _x(net.batch()[0], layout), torch.from_numpy(net.batch()[1]).long()
    optimiser = torch.optim.SGD(model.parameters(), nets.LEARNING_RATE)

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


def _chain(layers: nets.Layers, rank: int, rng: np.random.Generator) -> torch.nn.Sequential:
    return torch.nn.Sequential(*[_layer(layer, rank, rng) for layer in layers])


def _layer(layer: nets.Layer, rank: int, rng: np.random.Generator) -> torch.nn.Module:
    match layer:
        case nets.Conv():
            conv: Any = getattr(torch.nn, f"Conv{rank}d")
            module = conv(
                layer.inputs, layer.outputs, layer.window, layer.stride, layer.window // 2, groups=layer.groups,
                bias=layer.bias,
            )  # fmt: skip
            return _filled(module, nets.kernel(layer, rank, rng))
        case nets.Dense():
            return _filled(torch.nn.Linear(layer.inputs, layer.outputs), nets.kernel(layer, rank, rng))
        case nets.Norm():
            return getattr(torch.nn, f"BatchNorm{rank}d")(layer.features)
        case nets.Residual():
            return Residual(_chain(layer.main, rank, rng), _chain(layer.shortcut, rank, rng))
        case "relu":
            return torch.nn.ReLU()
        case "max-pool":
            return getattr(torch.nn, f"MaxPool{rank}d")(2)
        case "mean":
            return Mean()
        case "flatten":
            return Flatten()


def _filled(module: Any, kernel: np.ndarray) -> torch.nn.Module:
    with torch.no_grad():
        module.weight.copy_(_kernel(kernel))
        if module.bias is not None:
            module.bias.zero_()
    return module
