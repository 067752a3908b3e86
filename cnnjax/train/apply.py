"""The one place that knows how cnnjax's models and stock nnx models differ in being called."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array


def apply(model: nnx.Module, x: Array, *, train: bool, key: Array | None = None) -> Array:
    """Call any nnx model, in training or evaluation mode.

    A model whose call takes `train` gets it, and `key` if it takes that. Any other is a stock one: its BatchNorms
    and Dropouts are switched in a view of it, and its random streams draw from `key` for this call alone, so that
    the result is a function of the key and not of how often the model was called before.

    Args:
        model: any `nnx.Module`; in training its batch statistics are updated in place.
        x: what the model takes.
        train: whether dropout drops and batch-norm uses the batch.
        key: PRNG key of the noise; a stock model with random streams needs one in training.

    Returns:
        What the model returns.

    Raises:
        ValueError: a stock model with random streams is trained without a key.

    Example:
        >>> stock = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(1)))
        >>> train.apply(stock, jnp.ones((4, 2)), train=True, key=jax.random.key(0)).shape
        (4, 3)

    Source:
        flax.nnx.view and flax.nnx.RngStream.
    """
    takes = inspect.signature(type(model).__call__).parameters
    if "train" in takes:
        return model(x, train=train, **({"key": key} if "key" in takes else {}))  # pyright: ignore[reportCallIssue]
    if train and key is None and _streams(model):
        raise ValueError("apply: a model with random streams needs a key in training, got None. Pass key=...")
    view = nnx.view(model, raise_if_not_found=False)
    with mode(view, train=train, key=key):
        return view(x)  # pyright: ignore[reportCallIssue]


@contextmanager
def mode(model: nnx.Module, *, train: bool, key: Array | None = None) -> Iterator[None]:
    """Switch the stock modules in a model, in place, and let their random streams draw from a key for a while.

    The modules stay switched: use it on a model of one's own, fresh from a merge or a view.

    Args:
        model: any `nnx.Module`; cnnjax's own modules are told when they are called, and are not touched.
        train: whether dropout drops and batch-norm uses the batch.
        key: PRNG key of the noise, or None to leave the streams alone.

    Returns:
        A context manager; on leaving it the streams are as they were.

    Raises:
        Nothing.

    Example:
        >>> stock = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
        >>> with train.mode(stock, train=False):
        ...     print(stock(jnp.ones(3)))
        [1. 1. 1.]

    Source:
        flax.nnx.Module.set_attributes and flax.nnx.RngStream.
    """
    model.set_attributes(deterministic=not train, use_running_average=not train, raise_if_not_found=False)
    if key is None:
        yield
        return
    streams = _streams(model)
    kept = [(stream.key[...], stream.count[...]) for stream in streams]
    for number, stream in enumerate(streams):
        stream.key[...] = jax.random.fold_in(key, number)
        stream.count[...] = jnp.zeros_like(stream.count[...])
    try:
        yield
    finally:
        for stream, (old_key, old_count) in zip(streams, kept, strict=True):
            stream.key[...] = old_key
            stream.count[...] = old_count


def _streams(model: nnx.Module) -> list[nnx.RngStream]:
    return [node for _, node in nnx.iter_graph(model) if isinstance(node, nnx.RngStream)]
