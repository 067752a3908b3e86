import http.server
import socket
import threading
import time

import pytest

from cnnjax.data import network


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200 if self.path == "/there" else 404)
        self.end_headers()

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_a_host_that_has_the_file_answers(server):
    assert network.answers(f"{server}/there")


def test_a_host_that_has_not_does_not(server):
    assert not network.answers(f"{server}/elsewhere")


def test_a_closed_port_is_told_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    assert seconds(lambda: network.answers(url)) < 1
    assert not network.answers(url)


def test_a_silent_host_is_given_up_in_time():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert seconds(lambda: network.answers(url, timeout=0.3)) < 1


def test_a_name_lookup_that_hangs_is_given_up_in_time(monkeypatch):
    release = threading.Event()

    def hang(*_, **__):
        release.wait(10)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    assert seconds(lambda: network.answers("http://nowhere.invalid/", timeout=0.3)) < 1
    release.set()


def test_what_is_no_address_does_not_answer():
    assert not network.answers("nonsense")
