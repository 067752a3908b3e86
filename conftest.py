"""What the examples in docstrings may take as imported."""

import flax.nnx
import jax
import jax.numpy
import numpy as np
import optax
import pytest

import cnnjax
from cnnjax import data, explain, models, nn, ops, train


@pytest.fixture(autouse=True)
def _examples(doctest_namespace):
    doctest_namespace.update(
        cnnjax=cnnjax, jax=jax, jnp=jax.numpy, np=np, optax=optax, nnx=flax.nnx,
        data=data, explain=explain, models=models, nn=nn, ops=ops, train=train,
    )  # fmt: skip
