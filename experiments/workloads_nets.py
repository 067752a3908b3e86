"""The nets that experiments.bench trains, as data: each library builds its own modules from the same layers."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

LEARNING_RATE = 0.001


@dataclass(frozen=True)
class Conv:
    """A convolution that keeps the size at stride 1."""

    inputs: int
    outputs: int
    window: int = 3
    stride: int = 1
    groups: int = 1
    bias: bool = False


@dataclass(frozen=True)
class Norm:
    """Batch-norm."""

    features: int


@dataclass(frozen=True)
class Dense:
    """A dense layer with bias."""

    inputs: int
    outputs: int


@dataclass(frozen=True)
class Residual:
    """The sum of two branches; without layers a branch is x itself."""

    main: "Layers"
    shortcut: "Layers" = ()


Plain: TypeAlias = Literal["relu", "max-pool", "mean", "flatten"]  # a 2-wide pool; the mean over all pixels
Layer: TypeAlias = Conv | Norm | Dense | Residual | Plain
Layers: TypeAlias = tuple[Layer, ...]


@dataclass(frozen=True)
class Net:
    """A classifier of channels-last x."""

    kind: str
    shape: tuple[int, ...]
    layers: Layers

    @property
    def name(self) -> str:
        """The kind, batch and size."""
        return f"{self.kind}, {size(self.shape)}"

    @property
    def rank(self) -> int:
        """How many axes are spatial."""
        return len(self.shape) - 2

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Draw x and labels."""
        rng = np.random.default_rng(0)
        return rng.random(self.shape, np.float32), rng.integers(0, _last(self.layers), self.shape[0], np.int32)


def size(shape: tuple[int, ...], channels: int = 1) -> str:
    """Write a shape, without its last `channels` axes, as 128x28x28."""
    return "x".join(map(str, shape[: len(shape) - channels]))


def kernel(layer: Conv | Dense, rank: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a layer's first kernel (*window, C_in // groups, C_out): one order of layers gives equal nets."""
    if isinstance(layer, Dense):
        shape = (layer.inputs, layer.outputs)
    else:
        shape = (*(layer.window,) * rank, layer.inputs // layer.groups, layer.outputs)
    return rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / math.prod(shape[:-1])))


def _last(layers: Layers) -> int:
    return next(layer.outputs for layer in reversed(layers) if isinstance(layer, Dense))


def _block(inputs: int, outputs: int, window: int = 3, stride: int = 1, groups: int = 1) -> Layers:
    return (Conv(inputs, outputs, window, stride, groups), Norm(outputs), "relu")


def _basic(inputs: int, outputs: int, stride: int) -> Layers:
    """Two convolutions and a shortcut: He et al. 2016, figure 2."""
    main = (*_block(inputs, outputs, stride=stride), Conv(outputs, outputs), Norm(outputs))
    straight = inputs == outputs and stride == 1
    return (Residual(main, () if straight else (Conv(inputs, outputs, 1, stride), Norm(outputs))), "relu")


def _separable(inputs: int, outputs: int, stride: int) -> Layers:
    """A depthwise and a pointwise convolution: Howard et al. 2017, figure 3."""
    return (*_block(inputs, inputs, stride=stride, groups=inputs), *_block(inputs, outputs, 1))


LENET = Net(
    "LeNet",
    (128, 28, 28, 1),
    (
        *(Conv(1, 32, bias=True), "relu", "max-pool"),
        *(Conv(32, 64, bias=True), "relu", "max-pool"),
        *("flatten", Dense(7 * 7 * 64, 10)),
    ),
)
RESNET18 = Net(
    "ResNet-18",
    (64, 32, 32, 3),
    (
        *_block(3, 64),
        *(*_basic(64, 64, 1), *_basic(64, 64, 1)),
        *(*_basic(64, 128, 2), *_basic(128, 128, 1)),
        *(*_basic(128, 256, 2), *_basic(256, 256, 1)),
        *(*_basic(256, 512, 2), *_basic(512, 512, 1)),
        *("mean", Dense(512, 10)),
    ),
)
MOBILENET = Net(
    "MobileNet",
    (64, 32, 32, 3),
    (
        *_block(3, 32),
        *_separable(32, 64, 1),
        *(*_separable(64, 128, 2), *_separable(128, 128, 1)),
        *(*_separable(128, 256, 2), *_separable(256, 256, 1)),
        *(*_separable(256, 512, 2), *_separable(512, 512, 1)),
        *("mean", Dense(512, 10)),
    ),
)
NET_1D = Net(
    "1-D net",
    (32, 1000, 1),
    (
        *(*_block(1, 16, 9), "max-pool"),
        *(*_block(16, 32, 9), "max-pool"),
        *_block(32, 64, 9),
        *("mean", Dense(64, 10)),
    ),
)
NET_3D = Net(
    "3-D net",
    (2, 32, 32, 32, 1),
    (
        *(*_block(1, 8), "max-pool"),
        *(*_block(8, 16), "max-pool"),
        *_block(16, 32),
        *("mean", Dense(32, 3)),
    ),
)
