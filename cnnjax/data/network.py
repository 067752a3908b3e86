"""Whether a web address answers, told within seconds."""

import ssl
import threading
import urllib.request


def answers(url: str, *, timeout: float = 3.0) -> bool:
    """Tell whether an HTTP address answers "200 OK" in time, looking up its name included.

    Proxies are taken from the environment. A dead network makes this wait `timeout` seconds, no more: a
    name lookup heeds no timeout, so the request runs in a thread that is left behind.

    Args:
        url: http or https address; a HEAD request is sent to it.
        timeout: seconds.

    Returns:
        True where it answered.

    Example:
        >>> answers("http://127.0.0.1:9/", timeout=0.5)
        False
    """
    found = threading.Event()
    done = threading.Event()

    def ask():
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=timeout, context=_any_certificate()) as response:
                if response.status == 200:
                    found.set()
        except (OSError, ValueError):
            pass
        finally:
            done.set()

    threading.Thread(target=ask, daemon=True).start()
    done.wait(timeout)
    return found.is_set()


def _any_certificate() -> ssl.SSLContext:
    # Nothing is read from the answer. Python on macOS has no certificates of its own, while the client
    # that downloads brings some, and checks them.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
