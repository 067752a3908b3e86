"""What a classifier says for one class of each example: the number that heat maps explain."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.core import Tracer
from jax.extend import core
from numpy.typing import ArrayLike

from cnnjax.explain import _backward, _jaxpr, _place
from cnnjax.explain._windows import shape_of
from cnnjax.explain.trace import Trace, trace

_SOFTMAX = ("softmax", "log_softmax")


class Score(NamedTuple):
    """The scores of a model for the targets of as many examples as were traced."""

    traced: Trace
    logits: Any
    targets: Array

    @property
    def state(self) -> list[Any]:
        """What `of` computes with; an argument, so that jit does not fold it into the program."""
        return self.traced.program.state

    def of(self, state: Sequence[Any], x: Array, **options: Any) -> Array:
        """Compute the score (N,) of each example, in float32 at least; options as in `_backward.run`."""
        (logits,) = _backward.run(self.traced, [self.logits], state, x, **options)
        chosen = jnp.take_along_axis(logits, self.targets[:, None], axis=1)[:, 0]
        return chosen.astype(jnp.promote_types(chosen.dtype, jnp.float32))

    def gradient(self, x: Array, **options: Any) -> Array:
        """Compute the derivative of each example's score by its elements, jitted."""
        function = jax.jit(jax.grad(lambda x, state: self.of(state, x, **options).sum()))
        return function(x, self.state)


def ask(function: str, model: nnx.Module, x: ArrayLike, target: ArrayLike | None) -> tuple[Array, Score]:
    """The examples as an array, and the model's scores for the targets, by default the classes it takes them for."""
    examples = _place.examples(function, x)
    traced = trace(model, examples, function=function)
    results = traced.program.jaxpr.jaxpr.outvars
    n, shapes = len(examples), [shape_of(var) for var in results]
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][0] != n:
        got = " and ".join(map(str, shapes)) or "nothing"
        raise ValueError(f"{function}: model must return one array (N, K), got {got} for N = {n}. Wrap it to choose.")
    logits = _before_softmax(traced.program.jaxpr.jaxpr)
    if target is None:
        targets = traced.values([logits], examples)[0].argmax(1)
    else:
        targets = _targets(function, target, n, shapes[0][1])
    return examples, Score(traced, logits, targets)


def _targets(function: str, target: ArrayLike, n: int, classes: int) -> Array:
    targets = target if isinstance(target, Tracer) else np.asarray(target)
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise TypeError(f"{function}: target must be an integer or {n} of them, got dtype {targets.dtype}.")
    if targets.shape not in ((), (n,)):
        raise ValueError(f"{function}: target must be an integer or {n} of them, got shape {targets.shape}.")
    if isinstance(targets, np.ndarray) and not (targets.min() >= 0 and targets.max() < classes):
        raise ValueError(
            f"{function}: target must be one of the {classes} classes from 0, got {targets.min()} to {targets.max()}."
        )
    return jnp.broadcast_to(jnp.asarray(targets), (n,))


def _before_softmax(jaxpr: core.Jaxpr) -> Any:
    """What the softmax at the end of a program reads, or the result itself where there is none."""
    made_by: dict[Any, core.JaxprEqn] = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
    result: Any = jaxpr.outvars[0]
    while (eqn := made_by.get(result)) is not None and eqn.primitive.name == "convert_element_type":
        result = eqn.invars[0]
    if eqn is None or _jaxpr.function(eqn) not in _SOFTMAX:
        return jaxpr.outvars[0]
    # Back through all that belongs to it: of what comes from elsewhere the logits alone have its shape.
    waiting, seen = [result], set()
    while waiting:
        var = waiting.pop()
        eqn = made_by.get(var)
        if eqn is None or _jaxpr.function(eqn) not in _SOFTMAX:
            if shape_of(var) == shape_of(result):
                return var
        elif var not in seen:
            seen.add(var)
            waiting += [atom for atom in eqn.invars if not isinstance(atom, core.Literal)]
    return jaxpr.outvars[0]
