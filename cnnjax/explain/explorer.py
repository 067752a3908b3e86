"""A page in which one can walk through a net: every map, and how each number on it is made."""

import base64
import html
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import ArrayLike

from cnnjax.explain import _arithmetic, _field
from cnnjax.explain.trace import Layer, trace

# In the order in which they build on each other.
_SCRIPTS = ("arrays.js", "colours.js", "arithmetic.js", "pictures.js", "flow.js", "detail.js", "main.js")
# Below 2 ** 40, which stands for no pixel at all.
_FAR = 10**6


class Explorer(NamedTuple):
    """A self-contained HTML page; a notebook shows it in place.

    Args:
        html: the page.

    Example:
        >>> Explorer("<p>a page</p>")
        Explorer(13 characters)
    """

    html: str

    def save(self, path: str | Path) -> None:
        """Write the page to a file, for any browser."""
        Path(path).write_text(self.html, encoding="utf-8")

    def __repr__(self) -> str:
        # Without the page: a notebook stores this next to it.
        return f"Explorer({len(self.html):,} characters)"

    def _repr_html_(self) -> str:
        page = html.escape(self.html, quote=True)
        return f'<iframe srcdoc="{page}" title="explorer" style="width:100%;height:860px;border:0"></iframe>'


def explorer(
    model: nnx.Module, image: ArrayLike, class_names: Sequence[str] | None = None, *, channels: int = 64
) -> Explorer:
    """Make a page that shows what every layer of a model computes for one picture, and how.

    The layers stand from left to right with their activation maps. A click on a map shows, for the number under the
    cursor, what it sees of the picture, the window that it reads, the filter, the products and their sum; of pools,
    batch-norms, dense layers and branches that meet likewise. The scores at the end become probabilities by a softmax,
    worked in numbers. The page needs no network and no server.

    Works for any sequential or residual model of pictures or series. Where a layer is more than one sum followed by a
    scale, a shift and an activation function (a layer-norm, an attention), the page shows its numbers alone.

    Args:
        model: any `nnx.Module` that is called with one array, ours or a stock one; it is run in evaluation.
        image: (H, W, C) a picture, also as a batch (1, H, W, C) of one, or (L, C) a series.
        class_names: a name for each score of the last layer; None numbers them.
        channels: of layers with more channels show so many, those with the largest values.

    Returns:
        An Explorer: `save` writes the page, a notebook shows it inline. All activations and the kernels of what is
        shown are in it, as float32: about 1 MB for LeNet.

    Raises:
        TypeError: a model that is no module.
        ValueError: an image of another shape, another number of names than scores, or channels below 1.

    Example:
        >>> page = explorer(models.LeNet5(rngs=nnx.Rngs(0)), jnp.zeros((28, 28, 1)))
        >>> page.html[:15], len(page.html) < 2_000_000
        ('<!doctype html>', True)

    Source:
        None; Wang et al. 2020, "CNN Explainer", is the same idea for one fixed net.
    """
    x = _batch(image)
    if channels < 1:
        raise ValueError(f"explorer: channels must be at least 1, got {channels}.")
    described = _describe(model, x, channels)
    scores = described["layers"][-1]["shape"]
    if class_names is not None and (scores[:2] != [1, 1] or scores[2] != len(class_names)):
        raise ValueError(
            f"explorer: class_names must be as many as the model has scores, got {len(class_names)} for a last layer of"
            f" shape {tuple(scores)}."
        )
    described["classes"] = None if class_names is None else [str(name) for name in class_names]
    return Explorer(_page(described))


def _batch(image: Any) -> Any:
    x = jnp.asarray(image)
    x = x if x.ndim == 4 else x[None]
    if x.ndim not in (3, 4) or x.shape[0] != 1 or 0 in x.shape:
        raise ValueError(
            f"explorer: image must be one picture (H, W, C) or one series (L, C), got shape {np.shape(image)}."
        )
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)


class _Arrays:
    """The arrays of a page, each once: what a layer reads is what another hands on."""

    def __init__(self) -> None:
        self.encoded: list[dict[str, Any]] = []
        self.known: dict[Any, int] = {}

    def add(self, array: Any, *, key: Any = None) -> int:
        """Keep an array and return its number; the same key is the same array."""
        if key is None or key not in self.known:
            array = np.ascontiguousarray(array, "<f4")
            self.encoded.append({"shape": list(array.shape), "data": base64.b64encode(array).decode()})
            self.known[key] = len(self.encoded) - 1
        return len(self.encoded) - 1 if key is None else self.known[key]


