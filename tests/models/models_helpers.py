"""Random values for a model."""

import jax.numpy as jnp
import numpy as np
from flax import nnx


def drawn(model, dtype):
    """The model with random parameters and statistics, positive where they scale; 0 would hide what is behind it."""
    rng = np.random.default_rng(2)

    def value(name, shape):
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, shape)
        return rng.normal(size=shape) * (0.3 if len(shape) == 1 else np.prod(shape[:-1]) ** -0.5)

    leaves = nnx.to_flat_state(nnx.state(model))
    values = {path: leaf.replace(jnp.asarray(value(path[-1], leaf.shape).astype(dtype))) for path, leaf in leaves}
    nnx.update(model, nnx.from_flat_state(values))
    return model
