import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from cnnjax.data import Batches, affine, crop, cutout, flip, keys, mixup, stretch, translate

IMAGE = jnp.asarray(np.random.default_rng(0).integers(1, 256, (9, 7, 2)), jnp.uint8)


def shifted(image, down, right):
    """The reference: a Python loop."""
    image, out = np.asarray(image), np.zeros(image.shape, image.dtype)
    height, width = len(out), len(out[0])
    for i in range(height):
        for j in range(width):
            if 0 <= i - down < height and 0 <= j - right < width:
                out[i, j] = image[i - down, j - right]
    return out


def test_translate_gives_every_shift_and_nothing_else():
    shifts = {shifted(IMAGE, a, b).tobytes(): (a, b) for a in range(-2, 3) for b in range(-2, 3)}
    keys = jax.random.split(jax.random.key(0), 400)
    got = np.asarray(jax.vmap(lambda key: translate(key, IMAGE, max_shift=2))(keys))
    seen = [shifts[image.tobytes()] for image in got]
    assert set(seen) == set(shifts.values())
    assert max(seen.count(shift) for shift in shifts.values()) < 40


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, jnp.float32, jnp.bfloat16, jnp.bool_])
def test_translate_keeps_dtype_and_shape_eager_jitted_and_vmapped(dtype):
    image, keys = IMAGE.astype(dtype), jax.random.split(jax.random.key(1), 3)
    eager = jnp.stack([translate(key, image, max_shift=3) for key in keys])
    mapped = jax.jit(jax.vmap(lambda key: translate(key, image, max_shift=3)))(keys)
    assert (mapped.dtype, mapped.shape) == (dtype, (3, *IMAGE.shape))
    np.testing.assert_array_equal(eager, mapped)


def test_no_shift_is_the_identity():
    np.testing.assert_array_equal(translate(jax.random.key(0), IMAGE, max_shift=0), IMAGE)


def with_largest_amounts(monkeypatch, image, **bounds):
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, **_: jnp.ones(shape))
    return np.asarray(affine(jax.random.key(0), image, **bounds))


def test_affine_without_amounts_is_the_identity():
    np.testing.assert_array_equal(affine(jax.random.key(0), IMAGE), IMAGE)


@pytest.mark.parametrize("shift", [1, 2])
def test_affine_shift_by_whole_pixels_is_exact(monkeypatch, shift):
    np.testing.assert_array_equal(with_largest_amounts(monkeypatch, IMAGE, shift=shift), shifted(IMAGE, shift, shift))


def test_affine_rotation_by_right_angles(monkeypatch):
    square = IMAGE[:7].astype(jnp.float32)
    got = with_largest_amounts(monkeypatch, square, rotation=90)
    np.testing.assert_allclose(got[1:-1, 1:-1], np.rot90(square)[1:-1, 1:-1], atol=1e-2)


def test_affine_scale_agrees_with_scipy(monkeypatch):
    image = IMAGE.astype(jnp.float32)
    got = with_largest_amounts(monkeypatch, image, scale=0.25)
    centre = (np.array(image.shape[:2]) - 1) / 2
    for c in range(2):
        plane = np.asarray(image[..., c])
        want = ndimage.affine_transform(plane, np.eye(2) / 1.25, list(centre - centre / 1.25), order=1)  # pyright: ignore[reportArgumentType]
        np.testing.assert_allclose(got[..., c], want, atol=1e-2)


def test_affine_shear_by_45_degrees_moves_each_row_by_its_distance_to_the_middle(monkeypatch):
    image = IMAGE.astype(jnp.float32)
    got = with_largest_amounts(monkeypatch, image, shear=45)
    for row in range(9):
        np.testing.assert_allclose(got[row : row + 1], shifted(image[row : row + 1], 0, row - 4), atol=1e-2)


