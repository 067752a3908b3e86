"""How the architectures call their blocks: one after the other, recomputed in the backward pass if asked to."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jax import Array


def chain(blocks: Sequence[Any], x: Array, *, train: bool, key: Array | None = None, remat: bool) -> Array:
    """Call blocks in turn, each with a key of its own where there is noise to draw."""
    for block, block_key in zip(blocks, split(key, len(blocks), train=train), strict=True):
        x = call(block, x, train=train, key=block_key, remat=remat)
    return x


def split(key: Array | None, count: int, *, train: bool) -> Sequence[Array | None] | Array:
    """Keys for some layers: None for each where there is no noise to draw."""
    return jax.random.split(key, count) if train and key is not None else [None] * count


def call(block: Any, x: Array, *, train: bool, key: Array | None = None, remat: bool) -> Array:
    """Call one block; with remat only its input is kept for the backward pass, and the rest computed again there."""
    if not remat:
        return block(x, train=train, key=key)
    # Of nnx and not of jax, because it carries the batch statistics out that the block updates in place.
    return nnx.remat(lambda block, x, key: block(x, train=train, key=key))(block, x, key)