def _describe(model: nnx.Module, x: Any, channels: int) -> dict[str, Any]:
    """Everything that the page knows, as JSON values."""
    traced = trace(model, x, function="explorer")
    program = _arithmetic.Program(traced)
    recipes = [program.recipe(layer) for layer in traced.layers]
    wanted = dict.fromkeys(var for recipe in recipes for var in program.needs(recipe))
    wanted |= dict.fromkeys(var for recipe in recipes for var in (*recipe.operands, recipe.kernel, recipe.value))
    wanted.pop(None, None)
    source = program.jaxpr.invars[-1]
    values = dict(zip(wanted, traced.values(list(wanted), x), strict=True)) | {source: x}
    arrays = _Arrays()
    layers = [
        _layer(layer, recipe, program, values, arrays, channels)
        for layer, recipe in zip(traced.layers, recipes, strict=True)
    ]
    picture = {"value": arrays.add(_map(x), key=source), "series": x.ndim == 3}
    last, ending = recipes[-1], traced.layers[-1].activation
    scores = arrays.add(_map(values[last.before]), key=last.before) if "softmax" in ending else layers[-1]["value"]
    title = type(model).__name__
    return {"title": title, "input": picture, "layers": layers, "scores": scores, "arrays": arrays.encoded}


def _layer(
    layer: Layer,
    recipe: _arithmetic.Recipe,
    program: _arithmetic.Program,
    values: dict[Any, Any],
    arrays: _Arrays,
    channels: int,
) -> dict[str, Any]:
    value = _map(values[recipe.value])
    shown = _strongest(value, channels)
    described: dict[str, Any] = {
        "name": layer.name,
        "kind": layer.kind,
        "activation": list(layer.activation),
        "inputs": list(layer.inputs),
        "shape": list(value.shape),
        "shown": shown,
        "value": arrays.add(value, key=recipe.value),
        "sees": [_seen(field, values[recipe.value].ndim) for field in layer.view],
        "how": {"kind": recipe.kind},
    }
    if recipe.kind == "other":
        return described
    before = program.affine(recipe.total, recipe.before, values)
    after = program.affine(recipe.after, recipe.value, values)
    if before is None or after is None:
        return described
    how = {"kind": recipe.kind, **recipe.facts}
    if "places" in how:
        how["places"] = arrays.add(_map(how["places"]))
    if "windows" in how and len(how["windows"]) == 1:
        how["windows"] = [{"size": 1, "stride": 1, "low": 0, "dilation": 1, "holes": 1}, *how["windows"]]
    how["operands"] = [arrays.add(_map(values[var]), key=var) for var in recipe.operands]
    if recipe.kernel is not None:
        kernel = np.asarray(values[recipe.kernel], np.float32).transpose(recipe.kernel_axes)
        kernel = kernel[None, None] if recipe.kind == "dense" else kernel[None] if kernel.ndim == 3 else kernel
        how["kernel"] = arrays.add(kernel[..., shown])
        how["outputs"] = kernel.shape[-1]
    how["before"], how["after"] = ([arrays.add(_aligned(array)) for array in pair] for pair in (before, after))
    described["how"] = how
    return described


def _map(value: Any) -> np.ndarray:
    """The one example as a map (H, W, C): a series has one row, a vector one pixel."""
    return _aligned(np.asarray(value, np.float32)[0])


def _aligned(array: np.ndarray) -> np.ndarray:
    return array.reshape((1,) * (3 - array.ndim) + array.shape)


def _strongest(value: np.ndarray, channels: int) -> list[int]:
    count = value.shape[-1]
    if count <= channels:
        return list(range(count))
    order = np.argsort(-np.abs(value).max((0, 1)), kind="stable")
    return sorted(int(channel) for channel in order[:channels])


def _seen(field: _field.Field, rank: int) -> dict[str, Any]:
    """Along one axis of the picture: the axis of the map that moves the view, and the pixels at each place."""
    axis = None if field.axis is None or not 0 < field.axis < rank - 1 else field.axis - 1
    first, last = (np.clip(ends, -_FAR, _FAR).tolist() for ends in (field.first, field.last))
    # A series is a map of one row.
    return {"axis": axis if axis is None or rank == 4 else 1, "first": first, "last": last}


def _page(described: dict[str, Any]) -> str:
    folder = resources.files("cnnjax.explain") / "page"
    parts = {
        "title": html.escape(described["title"]),
        "style": (folder / "explorer.css").read_text(encoding="utf-8"),
        # A "<" could end the script that holds the data.
        "data": json.dumps(described, separators=(",", ":")).replace("<", "\\u003c"),
        "script": "\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS),
    }
    page = (folder / "explorer.html").read_text(encoding="utf-8")
    return re.sub(r"%(title|style|data|script)%", lambda found: parts[found[1]], page)
