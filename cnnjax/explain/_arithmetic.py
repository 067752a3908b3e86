"""How a layer makes one number: read off the model's program, in terms that a page can work again.

Between what a layer reads and what it hands on there is at most one sum of products (or of a window), then a scale and
a shift, an activation function, and once more a scale and a shift. What is anything else says so: its kind is "other".
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from cnnjax.explain import _kinds, _units
from cnnjax.explain._windows import shape_of, windows
from cnnjax.explain.trace import Layer, Trace

_MERGES = {"add": "add", "add_any": "add", "sub": "subtract", "mul": "multiply", "max": "max", "min": "min"}
_MOVES = ("copy", "expand_dims", "reshape", "rev", "slice", "squeeze", "transpose")
_REDUCTIONS = {"max": "max", "min": "min", "sum": "sum", "add": "sum"}


class Recipe(NamedTuple):
    """What to compute, and from which values of the program.

    kind: conv, dense, pool, same (the number at the same place), merge, concatenate, moved (a flattening, a slice) or
        other.
    facts: numbers of the kind: windows, groups, how a pool or a merge combines; of what is moved the index, in what is
        read, of each number.
    operands: what is read; of a convolution without the zeros that an op pads it with.
    kernel: of a convolution (*window, C_in // groups, C_out), of a dense layer (C_in, C_out).
    kernel_axes: how to transpose what the program holds to that.
    total: the sum itself.
    before: what the activation function is applied to.
    after: what comes out of it.
    value: what is handed on.
    """

    kind: str
    facts: dict[str, Any]
    operands: tuple[core.Var, ...]
    kernel: core.Var | None
    kernel_axes: tuple[int, ...]
    total: core.Var
    before: core.Var
    after: core.Var
    value: core.Var


class _Core(NamedTuple):
    kind: str
    eqn: core.JaxprEqn
    facts: dict[str, Any] = {}  # noqa: RUF012
    operands: tuple[core.Var, ...] = ()
    kernel_axes: tuple[int, ...] = ()


class Program:
    """The flat program of a model, asked how its layers make their numbers."""

    def __init__(self, traced: Trace):
        self.traced = traced
        self.jaxpr = traced.program.jaxpr.jaxpr
        numbers = _units.depending(self.jaxpr)
        self.eqns = [eqn for number, eqn in enumerate(self.jaxpr.eqns) if number in numbers]
        self.dependent = {self.jaxpr.invars[-1], *(var for eqn in self.eqns for var in eqn.outvars)}
        self.ends = {self.jaxpr.invars[-1], *(layer.value for layer in traced.layers)}

    def recipe(self, layer: Layer) -> Recipe:
        value = layer.value
        eqns = self.between(value, self.ends - {value})
        found = self._core(eqns)
        total = found.eqn.outvars[0]
        if found.kind == "same":
            total = found.operands[0]
        before, after = _around_activation(eqns, value, self.dependent)
        if found.kind == "other" or (before is not total and not self._only_from(before, total)):
            return Recipe("other", {}, (), None, (), value, value, value, value)
        kernel: Any = found.eqn.invars[1] if found.kind in ("conv", "dense") else None
        return Recipe(found.kind, found.facts, found.operands, kernel, found.kernel_axes, total, before, after, value)

    def between(self, value: core.Var, ends: set[Any]) -> list[core.JaxprEqn]:
        """The equations that make a value out of `ends`."""
        needed, found = {value} - ends, []
        for eqn in reversed(self.eqns):
            if needed.intersection(eqn.outvars):
                found.append(eqn)
                needed |= set(self._read(eqn)) - ends
        return found[::-1]

    def needs(self, recipe: Recipe) -> list[Any]:
        """The values that `affine` wants to know, of a recipe that is not "other"."""
        ends = [(recipe.total, recipe.before), (recipe.after, recipe.value)]
        return [var for start, end in ends for var in (start, end, *self._others(start, end))]

    def _others(self, start: core.Var, end: core.Var) -> list[Any]:
        """What is read on the way from one value to another."""
        eqns = self.between(end, {start})
        made = {start, *(var for eqn in eqns for var in eqn.outvars)}
        read = [atom for eqn in eqns for atom in eqn.invars if not isinstance(atom, core.Literal)]
        return list(dict.fromkeys(var for var in read if var not in made))

    def affine(
        self, total: core.Var, before: core.Var, values: Mapping[Any, Any]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """The scale and the shift that make one value of the program another, None if it takes more than that.

        Each has the shape of what is made, but 1 along axes where it does not change.
        """
        others = self._others(total, before)
        eqns = self.between(before, {total})
        chain = self.jaxpr.replace(constvars=[], invars=[total, *others], outvars=[before], eqns=eqns)
        function = core.jaxpr_as_fun(core.ClosedJaxpr(chain, ()))
        zeros, known = jnp.zeros_like(values[total]), [values[var] for var in others]
        shift, scale = jax.jvp(lambda total: function(total, *known)[0], (zeros,), (jnp.ones_like(zeros),))
        scale, shift, wanted = (np.asarray(a, np.float32)[0] for a in (scale, shift, values[before]))
        found = scale * np.asarray(values[total], np.float32)[0].reshape(scale.shape) + shift
        # What rounds to fewer digits than float32 is affine all the same.
        tolerance = 1e-4 if jnp.finfo(values[total].dtype).bits >= 32 else 0.05
        if not np.allclose(found, wanted, rtol=tolerance, atol=tolerance * float(np.abs(wanted).max())):
            return None
        return _squeezed(scale), _squeezed(shift)

    def _read(self, eqn: core.JaxprEqn) -> list[Any]:
        return [a for a in eqn.invars if not isinstance(a, core.Literal) and a in self.dependent]

    def _only_from(self, value: core.Var, total: core.Var) -> bool:
        """Whether a value is made of a sum and of parameters, element by element."""
        eqns = self.between(value, {total})
        read = {var for eqn in eqns for var in self._read(eqn)}
        made = {var for eqn in eqns for var in eqn.outvars}
        return read <= made | {total} and not any(map(_kinds.mixes, eqns))

    def _core(self, eqns: Sequence[core.JaxprEqn]) -> _Core:
        """The one equation of a layer that does more than compute at one place, or what stands for it."""
        heavy = [eqn for eqn in eqns if _kinds.heavy(eqn) or eqn.primitive.name.startswith("reduce_")]
        joining = [eqn for eqn in eqns if len(self._read(eqn)) > 1]
        mixing = [eqn for eqn in eqns if _kinds.mixes(eqn) and eqn.primitive.name != "pad"]
        # An activation function may be several equations: the sum of a softmax is no pool.
        heavy, joining, mixing = ([e for e in es if not _kinds.activation(e)] for es in (heavy, joining, mixing))
        if not eqns:
            return _Core("other", self.eqns[0])
        if len(heavy) == 1 and not joining:
            return self._of_heavy(heavy[0], mixing)
        if len(joining) == 1 and not heavy:
            return self._of_joining(joining[0], mixing)
        if heavy or joining:
            return _Core("other", eqns[-1])
        if mixing:
            return self._of_moves(mixing[-1])
        return _Core("same", eqns[0], {}, tuple(self._read(eqns[0])))

    def _of_heavy(self, eqn: core.JaxprEqn, mixing: Sequence[core.JaxprEqn]) -> _Core:
        other = _Core("other", eqn)
        others = [e for e in mixing if e is not eqn]
        if any(e.primitive.name != "reshape" for e in others) or len(self._read(eqn)) != 1:
            return other
        if eqn.primitive.name == "conv_general_dilated":
            return self._of_conv(eqn)
        if eqn.primitive.name == "dot_general":
            return self._of_dense(eqn)
        return self._of_pool(eqn)

    def _of_conv(self, eqn: core.JaxprEqn) -> _Core:
        numbers, rank = eqn.params["dimension_numbers"], len(eqn.params["window_strides"])
        last = (0, rank + 1, *range(1, rank + 1))
        if numbers.lhs_spec != last or numbers.out_spec != last or eqn.params["batch_group_count"] > 1:
            return _Core("other", eqn)
        operand, lows = self._unpadded(self._read(eqn)[0])
        axes = (*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0])
        facts = {"windows": _facts(eqn, lows), "groups": eqn.params["feature_group_count"]}
        return _Core("conv", eqn, facts, (operand,), axes)

    def _of_dense(self, eqn: core.JaxprEqn) -> _Core:
        (left, right), batch = eqn.params["dimension_numbers"]
        operand, rank = self._read(eqn)[0], len(shape_of(eqn.invars[0]))
        if eqn.invars[0] is not operand or tuple(left) != (rank - 1,) or any(batch) or len(right) != 1:
            return _Core("other", eqn)
        if len(shape_of(eqn.invars[1])) != 2:
            return _Core("other", eqn)
        return _Core("dense", eqn, {}, (operand,), (right[0], 1 - right[0]))

    def _of_pool(self, eqn: core.JaxprEqn) -> _Core:
        shape, name = shape_of(eqn.invars[0]), eqn.primitive.name
        how = _REDUCTIONS.get(name.rpartition("_")[2])
        if how is None:
            return _Core("other", eqn)
        if not name.startswith("reduce_window"):
            if sorted(eqn.params["axes"]) != list(range(1, len(shape) - 1)):
                return _Core("other", eqn)
            everything = [{"size": n, "stride": 1, "low": 0, "dilation": 1, "holes": 1} for n in shape[1:-1]]
            return _Core("pool", eqn, {"how": how, "windows": everything}, tuple(self._read(eqn)))
        operand, lows = self._read(eqn)[0], ()
        if how == "sum":
            operand, lows = self._unpadded(operand)
        return _Core("pool", eqn, {"how": how, "windows": _facts(eqn, lows)}, (operand,))

    def _of_joining(self, eqn: core.JaxprEqn, mixing: Sequence[core.JaxprEqn]) -> _Core:
        operands, rank = tuple(self._read(eqn)), len(shape_of(eqn.outvars[0]))
        if any(e is not eqn for e in mixing):
            return _Core("other", eqn)
        if eqn.primitive.name == "concatenate" and eqn.params["dimension"] == rank - 1:
            return _Core("concatenate", eqn, {}, operands) if len(operands) == len(eqn.invars) else _Core("other", eqn)
        how = _MERGES.get(eqn.primitive.name)
        return _Core("merge", eqn, {"how": how}, operands) if how and len(operands) == 2 else _Core("other", eqn)

    def _of_moves(self, last: core.JaxprEqn) -> _Core:
        """Numbers that only change their place: where each comes from is what becomes of their indices."""
        eqns = self.between(last.outvars[0], self.ends - {last.outvars[0]})
        made = {var for eqn in eqns for var in eqn.outvars}
        read = {var for eqn in eqns for var in self._read(eqn)} - made
        if len(read) != 1 or any(eqn.primitive.name not in _MOVES for eqn in eqns):
            return _Core("other", last)
        chain = self.jaxpr.replace(constvars=[], invars=[*read], outvars=[*last.outvars], eqns=eqns)
        shape = shape_of(*read)
        (places,) = core.jaxpr_as_fun(core.ClosedJaxpr(chain, ()))(jnp.arange(math.prod(shape)).reshape(shape))
        return _Core("moved", last, {"places": np.asarray(places)}, tuple(read))

    def _unpadded(self, var: Any) -> tuple[Any, tuple[int, ...]]:
        """What an op padded with zeros before it called lax, and how many it put before each spatial axis."""
        eqn = next((eqn for eqn in self.eqns if var in eqn.outvars), None)
        if eqn is None or eqn.primitive.name != "pad" or var in self.ends:
            return var, ()
        amounts, filler = eqn.params["padding_config"], eqn.invars[1]
        zeros = isinstance(filler, core.Literal) and float(filler.val) == 0
        plain = zeros and all(low >= 0 and high >= 0 and not interior for low, high, interior in amounts)
        return (eqn.invars[0], tuple(low for low, *_ in amounts[1:-1])) if plain else (var, ())


def _facts(eqn: core.JaxprEqn, lows: Sequence[int]) -> list[dict[str, int]]:
    """What a page needs of each window to find the cells that it covers."""
    found = windows(eqn)
    lows = lows or (0,) * len(found)
    return [
        {"size": w.size, "stride": w.stride, "low": w.low + low, "dilation": w.dilation, "holes": w.holes}
        for w, low in zip(found, lows, strict=True)
    ]


def _around_activation(eqns: Sequence[core.JaxprEqn], value: core.Var, dependent: set[Any]) -> tuple[Any, Any]:
    """What the activation function of a layer is applied to and what comes out; twice the value if there is none."""
    size = math.prod(shape_of(value))
    found = [eqn for eqn in eqns if _kinds.activation(eqn) and math.prod(shape_of(eqn.outvars[0])) == size]
    if not found:
        return value, value
    read = [a for a in found[0].invars if not isinstance(a, core.Literal) and a in dependent]
    return next(var for var in read if math.prod(shape_of(var)) == size), found[-1].outvars[0]


def _squeezed(array: np.ndarray) -> np.ndarray:
    """Keep one of what is the same all along an axis."""
    for axis in range(array.ndim):
        first = np.take(array, [0], axis)
        if np.allclose(array, first, rtol=1e-6, atol=0):
            array = first
    return array
