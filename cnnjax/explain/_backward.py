"""Run the program of a model anew, with something added at a layer, or with other derivatives of its ReLUs."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from cnnjax.explain import _jaxpr, _kinds
from cnnjax.explain.trace import Trace

# From what a ReLU read and the gradient of what it handed on: the gradient to send back.
Rule = Callable[[Array, Array], Array]

_RECTIFIERS = {"relu", "relu6"}


def run(
    traced: Trace,
    variables: Sequence[Any],
    state: Sequence[Any],
    x: Any,
    *,
    added: Mapping[Any, Any] | None = None,
    rule: Rule | None = None,
) -> list[Array]:
    """Compute variables of the program at x; differentiable, and to be jitted by who calls.

    `added` maps variables to what is added to them. `rule` replaces the derivative of every ReLU that is the activation
    function of a layer, in reverse mode; of a ReLU6 that of its lower half. One within a loop keeps its own.
    """
    jaxpr, added = traced.program.jaxpr.jaxpr, added or {}
    rectified = {var for layer in traced.layers for var in layer.activated}
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, traced.program.jaxpr.consts, strict=True))
    values.update(zip(jaxpr.invars, [*state, x], strict=True))
    for eqn in jaxpr.eqns:
        if rule is not None and not rectified.isdisjoint(eqn.outvars):
            results = _evaluate(jaxpr, eqn, values, rule)
        else:
            results = _jaxpr.evaluate(jaxpr, eqn, values)
        values.update(zip(eqn.outvars, results, strict=True))
        values.update((var, values[var] + added[var]) for var in eqn.outvars if var in added)
    return [_value(values, var) for var in variables]


def _evaluate(jaxpr: core.Jaxpr, eqn: core.JaxprEqn, values: Mapping[Any, Any], rule: Rule) -> list[Any]:
    """Compute an equation by the rule if it is a ReLU, or if there is one in what it calls."""
    inner = _jaxpr.body(eqn)
    if _RECTIFIERS.isdisjoint(_kinds.activation(eqn)) or (inner is None and eqn.primitive.name != "max"):
        return _jaxpr.evaluate(jaxpr, eqn, values)
    operands = [_value(values, atom) for atom in eqn.invars]
    if inner is None:
        return [_rectify(rule, next(value for value in operands if jnp.ndim(value)))]
    known: dict[Any, Any] = dict(zip([*inner.constvars, *inner.invars], [*_jaxpr.consts(eqn), *operands], strict=True))
    for part in inner.eqns:
        known.update(zip(part.outvars, _evaluate(inner, part, known, rule), strict=True))
    return [_value(known, atom) for atom in inner.outvars]


def _value(values: Mapping[Any, Any], atom: Any) -> Any:
    return atom.val if isinstance(atom, core.Literal) else values[atom]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rectify(rule: Rule, x: Array) -> Array:
    return jnp.maximum(x, 0)


def _rectify_forward(rule: Rule, x: Array) -> tuple[Array, Array]:
    return jnp.maximum(x, 0), x


def _rectify_backward(rule: Rule, x: Array, gradient: Array) -> tuple[Array]:
    return (rule(x, gradient).astype(x.dtype),)


_rectify.defvjp(_rectify_forward, _rectify_backward)
