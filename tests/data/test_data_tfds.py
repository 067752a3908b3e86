import functools
import hashlib
import http.server
import importlib.util
import json
import shutil
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from idxfiles import write_set

from cnnjax.data import Unavailable, idx, network, tfds

NAMES = ("mnist", "fashion_mnist")


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def library():
    with warnings.catch_warnings():
        # Deprecations inside of tensorflow-datasets and what it imports are not ours.
        warnings.simplefilter("ignore")
        return pytest.importorskip("tensorflow_datasets")


@pytest.fixture
def serve(library, monkeypatch):
    """Serve a folder with one folder a data set, and point TFDS's builders to it."""
    servers = []

    def start(folder):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        for name in NAMES:
            url = f"http://127.0.0.1:{server.server_port}/{name}/"
            monkeypatch.setattr(library.builder_cls(name), "URL", url)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def contents(examples):
    pairs = zip(examples["image"], examples["label"], strict=True)
    return sorted((image.tobytes(), int(label)) for image, label in pairs)


def written_contents(images, labels):
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


def test_both_data_sets_are_prepared_in_one_folder_and_do_not_mix(serve, library, tmp_path, capfd):
    written = {name: write_set(tmp_path / "web" / name, seed=i) for i, name in enumerate(NAMES)}
    serve(tmp_path / "web")
    data = tmp_path / "data"
    for name in NAMES:
        assert not tfds.is_prepared(name, data)
        tfds.check_reachable(name)
        tfds.prepare(name, data)
        assert tfds.is_prepared(name, data)
    for name in NAMES:
        for split, examples in zip(("train", "test"), tfds.read(name, data), strict=True):
            assert (examples["image"].dtype, examples["label"].dtype) == (np.uint8, np.int32)
            assert examples["image"].shape[1:] == (28, 28, 1)
            assert contents(examples) == written_contents(*written[name][split])
    assert "tensorflow" not in sys.modules
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_tensorflow_datasets_itself_reads_what_is_prepared(serve, library, tmp_path):
    written = write_set(tmp_path / "web" / "mnist")
    serve(tmp_path / "web")
    tfds.prepare("mnist", tmp_path / "data")
    source = library.data_source("mnist", split="test", data_dir=tmp_path / "data", download=False)
    got = sorted((example["image"].tobytes(), int(example["label"])) for example in source)
    assert got == written_contents(*written["test"])


def test_files_put_by_hand_for_one_data_set_are_not_taken_for_the_other(serve, library, tmp_path, monkeypatch):
    """Known checksums and TFDS's folder for manual downloads: where equal file names meet."""
    written = {name: write_set(tmp_path / "web" / name, seed=i) for i, name in enumerate(NAMES)}
    server = serve(tmp_path / "web")
    checksums = register_checksums(monkeypatch, server, tmp_path / "web")
    assert len(checksums) == 8
    data = tmp_path / "data"
    (data / "downloads" / "manual").mkdir(parents=True)
    for name in NAMES:
        shutil.move(tmp_path / "web" / name, data / "downloads" / "manual" / name)
        tfds.prepare(name, data)
    for name in NAMES:
        assert contents(tfds.read(name, data)[0]) == written_contents(*written[name]["train"])


def test_a_file_with_another_checksum_is_refused(serve, library, tmp_path, monkeypatch):
    write_set(tmp_path / "web" / "mnist")
    server = serve(tmp_path / "web")
    register_checksums(monkeypatch, server, tmp_path / "web")
    write_set(tmp_path / "web" / "mnist", seed=9)
    with pytest.raises(Unavailable, match=r"mnist: TFDS could not download and prepare it: Artifact .*wrong checksum"):
        tfds.prepare("mnist", tmp_path / "data")
    assert not tfds.is_prepared("mnist", tmp_path / "data")


def register_checksums(monkeypatch, server, web):
    from tensorflow_datasets.core import utils
    from tensorflow_datasets.core.download import checksums

    infos = {}
    for path in web.glob("*/*.gz"):
        url = f"http://127.0.0.1:{server.server_port}/{path.parent.name}/{path.name}"
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        infos[url] = checksums.UrlInfo(size=utils.Size(len(data)), checksum=digest, filename=path.name)
    monkeypatch.setattr(checksums, "get_all_url_infos", lambda: dict(infos))
    return infos


def test_the_checksums_that_tfds_knows_hold_for_its_addresses(library):
    from tensorflow_datasets.core.download import checksums

    known = checksums.get_all_url_infos()
    for name in NAMES:
        assert f"{library.builder_cls(name).URL}train-images-idx3-ubyte.gz" in known


def test_a_missing_file_on_the_host_is_told(serve, tmp_path):
    write_set(tmp_path / "web" / "mnist")
    (tmp_path / "web" / "mnist" / "t10k-images-idx3-ubyte.gz").unlink()
    serve(tmp_path / "web")
    with pytest.raises(Unavailable, match=r"could not download and prepare it: Failed to get url .*404"):
        tfds.prepare("mnist", tmp_path / "data")