def test_affine_amounts_differ_by_key_and_stay_within_their_bounds():
    dot = jnp.zeros((21, 21, 1)).at[10, 10].set(1.0)
    keys = jax.random.split(jax.random.key(0), 200)
    got = np.asarray(jax.jit(jax.vmap(lambda key: affine(key, dot, shift=3)))(keys))[..., 0]
    centres = np.array([ndimage.center_of_mass(image) for image in got]) - 10
    assert abs(centres).max() <= 3.001
    assert centres.min(0).max() < -2.5
    assert centres.max(0).min() > 2.5


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda k: translate(k, IMAGE[None], max_shift=1),
            r"translate: image must be \(H, W, C\), got shape \(1, 9, 7, 2\)\. .*vmap",
        ),
        (lambda k: translate(k, IMAGE, max_shift=-1), "translate: max_shift must be at least 0, got -1"),
        (lambda k: affine(k, IMAGE[..., 0]), r"affine: image must be \(H, W, C\), got shape \(9, 7\)"),
        (lambda k: affine(k, IMAGE, rotation=-5), r"affine: rotation must be at least 0, got -5"),
        (lambda k: affine(k, IMAGE, scale=1.1), r"affine: scale must be at least 0 and below 1, got 1.1"),
        (lambda k: affine(k, IMAGE, shear=90), r"affine: shear must be at least 0 and below 90, got 90"),
        (lambda k: affine(k, IMAGE, shift=-1), r"affine: shift must be at least 0, got -1"),
    ],
)
def test_bad_arguments_are_named(call, text):
    with pytest.raises(ValueError, match=text):
        call(jax.random.key(0))


def test_keys_depend_on_the_place_alone():
    batches = Batches({"x": np.arange(5)}, 8, seed=0)
    whole = jax.random.key_data(keys(3, jnp.asarray(batches(2)["position"])))
    halves = [jax.random.key_data(keys(3, jnp.asarray(part))) for part in np.split(batches(2)["position"], 2)]
    np.testing.assert_array_equal(whole, np.concatenate(halves))
    np.testing.assert_array_equal(whole[3], jax.random.key_data(jax.random.fold_in(jax.random.key(3), 19)))
    others = [jax.random.key_data(keys(seed, jnp.arange(24))).tolist() for seed in (0, 3)]
    assert len({tuple(key) for key in [*others[0], *others[1]]}) == 48
    np.testing.assert_array_equal(whole, jax.random.key_data(jax.jit(keys)(3, jnp.arange(16, 24))))
    with pytest.raises(ValueError, match=r"keys: position must be \(N,\), got shape \(\)\. Give a batch's"):
        keys(0, jnp.asarray(3))


def test_flip_mirrors_half_of_the_images():
    keys = jax.random.split(jax.random.key(0), 400)
    got = np.asarray(jax.vmap(lambda key: flip(key, IMAGE))(keys))
    mirrored = (got == np.asarray(IMAGE)[:, ::-1]).all((1, 2, 3))
    assert (mirrored | (got == np.asarray(IMAGE)).all((1, 2, 3))).all()
    assert 150 < mirrored.sum() < 250


SERIES = jnp.asarray(np.random.default_rng(1).normal(size=(50, 2)), jnp.float32)


@pytest.mark.parametrize("shift", [1, 3])
def test_stretch_shifts_by_whole_samples(monkeypatch, shift):
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, **_: jnp.ones(shape))
    got = stretch(jax.random.key(0), SERIES, shift=shift)
    np.testing.assert_allclose(got[shift:], SERIES[:-shift], atol=1e-5)
    assert not np.asarray(got[:shift]).any()


def test_stretch_plays_faster_about_the_middle(monkeypatch):
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, **_: jnp.ones(shape))
    got = np.asarray(stretch(jax.random.key(0), SERIES, rate=0.25))
    places = (np.arange(50) - 24.5) * 1.25 + 24.5
    expected = np.stack([np.interp(places, np.arange(50), channel) for channel in np.asarray(SERIES).T], 1)
    inside = (places >= 0) & (places <= 49)
    np.testing.assert_allclose(got[inside], expected[inside], atol=1e-5)
    # Between the last sample and the zero beyond it.
    assert np.abs(got[(places < -1) | (places > 50)]).max() == 0


def test_stretch_draws_both_ways_from_its_bounds():
    ramp = jnp.arange(1000.0)[:, None]
    keys = jax.random.split(jax.random.key(0), 300)
    got = np.asarray(jax.jit(jax.vmap(lambda key: stretch(key, ramp, rate=0.2, shift=10)))(keys))[:, :, 0]
    speed = got[:, 501] - got[:, 500]
    assert 0.8 <= speed.min() < 0.82
    assert 1.18 < speed.max() <= 1.2 + 1e-3
    assert np.abs((got[:, 499] + got[:, 500]) / 2 - 499.5).max() <= 12


