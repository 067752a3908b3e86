"""How the commands end: bad input in one line and status 2, an interrupted or diverged run in one line too."""

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Config = TypeVar("Config")

Asked = Callable[[], bool]
"""Whether the run is asked to stop."""


class Stopped(Exception):
    """The run has stopped because it was asked to, and is saved."""


def parse(config: type[Config], command: str) -> Config:
    """Read a config from the command line: an option a field, required fields by position."""
    try:
        import tyro
    except ImportError as error:
        raise ImportError("the experiments read their options with tyro: pip install 'cnnjax[experiments]'") from error
    return tyro.cli(config, prog=f"python -m {command}", config=(tyro.conf.PositionalRequiredArgs,))


@contextmanager
def bad_input(command: str) -> Iterator[None]:
    """Turn what is wrong with the user's input into one line on stderr and exit status 2.

    Put it around reading and checking alone: an error raised by training is a bug, and keeps its traceback.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        _leave(command, error, 2)


@contextmanager
def interruption(command: str, advice: str) -> Iterator[Asked]:
    """Let Ctrl-C and SIGTERM ask a run to stop, and end what ends early in one line with what to do next.

    The exit status is 128 plus the signal, 130 or 143; of a diverged loss, a full disk and the like it is 1. The second
    Ctrl-C does not wait for the run to be saved.
    """
    signals: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if signals and number == signal.SIGINT:
            raise KeyboardInterrupt
        signals.append(number)
        print(f"\n{command}: {_name(number)}: saving. Ctrl-C again leaves at once.", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    # Orbax logs what it raises, once for every thread that the error comes through.
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield lambda: bool(signals)
    except Stopped:
        # Of several processes one may have been asked for all.
        number = signals[0] if signals else signal.SIGTERM
        _leave(command, f"{_name(number)}: saved. {advice}", 128 + number)
    except KeyboardInterrupt:
        _leave(command, f"interrupted. {advice}", 128 + signal.SIGINT)
    except (FloatingPointError, OSError) as error:
        _leave(command, f"{error} {advice}", 1)
    finally:
        log.setLevel(level)
        for number, handler in before.items():
            signal.signal(number, handler)


def _name(number: int) -> str:
    return "interrupted" if number == signal.SIGINT else signal.Signals(number).name


def _leave(command: str, message: object, status: int) -> None:
    print(f"{command}: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(status)
