"""How the commands end: bad input in one line and status 2, an interrupted or diverged run in one line too."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

Config = TypeVar("Config")


class Stopped(KeyboardInterrupt):
    """The run stops because it was asked to. No library takes it for an error of its own."""


class Asked:
    """Whether Ctrl-C or SIGTERM has asked the run to stop; `asked()` tells.

    Args:
        command: what is run.
    """

    def __init__(self, command: str):
        self.signals: list[int] = []
        self._command = command
        self._later = False

    def __call__(self) -> bool:
        """Tell."""
        return bool(self.signals)

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: note it or, the second Ctrl-C always, raise at once."""
        self.signals.append(number)
        if len(self.signals) == 1 and self._later:
            # The signal may have come while Python itself was writing, and its streams cannot be entered twice.
            os.write(2, f"\n{self._command}: {_name(number)}: saving. Ctrl-C again leaves at once.\n".encode())
        elif not self._later or number == signal.SIGINT:
            raise Stopped

    @contextmanager
    def later(self, later: bool = True) -> Iterator[None]:
        """Only note signals within the block, so that nothing in it is torn; or with False raise `Stopped` at once."""
        before, self._later = self._later, later
        try:
            self._raise()
            yield
        finally:
            self._later = before
        self._raise()

    def _raise(self) -> None:
        if self.signals and not self._later:
            raise Stopped

    def leave(self, error: KeyboardInterrupt, advice: str) -> None:
        """End the program in one line, with the exit status of the signal."""
        # Without a signal here, another process has heard one.
        number = [*self.signals, signal.SIGTERM if isinstance(error, Stopped) else signal.SIGINT][0]
        _leave(self._command, f"{_name(number)}{advice}", 128 + number)


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
    asked = Asked(command)
    try:
        with _handled(asked.hear):
            yield
    except KeyboardInterrupt as error:
        asked.leave(error, ".")
    except (ValueError, OSError, ImportError) as error:
        _leave(command, error, 2)


@contextmanager
def interruption(command: str, advice: str) -> Iterator[Asked]:
    """Let Ctrl-C and SIGTERM ask a run to stop, and end what ends early in one line with what to do next.

    The exit status is 128 plus the signal, 130 or 143; of a diverged loss, a full disk and the like it is 1. The second
    Ctrl-C does not wait for the run to be saved.
    """
    asked = Asked(command)
    # Orbax logs what it raises, once for every thread that the error comes through, and asyncio what nobody waits for.
    logs = {name: logging.getLogger(name).level for name in ("absl", "asyncio")}
    _set_levels(dict.fromkeys(logs, logging.CRITICAL))
    loud, quiet = sys.unraisablehook, _without_closed_loops(sys.unraisablehook)
    sys.unraisablehook = quiet
    try:
        with _handled(asked.hear):
            yield asked
    except KeyboardInterrupt as error:
        asked.leave(error, f": {'saved' if len(asked.signals) < 2 else 'left at once'}. {advice}")
    except FloatingPointError as error:
        _leave(command, error, 1)
    except OSError as error:
        # Until the process ends: what else fails for the same reason may still be on its way.
        loud, logs = quiet, {}
        _leave(command, f"{error} {advice}", 1)
    finally:
        _set_levels(logs)
        sys.unraisablehook = loud


def _set_levels(levels: Mapping[str, int]) -> None:
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _without_closed_loops(hook: Callable[[Any], object]) -> Callable[[Any], object]:
    """A hook that passes over what tensorstore says of files that it still writes when orbax has given them up."""
    return lambda found: None if str(found.exc_value) == "Event loop is closed" else hook(found)


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _name(number: int) -> str:
    return "interrupted" if number == signal.SIGINT else signal.Signals(number).name


def _leave(command: str, message: object, status: int) -> None:
    print(f"{command}: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(status)
