"""Data sets of tensorflow-datasets (TFDS), prepared and read without TensorFlow."""

import contextlib
import importlib
import importlib.util
import io
import logging
import os
import types
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data import idx, network
from cnnjax.data.dataset import Examples

_MODULES = ("tensorflow_datasets", "array_record", "importlib_resources", "PIL")
_FORMAT = "array_record"


class Unavailable(OSError):
    """A data set that cannot be had here: no network, or a copy that cannot be read."""


def is_prepared(name: str, data_dir: str | os.PathLike[str] | None = None) -> bool:
    """Tell from the files alone whether TFDS has prepared a data set.

    TFDS itself would try to download, which without a network takes minutes to fail.

    Args:
        name: name of the data set in TFDS.
        data_dir: TFDS's folder; None for $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Returns:
        True where any version is there, in whatever file format.

    Example:
        >>> is_prepared("mnist", "no/such/folder")
        False
    """
    return _prepared(name, root(data_dir)) is not None


def read(name: str, data_dir: str | os.PathLike[str] | None = None) -> tuple[Examples, Examples]:
    """Read a data set that TFDS has prepared. Never touches the network.

    Args:
        name: name of the data set in TFDS, with features "image" and "label".
        data_dir: as for `is_prepared`.

    Returns:
        (train, test), each {"image": uint8 (N, H, W, C), "label": int32 (N,)}.

    Raises:
        Unavailable: it is not prepared, or in a format that only TensorFlow reads.
        ImportError: TFDS, or what it needs, is not installed.
    """
    folder = _prepared(name, root(data_dir))
    if folder is None:
        raise Unavailable(f"{name}: TFDS has prepared no copy in {root(data_dir)}.")
    if not any(folder.glob(f"*.{_FORMAT}*")):
        raise Unavailable(
            f"{name}: the copy that TFDS prepared in {folder} is not in the format {_FORMAT} and only "
            "TensorFlow reads it. Remove that folder, or set another with TFDS_DATA_DIR."
        )
    tfds = _tfds()
    # Decoding here takes a third of the time that it takes TFDS, which also warns that OpenCV is missing.
    decoders = {"image": tfds.decode.SkipDecoding()}
    named = f"{name}:{folder.name}"
    source = tfds.data_source(named, data_dir=root(data_dir), download=False, decoders=decoders)
    return _stacked(source["train"]), _stacked(source["test"])


def check_reachable(name: str) -> None:
    """Check within 3 seconds that the host from which TFDS downloads a data set answers.

    Args:
        name: name of the data set in TFDS.

    Raises:
        Unavailable: it does not answer.
        ImportError: TFDS, or what it needs, is not installed.
    """
    _check_answers(
        name, urllib.parse.urljoin(_tfds().builder_cls(name).URL, "train-labels-idx1-ubyte.gz"), has="prepared no copy"
    )


def archive(name: str, data_dir: str | os.PathLike[str] | None = None, *, log: Callable[[str], object]) -> Path:
    """Return the file from which TFDS makes a data set, downloaded where it is not there, with TFDS's checksum.

    For data sets whose preparation needs TensorFlow, but whose archive is read without it.

    Args:
        name: name of the data set in TFDS, made from one file.
        data_dir: as for `is_prepared`.
        log: called with a line before a download.

    Raises:
        Unavailable: it is not there and its host does not answer within 3 seconds, or it cannot be downloaded.
        ImportError: TFDS, or what it needs, is not installed.
    """
    tfds = _tfds()
    infos = tfds.builder_cls(name).url_infos
    (url,) = infos
    downloads = root(data_dir) / "downloads"
    if not any((downloads / name).glob(f"*{Path(url).name.removesuffix('.tar.gz')}*.tar.gz")):
        _check_answers(name, url, has="downloaded no archive")
        log(f"{name}: TFDS downloads it to {downloads}.")
    try:
        with _quiet():
            manager = tfds.download.DownloadManager(
                download_dir=downloads, url_infos=infos, dataset_name=name, force_checksums_validation=True
            )
            return Path(manager.download(url))
    except (OSError, *_download_errors()) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise Unavailable(f"{name}: TFDS could not download it: {lines[0]}.") from error


