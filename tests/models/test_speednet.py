import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnjax import models


def logits(side, widths=(4, 4, 4)):
    def compute(x):
        return models.SpeedNet(whitening=jnp.zeros((2, 2, 3, 24)), widths=widths, rngs=nnx.Rngs(0))(x)

    return nnx.eval_shape(compute, jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)).shape


@pytest.mark.parametrize(("widths", "low", "high"), [((4, 4), 13, 24), ((4, 4, 4), 25, 48)])
def test_pictures_that_the_pools_do_not_bring_to_one_pixel_are_told(widths, low, high):
    assert logits(low, widths) == logits(high, widths) == (2, 10)
    for side in (1, low - 1, high + 1):
        text = rf"SpeedNet: x must be \(N, H, W, C\), {low} to {high} pixels .* got shape \(2, {side}, .*\. Resize the"
        with pytest.raises(ValueError, match=text):
            logits(side, widths)


@pytest.mark.parametrize("shape", [(8, 8, 3), (0, 8, 8, 3), (5, 1, 8, 3)])
def test_no_patches_to_whiten_are_told(shape):
    with pytest.raises(ValueError, match=r"whitening_kernel: images must be \(N, H, W, C\) of 2x2 .* got shape .* Add"):
        models.whitening_kernel(np.zeros(shape))
