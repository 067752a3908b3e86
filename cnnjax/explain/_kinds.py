"""What an equation of a jaxpr does, in the words of a layer table."""

import math
from collections.abc import Sequence

from jax.extend import core

from cnnjax.explain import _jaxpr
from cnnjax.explain._field import View
from cnnjax.explain._windows import shape_of, windows

_ACTIVATIONS = {"logistic": "sigmoid", "swish": "silu", "hard_swish": "hard_silu"} | {
    name: name
    for name in (
        "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "silu", "gelu", "tanh", "sigmoid", "softplus",
        "soft_sign", "hard_tanh", "hard_sigmoid", "hard_silu", "log_sigmoid", "mish", "squareplus",
        "softmax", "log_softmax",
    )
}  # fmt: skip
# These arrange elements anew, or repeat them, without mixing.
_MOVES = ("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose")


def kind(eqn: core.JaxprEqn) -> str:
    """The name of a layer that is this equation."""
    name, params = eqn.primitive.name, eqn.params
    shape = shape_of(eqn.invars[0]) if eqn.invars else ()
    if name == "conv_general_dilated":
        rank = len(params["window_strides"])
        if max(params["lhs_dilation"]) > 1:
            return f"conv_transpose{rank}d"
        depthwise = params["feature_group_count"] == shape[params["dimension_numbers"].lhs_spec[1]] != 1
        return f"depthwise_conv{rank}d" if depthwise else f"conv{rank}d"
    if name.startswith("reduce_window"):
        pool = {"max": "max_pool", "min": "min_pool", "sum": "sum_pool", "add": "sum_pool"}.get(
            name.rpartition("_")[2], "pool"
        )
        everything = all(w.size == w.n and w.out == 1 for w in windows(eqn))
        return f"global_{pool}" if everything else f"{pool}{max(len(shape) - 2, 1)}d"
    if name in ("reduce_sum", "reduce_max", "reduce_min"):
        return f"global_{name.removeprefix('reduce_')}_pool"
    if _jaxpr.body(eqn) is not None:
        return str(params.get("name", name)).strip("_")
    return {"dot_general": "matmul", "reshape": "flatten", "add_any": "add", "select_n": "where"}.get(name, name)


def own_layer(
    eqn: core.JaxprEqn, operands: Sequence[View | None], views: Sequence[View], sources: int, trained: bool
) -> str | None:
    """The kind of the layer that an equation is by itself, or None where it only completes the layer before it.

    `sources` counts the layers that it reads, `trained` says whether it reads parameters.
    """
    if heavy(eqn):
        return "dense" if eqn.primitive.name == "dot_general" and trained else kind(eqn)
    name = eqn.primitive.name
    if sources > 1:
        return kind(eqn)
    if _jaxpr.elementwise(eqn):
        return None
    if name == "reshape":
        return kind(eqn) if mixes(eqn) else None
    before = next(view for view in operands if view is not None)
    if name.startswith(("reduce_", "arg")):
        pools = any(field.axis is not None for field in before) and all(field.axis is None for field in views[0])
        return kind(eqn) if pools else None
    if name in _MOVES:
        return None
    if name == "concatenate" and sum(view is not None for view in operands) > 1:
        return kind(eqn)
    unchanged = all(len(a.first) == len(b.first) for a, b in zip(before, views[0], strict=True))
    return None if unchanged and name in ("slice", "concatenate", "split", "rev", "copy") else kind(eqn)


def heavy(eqn: core.JaxprEqn) -> bool:
    """Whether this is a convolution, a matrix product or a pool: always a layer."""
    return bool(windows(eqn)) or eqn.primitive.name == "dot_general"


def moves(eqn: core.JaxprEqn) -> bool:
    """Whether this only gives an array another shape."""
    same = eqn.invars and math.prod(shape_of(eqn.invars[0])) == math.prod(shape_of(eqn.outvars[0]))
    return bool(same) and eqn.primitive.name in _MOVES


def mixes(eqn: core.JaxprEqn) -> bool:
    """Whether an equation does more than compute element by element and rearrange axes of one pixel."""
    name = eqn.primitive.name
    if name == "reshape":
        shape, out = shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
        return [n for n in shape[1:] if n != 1] != [n for n in out[1:] if n != 1]
    return not (_jaxpr.elementwise(eqn) or name in _MOVES)


def multiply_adds(eqn: core.JaxprEqn) -> int:
    """Count the products of an equation with convolutions or matrix products, also inside a loop."""
    name, params = eqn.primitive.name, eqn.params
    if name == "conv_general_dilated":
        kernel = shape_of(eqn.invars[1])
        inputs = kernel[params["dimension_numbers"].rhs_spec[1]]
        outputs = math.prod(shape_of(eqn.outvars[0]))
        if max(params["lhs_dilation"]) > 1:
            # Of a transposed convolution's taps most fall on the zeros in between; every input pixel meets them all.
            channels = kernel[params["dimension_numbers"].rhs_spec[0]] // params["feature_group_count"]
            outputs, inputs = math.prod(shape_of(eqn.invars[0])), channels
        return outputs * inputs * math.prod(w.size for w in windows(eqn))
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return math.prod(shape_of(eqn.outvars[0])) * math.prod(shape_of(eqn.invars[0])[a] for a in contracted)
    inner = [sum(map(multiply_adds, jaxpr.eqns)) for jaxpr in _bodies(eqn)]
    if not inner:
        return 0
    # One branch of a cond runs; how often a while does is not known.
    return max(inner) if name == "cond" else sum(inner) * params.get("length", 1)


def averaging(kind: str, eqn: core.JaxprEqn) -> str:
    """The kind of a layer after an equation: a sum that is divided is an average."""
    divides = eqn.primitive.name == "div" or (
        eqn.primitive.name == "mul" and any(isinstance(atom, core.Literal) for atom in eqn.invars)
    )
    return kind.replace("sum_pool", "avg_pool") if divides else kind


def activation(eqn: core.JaxprEqn) -> list[str]:
    """The name of the activation function that an equation is, if it is one."""
    if (function := _jaxpr.function(eqn)) is not None:
        return [_ACTIVATIONS[function]] if function in _ACTIVATIONS else []
    name = eqn.primitive.name
    if name == "max" and any(isinstance(atom, core.Literal) and atom.val == 0 for atom in eqn.invars):
        return ["relu"]
    inner = _jaxpr.body(eqn)
    if inner is None:
        return [_ACTIVATIONS[name]] if name in _ACTIVATIONS else []
    if (called := eqn.params.get("name")) in _ACTIVATIONS:
        return [_ACTIVATIONS[called]]
    return [found for part in inner.eqns for found in activation(part)]


def _bodies(eqn: core.JaxprEqn) -> list[core.Jaxpr]:
    values = [v for value in eqn.params.values() for v in (value if isinstance(value, tuple) else (value,))]
    return [
        value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
        for value in values
        if isinstance(value, core.ClosedJaxpr | core.Jaxpr)
    ]
