import io
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest

from cnnjax.data import load, spoken_digits

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def recording(samples, *, channels=1, rate=8000):
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(np.asarray(samples, "<i2").tobytes())
    return file.getvalue()


@pytest.fixture
def recordings():
    """Digit 3 by two speakers, for training and for testing: short, long, and of a second."""
    return {
        "3_jackson_5.wav": np.arange(1, 4),
        "3_theo_0.wav": np.arange(9001) - 4500,
        "7_theo_4.wav": np.full(8000, -7),
        "7_theo_49.wav": np.full(8000, 7),
    }


def refuse(line):
    raise AssertionError(line)


def check(train, test):
    assert train["audio"].shape == test["audio"].shape == (2, 8000, 1)
    assert (train["audio"].dtype, train["label"].dtype) == (np.int16, np.int32)
    assert sorted(train["label"].tolist()) == sorted(test["label"].tolist()) == [3, 7]
    short = train["audio"][train["label"].tolist().index(3), :, 0]
    assert short[3998:4001].tolist() == [1, 2, 3]
    assert np.abs(short).sum() == 6
    long = test["audio"][test["label"].tolist().index(3), :, 0]
    assert (long[0], long[-1]) == (500 - 4500, 8499 - 4500)


@pytest.mark.parametrize("below", ["", "recordings"])
def test_a_folder_of_recordings(tmp_path, recordings, below):
    (tmp_path / below).mkdir(exist_ok=True)
    for name, samples in recordings.items():
        (tmp_path / below / name).write_bytes(recording(samples))
    check(*spoken_digits.read(tmp_path, log=refuse))
    (tmp_path / below / "silence.WAV").write_bytes(b"not one of them")
    (tmp_path / below / "._3_theo_0.wav").write_bytes(b"hidden")
    lines = []
    check(*spoken_digits.read(tmp_path, log=lines.append))
    assert lines == ["spoken_digits: left out 1 of 5 wav files, whose names are not such as 7_jackson_32.wav."]
    assert load("spoken_digits", tmp_path).source == "spoken_digits from recordings"


@pytest.mark.parametrize("speaker", ["Theo", "theo-2", "theo_the_2nd", "théo"])
def test_speakers_of_any_name(tmp_path, speaker):
    for number in (4, 5):
        (tmp_path / f"7_{speaker}_{number}.WAV").write_bytes(recording(np.full(8000, number)))
    train, test = spoken_digits.read(tmp_path, log=refuse)
    assert (train["audio"][:, 0, 0].tolist(), test["audio"][:, 0, 0].tolist()) == ([5], [4])


def test_the_archive(tmp_path, recordings):
    path = tmp_path / "v1.0.9.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, samples in recordings.items():
            content = recording(samples)
            member = tarfile.TarInfo(f"free-spoken-digit-dataset-1.0.9/recordings/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    check(*spoken_digits.read_archive(path))


def test_what_is_wrong_is_told(tmp_path, recordings):
    with pytest.raises(
        FileNotFoundError, match=r"must hold recordings such as 7_jackson_32.wav, those numbered 0 to 4"
    ):
        spoken_digits.read(tmp_path)
    for name, samples in recordings.items():
        (tmp_path / name).write_bytes(recording(samples))
    damaged = tmp_path / "7_theo_4.wav"
    damaged.write_bytes(recording(np.zeros(8000), rate=16000))
    with pytest.raises(
        ValueError, match=r"7_theo_4.wav must have 1 channel of 2 bytes at 8000 Hz, got 1 of 2 at 16000"
    ):
        spoken_digits.read(tmp_path)
    damaged.write_bytes(b"RIFF")
    with pytest.raises(ValueError, match=r"7_theo_4.wav cannot be read: it ends too early. Get it again"):
        spoken_digits.read(tmp_path)


@pytest.mark.parametrize(("cut", "got"), [(1, "15999 bytes of 16000"), (400, "15600 bytes of 16000")])
def test_a_recording_that_was_cut_is_told(cut, got):
    with pytest.raises(ValueError, match=rf"spoken_digits: 7_theo_4.wav must hold the sound .* got {got}\. Get it"):
        spoken_digits._samples("7_theo_4.wav", recording(np.zeros(8000))[:-cut])


def test_a_recording_without_sound_is_told():
    with pytest.raises(ValueError, match=r"7_theo_4.wav must hold the sound .* got 0 bytes of 0\."):
        spoken_digits._samples("7_theo_4.wav", recording([]))


def test_a_recording_of_floats_is_to_be_converted():
    content = bytearray(recording(np.zeros(8000)))
    content[20] = 3  # the format, which is 1 for PCM
    with pytest.raises(ValueError, match=r"7_theo_4.wav must be PCM of 16 bits, got unknown format: 3\. .*ffmpeg -i"):
        spoken_digits._samples("7_theo_4.wav", bytes(content))


def test_the_shared_recordings():
    if not (SHARED / "fsdd.npz").is_file():
        pytest.skip("shared/data is not part of the project")
    dataset = load("spoken_digits", SHARED)
    assert np.bincount(dataset.train["label"]).tolist() == [270] * 10
    assert np.bincount(dataset.test["label"]).tolist() == [30] * 10
    # The middle of a recording is in the middle of its second.
    loudness = np.abs(dataset.train["audio"].astype(float)).mean((0, 2))
    assert loudness[3000:5000].mean() > 10 * loudness[:1000].mean()


@pytest.mark.parametrize("count", [100, 105, 237])
def test_of_every_digit_each_tenth_tone_is_for_testing(count):
    train, test = spoken_digits.stand_in(count=count)
    for digit in range(10):
        tones = len(range(digit, count, 10))
        assert np.sum(test["label"] == digit) == tones // 10
        assert np.sum(train["label"] == digit) == tones - tones // 10


def test_too_few_tones_are_told():
    with pytest.raises(ValueError, match=r"stand_in: count must be at least 100, ten of every digit, got 99\."):
        spoken_digits.stand_in(count=99)


def test_tones_are_those_of_the_keypad():
    train, test = spoken_digits.stand_in(count=200)
    assert (len(train["label"]), np.bincount(test["label"]).tolist()) == (180, [2] * 10)
    spectra = np.abs(np.fft.rfft(train["audio"][:, :, 0]))
    keys = {1: (697, 1209), 5: (770, 1336), 9: (852, 1477), 0: (941, 1336)}
    hertz = [697, 770, 852, 941, 1209, 1336, 1477]
    heard = np.stack([spectra[:, h - 3 : h + 4].max(1) for h in hertz], 1)
    for digit, (low, high) in keys.items():
        strongest = heard[train["label"] == digit].mean(0)
        assert (hertz[strongest[:4].argmax()], hertz[4 + strongest[4:].argmax()]) == (low, high)
    assert all(np.array_equal(a, b) for a, b in zip(train.values(), spoken_digits.stand_in(count=200)[0].values()))  # noqa: B905
