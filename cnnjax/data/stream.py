"""Training batches from data too large for memory: read ahead of time, by threads or by processes."""

import dataclasses
import operator
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol, SupportsIndex

import numpy as np

from cnnjax.data.batches import places, rows

Read = Callable[[Any], Mapping[str, Any]]


class Source(Protocol):
    """What can be read at random: a `tfds.data_source`, a data source of grain, a part of `open_folder`, a list."""

    def __len__(self) -> int:
        """How many examples there are."""
        ...

    def __getitem__(self, place: SupportsIndex, /) -> Any:
        """Read an example."""
        ...


def _itself(example: Any) -> Mapping[str, Any]:
    return example


@dataclasses.dataclass(eq=False)
class Stream:
    """Draw training batches as `Batches` does, of examples that are read when they are needed.

    The batches are those of `Batches` with the same seed, whatever reads them: one process or many, with or without
    workers. They are read ahead, so calls for one step after another are fast; a call for any other step begins anew
    there. Memory holds what is read ahead, and 8 bytes an example for their order.

    Args:
        source: the examples; `tfds.data_source(name, split=...)`, `open_folder`, or anything with a length and items.
        batch_size: examples a batch, at least 1.
        read: turns an item of the source into a dict of arrays or numbers, the same for all examples: to scale pictures
            to one size, say. Where there are workers, a function at the top of a module.
        seed: any integer.
        share: as of `Batches`.
        workers: processes that read, at least 0; with 0 threads of this one do. Decoding pictures is worth them.
        ahead: batches that are read ahead, at least 1; of each worker so many.

    Raises:
        ValueError: no examples, a batch size or `ahead` below 1, no such share, or workers below 0.
        ImportError: grain is not installed.

    Example:
        >>> squares = [{"x": np.float32(n * n)} for n in range(10)]
        >>> stream = Stream(squares, 4, seed=0)
        >>> stream(3)["x"]
        array([49., 64.,  4., 16.], dtype=float32)

    Source:
        grain: https://github.com/google/grain
    """

    source: Source = dataclasses.field(repr=False)
    batch_size: int
    read: Read = dataclasses.field(default=_itself, kw_only=True, repr=False)
    seed: int = dataclasses.field(kw_only=True)
    share: tuple[int, int] = dataclasses.field(default=(0, 1), kw_only=True)
    workers: int = dataclasses.field(default=0, kw_only=True)
    ahead: int = dataclasses.field(default=4, kw_only=True)

    def __post_init__(self):
        for name, least in (("batch_size", 1), ("ahead", 1), ("workers", 0)):
            if operator.index(getattr(self, name)) < least:
                raise ValueError(f"Stream: {name} must be at least {least}, got {getattr(self, name)}. Give more.")
        rows("Stream", self.batch_size, self.share)
        if not len(self.source):
            raise ValueError("Stream: source must not be empty, got 0 examples. Give at least one.")
        _grain()
        self._next: int = -1
        # Workers have to be ended before the process ends, or they complain.
        self._open: list[Any] = []
        weakref.finalize(self, _close, self._open)

    def __call__(self, step: SupportsIndex) -> dict[str, np.ndarray]:
        """Return the batch of a step.

        Args:
            step: number of the step, from 0.

        Returns:
            The examples' arrays, (batch_size / n, ...) each, and "position", as of `Batches`.

        Raises:
            ValueError: a negative step.
        """
        step = operator.index(step)
        if step < 0:
            raise ValueError(f"Stream: step must be at least 0, got {step}. Count steps from 0.")
        if step != self._next:
            _close(self._open)
            self._open.append(self._from(step))
        self._next = step + 1
        return next(self._open[0])

    def _from(self, step: int) -> Any:
        grain = _grain()
        part = rows("Stream", self.batch_size, self.share)
        size = part.stop - part.start
        examples = grain.MapDataset.range(step * size, sys.maxsize // 2).map(
            _Example(self.source, self.read, self.seed, self.batch_size, part.start, size)
        )
        batches = examples.batch(size).to_iter_dataset(
            grain.ReadOptions(num_threads=min(4, self.ahead), prefetch_buffer_size=self.ahead)
        )
        if self.workers:
            batches = batches.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=self.workers, per_worker_buffer_size=self.ahead)
            )
        return iter(batches)


@dataclasses.dataclass(frozen=True)
class _Example:
    """Reads what stands at a place of this process's share of the stream."""

    source: Source
    read: Read
    seed: int
    batch_size: int
    first: int
    size: int

    def __call__(self, number: int) -> dict[str, Any]:
        step, row = divmod(int(number), self.size)
        position = step * self.batch_size + self.first + row
        place = int(places(self.seed, len(self.source), np.array([position]))[0])
        return {**self.read(self.source[place]), "position": np.uint32(position % 2**32)}


def _close(iterators: list[Any]) -> None:
    while iterators:
        iterators.pop().close()


def _grain() -> Any:
    try:
        import grain
        from absl import flags
    except ImportError as error:
        raise ImportError("Stream: grain is missing. Run pip install 'cnnjax[data]'.") from error
    if not flags.FLAGS.is_parsed():
        # Grain reads flags of the command line, which only programs made with absl have.
        flags.FLAGS.mark_as_parsed()
    return grain
