"""What the first layer of a net for sounds listens to."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cnnjax.explain import _style as style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS = 512  # of the transform: the kernels are filled with zeros up to here, so that the curves are smooth


def plot_spectra(kernel: ArrayLike, *, rate: float, channel: int = 0) -> "Figure":
    """Draw how strongly each filter of a 1-D convolution answers to each frequency.

    Filters are ordered by the frequency that they answer to most, each scaled to its own peak. Those learned from
    waveforms come out as a bank of band-pass filters, closer together at low frequencies, much as those of the ear.

    Args:
        kernel: (K, C_in, C_out).
        rate: samples a second, in Hz, above 0.
        channel: which input channel.

    Returns:
        A matplotlib Figure: left the filters' answers, a row each; right the kernels of eight of them, over time.

    Raises:
        ValueError: a kernel that is not (K, C_in, C_out), or empty, or without that channel; or a rate that is not
            above 0.
        ImportError: matplotlib is missing.

    Example:
        >>> tone = np.cos(2 * np.pi * 1000 * np.arange(80) / 8000)
        >>> plot_spectra(tone[:, None, None], rate=8000).axes[0].get_xlabel()
        'frequency (Hz)'

    Source:
        Dai, Dai, Qu, Li & Das 2017, "Very Deep Convolutional Neural Networks for Raw Waveforms", figure 2.
    """
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim != 3 or not kernel.size or not 0 <= channel < kernel.shape[1]:
        raise ValueError(
            f"plot_spectra: kernel must be (K, C_in, C_out) with channel {channel}, got {kernel.shape}. Give the kernel"
            " of a 1-D convolution, and count channels from 0."
        )
    if not 0 < rate < np.inf:
        raise ValueError(f"plot_spectra: rate must be above 0, got {rate}. Give samples a second, in Hz.")
    filters = kernel[:, channel].T
    answers = np.abs(np.fft.rfft(filters, max(_POINTS, filters.shape[1])))
    order = np.argsort(answers.argmax(1), kind="stable")
    filters, answers = filters[order], answers[order]
    figure, (left, right) = style.axes(1, 2, size=(9, 3.6))
    relative = answers / np.maximum(answers.max(1, keepdims=True), 1e-12)
    extent = (0.0, rate / 2, len(filters) - 0.5, -0.5)
    picture = left.imshow(relative, aspect="auto", cmap="magma", extent=extent, vmin=0, vmax=1, interpolation="nearest")
    left.set_xlabel("frequency (Hz)")
    left.set_ylabel("filter, by its strongest frequency")
    figure.colorbar(picture, ax=left, label="answer, of its strongest")
    shown = np.unique(np.linspace(0, len(filters) - 1, 8).round().astype(int))
    seconds = np.arange(filters.shape[1]) / rate * 1000
    for place, number in enumerate(shown):
        wave = filters[number] / max(np.abs(filters[number]).max(), 1e-12)
        right.plot(seconds, 0.45 * wave - place, color=style.BLUE, linewidth=1.2)
    right.set_yticks(-np.arange(len(shown)), [str(number) for number in shown])
    right.set_xlabel("time (ms)")
    right.set_ylabel("filter")
    return figure
