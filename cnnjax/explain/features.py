"""Feature visualisation: the picture that a channel would like to see."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from cnnjax.explain import _backward, _place
from cnnjax.explain.trace import trace
from cnnjax.ops import _arguments as arguments
from cnnjax.ops import grid_sample2d

_BASES = ("fourier", "pixel")


def visualize_feature(
    key: Array,
    model: nnx.Module,
    shape: Sequence[int],
    *,
    layer: str,
    channels: Sequence[int],
    unit: Sequence[int] | None = None,
    steps: int = 256,
    learning_rate: float = 0.05,
    basis: str = "fourier",
    bounds: tuple[float, float] = (0.0, 1.0),
    jitter: float = 2.0,
    rotation: float = 10.0,
    zoom: float = 0.1,
) -> Array:
    """Optimise pictures until each excites its channel of a layer as much as it can.

    The picture is low + (high - low) * sigmoid(z), so it stays within its bounds, and Adam climbs from z close to 0.
    Before every step it is shifted, and a 2-D one turned and zoomed, at random: what excites the channel only at its
    exact place, as the high frequencies that nets are prone to do, does not last. Where a ReLU passes nothing of an
    example, it sends back the gradients that would wake it.

    The objective is the mean of the channel over its map, or the value of one unit.

    Args:
        key: a PRNG key, for where to start and for what is shifted.
        model: any `nnx.Module` that is called with one array, ours or a stock one; in evaluation.
        shape: of a picture, (*spatial, C).
        layer: the layer's name, as `summary` lists it; its activation function is included.
        channels: which channels of the layer, a picture each.
        unit: position on the layer's map, one integer a spatial axis; None is the mean of all.
        steps: of Adam, at least 1.
        learning_rate: of Adam, above 0.
        basis: what z is a sum of: "fourier" waves, the long ones as easy to change as the short ones together, or
            "pixel", each pixel by itself.
        bounds: the lowest and the highest value of a pixel, as the model knows them from training.
        jitter: shift by up to so many pixels, at least 0; whole pixels, and round the edges, but for pictures.
        rotation: turn pictures by up to so many degrees, at least 0.
        zoom: scale pictures by up to a factor of e ** zoom, at least 0.

    Returns:
        float array (len(channels), *shape).

    Raises:
        TypeError: a model that is no module, or steps that are no integer.
        ValueError: a layer, channel or unit that does not exist, no channels, an unknown basis, bounds that are not
            low below high, or a number outside its range.

    Example:
        >>> model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
        >>> model.kernel[...] = jnp.array([[1.0], [-1.0]])
        >>> visualize_feature(jax.random.key(0), model, (2,), layer="dense", channels=[0]).round()
        Array([[1., 0.]], dtype=float32)

    Source:
        Erhan et al. 2009, "Visualizing Higher-Layer Features of a Deep Network"; Olah, Mordvintsev & Schubert 2017,
        "Feature Visualization", https://distill.pub/2017/feature-visualization, without its colour statistics.
    """
    function = "visualize_feature"
    arguments.count(function, "steps", steps)
    ranges = {"jitter": jitter, "rotation": rotation, "zoom": zoom}
    if learning_rate <= 0 or any(not number >= 0 for number in ranges.values()):
        raise ValueError(
            f"{function}: learning_rate must be above 0 and {', '.join(ranges)} at least 0, got {learning_rate} and"
            f" {', '.join(map(str, ranges.values()))}."
        )
    if basis not in _BASES:
        raise ValueError(f"{function}: basis must be one of {', '.join(_BASES)}, got {basis!r}.")
    low, high = bounds
    if not low < high:
        raise ValueError(f"{function}: bounds must be (low, high) with low below high, got {bounds}.")
    chosen = np.asarray(channels)
    if chosen.ndim != 1 or not chosen.size:
        raise ValueError(f"{function}: channels must be a sequence of at least one, got {channels!r}.")
    whole = (len(chosen), *shape)
    traced = trace(model, jax.ShapeDtypeStruct(whole, jnp.float32), function=function)
    found = _place.layer_of(function, traced, layer)
    for channel in channels:
        _place.channel_of(function, found, channel)
    at = None if unit is None else _place.unit_of(function, found, unit)
    first, begin = jax.random.split(key)
    z, picture = _fourier(begin, whole) if basis == "fourier" else _pixels(begin, whole)
    tx = optax.adam(learning_rate)

    def draw(z: Array) -> Array:
        return low + (high - low) * jax.nn.sigmoid(picture(z))

    def excitement(z: Array, key: Array, state: Sequence[Array]) -> Array:
        x = _moved(key, draw(z), jitter, math.radians(rotation), zoom)
        (maps,) = _backward.run(traced, [found.value], state, x, rule=_awake)
        own = maps[jnp.arange(len(chosen)), ..., chosen]
        return -(own.reshape(len(chosen), -1).mean(1) if at is None else own[(slice(None), *at)]).sum()

    @jax.jit
    def climb(z: Array, key: Array, state: Sequence[Array]) -> Array:
        def step(carry: tuple[Array, optax.OptState], key: Array) -> tuple[tuple[Array, optax.OptState], None]:
            z, momenta = carry
            updates, momenta = tx.update(jax.grad(excitement)(z, key, state), momenta)
            return (jax.tree.map(jnp.add, z, updates), momenta), None

        (z, _), _ = jax.lax.scan(step, (z, tx.init(z)), jax.random.split(key, steps))
        return draw(z)

    return climb(z, first, traced.program.state)


def _pixels(key: Array, shape: Sequence[int]) -> tuple[Array, Callable[[Array], Array]]:
    return 0.01 * jax.random.normal(key, shape), lambda z: z


def _fourier(key: Array, shape: Sequence[int]) -> tuple[Array, Callable[[Array], Array]]:
    """Where to start, and how to make a picture of it: amplitudes of cosines and sines, divided by the frequency."""
    spatial = shape[1:-1]
    if not spatial:
        return _pixels(key, shape)
    frequencies = [np.fft.fftfreq(n) for n in spatial[:-1]] + [np.fft.rfftfreq(spatial[-1])]
    lengths = np.sqrt(sum(f**2 for f in np.meshgrid(*frequencies, indexing="ij")))
    # A quarter: Adam moves all amplitudes alike, and the sum of the long waves should not saturate at once.
    amplitudes = (0.25 / np.maximum(lengths, 1 / max(spatial)))[None, ..., None].astype(np.float32)

    def picture(z: Array) -> Array:
        axes = tuple(range(1, len(shape) - 1))
        return jnp.fft.irfftn(amplitudes * (z[0] + 1j * z[1]), s=spatial, axes=axes, norm="ortho")

    return 0.01 * jax.random.normal(key, (2, shape[0], *lengths.shape, shape[-1])), picture


def _moved(key: Array, x: Array, jitter: float, rotation: float, zoom: float) -> Array:
    """Every example shifted at random; pictures also by fractions of a pixel, turned and zoomed."""
    n, rank = len(x), x.ndim - 2
    if not (jitter or rotation or zoom):
        return x
    draws = jax.random.uniform(key, (n, rank + 2), minval=-1, maxval=1)
    shift = draws[:, :rank] * jitter
    if rank != 2:
        whole = jnp.round(shift).astype(int)
        return jax.vmap(lambda x, by: jnp.roll(x, by, tuple(range(rank))))(x, whole) if rank else x
    height, width = x.shape[1:3]
    angle, scale = draws[:, 2] * rotation, jnp.exp(draws[:, 3] * zoom)
    across, down = scale * jnp.cos(angle), scale * jnp.sin(angle)
    rows, columns = jnp.meshgrid(
        jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij"
    )
    each = (slice(None), None, None)
    grid_x = across[each] * columns - down[each] * rows + shift[each][..., 1]
    grid_y = down[each] * columns + across[each] * rows + shift[each][..., 0]
    return grid_sample2d(x, jnp.stack([grid_x * 2 / width, grid_y * 2 / height], -1), padding="border")


def _awake(x: Array, gradient: Array) -> Array:
    passed = jnp.where(x > 0, gradient, 0)
    asleep = ~(passed != 0).any(tuple(range(1, x.ndim)), keepdims=True)
    # More of a unit is wanted where its gradient is negative: this descends.
    return jnp.where(asleep, jnp.minimum(gradient, 0), passed)
