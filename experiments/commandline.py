"""How the commands end: bad input in one line and status 2, an interrupted or diverged run in one line too."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

Config = TypeVar("Config")


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
def interruption(command: str, advice: str) -> Iterator[None]:
    """Turn Ctrl-C and a diverged loss into one line with what to do next: status 130 and 1."""
    try:
        yield
    except KeyboardInterrupt:
        _leave(command, f"interrupted. {advice}", 130)
    except FloatingPointError as error:
        _leave(command, f"{error} {advice}", 1)


def _leave(command: str, message: object, status: int) -> None:
    print(f"{command}: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(status)
