"""The layers of a model in the order in which they run, from one walk over its jaxpr."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array
from jax.extend import core

from cnnjax.explain import _field, _fields, _jaxpr, _kinds, _units
from cnnjax.explain._field import View
from cnnjax.explain._windows import Window, shape_of, windows

_INPUT = -1


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer, for the batch that was traced.

    Args:
        name: the path of its module in the model, or of the module that calls it and the op's name; the second call
            of the same ends in #2.
        kind: what it does: conv2d, max_pool2d, batch_norm, ...
        activation: names of the activation functions that follow, in order.
        inputs: names of the layers that it reads, "" for the input.
        input_shape: shape of the value that it reads, of the first if there are several.
        shape: shape of the value that it hands on, the activation function included.
        dtype: dtype of that value.
        windows: for each convolution and pool in it, a Window a spatial axis.
        multiply_adds: of its convolutions and matrix products, taps on the padding included.
        parameters: how many it reads that no layer before it reads.
        view: what its units see of the input, a Field a spatial axis of the input.
        value: the variable of the program that it hands on.
        activated: the variables that its activation functions compute.
        kernel: the variable of the kernel that it slides, or None.
    """

    name: str
    kind: str
    activation: tuple[str, ...]
    inputs: tuple[str, ...]
    input_shape: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    windows: tuple[tuple[Window, ...], ...]
    multiply_adds: int
    parameters: int
    view: View
    value: core.Var = dataclasses.field(repr=False)
    activated: tuple[core.Var, ...] = dataclasses.field(repr=False)
    kernel: Any = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Trace:
    """The layers of a model, and how to compute what they hand on."""

    layers: tuple[Layer, ...]
    program: _jaxpr.Program

    def names(self) -> list[str]:
        """The names of the layers, in order."""
        return [layer.name for layer in self.layers]

    def find(self, function: str, name: str) -> Layer:
        """The layer of that name; `function` is who asks, for the error."""
        found = [layer for layer in self.layers if layer.name == name]
        if not found:
            raise ValueError(f"{function}: layer must be one of {', '.join(self.names())}, got {name!r}.")
        return found[0]

    def values(self, variables: Sequence[Any], x: Any) -> list[Array]:
        """Compute variables of the program at x, jitted."""
        jaxpr = self.program.jaxpr.jaxpr.replace(outvars=list(variables))
        function = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, self.program.jaxpr.consts))
        return jax.jit(function)(*self.program.state, x)


def trace(model: nnx.Module, x: Any, *, function: str = "trace") -> Trace:
    """List the layers of a model as they run in evaluation.

    A module that does one thing is one layer under its own path; so is every op of cnnjax.ops, pool, flattening and
    merging of branches that a bigger module calls itself. Elementwise functions belong to the layer before them. The
    model is traced, never run: a model made by `nnx.eval_shape` will do. What stands in a loop (scan, while) is one
    layer that sees everything.

    Args:
        model: any `nnx.Module` that is called with one array.
        x: (N, *spatial, C) or (N, C), an array or a `jax.ShapeDtypeStruct`.
        function: the name that errors begin with.

    Returns:
        A Trace, whose `layers` are in the order in which they run.

    Raises:
        TypeError: a model that is no module, or x that has no shape.
        ValueError: x without a batch axis.

    Example:
        >>> trace(models.LeNet(rngs=nnx.Rngs(0)), jnp.zeros((1, 28, 28, 1))).names()[:4]
        ['convs.0', 'max_pool2d', 'norms.0', 'convs.1']

    Source:
        None.
    """
    program = _jaxpr.program(function, model, x)
    return Trace(_Walk(program).layers(), program)


@dataclasses.dataclass
class _Draft:
    path: str
    kind: str
    named: bool
    activation: list[tuple[str, core.Var]] = dataclasses.field(default_factory=list)
    inputs: list[int] = dataclasses.field(default_factory=list)
    input_shape: tuple[int, ...] | None = None
    windows: list[tuple[Window, ...]] = dataclasses.field(default_factory=list)
    multiply_adds: int = 0
    parameters: int = 0
    values: list[core.Var] = dataclasses.field(default_factory=list)
    kernel: Any = None
    part_of: int | None = None

    def name(self) -> str:
        return self.path if self.named else f"{self.path}.{self.kind}".lstrip(".")


