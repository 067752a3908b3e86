"""A batch in parts: the gradients of the whole, statistics handed on, noise for each."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cnnjax import train


def test_parts_of_a_batch_add_up_to_the_whole():
    def loss_fn(model, batch, key):
        return jnp.square(model(batch["x"]) - batch["y"])[:, 0], {"size": jnp.abs(batch["y"][:, 0])}

    tx = optax.sgd(0.5)
    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(12, 3)).astype(np.float32), "y": rng.normal(size=(12, 1)).astype(np.float32)}
    graphdef, state = train.create(nnx.Linear(3, 1, rngs=nnx.Rngs(0)), tx)
    results = []
    for parts in (1, 2, 3, 12):
        run = train.parallel.jit(train.make_train_step(graphdef, tx, loss_fn, accumulate=parts))
        results.append(run(state, batch, jax.random.key(0)))
    # By hand: the mean of 2 (x w + b - y) x over all twelve.
    kernel, bias = (np.asarray(state.params[name]) for name in ("kernel", "bias"))
    slope = 2 * (batch["x"] @ kernel + bias - batch["y"])
    for after, metrics in results:
        np.testing.assert_allclose(after.params["kernel"], kernel - 0.5 * (batch["x"].T @ slope) / 12, atol=1e-6)
        np.testing.assert_allclose(metrics["size"], np.abs(batch["y"]).mean(), rtol=1e-6)


def test_parts_draw_their_own_noise_and_hand_on_batch_statistics():
    model = nnx.Sequential(nnx.BatchNorm(1, momentum=0.5, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
    graphdef, state = train.create(model, optax.sgd(0.0))

    def loss_fn(model, batch, key):
        y = jax.random.normal(key, batch["x"].shape[:1])
        return y + 0 * model(batch["x"])[:, 0], {"square": jnp.square(y)}

    step = train.make_train_step(graphdef, optax.sgd(0.0), loss_fn, accumulate=2)
    x = np.array([[1.0], [5.0], [1.0], [5.0]], np.float32)
    after, metrics = step(state, {"x": x}, jax.random.key(0))
    # Examples 0 and 2 first, 1 and 3 then: (0 + 1) / 2 = 0.5, (0.5 + 5) / 2 = 2.75.
    assert float(after.model_state["layers"][0]["mean"][0]) == 2.75
    key = jax.random.fold_in(jax.random.key(0), 0)
    drawn = [jax.random.normal(part, (2,)) for part in jax.random.split(key, 2)]
    np.testing.assert_allclose(metrics["square"], np.square(drawn).mean(), rtol=1e-6)


def test_a_batch_that_does_not_divide_into_parts_is_refused():
    graphdef, state = train.create(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"make_train_step: accumulate must be at least 1, got 0"):
        train.make_train_step(graphdef, optax.sgd(0.1), lambda *_: (jnp.zeros(1), {}), accumulate=0)
    step = train.make_train_step(graphdef, optax.sgd(0.1), lambda *_: (jnp.zeros(1), {}), accumulate=4)
    with pytest.raises(ValueError, match=r"accumulate must divide a device's share of the batch, got 4 for 6 examples"):
        step(state, {"x": np.zeros((6, 1))}, jax.random.key(0))