def test_a_damaged_file_on_the_host_is_told(serve, tmp_path):
    write_set(tmp_path / "web" / "mnist")
    (tmp_path / "web" / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(b"nonsense")
    serve(tmp_path / "web")
    with pytest.raises(Unavailable, match=r"could not download and prepare it: idx: .*neither an idx nor a gzip file"):
        tfds.prepare("mnist", tmp_path / "data")


def test_an_unreachable_host_is_told_without_tfds_trying(library, monkeypatch):
    asked = []
    monkeypatch.setattr(network, "answers", lambda url, *, timeout: asked.append((url, timeout)))
    monkeypatch.setattr(library.builder_cls("mnist"), "URL", "https://host.invalid/mnist/")
    with pytest.raises(Unavailable, match=r"mnist: TFDS has prepared no copy and host\.invalid is not reachable\."):
        tfds.check_reachable("mnist")
    assert asked == [("https://host.invalid/mnist/train-labels-idx1-ubyte.gz", 3.0)]


def test_a_data_set_that_is_not_there_is_not_read(tmp_path):
    with pytest.raises(Unavailable, match="mnist: TFDS has prepared no copy in "):
        tfds.read("mnist", tmp_path)


def test_a_copy_in_tfrecord_is_found_and_refused(tmp_path):
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps({"fileFormat": "tfrecord", "name": "mnist"}))
    (folder / "mnist-train.tfrecord-00000-of-00001").touch()
    assert tfds.is_prepared("mnist", tmp_path)
    with pytest.raises(Unavailable, match=r"3\.0\.1 is not in the format array_record and only TensorFlow reads it"):
        tfds.read("mnist", tmp_path)


def test_a_half_made_folder_is_told(serve, tmp_path):
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    serve(tmp_path)
    assert not tfds.is_prepared("mnist", tmp_path)
    with pytest.raises(Unavailable, match=r"3\.0\.1 exists but holds no prepared data set\. Remove it\."):
        tfds.prepare("mnist", tmp_path)


def test_the_newest_version_counts(serve, tmp_path):
    write_set(tmp_path / "web" / "mnist")
    serve(tmp_path / "web")
    tfds.prepare("mnist", tmp_path)
    (tmp_path / "mnist" / "1.0.0").mkdir()
    (tmp_path / "mnist" / "1.0.0" / "dataset_info.json").write_text("{}")
    assert len(tfds.read("mnist", tmp_path)[0]["label"]) == 20


def test_the_folder_is_that_of_tfds(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert tfds.root() == tmp_path
    assert tfds.root("elsewhere").name == "elsewhere"
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert tfds.root().as_posix() == "/home/somebody/tensorflow_datasets"


def test_what_is_missing_is_named_with_the_extra(monkeypatch):
    found = importlib.util.find_spec
    missing = {"array_record", "PIL"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else found(name))
    text = r"tfds: array_record, PIL is missing\. Run pip install 'cnnjax\[data\]'"
    for call in (tfds.check_reachable, tfds.prepare):
        with pytest.raises(ImportError, match=text):
            call("mnist")


def test_importing_the_package_loads_none_of_what_is_lazy():
    code = (
        "import sys, cnnjax.data; "
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'mlxtend', 'PIL') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_true_mnist_is_prepared_and_read(serve, tmp_path, mnist_folder):
    (tmp_path / "web").mkdir()
    shutil.copytree(mnist_folder, tmp_path / "web" / "mnist")
    serve(tmp_path / "web")
    tfds.prepare("mnist", tmp_path / "data")
    for got, want in zip(tfds.read("mnist", tmp_path / "data"), idx.read(mnist_folder), strict=True):
        assert contents(got) == contents(want)


@pytest.fixture
def archive(library, monkeypatch, tmp_path):
    """Serve one archive, which TFDS knows by its checksum as the file of spoken_digit; return its folder."""
    from tensorflow_datasets.core import utils
    from tensorflow_datasets.core.download import checksums

    web = tmp_path / "web"
    web.mkdir()
    (web / "v1.0.9.tar.gz").write_bytes(b"an archive")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=web))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    digest = hashlib.sha256(b"an archive").hexdigest()
    info = checksums.UrlInfo(size=utils.Size(10), checksum=digest, filename="sounds-1.0.9.tar.gz")
    infos = {f"http://127.0.0.1:{server.server_port}/v1.0.9.tar.gz": info}
    monkeypatch.setattr(library.builder_cls("spoken_digit"), "url_infos", infos)
    yield web
    server.shutdown()
    server.server_close()


def test_an_archive_is_downloaded_once(archive, tmp_path, monkeypatch, capfd):
    lines = []
    path = tfds.archive("spoken_digit", tmp_path / "data", log=lines.append)
    assert path.read_bytes() == b"an archive"
    assert lines == [f"spoken_digit: TFDS downloads it to {tmp_path / 'data' / 'downloads'}."]
    shutil.rmtree(archive)
    monkeypatch.setattr(network, "answers", None)
    assert tfds.archive("spoken_digit", tmp_path / "data", log=lines.append) == path
    assert len(lines) == 1
    assert capfd.readouterr().out == ""


def test_an_archive_with_another_checksum_is_refused(archive, tmp_path):
    (archive / "v1.0.9.tar.gz").write_bytes(b"another one")
    with pytest.raises(Unavailable, match=r"spoken_digit: TFDS could not download it: .*wrong checksum"):
        tfds.archive("spoken_digit", tmp_path / "data", log=lambda line: None)


def test_an_archive_that_cannot_be_reached_is_told(library, monkeypatch, tmp_path):
    monkeypatch.setattr(network, "answers", lambda url, *, timeout: False)
    with pytest.raises(
        Unavailable, match=r"cifar10: TFDS has downloaded no archive and www\.cs\.toronto\.edu is not reach"
    ):
        tfds.archive("cifar10", tmp_path, log=lambda line: None)
