import os
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from cnnjax.data import read_folder, read_picture, write_digits


def picture(level, size=(20, 16)):
    return Image.fromarray(np.full((*size, 3), level, np.uint8))


@pytest.fixture
def pets(tmp_path):
    """Thirty bright cats and twenty dark others, of several sizes and kinds, some in folders of their own."""
    for name, count, level in (("cat", 30, 200), ("other", 20, 40)):
        (tmp_path / name / "more").mkdir(parents=True)
        for number in range(count):
            kind = ("png", "jpg", "JPEG")[number % 3]
            below = "more" if number % 4 == 0 else "."
            picture(level, (20 + number, 16)).save(tmp_path / name / below / f"{number}.{kind}", quality=95)
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"")
    (tmp_path / "cat" / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_a_folder_is_a_data_set(pets):
    got = read_folder(pets, size=8)
    assert got.class_names == ("cat", "other")
    assert got.train["image"].shape[1:] == (8, 8, 3)
    for part in (got.train, got.test):
        assert (part["image"].mean((1, 2, 3)).round() == np.where(part["label"] == 0, 200, 40)).all()
    assert len(got.train["label"]) + len(got.test["label"]) == 50
    assert 4 <= len(got.test["label"]) <= 16


def test_a_picture_keeps_its_place_when_others_come(pets, monkeypatch):
    monkeypatch.chdir(pets.parent)
    for number in range(20):
        picture(number, (30, 30)).save(pets / "cat" / f"mark{number}.png")

    def marks(part):
        return {int(level) for level in part["image"].mean((1, 2, 3)).round() if level < 20}

    before = read_folder(pets, size=4)
    for number in range(100):
        picture(220).save(pets / "cat" / f"new{number}.png")
    after = read_folder(pets.name, size=4)
    assert marks(before.test)
    assert marks(before.test) == marks(after.test)
    assert marks(before.train) == marks(after.train)


def test_broken_files_are_named_and_left_out_on_request(pets):
    (pets / "cat" / "torn.jpg").write_bytes((pets / "cat" / "1.jpg").read_bytes()[:200])
    (pets / "other" / "words.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"2 of the files are no pictures.*torn\.jpg.*words\.png.*--skip-broken"):
        read_folder(pets, size=8)
    lines = []
    got = read_folder(pets, size=8, skip_broken=True, log=lines.append)
    assert len(got.train["label"]) + len(got.test["label"]) == 50
    assert lines[0] == "left out: 1 of 53 files, which end in none of .png, .jpg, .jpeg, .webp, .bmp, .gif."
    assert ["torn.jpg" in lines[1], "words.png" in lines[2], len(lines)] == [True, True, 3]


def test_hidden_folders_are_no_classes(pets):
    for hidden in (".thumbnails", "cat/.ipynb_checkpoints", "other/more/.cache"):
        (pets / hidden).mkdir()
        picture(200).save(pets / hidden / "copy.png")
    # A folder that is itself below a hidden one is as good as any.
    pets.rename(pets.parent / ".pets")
    got = read_folder(pets.parent / ".pets", size=4)
    assert got.class_names == ("cat", "other")
    assert len(got.train["label"]) + len(got.test["label"]) == 50


@pytest.mark.parametrize("kind", ["webp", "bmp", "gif"])
def test_other_kinds_are_read_too(tmp_path, kind):
    lines = []
    for name, level in (("a", 40), ("b", 200)):
        (tmp_path / name).mkdir()
        for number in range(2):
            picture(level).save(tmp_path / name / f"{number}.{kind.upper()}", kind)
    got = read_folder(tmp_path, size=4, log=lines.append)
    np.testing.assert_allclose(got.train["image"].mean((1, 2, 3)), [40, 200], atol=2)
    assert lines == []


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "val"), ("train", "valid", "validation"), ("train",)])
def test_a_split_is_not_taken_for_classes(tmp_path, names):
    for name in names:
        (tmp_path / name / "cat").mkdir(parents=True)
        for number in range(2):
            picture(1).save(tmp_path / name / "cat" / f"{number}.png")
    text = rf"sub-folders of .* must be classes, got .*{names[0]}.*\. Give one of them, .* or merge them"
    with pytest.raises(ValueError, match=text):
        read_folder(tmp_path)


def test_a_class_may_be_called_test(pets):
    (pets / "cat").rename(pets / "test")
    assert read_folder(pets, size=4).class_names == ("other", "test")