def prepare(name: str, data_dir: str | os.PathLike[str] | None = None) -> None:
    """Download a data set of the MNIST family and prepare it for `read` and for `tfds.data_source`.

    Args:
        name: "mnist" or "fashion_mnist".
        data_dir: as for `is_prepared`.

    Raises:
        Unavailable: it cannot be downloaded or written.
        ImportError: TFDS, or what it needs, is not installed.
    """
    tfds = _tfds()
    downloads = root(data_dir) / "downloads"
    # MNIST and Fashion-MNIST share their file names, so one folder for both would mix them.
    config = tfds.download.DownloadConfig(manual_dir=downloads / "manual" / name, try_download_gcs=False)
    try:
        with _quiet():
            builder = _builder_class(name)(data_dir=root(data_dir))
            builder.download_and_prepare(download_dir=downloads, download_config=config, file_format=_FORMAT)
    except (OSError, ValueError, *_download_errors()) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise Unavailable(f"{name}: TFDS could not download and prepare it: {lines[0]}.") from error
    if not is_prepared(name, data_dir):
        # TFDS takes the mere existence of the folder for a prepared data set.
        raise Unavailable(f"{name}: {builder.data_dir} exists but holds no prepared data set. Remove it.")


def root(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return TFDS's folder.

    Args:
        data_dir: the folder; None for $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Returns:
        The folder, which need not exist.
    """
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _check_answers(name: str, url: str, *, has: str) -> None:
    if not network.answers(url, timeout=3.0):
        raise Unavailable(f"{name}: TFDS has {has} and {urllib.parse.urlsplit(url).netloc} is not reachable.")


def _prepared(name: str, root: Path) -> Path | None:
    """Return the folder of the newest prepared version."""
    found = [path.parent for path in root.glob(f"{name}/*.*.*/dataset_info.json")]
    versions = [path for path in found if path.name.replace(".", "").isdecimal()]
    return max(versions, key=lambda path: [int(n) for n in path.name.split(".")], default=None)


def _tfds() -> Any:
    missing = [module for module in _MODULES if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(f"tfds: {', '.join(missing)} is missing. Run pip install 'cnnjax[data]'.")
    return importlib.import_module("tensorflow_datasets")


def _download_errors() -> tuple[type[Exception], ...]:
    manager = importlib.import_module("tensorflow_datasets.core.download.download_manager")
    return _tfds().download.DownloadError, manager.NonMatchingChecksumError


def _builder_class(name: str) -> Any:
    """Return TFDS's builder, with the two steps replaced that need TensorFlow: unpacking and encoding."""
    stock = _tfds().builder_cls(name)

    def split(self, dl_manager):
        # Not unpacked, there is no cache of unpacked files either, in which equal names could meet.
        return stock._split_generators(self, types.SimpleNamespace(download_and_extract=dl_manager.download))

    def generate(self, num_examples, data_path, label_path):
        images, labels = idx.read_array(data_path, ndim=3), idx.read_array(label_path, ndim=1)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield i, {"image": _png(image), "label": int(label)}

    members = {"name": name, "_split_generators": split, "_generate_examples": generate, "__module__": __name__}
    return type(stock)(f"{stock.__name__}WithoutTensorFlow", (stock,), members, skip_registration=True)


def _png(image: np.ndarray) -> io.BytesIO:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, format="png")
    file.seek(0)
    return file


def _stacked(source: Any) -> Examples:
    from PIL import Image

    examples = source.__getitems__(range(len(source)))
    images = np.stack([np.asarray(Image.open(io.BytesIO(example["image"]))) for example in examples])
    images = images if images.ndim == 4 else images[..., None]
    return {"image": images, "label": np.array([example["label"] for example in examples], np.int32)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep TFDS's half dozen progress bars, its bold lines and its log to itself; errors still raise."""
    bars = importlib.import_module("tensorflow_datasets.core.utils.tqdm_utils")
    log, active = logging.getLogger("absl"), getattr(bars, "_active", True)
    level = log.level
    log.setLevel(logging.ERROR)
    bars.display_progress_bar(False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        bars.display_progress_bar(active)
        log.setLevel(level)