class _Walk:
    """One pass over the equations: which layer each belongs to, and what the layers add up to."""

    def __init__(self, program: _jaxpr.Program):
        self.jaxpr = program.jaxpr.jaxpr
        self.spatial = tuple(program.x.shape[1:-1])
        *state, x = self.jaxpr.invars
        self.views: dict[Any, View] = {x: _field.of_input(self.spatial)}
        self.owners: dict[Any, int] = {x: _INPUT}
        # What does not depend on x but on parameters, and on which.
        self.read: dict[Any, set[int]] = {var: {i} for i, var in enumerate(state[: len(program.parameters)])}
        self.sizes = [int(np.prod(shape_of(var))) for var in state]
        self.used: set[int] = set()
        self.drafts: list[_Draft] = []
        self.units: dict[Any, int] = {}
        # Of what only got another shape: what it was.
        self.before: dict[Any, Any] = {}

    def layers(self) -> tuple[Layer, ...]:
        dependent = _units.depending(self.jaxpr)
        units = _units.units(self.jaxpr, dependent, set(self.read))
        for number, eqn in enumerate(self.jaxpr.eqns):
            if number in dependent:
                self._visit(eqn, units.get(number))
            else:
                read = set().union(*(self.read.get(atom, set()) for atom in _variables(eqn)))
                self.read.update((var, read) for var in eqn.outvars)
        return self._finished()

    def _visit(self, eqn: core.JaxprEqn, unit: _units.Unit | None) -> None:
        variables = _variables(eqn)
        inputs = list(dict.fromkeys(self._owner(var) for var in variables if var in self.owners))
        operands = [None if isinstance(atom, core.Literal) else self.views.get(atom) for atom in eqn.invars]
        views = _fields.propagate(eqn, operands, self.spatial)
        moved = False
        if unit is not None:
            if unit.key not in self.units:
                self.units[unit.key] = self._begin(unit.path, unit.kind, unit.named)
            owner = self.units[unit.key]
        else:
            inputs = self._without_statistics(inputs, eqn)
            kind = _kinds.own_layer(eqn, operands, views, len(inputs), any(var in self.read for var in variables))
            calls, _ = _jaxpr.place(eqn)
            owner = inputs[0] if kind is None else self._begin(calls[-1].path if calls else "", kind, False)
            moved = kind is None and _kinds.moves(eqn)
        self._add(eqn, owner, inputs, moved)
        for var, view in zip(eqn.outvars, views, strict=True):
            self.owners[var], self.views[var] = owner, view

    def _begin(self, path: str, kind: str, named: bool) -> int:
        self.drafts.append(_Draft(path, kind, named))
        return len(self.drafts) - 1

    def _add(self, eqn: core.JaxprEqn, owner: int, inputs: Sequence[int], moved: bool) -> None:
        """Count an equation to its layer; what is done to the input itself counts to none."""
        if owner == _INPUT:
            return
        draft, variables = self.drafts[owner], _variables(eqn)
        draft.inputs += [other for other in inputs if other != owner and other not in draft.inputs]
        if draft.input_shape is None:
            draft.input_shape = next(shape_of(var) for var in variables if var in self.owners)
        draft.windows += [windows(eqn)] if windows(eqn) else []
        draft.multiply_adds += _kinds.multiply_adds(eqn)
        draft.kind = _kinds.averaging(draft.kind, eqn)
        draft.activation += [(name, eqn.outvars[0]) for name in _kinds.activation(eqn)]
        if eqn.primitive.name == "conv_general_dilated" and draft.kernel is None:
            draft.kernel = eqn.invars[1]
        read = set().union(*(self.read.get(var, set()) for var in variables)) - self.used
        draft.parameters += sum(self.sizes[i] for i in read)
        self.used |= read
        if moved:
            # A layer hands on its pixels in their places, not what a later squeeze makes of them.
            self.before.update(dict.fromkeys(eqn.outvars, variables[0]))
        else:
            # By name: jax.extend offers the class only in later versions.
            draft.values += [var for var in eqn.outvars if type(var).__name__ != "DropVar"]

    def _owner(self, var: Any) -> int:
        return self._root(self.owners[var])

    def _root(self, owner: int) -> int:
        while owner != _INPUT and (part_of := self.drafts[owner].part_of) is not None:
            owner = part_of
        return owner

    def _without_statistics(self, inputs: list[int], eqn: core.JaxprEqn) -> list[int]:
        """A mean that goes back into the value it is the mean of was no global pool but part of a normalisation."""
        if len(inputs) == 2 and _jaxpr.elementwise(eqn):
            for value, statistic in (inputs, inputs[::-1]):
                draft = self.drafts[statistic] if statistic != _INPUT else None
                if draft and draft.kind.startswith("global_") and draft.inputs == [value] and not draft.parameters:
                    draft.part_of = value
                    if value != _INPUT:
                        self.drafts[value].values += draft.values
                    return [value]
        return inputs

    def _finished(self) -> tuple[Layer, ...]:
        handed_on = {var for var in self.jaxpr.outvars if not isinstance(var, core.Literal)}
        for eqn in self.jaxpr.eqns:
            owners = {self._owner(var) for var in eqn.outvars if var in self.owners}
            handed_on |= {var for var in _variables(eqn) if var in self.owners and self._owner(var) not in owners}
        for var in list(handed_on):
            while (var := self.before.get(var)) is not None:
                handed_on.add(var)
        kept = {i: draft for i, draft in enumerate(self.drafts) if draft.part_of is None}
        names = dict(zip(kept, _numbered([draft.name() for draft in kept.values()]), strict=True)) | {_INPUT: ""}
        return tuple(self._layer(draft, i, names, handed_on) for i, draft in kept.items())

    def _layer(self, draft: _Draft, number: int, names: dict[int, str], handed_on: set[Any]) -> Layer:
        value = _handed_on(draft.values, handed_on)
        # Not the maximum with which a normalisation keeps its variance from going below 0.
        size = math.prod(shape_of(value))
        sizes = [(math.prod(shape_of(var)), name, var) for name, var in draft.activation]
        functions = [name for n, name, _ in sizes if n == size]
        # Channels may be added up behind an activation function; the value is then smaller.
        largest = max(math.prod(shape_of(var)) for var in draft.values)
        sources = dict.fromkeys(self._root(i) for i in draft.inputs)
        return Layer(
            name=names[number],
            kind=draft.kind,
            activation=tuple(name for name, _ in itertools.groupby(functions)),
            inputs=tuple(names[i] for i in sources if i != number),
            input_shape=tuple(draft.input_shape or ()),
            shape=shape_of(value),
            dtype=np.dtype(_dtype(value)),
            windows=tuple(draft.windows),
            multiply_adds=draft.multiply_adds,
            parameters=draft.parameters,
            view=self.views[value],
            value=value,
            activated=tuple(var for n, _, var in sizes if n in (size, largest)),
            kernel=draft.kernel,
        )


def _variables(eqn: core.JaxprEqn) -> list[Any]:
    return [atom for atom in eqn.invars if not isinstance(atom, core.Literal)]


def _handed_on(values: Sequence[core.Var], used: set[Any]) -> core.Var:
    """The last of a layer's values that others use; of one that ends in an argmax the numbers that it compared."""
    # The largest: the maximum that a softmax subtracts goes its own way too.
    for candidates in ([var for var in values if var in used], values):
        floating = [var for var in candidates if _floats(var)]
        if floating:
            largest = max(math.prod(shape_of(var)) for var in floating)
            return [var for var in floating if math.prod(shape_of(var)) == largest][-1]
    return values[-1]


def _floats(var: Any) -> bool:
    return jax.numpy.issubdtype(_dtype(var), np.inexact)


def _dtype(var: Any) -> Any:
    return var.aval.dtype


def _numbered(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    numbered = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        numbered.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return numbered
