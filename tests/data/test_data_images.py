import sys

import numpy as np
import pytest
from PIL import Image

from cnnjax.data import embedded, read_digit


@pytest.fixture(scope="module")
def digits():
    return embedded.read()[1]["image"][:30, :, :, 0]


def centre(plane):
    rows, columns = np.indices(plane.shape)
    return (rows * plane).sum() / plane.sum(), (columns * plane).sum() / plane.sum()


def check_form(got):
    """What the authors of MNIST say of their images."""
    assert (got.shape, got.dtype, got.max()) == ((28, 28, 1), np.uint8, 255)
    plane = got[..., 0].astype(float)
    extent = max(np.ptp(np.flatnonzero(plane.any(axis))) + 1 for axis in (0, 1))
    assert 19 <= extent <= 20
    assert max(abs(c - 14) for c in centre(plane)) <= 0.51


def enlarged(digit, size=224):
    return np.asarray(Image.fromarray(digit).resize((size, size), Image.Resampling.NEAREST))


def sheet(digit):
    """Black on white, away from the middle of a larger sheet."""
    paper = np.full((400, 500), 255, np.uint8)
    paper[20:244, 250:474] -= enlarged(digit)
    return paper


def test_a_picture_in_the_form_of_mnist_passes_unchanged(tmp_path, digits):
    for digit in digits:
        Image.fromarray(digit).save(tmp_path / "x.png")
        np.testing.assert_array_equal(read_digit(tmp_path / "x.png")[..., 0], digit)


@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
def test_an_enlarged_digit_on_a_white_sheet_is_found_again(tmp_path, digits, name):
    for digit in digits:
        Image.fromarray(sheet(digit)).save(tmp_path / name)
        got = read_digit(tmp_path / name)
        check_form(got)
        assert np.corrcoef(got.ravel(), digit.ravel())[0, 1] > 0.75


def test_the_mean_difference_is_small(tmp_path, digits):
    differences = []
    for digit in digits:
        Image.fromarray(sheet(digit)).save(tmp_path / "x.png")
        differences.append(np.abs(read_digit(tmp_path / "x.png")[..., 0].astype(int) - digit).mean())
    # A shift by one pixel alone makes 16.
    assert np.mean(differences) < 5


SHEET = np.full((120, 90), 255, np.uint8)
SHEET[20:100, 30:38] = 0
SHEET[92:100, 30:75] = 0


def reference(tmp_path):
    Image.fromarray(SHEET).save(tmp_path / "reference.png")
    return read_digit(tmp_path / "reference.png").astype(int)


def transparent(ink):
    return np.stack([np.full_like(SHEET, ink)] * 3 + [255 - SHEET], -1)


def card_with_transparent_corners():
    alpha = np.full_like(SHEET, 255)
    for rows in (slice(0, 6), slice(-6, None)):
        for columns in (slice(0, 6), slice(-6, None)):
            alpha[rows, columns] = 0
    return np.stack([SHEET * (alpha > 0)] * 3 + [alpha], -1)


VARIANTS = {
    "white on black": lambda: Image.fromarray(255 - SHEET),
    "gray on darker gray": lambda: Image.fromarray((90 - SHEET / 255 * 60).astype(np.uint8)),
    "bilevel": lambda: Image.fromarray(SHEET).convert("1"),
    "palette": lambda: Image.fromarray(SHEET).convert("P"),
    "RGB": lambda: Image.fromarray(SHEET).convert("RGB"),
    "LA": lambda: Image.fromarray(SHEET).convert("LA"),
    "16 bits": lambda: Image.fromarray(SHEET.astype(np.uint16) * 257),
    "black ink alone": lambda: Image.fromarray(transparent(0)),
    "white ink alone": lambda: Image.fromarray(transparent(255)),
    "card with transparent corners": lambda: Image.fromarray(card_with_transparent_corners()),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_modes_grounds_and_transparency_make_no_difference(tmp_path, variant):
    VARIANTS[variant]().save(tmp_path / "x.png")
    got = read_digit(tmp_path / "x.png")
    check_form(got)
    assert np.abs(got - reference(tmp_path)).max() <= 3


def test_a_cmyk_jpeg_is_read(tmp_path):
    Image.fromarray(SHEET).convert("CMYK").save(tmp_path / "x.jpg", quality=95)
    got = read_digit(tmp_path / "x.jpg")
    assert np.abs(got - reference(tmp_path)).mean() < 5


def test_the_orientation_of_a_photograph_is_heeded(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter
    Image.fromarray(np.rot90(SHEET)).save(tmp_path / "x.jpg", quality=95, exif=exif)
    got = read_digit(tmp_path / "x.jpg")
    assert np.abs(got - reference(tmp_path)).mean() < 5


def test_a_tiny_picture_is_enlarged(tmp_path):
    Image.fromarray(np.pad(np.full((5, 2), 255, np.uint8), 1)).save(tmp_path / "x.png")
    got = read_digit(tmp_path / "x.png")
    assert (np.ptp(np.flatnonzero(got.any((1, 2)))) + 1, got.max()) == (20, 255)


def test_a_hairline_in_a_large_picture_is_still_white(tmp_path):
    paper = np.full((1500, 1500), 255, np.uint8)
    paper[100:1400, 700:703] = 0
    Image.fromarray(paper).save(tmp_path / "x.png")
    check_form(read_digit(tmp_path / "x.png"))


@pytest.mark.parametrize("shade", [0, 128, 255])
@pytest.mark.parametrize("size", [28, 100])
def test_a_blank_picture_is_refused(tmp_path, shade, size):
    Image.new("L", (size, size), shade).save(tmp_path / "blank.png")
    with pytest.raises(ValueError, match=r"read_digit: .*blank\.png is blank: no ink stands out"):
        read_digit(tmp_path / "blank.png")


def test_a_transparent_picture_is_blank(tmp_path):
    Image.new("RGBA", (50, 50), (0, 0, 0, 0)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="is blank"):
        read_digit(tmp_path / "x.png")


def test_unreadable_files_are_named_with_the_reason(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"read_digit: .*text\.png cannot be read: cannot identify image file"):
        read_digit(tmp_path / "text.png")
    with pytest.raises(ValueError, match=r"nowhere\.png cannot be read: No such file or directory"):
        read_digit(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        read_digit(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_file_is_unreadable(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80), dtype=np.uint8)
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"x\.{suffix} cannot be read: .*truncated"):
        read_digit(path)


def test_without_pillow_the_error_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"read_digit: Pillow is missing\. Run pip install 'cnnjax\[data\]'"):
        read_digit(tmp_path / "x.png")
