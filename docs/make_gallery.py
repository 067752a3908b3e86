"""Make docs/gallery.md, its pictures and docs/explorer.html: python -m docs.make_gallery.

The code under each picture is the code that made it. docs/explorer.png is what a browser shows of the page:
chromium --headless=new --hide-scrollbars --window-size=1280,1130 --screenshot=docs/explorer.png docs/explorer.html
"""

import ast
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent

PRELUDE = """\
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from cnnjax import data, explain, models, train
from experiments import mnist, workdir

digits = data.load("mnist", "embedded")
image = digits.test["image"][7:8] / np.float32(255)              # (1, 28, 28, 1)
model = train.merge(*mnist.load(workdir.SHIPPED))                # a LeNet trained by python -m experiments.mnist
"""

# File name, what one sees, and the code that makes it.
PICTURES = [
    ("sliding_filter.gif", "A filter slides over a picture: nine products and their sum at every stop.", """\
x = np.array([[1,0,0,0,0,1], [0,1,0,0,1,0], [0,0,1,1,0,0], [1,0,0,0,1,0], [0,1,0,0,1,0], [0,0,1,0,1,0]])
explain.animate_conv2d(x, [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]])"""),
    ("sliding_1d.gif", "The same in one dimension: a causal filter sees only the present and the past.", """\
explain.animate_conv1d([1, 2, 4, 8, 8, 8, 3], [-1, 1], padding="CAUSAL")"""),
    ("sliding_3d.gif", "And in three, through the slices of a volume.", """\
explain.animate_conv3d(np.arange(27).reshape(3, 3, 3) % 5, np.ones((2, 2, 2)))"""),
    ("pooling.gif", "Max pooling keeps the largest number of every window.", """\
explain.animate_pool2d([[8, 7, 5, 3], [12, 9, 5, 7], [13, 2, 10, 3], [9, 4, 5, 14]], 2)"""),
    ("coverage.png", "What a stride leaves out: with VALID no window covers the last row and column.", """\
explain.plot_coverage((8, 8), (3, 3), stride=2)"""),
    ("matrix.png", "A convolution is a sparse matrix with tied weights: why it has so few parameters.", """\
explain.plot_conv_matrix([[[[1.0]], [[2.0]]], [[[-1.0]], [[-2.0]]]], (5, 5, 1), padding="VALID")"""),
    ("tuning.png", "Hand-made oriented filters, as in the visual cortex, and which lines they answer to.", """\
explain.plot_tuning(explain.oriented_filters(6))"""),
    ("tiling.png", "Receptive fields overlap and tile the picture; deeper units see more of it.", """\
explain.plot_tiling(image[0], [(5,), (2, 2), (5,), (2, 2)])"""),
    ("pixels.png", "A picture is a table of numbers.", """\
explain.plot_pixels(digits.test["image"][7, 4:24, 4:24])"""),
    ("filters.png", "The first filters of a trained net: red counts for, blue against.", """\
explain.plot_filters(explain.kernels(model, image)["convs.0"])"""),
    ("activations.png", "What these filters make of a digit: the activation maps of the first layer.", """\
explain.plot_activations(explain.activations(model, image)["max_pool2d"])"""),
    ("receptive_field.png", "What one unit of the third convolution could see, and what it does look at.", """\
explain.plot_receptive_field(model, image, layer="convs.2")"""),
    ("attribution.png", "Which pixels speak for the digit that it reads: five ways to ask.", """\
explain.plot_attribution(image, {
    "saliency": explain.saliency(model, image),
    "integrated gradients": explain.integrated_gradients(model, image),
    "occlusion": explain.occlusion(model, image, window=4, stride=2),
    "Grad-CAM": explain.grad_cam(model, image),
    "guided backprop": explain.guided_backprop(model, image),
})"""),
    ("patches.png", "What excites units of the third convolution most, among a thousand digits.", """\
explain.plot_patches(explain.top_patches(
    model, digits.test["image"] / np.float32(255), layer="norms.2", channels=[0, 9, 20, 41], k=9))"""),
    ("features.png", "What the same channels would like to see: pictures climbed to, not taken.", """\
explain.plot_pictures(
    explain.visualize_feature(jax.random.key(0), model, (28, 28, 1), layer="norms.2", channels=[0, 9, 20, 41]),
    titles=[f"channel {channel}" for channel in (0, 9, 20, 41)], columns=4)"""),
    ("confusion.png", "Which digit is taken for which.", """\
answers = train.predict(*mnist.load(workdir.SHIPPED), digits.test["image"] / np.float32(255)).argmax(1)
explain.plot_confusion(
    explain.confusion_matrix(digits.test["label"], answers, num_classes=10), class_names=digits.class_names)"""),
]  # fmt: skip

EXPLORER = """\
explain.explorer(model, image[0], digits.class_names)"""

SUMMARY = """\
explain.summary(models.LeNet5(rngs=nnx.Rngs(0)), jnp.zeros((1, 28, 28, 1)))"""


def evaluate(code: str, names: dict[str, Any]) -> Any:
    """Run code whose last statement is an expression, and return its value."""
    *first, last = ast.parse(code).body
    if not isinstance(last, ast.Expr):
        raise ValueError(f"the code of a picture must end in an expression, got {ast.unparse(last)}.")
    exec(compile(ast.Module(first, []), "gallery", "exec"), names)
    return eval(compile(ast.Expression(last.value), "gallery", "eval"), names)


def main() -> None:
    """Draw everything and write the page."""
    names: dict[str, Any] = {}
    exec(PRELUDE, names)
    (FOLDER / "gallery").mkdir(exist_ok=True)
    page = [
        "# Gallery",
        "Every picture is one call of `cnnjax.explain`, which returns a matplotlib Figure or an animation and neither"
        " shows nor saves it. This page is made by `python -m docs.make_gallery`; the code below each picture is the"
        " code that drew it. `python -m experiments.explain` makes a gallery of a net of yours.",
        f"```python\n{PRELUDE}```",
    ]
    for name, caption, code in PICTURES:
        picture = evaluate(code, names)
        write = picture.save if name.endswith(".gif") else picture.savefig
        write(FOLDER / "gallery" / name)
        page.append(f"**{caption}**\n\n![{caption}](gallery/{name})\n\n```python\n{code}\n```")
    evaluate(EXPLORER, names).save(FOLDER / "explorer.html")
    page.append(
        "**[The explorer](explorer.html)**, a page to walk through any net, and see how every number of every map is"
        f" made. Download it and open it in a browser; a notebook shows it in place.\n\n```python\n{EXPLORER}\n```"
    )
    table = str(evaluate(SUMMARY, names))
    page.append(
        f"**The whole arithmetic of a net, ours or a stock one.**\n\n```\n{table}\n```\n\n```python\n{SUMMARY}\n```"
    )
    (FOLDER / "gallery.md").write_text("\n\n".join(page) + "\n")


if __name__ == "__main__":
    main()
