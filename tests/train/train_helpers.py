"""The nets and steps whose training is compared over devices and processes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from cnnjax import data, models, train


def make_batch(step, dtype: Any = np.float32, size=16, share=(0, 1)):
    """The batch of a step, or the share of a process in it."""
    rng = np.random.default_rng(step)
    image = rng.normal(size=(size, 12, 12, 1)).astype(dtype)
    position = (step * size + np.arange(size)).astype(np.uint32)
    batch = {"image": image, "label": (image.mean((1, 2, 3)) > 0).astype(np.int32), "position": position}
    part, parts = share
    return {name: array.reshape(parts, -1, *array.shape[1:])[part] for name, array in batch.items()}


def loss_fn(model, batch, key):
    """Cross-entropy of moved pictures."""
    moved = jax.vmap(lambda k, image: data.translate(k, image, max_shift=2))(
        data.keys(3, batch["position"]), batch["image"]
    )
    logits = train.apply(model, moved, train=True, key=None)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return losses, {"accuracy": logits.argmax(-1) == batch["label"]}


class StockNet(nnx.Module):
    """A net of Flax alone."""

    def __init__(self, rngs):
        # A bias would have no gradient before a batch-norm but rounding, which AdamW divides by itself.
        self.conv = nnx.Conv(1, 4, (3, 3), use_bias=False, rngs=rngs)
        # Flax's default variance, E[x²] - m², would itself differ by more than the tolerance.
        self.norm = nnx.BatchNorm(4, use_fast_variance=False, rngs=rngs)
        self.dense = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.dense(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))


def make(name, dtype):
    """A small net with batch-norm: ours or a stock one."""
    model = (
        models.LeNet(shape=(12, 12, 1), num_classes=2, widths=(4, 6, 8), rngs=nnx.Rngs(0))
        if name == "ours"
        else StockNet(nnx.Rngs(0))
    )
    nnx.update(model, jax.tree.map(lambda leaf: leaf.astype(dtype), nnx.state(model)))
    return model


def trained(wrap, name, *, steps, share=(0, 1), accumulate=1):
    """The state and the metrics after steps in float64, with clipped gradients and averaged parameters."""
    with jax.enable_x64(True):
        tx = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(1e-2))
        graphdef, state = train.create(make(name, jnp.float64), tx, ema=True)
        step = train.make_train_step(graphdef, tx, loss_fn, ema_decay=0.8, accumulate=accumulate)
        run, metrics = wrap(step), {}
        for number in range(steps):
            state, metrics = run(state, make_batch(number, np.float64, share=share), jax.random.key(0))
        return state, metrics


def first_gradients(wrap, name="ours", *, share=(0, 1)):
    """The gradients of the first step in float32."""
    tx = optax.sgd(1.0)
    graphdef, state = train.create(make(name, jnp.float32), tx)
    after, _ = wrap(train.make_train_step(graphdef, tx, loss_fn))(state, make_batch(0, share=share), jax.random.key(0))
    params = train.parallel.gathered(after.params)
    return jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), state.params, params)
