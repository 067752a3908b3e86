"""What experiments.bench times: operations and nets, described without any library."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from experiments.workloads_nets import LENET, MOBILENET, NET_1D, NET_3D, RESNET18, Net, size

What = Literal["forward", "d-input", "d-kernel", "forward + backward", "train step"]
PASSES: tuple[What, ...] = ("forward", "d-input", "d-kernel")


@dataclass(frozen=True)
class Conv:
    """A convolution of channels-last x with a cubic window, the same padding on both sides of every axis."""

    shape: tuple[int, ...]
    window: int
    features: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    padding: int | None = None
    """None is what keeps the size of an odd window at stride 1."""
    transposed: bool = False

    @property
    def rank(self) -> int:
        """How many axes are spatial."""
        return len(self.shape) - 2

    @property
    def pad(self) -> int:
        """The padding as a number."""
        return self.dilation * (self.window - 1) // 2 if self.padding is None else self.padding

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """(*window, C_in // groups, C_out)."""
        return (*(self.window,) * self.rank, self.shape[-1] // self.groups, self.features)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(N, *out_spatial, C_out)."""
        reach = self.dilation * (self.window - 1) + 1 - 2 * self.pad
        if self.transposed:
            spatial = [(n - 1) * self.stride + reach for n in self.shape[1:-1]]
        else:
            spatial = [(n - reach) // self.stride + 1 for n in self.shape[1:-1]]
        return (self.shape[0], *spatial, self.features)

    @property
    def gflop(self) -> float:
        """Billions of additions and multiplications, padding included."""
        pixels = math.prod(self.shape[:-1] if self.transposed else self.output_shape[:-1])
        return 2e-9 * pixels * math.prod(self.kernel_shape)

    @property
    def name(self) -> str:
        """The kind, window, channels, batch and size, and what is not usual."""
        depthwise = self.groups == self.shape[-1] > 1
        kind = "transposed" if self.transposed else "depthwise" if depthwise else f"{self.rank}-D"
        options = {"stride": self.stride, "dilation": self.dilation, "groups": 1 if depthwise else self.groups}
        unusual = "".join(f" {name} {value}" for name, value in options.items() if value > 1)
        window = "x".join([str(self.window)] * self.rank) if self.rank > 1 else f"window {self.window}"
        return f"{kind} {window} {self.shape[-1]}->{self.features}{unusual}, {size(self.shape)}"

    def inputs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw x, kernel and the cotangent of the result."""
        scale = 1 / math.sqrt(math.prod(self.kernel_shape[:-1]))
        return draw(self.shape), draw(self.kernel_shape, scale), draw(self.output_shape)


@dataclass(frozen=True)
class Pool:
    """The maximum or the average of every cubic window; padding counts in the average."""

    shape: tuple[int, ...]
    window: int
    stride: int
    padding: int = 0
    average: bool = False

    @property
    def name(self) -> str:
        """The kind, window, stride and shape."""
        window = "x".join([str(self.window)] * (len(self.shape) - 2))
        return f"{'average' if self.average else 'max'}-pool {window} stride {self.stride}, {size(self.shape, 0)}"

    def inputs(self) -> tuple[np.ndarray, np.ndarray]:
        """Draw x and the cotangent of the result."""
        spatial = [(n + 2 * self.padding - self.window) // self.stride + 1 for n in self.shape[1:-1]]
        return draw(self.shape), draw((self.shape[0], *spatial, self.shape[-1]))


@dataclass(frozen=True)
class BatchNorm:
    """Batch-norm in training: the batch's statistics normalise, and move the remembered ones."""

    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The kind and shape."""
        return f"batch-norm, {size(self.shape, 0)}"

    def inputs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Draw x, scale, bias and the cotangent of the result."""
        channels = self.shape[-1:]
        return draw(self.shape), draw(channels), draw(channels), draw(self.shape)


@dataclass(frozen=True)
class Workload:
    """One row of the table: what of a case is computed, alone or `steps` times in a lax.scan."""

    case: Conv | Pool | BatchNorm | Net
    what: What
    scan: bool = False
    steps: int = 1

    @property
    def name(self) -> str:
        """The row's title, which --only looks at."""
        return f"{self.case.name}: {self.what}{' in scan' if self.scan else ''}"

    @property
    def group(self) -> str:
        """The part of the table that the row stands in."""
        if isinstance(self.case, Pool | BatchNorm):
            return "pools and norms"
        return "in and out of scan" if self.case == SCANNED else self.what


def draw(shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """Draw numbers between -scale and scale, the same ones for the same shape in every process."""
    return (np.random.default_rng(shape).random(shape, np.float32) * 2 - 1) * np.float32(scale)


CONVS = (
    Conv((128, 28, 28, 1), 3, 32),
    Conv((128, 28, 28, 32), 3, 64),
    Conv((64, 32, 32, 3), 3, 64),
    Conv((64, 32, 32, 64), 3, 64),
    Conv((64, 16, 16, 128), 3, 128),
    Conv((64, 4, 4, 512), 3, 512),
    Conv((128, 14, 14, 6), 5, 16, padding=0),
    Conv((8, 224, 224, 3), 7, 64, stride=2),
    Conv((64, 16, 16, 256), 1, 64),
    Conv((64, 32, 32, 64), 3, 128, stride=2),
    Conv((64, 32, 32, 64), 3, 64, dilation=2),
    Conv((64, 32, 32, 64), 3, 64, groups=4),
    Conv((64, 32, 32, 64), 3, 64, groups=32),
    Conv((64, 32, 32, 64), 3, 64, groups=64),
    Conv((8, 112, 112, 96), 3, 96, groups=96),
    Conv((64, 32, 32, 64), 3, 64, stride=2, groups=64),
    Conv((16, 32, 32, 64), 7, 64, groups=64),
    Conv((32, 1000, 16), 9, 32),
    Conv((2, 32, 32, 32, 8), 3, 16),
    Conv((2, 16, 16, 16, 32), 3, 32),
    Conv((64, 16, 16, 128), 4, 64, stride=2, padding=1, transposed=True),
    Conv((64, 32, 32, 64), 4, 32, stride=2, padding=1, transposed=True),
)
SCANNED = Conv((16, 32, 32, 32), 3, 32)
POOLS = (
    Pool((64, 32, 32, 64), 2, stride=2),
    Pool((64, 32, 32, 64), 3, stride=2, padding=1),
    Pool((64, 32, 32, 64), 3, stride=1, padding=1, average=True),
    BatchNorm((64, 32, 32, 64)),
)
NETS = (LENET, RESNET18, MOBILENET, NET_1D, NET_3D)

ALL = (
    *(Workload(case, what) for case in CONVS for what in PASSES),
    *(Workload(case, what) for case in POOLS for what in ("forward", "forward + backward")),
    *(Workload(SCANNED, what, scan, 10) for what in PASSES for scan in (False, True)),
    *(Workload(net, "train step") for net in NETS),
)
