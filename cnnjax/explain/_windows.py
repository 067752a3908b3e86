"""What an equation of a jaxpr holds: the shapes of its operands, and the windows of convolutions and pools."""

from typing import Any, NamedTuple

from jax.extend import core


def shape_of(atom: Any) -> tuple[int, ...]:
    """The shape of an operand or a result."""
    return tuple(atom.aval.shape)


class Window(NamedTuple):
    """A convolution or pool along one axis of n pixels, padded before and after; holes: the stride of a transposed."""

    n: int
    out: int
    size: int
    stride: int = 1
    low: int = 0
    high: int = 0
    dilation: int = 1
    holes: int = 1


def windows(eqn: core.JaxprEqn) -> tuple[Window, ...]:
    """The windows of a convolution or pool along its spatial axes, () for other primitives."""
    params = eqn.params
    if not eqn.invars or not (eqn.primitive.name.startswith("reduce_window") or "rhs_dilation" in params):
        return ()
    shape, out = shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
    if "rhs_dilation" in params:
        numbers, kernel = params["dimension_numbers"], shape_of(eqn.invars[1])
        sizes = zip(
            (shape[a] for a in numbers.lhs_spec[2:]),
            (out[a] for a in numbers.out_spec[2:]),
            (kernel[a] for a in numbers.rhs_spec[2:]),
            strict=True,
        )
        rest = zip(
            params["window_strides"], params["padding"], params["rhs_dilation"], params["lhs_dilation"], strict=True
        )
    else:
        inner = slice(1, -1) if len(shape) > 2 else slice(None)
        sizes = zip(shape[inner], out[inner], params["window_dimensions"][inner], strict=True)
        names = ("window_strides", "padding", "window_dilation", "base_dilation")
        rest = zip(*(params[name][inner] for name in names), strict=True)
    return tuple(
        Window(n, m, k, s, low, high, dilation, holes)
        for (n, m, k), (s, (low, high), dilation, holes) in zip(sizes, rest, strict=True)
    )
