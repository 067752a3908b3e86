"""A table of a model's layers: shapes, the arithmetic behind them, parameters, work, memory, receptive fields."""

import dataclasses
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from cnnjax.explain import _field, _render
from cnnjax.explain._windows import Window
from cnnjax.explain.receptive_field import ReceptiveField
from cnnjax.explain.trace import Layer, trace

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer, per example.

    Args:
        name: as in `trace`: the path of its module, or of the calling module and the op's name.
        kind: what it does: conv2d, max_pool2d, batch_norm, ...
        activation: names of the activation functions that follow.
        shape: shape of what it hands on.
        formula: how its size comes about, with the numbers, one text an axis; () where no window slides.
        parameters: how many it trains; those it shares count where they are first used.
        multiply_adds: products of its convolutions and matrix products, taps on the padding included.
        memory: bytes of what it hands on.
        field: its receptive field along each spatial axis of the input.
        dense_parameters: how many a fully connected layer from its input to its output would have, biases
            included; None for what is neither a convolution nor a dense layer.
    """

    name: str
    kind: str
    activation: tuple[str, ...]
    shape: tuple[int, ...]
    formula: tuple[str, ...]
    parameters: int
    multiply_adds: int
    memory: int
    field: tuple[ReceptiveField, ...]
    dense_parameters: int | None

    @property
    def jump(self) -> tuple[int | Fraction, ...]:
        """The total stride: by how many input pixels neighbouring units are apart, an axis each."""
        return tuple(field.jump for field in self.field)


@dataclasses.dataclass(frozen=True)
class Summary:
    """What `summary` returns: prints as a table, shows as one in a notebook, and can be computed with.

    Args:
        model: name of the model's class.
        input_shape: shape of one example.
        rows: the layers, in the order in which they run.
        parameters: of the whole model, also those that no layer used.
    """

    model: str
    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]
    parameters: int

    @property
    def multiply_adds(self) -> int:
        """Products of all layers, per example."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def memory(self) -> int:
        """Bytes of everything that the layers hand on, per example: what training keeps for the backward pass."""
        return sum(row.memory for row in self.rows)

    @property
    def dense_parameters(self) -> int:
        """Parameters of the model if every convolution were a fully connected layer."""
        return self.parameters + sum(row.dense_parameters - row.parameters for row in self.rows if row.dense_parameters)

    def __getitem__(self, name: str) -> Row:
        """The row of that name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"summary: layer must be one of {', '.join(row.name for row in self.rows)}, got {name!r}.")

    def __str__(self) -> str:
        return _render.text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return _render.html(self)

    def to_frame(self) -> "DataFrame":
        """The rows as a pandas DataFrame, one column a field of `Row`, indexed by name."""
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ImportError(
                "summary: a DataFrame needs pandas. Install it with: pip install 'cnnjax[experiments]'"
            ) from error
        names = [field.name for field in dataclasses.fields(Row)]
        # Not asdict, which takes tuples of a NamedTuple apart.
        columns = {name: [getattr(row, name) for row in self.rows] for name in [*names, "jump"]}
        return DataFrame(columns).set_index("name")


def summary(model: nnx.Module, x: Any) -> Summary:
    """Tabulate the layers of a model, ours or a stock one, as they run in evaluation.

    A module is a row under its path; so are the pools, flattenings and mergings of branches that have no parameters.
    Activation functions, biases and other elementwise arithmetic belong to the row before them. All numbers are per
    example, whatever the batch. Multiply-adds are those of convolutions and matrix products, with the taps on the
    padding; XLA's cost analysis counts two flops for each, none on the padding, and adds the elementwise work.

    size: floor((n + 2 p - d (k - 1) - 1) / stride) + 1, with numbers; a transposed convolution's is worked backwards

    Args:
        model: any `nnx.Module` that is called with one array; one made by `nnx.eval_shape` will do.
        x: (N, *spatial, C) or (N, C), an array or a `jax.ShapeDtypeStruct`; only its shape and dtype count.

    Returns:
        A Summary with one `Row` a layer, totals, `to_frame()`, and a table for people.

    Raises:
        TypeError: a model that is no module, or x that has no shape.
        ValueError: x without a batch axis.

    Example:
        >>> table = summary(models.LeNet5(rngs=nnx.Rngs(0)), jnp.zeros((1, 28, 28, 1)))
        >>> table["c3"].parameters, table["c3"].shape, table["c3"].formula[0]
        (1516, (10, 10, 16), 'floor((14 + 2·0 - 5) / 1) + 1 = 10')

    Source:
        Dumoulin & Visin 2016, relationships 6 and 13, for the sizes; LeCun et al. 1998 for the comparison with
        fully connected layers.
    """
    if hasattr(x, "shape") and hasattr(x, "dtype") and len(x.shape):
        x = jax.ShapeDtypeStruct((1, *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype))
    layers = trace(model, x, function="summary").layers
    parameters = sum(math.prod(p.shape) for _, p in nnx.to_flat_state(nnx.state(model, nnx.Param)))
    return Summary(type(model).__name__, tuple(x.shape[1:]), tuple(map(_row, layers)), parameters)


def _row(layer: Layer) -> Row:
    shape, before = _example(layer.shape), _example(layer.input_shape)
    connects = layer.kernel is not None or "dense" in layer.kind
    return Row(
        name=layer.name,
        kind=layer.kind,
        activation=layer.activation,
        shape=shape,
        formula=tuple(_formula(window) for windows in layer.windows for window in windows),
        parameters=layer.parameters,
        multiply_adds=layer.multiply_adds,
        memory=math.prod(shape) * jnp.dtype(layer.dtype).itemsize,
        field=tuple(ReceptiveField(*_field.closed(field)) for field in layer.view),
        dense_parameters=(math.prod(before) + 1) * math.prod(shape) if connects else None,
    )


def _example(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its batch axis of 1, unless the model has merged that with others."""
    return shape[1:] if shape[:1] == (1,) else shape


def _formula(w: Window) -> str:
    """The output size of a window along one axis, with its numbers."""
    if w.holes > 1:
        # The windows of a transposed convolution slide over the input with holes - 1 zeros between its pixels.
        span = w.dilation * (w.size - 1)
        crop = f"2·{span - w.low}" if w.low == w.high else f"{span - w.low} - {span - w.high}"
        size = f"{w.dilation}·({w.size} - 1) + 1" if w.dilation > 1 else f"{w.size}"
        return f"({w.n} - 1)·{w.holes} + {size} - {crop} = {w.out}"
    pad = f"2·{w.low}" if w.low == w.high else f"{w.low} + {w.high}"
    size = f"{w.dilation}·({w.size} - 1) - 1" if w.dilation > 1 else f"{w.size}"
    return f"floor(({w.n} + {pad} - {size}) / {w.stride}) + 1 = {w.out}"
