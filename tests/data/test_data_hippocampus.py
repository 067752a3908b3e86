import gzip
from pathlib import Path

import numpy as np
import pytest

from cnnjax.data import Crops, Volume, hippocampus, load_hippocampus, standardized

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def volume(number, shape=(5, 6, 7)):
    random = np.random.default_rng(number)
    return Volume(
        f"hippocampus_{number:03d}", random.integers(0, 256, shape, np.uint8), random.integers(0, 3, shape, np.uint8)
    )


@pytest.fixture
def nifti(tmp_path):
    """A folder as the Decathlon's, of ten volumes, with the hidden files that its archives hold."""
    nibabel = pytest.importorskip("nibabel")
    volumes = [volume(number, (5 + number, 6, 7)) for number in range(10)]
    for folder, field in (("imagesTr", "image"), ("labelsTr", "label")):
        (tmp_path / folder).mkdir()
        for one in volumes:
            nibabel.save(nibabel.Nifti1Image(getattr(one, field), np.eye(4)), tmp_path / folder / f"{one.name}.nii.gz")
        (tmp_path / folder / "._hippocampus_000.nii.gz").write_bytes(b"hidden")
    return tmp_path, volumes


def test_nifti_files(nifti):
    folder, volumes = nifti
    got = load_hippocampus(folder)
    assert (got.source, got.class_names) == ("hippocampus from NIfTI files", ("background", "anterior", "posterior"))
    assert [one.name for one in got.test] == ["hippocampus_004", "hippocampus_009"]
    assert [one.name for one in got.train] == [v.name for n, v in enumerate(volumes) if n % 5 != 4]
    np.testing.assert_array_equal(got.train[1].image, volumes[1].image)
    np.testing.assert_array_equal(got.train[1].label, volumes[1].label)
    assert (got.train[1].image.dtype, got.train[1].label.dtype) == (np.float32, np.uint8)


def test_what_is_wrong_in_nifti_files_is_told(nifti):
    folder, _ = nifti
    (folder / "labelsTr" / "hippocampus_003.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"every image needs its labels, but there is no .*hippocampus_003"):
        load_hippocampus(folder)
    (folder / "labelsTr" / "hippocampus_003.nii.gz").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"labelsTr.hippocampus_003.nii.gz cannot be read"):
        load_hippocampus(folder)


def store(path, values, affine=None):
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)


def test_labels_with_a_scale_are_rounded(nifti):
    folder, volumes = nifti
    values = volumes[1].label * np.float32(0.9999)
    assert (values.astype(np.uint8) != volumes[1].label).any()
    store(folder / "labelsTr" / "hippocampus_001.nii.gz", values)
    np.testing.assert_array_equal(load_hippocampus(folder).train[1].label, volumes[1].label)


@pytest.mark.parametrize("value", [257, -1, 3, 0.5, np.nan, np.inf])
def test_labels_that_are_no_classes_are_told(nifti, value):
    folder, volumes = nifti
    values = volumes[1].label.astype(np.float32)
    values[0, 0, 0] = value
    store(folder / "labelsTr" / "hippocampus_001.nii.gz", values)
    text = rf"labels must be whole numbers from 0 to 2, got {value}.* in .*labelsTr.hippocampus_001\.nii\.gz\. Give"
    with pytest.raises(ValueError, match=text):
        load_hippocampus(folder)


def test_intensities_that_are_no_numbers_are_told(nifti):
    folder, volumes = nifti
    store(folder / "imagesTr" / "hippocampus_001.nii.gz", np.where(volumes[1].label, np.float32(np.nan), 1))
    with pytest.raises(ValueError, match=r"intensities must be finite, got NaN or infinity in hippocampus_001\. Repl"):
        load_hippocampus(folder)


def spoilt(content):
    half = len(content) // 2
    return content[:half] + b"\xff" * (len(content) - half)


def with_a_bad_datatype(content):
    header = bytearray(gzip.decompress(content))
    header[70:72] = b"\x39\x30"
    return gzip.compress(bytes(header))


def in_colour(content):
    header = bytearray(gzip.decompress(content))
    header[70:74] = b"\x80\x00\x18\x00"  # RGB, of 24 bits
    return gzip.compress(bytes(header) + bytes(2 * (len(header) - 352)))


@pytest.mark.parametrize("damage", [spoilt, with_a_bad_datatype, in_colour, lambda content: b""])
@pytest.mark.parametrize("kind", ["imagesTr", "labelsTr"])
def test_damaged_nifti_files_are_named(nifti, kind, damage):
    path = nifti[0] / kind / "hippocampus_002.nii.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"hippocampus: .*{kind}.hippocampus_002\.nii\.gz cannot be read: .*Get it"):
        load_hippocampus(nifti[0])


def test_volumes_of_any_orientation_are_turned(nifti):
    folder, volumes = nifti
    for kind, field in (("imagesTr", "image"), ("labelsTr", "label")):
        # Stored from top to bottom, right to left, back to front.
        values = getattr(volumes[1], field).transpose(2, 0, 1)[::-1, ::-1]
        affine = np.array([[0, -1.0, 0, 0], [0, 0, 1.0, 0], [-1.0, 0, 0, 0], [0, 0, 0, 1.0]])
        store(folder / kind / "hippocampus_001.nii.gz", values, affine)
    got = load_hippocampus(folder).train[1]
    np.testing.assert_array_equal(got.image, volumes[1].image)
    np.testing.assert_array_equal(got.label, volumes[1].label)


