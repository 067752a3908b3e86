"""The check of the ops that take any number of spatial axes."""

from jax import Array

from cnnjax.ops import _arguments as arguments


def spatial_shape(op: str, x: Array) -> tuple[int, ...]:
    """The spatial shape of x, which must be (N, *spatial, C) with one to three axes of at least one pixel."""
    if not 3 <= x.ndim <= 5:
        fix = "Add a batch axis with x[None]." if x.ndim == 2 else "Use vmap for more batch axes." if x.ndim > 5 else ""
        raise ValueError(
            f"{op}: x must be (N, *spatial, C) with one to three spatial axes, got shape {x.shape}. {fix}".rstrip()
        )
    return arguments.batched(op, x, x.ndim - 2)
