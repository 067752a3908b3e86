"""A moving picture: for a notebook, or for a GIF file."""

import base64
import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

_COLOURS = 64


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
            file, "GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, optimize=False
        )
        return file.getvalue()

    def save(self, path: str | Path) -> None:
        """Write a GIF file."""
        if Path(path).suffix.lower() != ".gif":
            raise ValueError(f"Animation.save: path must end in .gif, got {str(path)!r}. Call it something.gif.")
        Path(path).write_bytes(self.gif)

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.gif).decode()
        return f'<img src="data:image/gif;base64,{data}" alt="{self.caption}" style="max-width: 100%">'


def _pixels(figure: "Figure") -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _quantised(frames: np.ndarray) -> list["Image"]:
    """The frames in one small palette, so that what does not move takes no room in the file."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("explain writes GIFs with Pillow. Install it with: pip install 'cnnjax[plots]'") from error
    sample = frames[np.unique(np.linspace(0, len(frames) - 1, 4).astype(int))]
    palette = Image.fromarray(np.concatenate(sample)).quantize(_COLOURS)
    return [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