def test_labels_of_an_npz_file_are_checked(tmp_path):
    shapes = np.full((5, 3), 2, np.int16)
    names, image, label = np.array(list("abcde")), np.zeros(40, np.uint8), np.full(40, 2, np.int16)
    path = tmp_path / "hippocampus3d.npz"
    np.savez(path, shapes=shapes, names=names, image_flat=image, label_flat=label)
    assert load_hippocampus(tmp_path).train[0].label.dtype == np.uint8
    label[7] = -1
    np.savez(path, shapes=shapes, names=names, image_flat=image, label_flat=label)
    with pytest.raises(ValueError, match=r"labels must be whole numbers from 0 to 2, got -1 in .*hippocampus3d\.npz"):
        load_hippocampus(tmp_path)


def test_what_does_not_belong_together_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold imagesTr and labelsTr with files .nii.gz"):
        load_hippocampus(tmp_path)
    four, odd = [volume(n) for n in range(4)], volume(4)
    with pytest.raises(ValueError, match=r"there must be 5 volumes or more .*, got 4"):
        hippocampus._split("memory", four)
    with pytest.raises(ValueError, match=r"must be \(D, H, W\) alike, got \(5, 6, 7\) and \(5, 6, 6\) for h"):
        hippocampus._split("memory", [*four, Volume("h", odd.image, odd.label[..., 1:])])
    with pytest.raises(ValueError, match=r"intensities must be finite, got NaN or infinity in h\. Replace them"):
        hippocampus._split("memory", [*four, Volume("h", np.full(odd.image.shape, np.inf, np.float32), odd.label)])


def test_the_shared_volumes():
    if not (SHARED / "hippocampus3d.npz").is_file():
        pytest.skip("shared/data is not part of the project")
    got = load_hippocampus(SHARED)
    assert (len(got.train), len(got.test)) == (208, 52)
    assert not {one.name for one in got.train} & {one.name for one in got.test}
    foreground = np.mean([(one.label > 0).mean() for one in got.train])
    assert 0.04 < foreground < 0.07
    # Both parts are in every volume, and the anterior one lies in front of the posterior one.
    centres = np.array([[np.argwhere(v.label == k).mean(0) for k in (1, 2)] for v in got.test])
    ahead = centres[:, 0, 1] - centres[:, 1, 1]
    assert ahead.min() > 10


def test_volumes_made_of_digits_say_so():
    lines = []
    got = load_hippocampus(log=lines.append)
    assert lines == [
        f"hippocampus: no folder is given. Using {got.source}. For MRI: --data FOLDER with imagesTr and labelsTr."
    ]
    assert "made of the digits" in got.source
    assert len({one.image.shape for one in got.train}) > 50
    marked = [sorted(set(one.label.ravel().tolist())) for one in got.train]
    assert {tuple(values) for values in marked} == {(0, 1), (0, 2)}
    one = got.train[0]
    assert one.image[one.label > 0].mean() > one.image[one.label == 0].mean() + 50


def test_crops_are_boxes_of_the_volumes():
    volumes = [volume(n, (5, 6 + n, 7)) for n in range(3)]
    crops = Crops(volumes, (3, 4, 7), 4, seed=0)
    batch = crops(0)
    assert batch["position"].tolist() == [0, 1, 2, 3]
    found = set()
    for image, label in zip(batch["image"], batch["label"], strict=True):
        places = [
            (n, z, y)
            for n, one in enumerate(volumes)
            for z in range(3)
            for y in range(one.label.shape[1] - 3)
            if np.array_equal(one.label[z : z + 3, y : y + 4], label)
        ]
        ((n, z, y),) = places
        np.testing.assert_array_equal(standardized(volumes[n].image)[z : z + 3, y : y + 4], image[..., 0])
        found.add(n)
    assert found == {0, 1, 2}


def test_crops_are_a_function_of_seed_and_step():
    volumes = [volume(n) for n in range(3)]
    one, other = Crops(volumes, (3, 4, 4), 2, seed=1), Crops(volumes, (3, 4, 4), 2, seed=1)
    for step in (5, 0, 5):
        np.testing.assert_array_equal(one(step)["image"], other(step)["image"])
    assert not np.array_equal(one(0)["image"], Crops(volumes, (3, 4, 4), 2, seed=2)(0)["image"])
    starts = {one(step)["label"].tobytes() for step in range(30)}
    assert len(starts) > 25


def test_shares_of_crops_make_up_the_batch():
    volumes = [volume(seed, (5, 6, 7)) for seed in range(3)]
    whole = Crops(volumes, (3, 4, 4), 4, seed=1)(2)
    parts = [Crops(volumes, (3, 4, 4), 4, seed=1, share=(i, 2))(2) for i in range(2)]
    for name, array in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), array)


def test_small_volumes_are_filled_up():
    batch = Crops([volume(0, (2, 6, 7))], (4, 4, 9), 1, seed=0)(0)
    assert batch["image"].shape == (1, 4, 4, 9, 1)
    assert not batch["image"][:, 2:].any()
    assert not batch["label"][:, :, :, 7:].any()
    assert batch["label"][:, :2, :, :7].any()


def test_bad_crops_are_told():
    with pytest.raises(ValueError, match=r"Crops: size must be three sizes of at least 1, got \(4, 4\)"):
        Crops([volume(0)], (4, 4), 1, seed=0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="must not be empty"):
        Crops([], (4, 4, 4), 1, seed=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Crops([volume(0)], (4, 4, 4), 0, seed=0)


def test_standardized_intensities():
    image = standardized(np.array([[[0, 100], [200, 100]]], np.uint8))
    np.testing.assert_allclose(image, np.array([[[-1, 0], [1, 0]]]) * np.sqrt(2), rtol=1e-6)
    assert not standardized(np.full((2, 2, 2), 7, np.uint8)).any()
