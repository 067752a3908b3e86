"""Spoken digits: a second of sound each, from wav files; and telephone tones where there are no recordings."""

import io
import os
import re
import tarfile
import wave
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from cnnjax.data import npz
from cnnjax.data.dataset import Examples, check_labels

CLASS_NAMES = tuple("0123456789")
RATE = 8000
STAND_IN = "synthetic telephone tones, in place of spoken digits"

_TESTED = 5  # recordings 0 to 4 of every speaker and digit are the official test set
_NAME = re.compile(r"(\d)_(.+)_(\d+)\.wav", re.IGNORECASE)
_CONVERT = f"Convert it, with ffmpeg -i IN -ac 1 -ar {RATE} -c:a pcm_s16le OUT say."
# Hz of rows and columns of the keypad, ITU-T Q.23; the place of each digit on it.
_LOW, _HIGH = (697, 770, 852, 941), (1209, 1336, 1477)
_KEYS = ((3, 1), *((n // 3, n % 3) for n in range(9)))


def read(folder: str | os.PathLike[str], *, log: Callable[[str], object] = print) -> tuple[Examples, Examples]:
    """Read a folder of recordings DIGIT_SPEAKER_NUMBER.wav, or of fsdd.npz, which holds them all.

    Numbers 0 to 4 are for testing, as the makers of the Free Spoken Digit Dataset say.

    Args:
        folder: where they are; or in its sub-folder recordings.
        log: called with a line where there are wav files of other names, which are left out.

    Returns:
        (train, test), each {"audio": int16 (N, 8000, 1), "label": int32 (N,)}: a second at 8 kHz, with the recording
        in its middle. Of longer ones the middle second is kept.

    Raises:
        FileNotFoundError: there are no such files, or none for testing.
        ValueError: a file is not 16-bit mono PCM at 8 kHz, damaged, or without sound.

    Example:
        >>> read("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: spoken_digits: 'no/such/folder' must hold recordings such as 7_jackson_32.wav, those \
numbered 0 to 4 for testing, or fsdd.npz. Unpack the Free Spoken Digit Dataset there.
    """
    folder = Path(folder)
    if (folder / "fsdd.npz").is_file():
        return _read_npz(folder / "fsdd.npz")
    nested = folder / "recordings"
    files = sorted((nested if nested.is_dir() else folder).glob("[!.]*.[wW][aA][vV]"))
    named = [(match, file) for file in files if (match := _NAME.fullmatch(file.name))]
    if others := len(files) - len(named):
        log(
            f"spoken_digits: left out {others} of {len(files)} wav files, whose names are not such as 7_jackson_32.wav."
        )
    train, test = _split((match, file.read_bytes()) for match, file in named)
    if not (train and test):
        raise FileNotFoundError(
            f"spoken_digits: {str(folder)!r} must hold recordings such as 7_jackson_32.wav, those numbered 0 to 4 for"
            " testing, or fsdd.npz. Unpack the Free Spoken Digit Dataset there."
        )
    return _examples(train), _examples(test)


def read_archive(path: str | os.PathLike[str]) -> tuple[Examples, Examples]:
    """Read the recordings in the archive of the Free Spoken Digit Dataset, free-spoken-digit-dataset-1.0.9.tar.gz."""
    with tarfile.open(path) as archive:
        members = ((_NAME.fullmatch(Path(member.name).name), member) for member in archive)
        files = ((match, archive.extractfile(member)) for match, member in members if match)
        train, test = _split((match, file.read()) for match, file in files if file)
    return _examples(train), _examples(test)


def stand_in(*, count: int = 3000, seed: int = 0) -> tuple[Examples, Examples]:
    """Return the tones of telephone keys in noise: synthetic, and easier than speech.

    A key sounds two of seven frequencies (ITU-T Q.23) for a tenth to half of a second, somewhere in the middle, at any
    loudness, with noise around it.

    Args:
        count: number of examples, at least 100; of every digit each tenth is for testing.
        seed: any integer.

    Returns:
        As `read`.

    Raises:
        ValueError: a count below 100, with which a digit would be missing from what is for testing.

    Example:
        >>> train, test = stand_in(count=100)
        >>> train["audio"].shape, test["label"].tolist()
        ((90, 8000, 1), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    if count < 100:
        raise ValueError(f"stand_in: count must be at least 100, ten of every digit, got {count}. Ask for more.")
    random = np.random.default_rng(seed)
    label = np.arange(count, dtype=np.int32) % 10
    audio = np.stack([_tone(random, digit) for digit in label.tolist()])
    tested = np.arange(count) // 10 % 10 == 9
    return _take(audio, label, ~tested), _take(audio, label, tested)


def _tone(random: np.random.Generator, digit: int) -> np.ndarray:
    row, column = _KEYS[digit]
    length = int(random.integers(RATE // 10, RATE // 2))
    seconds = np.arange(length) / RATE
    phases = random.uniform(0, 2 * np.pi, 2)
    tone = sum(
        np.sin(2 * np.pi * hertz * seconds + phase)
        for hertz, phase in zip((_LOW[row], _HIGH[column]), phases, strict=True)
    )
    sound = random.normal(scale=0.3, size=RATE)
    begin = int(random.integers(RATE // 4, 3 * RATE // 4 - length + 1))
    sound[begin : begin + length] += tone
    return (sound * random.uniform(500, 8000)).clip(-32768, 32767).astype(np.int16)[:, None]


def _split(
    files: Iterable[tuple[re.Match[str], bytes]],
) -> tuple[list[tuple[np.ndarray, int]], list[tuple[np.ndarray, int]]]:
    train, test = [], []
    for match, content in files:
        sound = _samples(match.string, content), int(match[1])
        (test if int(match[3]) < _TESTED else train).append(sound)
    return train, test


def _samples(name: str, content: bytes) -> np.ndarray:
    """Return int16 (L,)."""
    try:
        with wave.open(io.BytesIO(content)) as file:
            form = file.getnchannels(), file.getsampwidth(), file.getframerate()
            count = file.getnframes()
            frames = file.readframes(count)
    except (wave.Error, EOFError) as error:
        if "unknown format" in str(error):
            raise ValueError(f"spoken_digits: {name} must be PCM of 16 bits, got {error}. {_CONVERT}") from error
        reason = str(error) or "it ends too early"
        raise ValueError(f"spoken_digits: {name} cannot be read: {reason}. Get it again.") from error
    if form != (1, 2, RATE):
        raise ValueError(
            f"spoken_digits: {name} must have 1 channel of 2 bytes at {RATE} Hz, got {form[0]} of {form[1]} at"
            f" {form[2]}. {_CONVERT}"
        )
    if not len(frames) == 2 * count > 0:
        raise ValueError(
            f"spoken_digits: {name} must hold the sound that its head announces, and some, got {len(frames)} bytes of"
            f" {2 * count}. Get it again."
        )
    return np.frombuffer(frames, "<i2")


def _read_npz(path: Path) -> tuple[Examples, Examples]:
    sounds, offsets, label, tested = npz.read(path, "audio", "offsets", "labels", "is_test")
    label = label.astype(np.int32)
    check_labels(f"spoken_digits: {path}", label, len(CLASS_NAMES))
    audio = np.stack([_second(sound) for sound in np.split(sounds, offsets[1:-1])])
    return _take(audio, label, ~tested), _take(audio, label, tested)


def _examples(sounds: list[tuple[np.ndarray, int]]) -> Examples:
    return {
        "audio": np.stack([_second(sound) for sound, _ in sounds]),
        "label": np.array([digit for _, digit in sounds], np.int32),
    }


def _second(sound: np.ndarray) -> np.ndarray:
    """Return int16 (8000, 1): the middle of a longer sound, or a shorter one in the middle of silence."""
    begin = max(0, (len(sound) - RATE) // 2)
    sound = sound[begin : begin + RATE]
    low = (RATE - len(sound)) // 2
    return np.pad(sound, (low, RATE - len(sound) - low)).astype(np.int16)[:, None]


def _take(audio: np.ndarray, label: np.ndarray, chosen: np.ndarray) -> Examples:
    return {"audio": audio[chosen], "label": label[chosen]}
