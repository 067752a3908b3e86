"""Which equations of a program make up one layer because they stand in the same call."""

import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend import core

from cnnjax.explain import _jaxpr, _kinds
from cnnjax.explain._jaxpr import Call


class Unit(NamedTuple):
    """A layer by the place of its equations; named True has the path of its module for a name."""

    key: Any
    path: str
    kind: str
    named: bool


class _Run(NamedTuple):
    """Equations of a call that stand next to each other and come from the same op, or None from no op."""

    call: Call
    op: str | None
    numbers: list[int]


def depending(jaxpr: core.Jaxpr) -> set[int]:
    """The numbers of the equations that depend on the last argument, x."""
    known, numbers = {jaxpr.invars[-1]}, set()
    for number, eqn in enumerate(jaxpr.eqns):
        if any(not isinstance(atom, core.Literal) and atom in known for atom in eqn.invars):
            known.update(eqn.outvars)
            numbers.add(number)
    return numbers


def units(jaxpr: core.Jaxpr, dependent: set[int], parameters: set[Any]) -> dict[int, Unit]:
    """Map the numbers of equations to the unit that they are part of; what is left out stands for itself."""
    places = [_jaxpr.place(eqn) for eqn in jaxpr.eqns]
    having_parts = {call for calls, _ in places for call in calls[:-1]}
    reading = _reading(jaxpr, parameters)
    by_call: dict[Call, list[_Run]] = {}
    labels = [(number, places[number][0][-1], places[number][1]) for number in sorted(dependent) if places[number][0]]
    for (call, op), group in itertools.groupby(labels, key=lambda label: label[1:]):
        by_call.setdefault(call, []).append(_Run(call, op, [number for number, *_ in group]))
    found: dict[int, Unit] = {}
    for call, runs in by_call.items():
        found.update(_of_call(jaxpr, call, runs, call in having_parts, reading))
    return found


def _of_call(
    jaxpr: core.Jaxpr, call: Call, runs: Sequence[_Run], has_parts: bool, reading: set[int]
) -> dict[int, Unit]:
    numbers = [number for run in runs for number in run.numbers]
    ops = [run for run in runs if run.op and _significant(jaxpr, run.numbers, reading)]
    loose = [n for run in runs if not run.op for n in run.numbers if _kinds.heavy(jaxpr.eqns[n])]
    if has_parts or len(ops) + len(loose) > 1:
        return {n: Unit((call, run.numbers[0]), call.path, run.op or "", False) for run in ops for n in run.numbers}
    if not ops and not loose and not reading.intersection(numbers):
        return {}
    kind = _kind(jaxpr, call, ops, loose)
    return dict.fromkeys(numbers, Unit(call, call.path, kind, bool(call.path)))


def _kind(jaxpr: core.Jaxpr, call: Call, ops: Sequence[_Run], loose: Sequence[int]) -> str:
    if ops:
        return ops[0].op or ""
    if not loose:
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", call.kind).lower()
    eqn = jaxpr.eqns[loose[0]]
    return "dense" if eqn.primitive.name == "dot_general" else _kinds.kind(eqn)


def _significant(jaxpr: core.Jaxpr, numbers: Sequence[int], reading: set[int]) -> bool:
    return any(number in reading or _kinds.mixes(jaxpr.eqns[number]) for number in numbers)


def _reading(jaxpr: core.Jaxpr, parameters: set[Any]) -> set[int]:
    """The numbers of the equations that read parameters, or what was computed from them alone."""
    known, numbers, dependent = set(parameters), set(), depending(jaxpr)
    for number, eqn in enumerate(jaxpr.eqns):
        if any(not isinstance(atom, core.Literal) and atom in known for atom in eqn.invars):
            numbers.add(number)
            if number not in dependent:
                known.update(eqn.outvars)
    return numbers
