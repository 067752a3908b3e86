"""Make docs/ops.md: python -m docs.make_ops.

Signatures and first lines are the code's, the counterparts in other libraries those of docs/op_counterparts.py.
"""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path

from cnnjax import ops
from docs.op_counterparts import COUNTERPARTS, Entry

FOLDER = Path(__file__).parent

HEAD = """\
# The ops, beside PyTorch, JAX, Keras and ONNX

For whoever brings a model here: look for the name that you know in the tables, and follow the link for what differs
and how the weights move. This page is made by `python -m docs.make_ops`, from the code and from
`docs/op_counterparts.py`.

- `x` is `(N, *spatial, C)`, as in Flax and Keras. From PyTorch and ONNX, both channels-first, it is
  `x.transpose(0, 2, 3, 1)`.
- `F` is `torch.nn.functional`, `nnx` is `flax.nnx`, and a bare name of Keras's is a layer, in `keras.layers`.
- Weights are NumPy arrays, and where axes are numbered, of two spatial axes. Biases and other vectors over the channels
  stay as they are.
- Activations are those of `jax.nn`, losses those of `optax.losses`."""

COLUMNS = "| `cnnjax.ops` | PyTorch | JAX, Flax | Keras | ONNX |\n|---|---|---|---|---|"


def public_ops() -> dict[str, Callable]:
    """The functions that cnnjax.ops offers, by name; `shapes` is a module of others."""
    return {name: getattr(ops, name) for name in ops.__all__ if not inspect.ismodule(getattr(ops, name))}


def page() -> str:
    """The whole page, as Markdown."""
    offered = public_ops()
    families = {
        family: [name for name in entry.ops.split() if name in offered] for family, entry in COUNTERPARTS.items()
    }
    shown = {family: COUNTERPARTS[family] for family, names in families.items() if names}
    parts = [HEAD]
    for kind in dict.fromkeys(entry.kind for entry in shown.values()):
        rows = [row(family, families[family], entry) for family, entry in shown.items() if entry.kind == kind]
        parts.append("\n".join([f"## {kind}\n", COLUMNS, *rows]))
    parts.append("## Each of them")
    parts += [section(family, [offered[name] for name in families[family]], entry) for family, entry in shown.items()]
    arithmetic = [f for _, f in inspect.getmembers(ops.shapes, inspect.isfunction) if not f.__name__.startswith("_")]
    own = [function for function in arithmetic if function.__module__ == ops.shapes.__name__]
    parts.append(f"## `ops.shapes`: sizes, paddings, receptive fields\n\n{signatures(own)}")
    return "\n\n".join(parts) + "\n"


def row(family: str, names: list[str], entry: Entry) -> str:
    """A family's line in the table of its kind."""
    ours = f"[{', '.join(f'`{name}`' for name in names)}](#{family})"
    return f"| {ours} | {entry.torch} | {entry.jax} | {entry.keras} | {entry.onnx} |"


def section(family: str, functions: list[Callable], entry: Entry) -> str:
    """What the code says of a family, and what there is to know when porting."""
    parts = [f"### {family}", signatures(functions), f"*Differences.* {entry.differences}"]
    return "\n\n".join([*parts, f"*Weights.* {entry.weights}"] if entry.weights else parts)


def signatures(functions: Iterable[Callable]) -> str:
    """A line a function: its arguments, what it does, and where it stands."""
    return "\n".join(f"- [`{signature(f)}`]({source(f)}): {first_line(f)}" for f in functions)


def signature(function: Callable) -> str:
    """Name, arguments and defaults; the docstring has the types."""
    given = inspect.signature(function)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in given.parameters.values()]
    return f"{function.__name__}{given.replace(parameters=bare, return_annotation=inspect.Signature.empty)}"


def first_line(function: Callable) -> str:
    """What the function does, in one sentence."""
    return (inspect.getdoc(function) or "").partition("\n")[0]


def source(function: Callable) -> str:
    """The file of the function, seen from the page."""
    return f"../{function.__module__.replace('.', '/')}.py"


def main() -> None:
    """Write the page."""
    (FOLDER / "ops.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
