"""A moving picture: for a notebook, or for a GIF file."""

import base64
import functools
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

# One of GIF's 64 is left for "as in the frame before".
_COLOURS = 63


class Animation:
    """Figures of one size, shown one after another and over again.

    A notebook shows it where it is a cell's last value. Nothing is drawn before it is asked for.

    Attributes:
        figures: a matplotlib Figure a frame.
        caption: what it shows, for those who cannot see it.
        seconds: how long a frame stays.
        last_seconds: how long the last one stays.
    """

    def __init__(
        self, figures: Sequence["Figure"], *, caption: str = "", seconds: float = 0.7, last_seconds: float = 2.8
    ):
        if not figures:
            raise ValueError("Animation: there must be a frame, got none. Give it at least one figure.")
        if not min(seconds, last_seconds) > 0:
            raise ValueError(
                f"Animation: seconds must be above 0, got {seconds} and {last_seconds} for the last frame."
                " Give how long a frame stays."
            )
        self.figures = tuple(figures)
        self.caption = caption
        self.seconds = seconds
        self.last_seconds = last_seconds

    def __len__(self) -> int:
        return len(self.figures)

    def __repr__(self) -> str:
        return f"Animation({len(self)} frames: {self.caption})"

    @functools.cached_property
    def frames(self) -> np.ndarray:
        """The frames as pixels, uint8 (frames, H, W, 3)."""
        return np.stack([_pixels(figure) for figure in self.figures])

    @functools.cached_property
    def gif(self) -> bytes:
        """The GIF file."""
        pictures = _quantised(self.frames)
        # GIF counts in hundredths of a second.
        milliseconds = [round(self.seconds * 100) * 10] * (len(self) - 1) + [round(self.last_seconds * 100) * 10]
        file = io.BytesIO()
        pictures[0].save(
            file, "GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, optimize=True
        )
        return file.getvalue()

    def save(self, path: str | Path) -> None:
        """Write a GIF file."""
        if Path(path).suffix.lower() != ".gif":
            raise ValueError(f"Animation.save: path must end in .gif, got {str(path)!r}. Call it something.gif.")
        Path(path).write_bytes(self.gif)

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.gif).decode()
        return f'<img src="data:image/gif;base64,{data}" alt="{html.escape(self.caption)}" style="max-width: 100%">'


def _pixels(figure: "Figure") -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _quantised(frames: np.ndarray) -> list["Image"]:
    """The frames in their most frequent colours: flat areas stay exact, and what does not move takes no room."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("explain writes GIFs with Pillow. Install it with: pip install 'cnnjax[plots]'") from error
    packed = frames.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    place = np.zeros(1 << 24, np.int32)
    place[packed] = 1
    found = np.flatnonzero(place)
    place[found] = np.arange(len(found))
    ranks = place[packed]
    colours = np.stack([found >> 16, found >> 8 & 255, found & 255], -1)
    frequent = np.argsort(-np.bincount(ranks.ravel()), kind="stable")[:_COLOURS]
    distance = np.square(colours[:, None] - colours[frequent]).sum(-1)
    indices = distance.argmin(1).astype(np.uint8)[ranks]
    pictures = [Image.fromarray(one) for one in indices]
    for picture in pictures:
        picture.putpalette(colours[frequent].astype(np.uint8).tobytes())
    return pictures
