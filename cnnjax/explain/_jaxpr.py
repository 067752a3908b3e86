"""The one flat program of a model: its jaxpr, every call opened and every equation labelled with where it stands."""

import functools
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax import Array
from jax.extend import core

from cnnjax import ops
from cnnjax.explain._windows import shape_of

# Primitives that work element by element. What is not listed counts as mixing everything, which is never too little.
_ELEMENTWISE = """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp
    convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag
    integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or pow real
    reduce_precision rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor
"""
_CALLS = """
    jit pjit closed_call core_call remat remat2 checkpoint custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr
"""
ELEMENTWISE = frozenset(_ELEMENTWISE.split())
CALLS = frozenset(_CALLS.split())

_OPS = os.path.dirname(ops.__file__)
_NN = jax.nn.gelu.__code__.co_filename
_SCOPE = re.compile(r"@([^/():]*):(\w*):(\d+)")
_OP = re.compile(r"%(\w+):(\d+)")
_FUNCTION = re.compile(r"~(\w+)")
_calls = itertools.count()


class Call(NamedTuple):
    """One call of a module: its path in the model, its class, and a number that no other call has."""

    path: str
    kind: str
    number: int


class Program(NamedTuple):
    """`jaxpr(*state, x)`, where the first `len(parameters)` of state are parameters."""

    jaxpr: core.ClosedJaxpr
    state: list[Any]
    parameters: tuple[str, ...]
    x: Any


def program(function: str, model: nnx.Module, x: Any) -> Program:
    """Trace an evaluation of the model; `function` is who asks, for the errors."""
    if not isinstance(model, nnx.Module):
        got, fix = type(model).__name__, "Wrap it in one."
        if isinstance(model, type):
            got, fix = f"the class {model.__name__}", "Call it, with rngs=nnx.Rngs(0) perhaps."
        raise TypeError(f"{function}: model must be an nnx.Module, got {got}. {fix}")
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise TypeError(
            f"{function}: x must be an array or a jax.ShapeDtypeStruct, got {type(x).__name__}."
            " A shape alone does: jax.ShapeDtypeStruct((1, 28, 28, 1), 'float32')."
        )
    if len(x.shape) < 2:
        raise ValueError(
            f"{function}: x must be a batch (N, ..., C), got shape {tuple(x.shape)}. Add a batch axis with x[None]."
        )
    view = nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)
    graphdef, parameters, rest = nnx.split(view, nnx.Param, ...)
    leaves, tree = jax.tree.flatten((parameters, rest))

    def run(*arguments: Array) -> list[Array]:
        copy = nnx.merge(graphdef, *jax.tree.unflatten(tree, arguments[:-1]))
        _name_calls(copy)
        return jax.tree.leaves(copy(arguments[-1]))  # pyright: ignore[reportCallIssue]

    closed = jax.make_jaxpr(run)(*leaves, x)
    flat = jax.make_jaxpr(lambda *arguments: _run_opened(closed.jaxpr, closed.consts, arguments))(*leaves, x)
    names = [_dotted(path) for path, _ in nnx.to_flat_state(parameters)]
    return Program(flat, leaves, tuple(names), x)


def place(eqn: core.JaxprEqn) -> tuple[tuple[Call, ...], str | None]:
    """Which modules' calls an equation stands in, from the model inwards, and which op of cnnjax.ops it is part of."""
    stack = str(eqn.source_info.name_stack)
    # What was opened repeats the scopes that it was made in.
    calls = tuple(dict.fromkeys(Call(m[1], m[2], int(m[3])) for m in _SCOPE.finditer(stack)))
    found = [m[1] for m in _OP.finditer(stack) if calls and int(m[2]) == calls[-1].number]
    return calls, found[0] if found else None


def function(eqn: core.JaxprEqn) -> str | None:
    """The function of jax.nn that an equation is part of."""
    found = _FUNCTION.search(str(eqn.source_info.name_stack))
    return found[1] if found else None


def body(eqn: core.JaxprEqn) -> core.Jaxpr | None:
    """The jaxpr that a call calls, or None for what is no call."""
    if eqn.primitive.name not in CALLS:
        return None
    inner = next((eqn.params[name] for name in ("jaxpr", "call_jaxpr", "fun_jaxpr") if name in eqn.params), None)
    return inner.jaxpr if isinstance(inner, core.ClosedJaxpr) else inner