def test_pictures_are_held_once(tmp_path):
    for name, level in (("a", 40), ("b", 200)):
        (tmp_path / name).mkdir()
        for number in range(20):
            picture(level + number, (300, 300)).save(tmp_path / name / f"{number}.png")
    read_folder(tmp_path, size=300)
    tracemalloc.start()
    got = read_folder(tmp_path, size=300)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    everything = got.train["image"].nbytes + got.test["image"].nbytes
    assert everything == 40 * 300 * 300 * 3
    assert peak < 1.6 * everything
    train, test = (part["image"].mean((1, 2, 3)).round() for part in (got.train, got.test))
    assert sorted([*train, *test]) == [*range(40, 60), *range(200, 220)]
    np.testing.assert_array_equal(got.train["label"], train >= 200)
    np.testing.assert_array_equal(got.test["label"], test >= 200)


def test_what_is_no_data_set_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "cat").mkdir()
    picture(1).save(tmp_path / "cat" / "1.png")
    with pytest.raises(ValueError, match=r"must hold two sub-folders .* got \['cat'\]"):
        read_folder(tmp_path)
    (tmp_path / "dog").mkdir()
    picture(1).save(tmp_path / "dog" / "1.png")
    with pytest.raises(ValueError, match=r"a class needs two pictures or more, .* got 1 of cat"):
        read_folder(tmp_path)


def test_a_tiny_class_has_one_picture_on_each_side(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(2):
            picture(9).save(tmp_path / name / f"{number}.png")
    got = read_folder(tmp_path, size=4)
    assert got.train["label"].tolist() == got.test["label"].tolist() == [0, 1]


def test_pictures_of_every_mode(tmp_path):
    colours = np.zeros((10, 10, 4), np.uint8)
    colours[..., 0] = 255
    colours[:, :5, 3] = 255
    Image.fromarray(colours).save(tmp_path / "clear.png")
    got = read_picture(tmp_path / "clear.png", size=10)
    assert (got[5, 0].tolist(), got[5, 9].tolist()) == ([255, 0, 0], [255, 255, 255])
    Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(tmp_path / "deep.png")
    assert (read_picture(tmp_path / "deep.png", size=3) == 156).all()
    Image.new("1", (9, 9), 1).save(tmp_path / "bits.png")
    assert (read_picture(tmp_path / "bits.png", size=3) == 255).all()
    Image.new("CMYK", (9, 9)).save(tmp_path / "ink.jpg")
    assert (read_picture(tmp_path / "ink.jpg", size=3) > 250).all()


def test_the_middle_square_is_kept_and_orientation_heeded(tmp_path):
    wide = np.zeros((30, 90), np.uint8)
    wide[:, 30:60] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert read_picture(tmp_path / "wide.png", size=10).min() > 200
    half = Image.fromarray(np.repeat(np.array([[0], [255]], np.uint8), 20, 0).repeat(40, 1))
    exif = half.getexif()
    exif[0x0112] = 3  # upside down
    half.save(tmp_path / "turned.png", exif=exif)
    got = read_picture(tmp_path / "turned.png", size=10)
    assert (got[0].max() > 200, got[-1].min() < 50) == (True, True)


def test_bad_pictures_are_told(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_picture(tmp_path / "none.png", size=4)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        read_picture(tmp_path / "none.png", size=0)


def test_a_bad_size_is_told_before_any_file_is_blamed(pets):
    with pytest.raises(ValueError, match=r"^read_folder: size must be at least 1, got 0\. Give the pixels"):
        read_folder(pets, size=0, skip_broken=True)


@pytest.mark.parametrize("each", [1, 401])
def test_as_many_digits_as_there_are(tmp_path, each):
    with pytest.raises(ValueError, match=rf"write_digits: each must be 2 to 400, got {each}\."):
        write_digits(tmp_path / "digits", each=each)
    assert not (tmp_path / "digits").exists()


def test_written_digits_are_such_a_folder(tmp_path):
    write_digits(tmp_path / "digits", each=5)
    got = read_folder(tmp_path / "digits", size=28)
    assert got.class_names == tuple("0123456789")
    assert len(got.train["label"]) + len(got.test["label"]) == 50
    os.remove(tmp_path / "digits" / "0" / "0000.png")
    write_digits(tmp_path / "digits", each=5)
    assert not (tmp_path / "digits" / "0" / "0000.png").exists()
