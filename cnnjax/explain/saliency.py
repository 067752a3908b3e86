"""The gradient of a class's score: which elements of the input it is most sensitive to."""

from flax import nnx
from jax import Array
from numpy.typing import ArrayLike

from cnnjax.explain import _score


def saliency(model: nnx.Module, x: ArrayLike, *, target: ArrayLike | None = None) -> Array:
    """Compute the gradient of a class's score with respect to the input.

    It says how the score would change with each pixel, not how much of it each pixel makes up: that is what
    `integrated_gradients` divides. Its magnitude, `abs(saliency(...)).max(-1)`, is the saliency map of the paper.

    The score is the model's result for the class, before a `jax.nn.softmax` or `log_softmax` at its end: the
    probability of one class also rises where those of the others fall.

    s[n] = d score[n, target[n]] / d x[n]

    Args:
        model: any `nnx.Module` that is called with one array and returns (N, K), ours or a stock one; in evaluation.
        x: (N, *spatial, C) or (N, C), floating.
        target: which of the K classes, an integer or one an example; None is the class that the model takes each for.

    Returns:
        Array of the shape and dtype of x.

    Raises:
        TypeError: a model that is no module; x of an integer dtype, or a shape alone; a target that is no integer.
        ValueError: x without examples, a model that returns anything but (N, K), or a target outside [0, K).

    Example:
        >>> model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        >>> bool((saliency(model, jnp.ones((1, 3)), target=1)[0] == model.kernel[:, 1]).all())
        True

    Source:
        Simonyan, Vedaldi & Zisserman 2014, "Deep Inside Convolutional Networks", section 3.
    """
    x, score = _score.ask("saliency", model, x, target)
    return score.gradient(x)
