"""The lecture's own numbers, by the ops."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import ops

IMAGE = [
    [1, 0, 0, 0, 0, 1],
    [0, 1, 0, 0, 1, 0],
    [0, 0, 1, 1, 0, 0],
    [1, 0, 0, 0, 1, 0],
    [0, 1, 0, 0, 1, 0],
    [0, 0, 1, 0, 1, 0],
]
FILTER_1 = [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
FILTER_2 = [[-1, 1, -1]] * 3
MAP_1 = [[3, -1, -3, -1], [-3, 1, 0, -3], [-3, -3, 0, 1], [3, -2, -2, -1]]
MAP_2 = [[-1, -1, -1, -1], [-1, -1, -2, 1], [-1, -1, -2, 1], [-1, 0, -4, 3]]
POOLED_1, POOLED_2 = [[3, 0], [3, 1]], [[-1, 1], [0, 3]]
TABLE = [[8, 7, 5, 3], [12, 9, 5, 7], [13, 2, 10, 3], [9, 4, 5, 14]]


def batch(table):
    return jnp.asarray(table, jnp.float32)[None, :, :, None]


def kernel(*filters):
    return jnp.stack([jnp.asarray(one, jnp.float32) for one in filters], -1)[:, :, None]


@pytest.mark.parametrize(("weights", "expected"), [(FILTER_1, MAP_1), (FILTER_2, MAP_2)])
def test_a_filter_gives_its_feature_map(weights, expected):
    y = ops.conv2d(batch(IMAGE), kernel(weights), padding="VALID")
    np.testing.assert_array_equal(y[0, :, :, 0], expected)


def test_two_filters_give_two_channels_and_pooling_keeps_them_apart():
    y = ops.conv2d(batch(IMAGE), kernel(FILTER_1, FILTER_2), padding="VALID")
    np.testing.assert_array_equal(y[0], np.stack([MAP_1, MAP_2], -1))
    np.testing.assert_array_equal(ops.max_pool2d(y, 2)[0], np.stack([POOLED_1, POOLED_2], -1))


def test_a_7x9_picture_under_a_3x3_window():
    assert ops.conv2d(jnp.ones((1, 7, 9, 1)), jnp.ones((3, 3, 1, 1)), padding="VALID").shape == (1, 5, 7, 1)


def test_six_filters_over_a_colour_picture():
    assert ops.conv2d(jnp.ones((1, 32, 32, 3)), jnp.ones((5, 5, 3, 6)), padding="VALID").shape == (1, 28, 28, 6)


def test_pooling_by_maximum_and_by_mean():
    np.testing.assert_array_equal(ops.max_pool2d(batch(TABLE), 2)[0, :, :, 0], [[12, 7], [13, 14]])
    np.testing.assert_array_equal(ops.avg_pool2d(batch(TABLE), 2)[0, :, :, 0], [[9, 5], [7, 8]])


@pytest.mark.parametrize(("side", "inputs"), [(64, 12_288), (1024, 3_145_728)])
def test_a_dense_layer_has_an_input_a_pixel_and_colour(side, inputs):
    assert ops.flatten(jnp.zeros((1, side, side, 3), jnp.int8)).shape == (1, inputs)


def test_valid_drops_what_filter_and_stride_do_not_cover():
    x = jnp.arange(1.0, 57.0).reshape(1, 7, 8, 1)
    y = ops.conv2d(x, jnp.ones((3, 3, 1, 1)), stride=2, padding="VALID")
    assert y.shape == (1, 3, 3, 1)
    # 8 columns, window 3, stride 2: the last column is never seen; of 7 rows every one is.
    np.testing.assert_array_equal(
        ops.conv2d(x.at[:, :, 7].set(1e6), jnp.ones((3, 3, 1, 1)), stride=2, padding="VALID"), y
    )
    assert not np.array_equal(
        ops.conv2d(x.at[:, 6].set(1e6), jnp.ones((3, 3, 1, 1)), stride=2, padding="VALID")[0, -1], y[0, -1]
    )
    # 5 x 5 pooled by 2: the right column and the bottom row are left out.
    pooled = ops.max_pool2d(jnp.arange(25.0).reshape(1, 5, 5, 1), 2)
    np.testing.assert_array_equal(pooled[0, :, :, 0], [[6, 8], [16, 18]])


@pytest.mark.parametrize("n", [5, 6, 7, 9])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_keeps_the_size_at_stride_1_and_divides_it_otherwise(n, k, stride):
    y = ops.conv2d(jnp.ones((1, n, n + 1, 1)), jnp.ones((k, k, 1, 1)), stride=stride, padding="SAME")
    if stride == 1:
        assert y.shape == (1, n, n + 1, 1)
    assert y.shape == (1, -(-n // stride), -(-(n + 1) // stride), 1)


@pytest.mark.parametrize(
    ("n", "k", "stride", "padding", "expected"),
    [(7, 3, 1, 0, 5), (9, 3, 1, 0, 7), (32, 5, 1, 0, 28), (6, 3, 1, 0, 4), (4, 2, 2, 0, 2), (7, 3, 2, 1, 4)],
)
def test_the_size_formula(n, k, stride, padding, expected):
    """floor((n + 2p - k) / s) + 1."""
    assert ops.shapes.conv_output_size(n, k, stride=stride, padding=padding) == expected
