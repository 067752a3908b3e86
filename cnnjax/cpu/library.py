"""The kernels that the formulations are built on: oneDNN's where it can be trusted, XLA's own elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass

from jax import Array, lax

from cnnjax.cpu import onednn as _onednn


def _dot(a: Array, b: Array, *, transpose_a: bool = False) -> Array:
    return lax.dot_general(a, b, (((0 if transpose_a else 1,), (0,)), ((), ())))


@dataclass(frozen=True)
class Library:
    """A matrix product, and a convolution where there is one that beats XLA's."""

    matmul: Callable[..., Array]
    convolution: Callable[..., Array] | None


onednn = Library(_onednn.matmul, _onednn.convolution)
plain = Library(_dot, None)
