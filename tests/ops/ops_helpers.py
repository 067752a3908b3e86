"""What the tests of the ops share: the ways to run a function, weighted gradients, PyTorch's layout."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def _vmapped(function):
    """Run on a stack of two examples, of which the second is asked for."""

    def run(*args):
        stacked = [jnp.stack([jnp.flip(jnp.asarray(arg)), jnp.asarray(arg)]) for arg in args]
        return jax.tree.map(lambda y: y[1], jax.vmap(function)(*stacked))

    return run


WAYS = {"eager": lambda function: function, "jit": jax.jit, "vmap": _vmapped}
ways = pytest.mark.parametrize("way", list(WAYS.values()), ids=list(WAYS))


def normal(seed: int, *shape: int, dtype: Any = "float64") -> Any:
    """An array of NumPy; the ops, annotated for those of JAX, take it."""
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def weights_of(shape):
    """Weights that no gradient of a wrong element reproduces."""
    return np.cos(np.arange(np.prod(shape, dtype=int))).reshape(shape)


def value_and_grads(function, *args, compiler_options=None):
    """The output, and the gradient of its weighted sum with respect to every argument; float64 stays."""

    def loss(*args):
        y = function(*args)
        return jnp.sum(y * weights_of(y.shape).astype(y.dtype)), y

    with jax.enable_x64(True):
        args = [jnp.asarray(arg) for arg in args]
        gradients = jax.value_and_grad(loss, argnums=tuple(range(len(args))), has_aux=True)
        run = jax.jit(gradients, compiler_options=compiler_options)
        (_, y), grads = run(*args)
        return np.asarray(y), [np.asarray(grad) for grad in grads]


def unsimplified(window, output, *, stride):
    """Options of the compiler for the gradients of a convolution: none, but where XLA's own may abort the process.

    With respect to x it does so in plain lax as well: its simplifier exchanges x and kernel where the kernel has more
    pixels, and where there are steps it then disagrees with itself on the size of the window.
    """
    may_abort = math.prod(window) >= math.prod(output) and max(stride) > 1
    return {"xla_disable_hlo_passes": "algsimp"} if may_abort else None


def torch_value_and_grads(function, *args):
    """As `value_and_grads`, of a PyTorch function that returns channels last."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    torch.set_num_threads(1)  # several test processes share the cores
    tensors = [torch.tensor(arg, requires_grad=True) for arg in args]
    y = function(*tensors)
    (y * torch.tensor(weights_of(tuple(y.shape)))).sum().backward()
    return y.detach().numpy(), [tensor.grad.numpy() for tensor in tensors]


def first(x):
    """Channels first: (N, *spatial, C) to (N, C, *spatial)."""
    return x.permute(0, x.ndim - 1, *range(1, x.ndim - 1))


def last(x):
    """Channels last: (N, C, *spatial) to (N, *spatial, C)."""
    return x.permute(0, *range(2, x.ndim), 1)


def torch_kernel(kernel):
    """(*window, I, O) to (O, I, *window)."""
    return kernel.permute(kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2))


def flat_pads(pairs):
    """(low, high) an axis as torch.nn.functional.pad takes them: the last axis first."""
    return [amount for pair in reversed(pairs) for amount in pair]


def assert_same(ours, theirs, tolerance=1e-10):
    """Compare (value, gradients) pairs."""
    np.testing.assert_allclose(ours[0], theirs[0], rtol=tolerance, atol=tolerance)
    for our, their in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_allclose(our, their, rtol=tolerance, atol=tolerance)
