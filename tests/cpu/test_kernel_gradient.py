"""The kernel's gradient in pieces and slabs, which only large operands need, on small ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.cpu import kernel_gradient as module
from cnnjax.cpu.geometry import Geometry, convolve
from cnnjax.cpu.library import plain


def normal(*shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("size", [1 << 30, 4000, 400])
@pytest.mark.parametrize(
    ("x", "window", "outputs", "geometry"),
    [
        ((7, 19, 4), (5,), 3, Geometry((1,), ((2, 2),), (1,))),
        ((5, 12, 11, 3), (3, 3), 8, Geometry((1, 1), ((1, 1), (1, 1)), (1, 1))),
        ((4, 13, 12, 2), (7, 7), 5, Geometry((2, 2), ((3, 3), (3, 3)), (1, 1))),
        ((3, 11, 9, 4), (3, 2), 6, Geometry((1, 2), ((0, 3), (1, 0)), (2, 1))),
        ((2, 9, 8, 7, 3), (3, 3, 3), 4, Geometry((1, 1, 1), ((1, 1),) * 3, (1, 1, 1))),
        ((2, 9, 8, 7, 3), (3, 1, 2), 4, Geometry((3, 2, 1), ((1, 0), (0, 0), (1, 2)), (1, 1, 2))),
    ],
)
def test_pieces_and_slabs_sum_to_the_whole(monkeypatch, size, x, window, outputs, geometry):
    monkeypatch.setattr(module, "_BYTES", size)
    x, kernel = normal(*x, seed=0), normal(*window, x[-1], outputs, seed=1)
    y, back = jax.vjp(lambda kernel: convolve(x, kernel, geometry), kernel)
    dy = normal(*y.shape, seed=2)
    run = jax.jit(lambda x, dy: module.kernel_gradient(x, dy, geometry, window, plain))
    np.testing.assert_allclose(run(x, dy), back(dy)[0], rtol=1e-4, atol=1e-4)


def test_a_window_that_sees_all_of_x_is_one_product():
    x, dy = normal(6, 5, 5, 4, seed=0), normal(6, 1, 1, 3, seed=1)
    geometry = Geometry((1, 1), ((0, 0), (0, 0)), (1, 1))
    y = module.kernel_gradient(x, dy, geometry, (5, 5), plain)
    np.testing.assert_allclose(y, jnp.einsum("nhwi,nabo->hwio", x, dy), rtol=1e-5, atol=1e-5)
