"""Integrated gradients: a class's score, divided among the elements of the input."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from numpy.typing import ArrayLike

from cnnjax.explain import _score
from cnnjax.ops import _arguments as arguments

# So many examples at once are plenty to keep a device busy.
_AT_ONCE = 64


def integrated_gradients(
    model: nnx.Module, x: ArrayLike, *, target: ArrayLike | None = None, baseline: ArrayLike = 0.0, steps: int = 64
) -> Array:
    """Divide the difference between a class's score for the input and for a baseline among the input's elements.

    They add up to that difference (completeness), up to the error of the sum below: `result.sum()` close to
    score(x) - score(baseline) says that there were steps enough. A pixel that equals the baseline gets nothing: on
    black as the baseline no black pixel counts. Of a linear model the result is weight * (x - baseline).

    r = (x - b) * mean over i of d score(b + (i + 0.5) / steps * (x - b)) / d x, for i in 0..steps - 1

    Args:
        model: as in `saliency`.
        x: as in `saliency`.
        target: as in `saliency`; None is the class that the model takes x for, all the way.
        baseline: what stands for nothing: a number, or an array that broadcasts to x, such as a blurred x.
        steps: points on the line from baseline to x, at least 1.

    Returns:
        Array of the shape and dtype of x.

    Raises:
        TypeError: as `saliency`; steps that are no integer.
        ValueError: as `saliency`; a baseline that does not broadcast to x, or no steps.

    Example:
        >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
        >>> model.kernel[...] = jnp.array([[3.0], [-1.0]])
        >>> integrated_gradients(model, jnp.array([[2.0, 1.0]]), baseline=jnp.array([1.0, 2.0]))
        Array([[3., 1.]], dtype=float32)

    Source:
        Sundararajan, Taly & Yan 2017, "Axiomatic Attribution for Deep Networks", sections 3 and 5; the sum there takes
        the points' right ends, here their middles.
    """
    function = "integrated_gradients"
    arguments.count(function, "steps", steps)
    x, score = _score.ask(function, model, x, target)
    nothing = jnp.asarray(baseline, x.dtype)
    try:
        start = jnp.broadcast_to(nothing, x.shape)
    except ValueError as error:
        raise ValueError(f"{function}: baseline must broadcast to x {x.shape}, got shape {nothing.shape}.") from error
    # As many points at once as divide the steps, so that no chunk is cut.
    chunk = max(size for size in range(1, steps + 1) if steps % size == 0 and (size == 1 or size * len(x) <= _AT_ONCE))
    fractions = ((jnp.arange(steps) + 0.5) / steps).reshape(-1, chunk)

    @jax.jit
    def mean(x: Array, start: Array, state: list[Array]) -> Array:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        slope = jax.grad(lambda x: score.of(state, x).sum())

        def add(total: Array, part: Array) -> tuple[Array, None]:
            slopes = jax.vmap(lambda fraction: slope((start + fraction * (x - start)).astype(x.dtype)))(part)
            return total + slopes.astype(wide).sum(0), None

        total, _ = jax.lax.scan(add, jnp.zeros(x.shape, wide), fractions)
        return ((x - start) * (total / steps)).astype(x.dtype)

    return mean(x, start, score.state)
