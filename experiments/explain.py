"""Show what a trained net sees: python -m experiments.explain --workdir RUN.

Leaves a gallery and an explorer page behind; without --workdir, of the net that comes with cnnjax.
"""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import cnnjax
from cnnjax import data, explain, train
from experiments import commandline, predict, run, workdir

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMMAND = "experiments.explain"
SEARCHED = 1000
SHOWN = 6


@dataclass(frozen=True)
class Config:
    """Draw what a net sees in a picture, what excites its channels, and a page to walk through it."""

    workdir: Path = workdir.SHIPPED
    """Folder of a run of experiments.mnist or experiments.images; by default the one that comes with cnnjax."""
    picture: Path | None = None
    """The picture to explain, PNG or JPEG; by default the first of the test pictures."""
    data: str = "auto"
    """Pictures to search for what excites a channel: as in experiments.mnist; of a run of experiments.images their
    FOLDER."""
    out: Path | None = None
    """Where to write; by default a new folder in runs/explain."""
    seed: int = 0
    """Decides the noise that the features start from."""


def main() -> None:
    """Run the command."""
    with commandline.bad_input(COMMAND):
        config = commandline.parse(Config, COMMAND)
        cnnjax.accelerate()
        graphdef, state, names, read = predict.classifier_of(config.workdir)
        found = _pictures(config)
        chosen = found[0] if config.picture is None else read(config.picture)
        model = train.merge(graphdef, state)
        out = config.out or workdir.fresh("explain")
        out.mkdir(parents=True, exist_ok=True)
    picture, found = _floats(chosen)[None], _floats(found[:SEARCHED])
    captions = {}
    for name, caption, figure in _gallery(jax.random.key(config.seed), model, picture, found):
        figure.savefig(out / f"{name}.png")
        captions[name] = caption
        print(f"{out / name}.png: {caption}")
    explain.explorer(model, picture, names).save(out / "explorer.html")
    (out / "index.html").write_text(_index(type(model).__name__, captions), encoding="utf-8")
    print(f"{out}/explorer.html: every map, and how each number on it is made\nOpen {out}/index.html in a browser.")


def _pictures(config: Config) -> np.ndarray:
    settings = run.trained(config.workdir, "mnist", "images")
    if "class_names" not in settings:
        return data.load("mnist", config.data).test["image"]
    if config.data == "auto":
        raise ValueError("--data must be the folder of pictures for a run of experiments.images, got none. Name it.")
    return data.read_folder(Path(config.data), size=settings["size"]).test["image"]


def _floats(images: Any) -> jax.Array:
    return jnp.asarray(images, jnp.float32) / 255


def _gallery(
    key: jax.Array, model: nnx.Module, picture: jax.Array, found: jax.Array
) -> Iterator[tuple[str, str, "Figure"]]:
    """Every picture of the gallery: (name, caption, figure)."""
    size = max(picture.shape[1] // 7, 1)
    maps = {
        "saliency": explain.saliency(model, picture),
        "integrated gradients": explain.integrated_gradients(model, picture),
        "occlusion": explain.occlusion(model, picture, window=size, stride=max(size // 2, 1)),
        "Grad-CAM": explain.grad_cam(model, picture),
        "guided backprop": explain.guided_backprop(model, picture),
    }
    yield "attribution", "what speaks for the class that it names", explain.plot_attribution(picture, maps)
    for number, layer in enumerate(_mapped(model, picture)):
        activations = explain.activations(model, picture)[layer]
        yield f"maps_{number}", f"the maps of {layer}", explain.plot_activations(activations, channels=32)
        channels = np.argsort(-np.asarray(activations).max((0, 1, 2)))[:SHOWN].tolist()
        top = explain.top_patches(model, found, layer=layer, channels=channels, k=min(9, len(found)))
        yield f"patches_{number}", f"what excites {layer} most", explain.plot_patches(top)
        seen = [explain.deconvnet(model, picture, layer=layer, channel=channel)[0] for channel in channels]
        titles = [f"map {channel}" for channel in channels]
        yield (
            f"deconvnet_{number}",
            f"the strongest units of {layer}, projected back to the picture",
            explain.plot_pictures(np.stack([_stretched(one) for one in seen]), titles=titles),
        )
        wanted = explain.visualize_feature(key, model, picture.shape[1:], layer=layer, channels=channels)
        yield (
            f"features_{number}",
            f"what maps of {layer} would like to see",
            explain.plot_pictures(wanted, titles=titles),
        )


def _mapped(model: nnx.Module, picture: jax.Array) -> list[str]:
    """The layers that end in an activation function over maps, at most four, spread over the depth of the net."""
    layers = [row for row in explain.trace(model, picture).layers if row.activation and len(row.shape) == 4]
    layers = [layer.name for layer in layers if min(layer.shape[1:3]) > 1]
    places = np.linspace(0, len(layers) - 1, min(len(layers), 4)).round().astype(int)
    return [layers[place] for place in places]


def _stretched(image: jax.Array) -> np.ndarray:
    """Signed values around 0 as a picture around grey."""
    values = np.asarray(image)
    return 0.5 + values / max(2 * float(np.abs(values).max()), 1e-12)


def _index(title: str, captions: dict[str, str]) -> str:
    """The gallery as a page."""
    style = "body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }"
    parts = [
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>What {title} sees</title>",
        f"<style>{style} img {{ max-width: 100% }} figure {{ margin: 2rem 0 }}</style>",
        f'<h1>What {title} sees</h1>\n<p><a href="explorer.html">Walk through it</a>: every map, every number.</p>',
    ]
    for name, caption in captions.items():
        told = html.escape(caption)
        parts.append(f'<figure><img src="{name}.png" alt="{told}"><figcaption>{told}</figcaption></figure>')
    return "\n".join(parts) + "\n</html>\n"


if __name__ == "__main__":
    main()
