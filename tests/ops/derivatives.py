"""Derivatives in forward mode and of second order, against a gradient that loops have computed."""

import jax
import jax.numpy as jnp
import numpy as np
from ops_helpers import normal, weights_of


def check_derivatives(function, gradient, x, tolerance=1e-6):
    """Compare tangent and second derivatives of a weighted sum with `gradient(x)` and its central difference.

    All in one compilation and in float64, where `jax.test_util.check_grads` compiles one primitive after the other.
    """
    direction, step = normal(99, *x.shape), 1e-4

    def loss(x):
        y = function(x)
        return jnp.sum(y * weights_of(y.shape))

    @jax.jit
    def run(x, v):
        forward_over_reverse = jax.jvp(jax.grad(loss), (x,), (v,))[1]
        reverse_over_reverse = jax.grad(lambda x: jnp.vdot(jax.grad(loss)(x), v))(x)
        return jax.jvp(loss, (x,), (v,))[1], forward_over_reverse, reverse_over_reverse

    with jax.enable_x64(True):
        tangent, *seconds = run(jnp.asarray(x), jnp.asarray(direction))
        np.testing.assert_allclose(tangent, np.vdot(gradient(x), direction), rtol=1e-10)
        expected = (gradient(x + step * direction) - gradient(x - step * direction)) / (2 * step)
        for second in seconds:
            np.testing.assert_allclose(second, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