def elementwise(eqn: core.JaxprEqn) -> bool:
    """Whether every output element depends on the elements at its own place alone, also in a call such as relu."""
    inner = body(eqn)
    if inner is None:
        spread = eqn.primitive.name == "broadcast_in_dim" and not shape_of(eqn.invars[0])
        return spread or eqn.primitive.name in ELEMENTWISE
    return all(map(elementwise, inner.eqns))


def _run_opened(jaxpr: core.Jaxpr, constants: Any, arguments: Any) -> list[Any]:
    """Run a jaxpr equation by equation, opening the calls whose parts are worth a look."""
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))
    for eqn in jaxpr.eqns:
        inner = None if elementwise(eqn) else body(eqn)
        operands = [atom.val if isinstance(atom, core.Literal) else values[atom] for atom in eqn.invars]
        with _scopes(eqn):
            if inner is not None:
                results = _run_opened(inner, consts(eqn), operands)
            else:
                results = evaluate(jaxpr, eqn, values)
        values.update(zip(eqn.outvars, results, strict=True))
    return [atom.val if isinstance(atom, core.Literal) else values[atom] for atom in jaxpr.outvars]


def evaluate(jaxpr: core.Jaxpr, eqn: core.JaxprEqn, values: Mapping[Any, Any]) -> list[Any]:
    """Compute one equation of a jaxpr from the values of its variables."""
    variables = list(dict.fromkeys(atom for atom in eqn.invars if not isinstance(atom, core.Literal)))
    one = jaxpr.replace(constvars=[], invars=variables, outvars=eqn.outvars, eqns=[eqn])
    return core.jaxpr_as_fun(core.ClosedJaxpr(one, ()))(*(values[v] for v in variables))


def consts(eqn: core.JaxprEqn) -> Any:
    """The constants of the jaxpr that a call calls."""
    return next((value.consts for value in eqn.params.values() if isinstance(value, core.ClosedJaxpr)), ())


def _scopes(eqn: core.JaxprEqn) -> Any:
    calls, _ = place(eqn)
    op, activation = _called(eqn, _OPS, ops), _called(eqn, _NN, jax.nn)
    labels = [f"@{path}:{kind}:{number}" for path, kind, number in calls]
    labels += [f"%{op}:{calls[-1].number}"] if op and calls else []
    labels += [f"~{activation}"] if activation else []
    return jax.named_scope("/".join(labels) or "-")


def _called(eqn: core.JaxprEqn, place: str, module: ModuleType) -> str | None:
    """The public function of a module, defined in that file or folder, that the model called to get this equation.

    These functions open no scope of their own, but an equation remembers the frames it was made in.
    """
    traceback = eqn.source_info.traceback
    outermost = None
    for frame in traceback.frames if traceback is not None else ():
        if frame.file_name == __file__:
            break
        name = frame.function_name.rpartition(".")[2]
        if place in (frame.file_name, os.path.dirname(frame.file_name)) and name in module.__dict__:
            outermost = name
    return outermost


def _name_calls(model: nnx.Module) -> None:
    """Make every call of a module of the model open a scope with the module's path."""
    for path, module in _modules(model):
        object.__setattr__(module, "_explain_path", path)
        object.__setattr__(module, "__class__", _naming(type(module)))


def _modules(model: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    for path, node in list(nnx.iter_graph(model)):
        if isinstance(node, nnx.Module) and callable(node):
            yield _dotted(path), node


@functools.cache
def _naming(cls: type) -> type:
    call: Callable[..., Any] = cls.__call__

    @functools.wraps(call)
    def named_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with jax.named_scope(f"@{self._explain_path}:{cls.__name__}:{next(_calls)}"):
            return call(self, *args, **kwargs)

    # A subclass made on the fly, not a patched class: the user's model stays as it is, and so do other threads.
    attributes = {"__call__": named_call, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls)(cls.__name__, (cls,), attributes, pytree=getattr(cls, "_pytree__is_pytree", True))


def _dotted(path: Any) -> str:
    return ".".join(re.sub(r"[/():@%]", "_", str(part)) for part in path)