def test_bad_series_are_told():
    with pytest.raises(ValueError, match=r"stretch: series must be \(L, C\), got shape \(50,\).*vmap"):
        stretch(jax.random.key(0), SERIES[:, 0])
    with pytest.raises(ValueError, match=r"stretch: rate must be at least 0 and below 1, got 1.0"):
        stretch(jax.random.key(0), SERIES, rate=1.0)


def test_crop_gives_every_box_and_nothing_else():
    boxes = {np.asarray(IMAGE[i : i + 6, j : j + 5]).tobytes(): (i, j) for i in range(4) for j in range(3)}
    keys = jax.random.split(jax.random.key(0), 300)
    got = np.asarray(jax.jit(jax.vmap(lambda key: crop(key, IMAGE, size=(6, 5))))(keys))
    seen = [boxes[image.tobytes()] for image in got]
    assert set(seen) == set(boxes.values())
    assert max(seen.count(box) for box in boxes.values()) < 50
    np.testing.assert_array_equal(crop(keys[0], IMAGE, size=(6, 5)), got[0])


@pytest.mark.parametrize("size", [(10, 5), (6, 8), (0, 5), (6,), (6, 5, 2)])
def test_crop_refuses_boxes_that_do_not_fit(size):
    with pytest.raises(ValueError, match=r"crop: size must be \(height, width\) within the image, got \("):
        crop(jax.random.key(0), IMAGE, size=size)


def test_crop_without_dm_pix_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_pix", None)
    with pytest.raises(ImportError, match=r"crop: dm-pix is missing. Run pip install 'cnnjax\[data\]'"):
        crop(jax.random.key(0), IMAGE, size=(1, 1))


@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_cutout_is_a_square_around_any_pixel(size):
    def hole(i, j):
        """The reference: a Python loop."""
        image = np.asarray(IMAGE).copy()
        for a in range(max(i - size // 2, 0), min(i - size // 2 + size, 9)):
            for b in range(max(j - size // 2, 0), min(j - size // 2 + size, 7)):
                image[a, b] = 0
        return image.tobytes()

    keys = jax.random.split(jax.random.key(0), 600)
    got = np.asarray(jax.jit(jax.vmap(lambda key: cutout(key, IMAGE, size=size)))(keys))
    assert {image.tobytes() for image in got} == {hole(i, j) for i in range(9) for j in range(7)}
    np.testing.assert_array_equal(cutout(keys[0], IMAGE, size=size), got[0])


def test_cutout_refuses_a_square_of_no_pixels():
    with pytest.raises(ValueError, match=r"cutout: size must be at least 1, got 0"):
        cutout(jax.random.key(0), IMAGE, size=0)


def test_mixup_blends_pictures_and_labels_alike():
    random = np.random.default_rng(0)
    images, labels = jnp.asarray(random.normal(size=(500, 2, 2, 1)), jnp.float32), jnp.eye(5)[np.arange(500) % 5]
    others = jax.tree.map(lambda x: jnp.roll(x, 1, 0), (images, labels))
    keys = jax.random.split(jax.random.key(0), 500)
    blend = jax.jit(jax.vmap(lambda key, a, b: mixup(key, a, b, alpha=0.4)))
    image, label = blend(keys, (images, labels), others)
    weight = np.asarray(label[np.arange(500), np.arange(500) % 5])
    assert ((weight >= 0) & (weight <= 1)).all()
    np.testing.assert_allclose(label.sum(1), 1, rtol=1e-6)
    wanted = weight[:, None, None, None] * images + (1 - weight[:, None, None, None]) * others[0]
    np.testing.assert_allclose(image, wanted, atol=1e-5)
    # Beta(0.4, 0.4): mean 1/2, variance 1 / (4 (2 * 0.4 + 1)) = 0.139; it is told apart from a uniform one's 0.083.
    assert abs(weight.mean() - 0.5) < 0.06
    assert abs(weight.var() - 0.139) < 0.02
    np.testing.assert_array_equal(image, blend(keys, (images, labels), others)[0])


def test_mixup_refuses_what_cannot_be_blended():
    with pytest.raises(ValueError, match=r"mixup: alpha must be above 0, got 0"):
        mixup(jax.random.key(0), jnp.ones(2), jnp.ones(2), alpha=0)
    with pytest.raises(TypeError, match=r"mixup: arrays must be floats, got int32. Scale images first, and use jax.nn"):
        mixup(jax.random.key(0), jnp.ones(2), jnp.arange(2), alpha=1.0)
