"""Small spectrograms as PNG: what a stretch of music looks like, without torch.

Shapes: [2, T] audio at 48 kHz, [F, N] F frequency bands, lowest first, N columns in time.
"""

import io
import itertools

import numpy as np
import numpy.typing as npt

from mousai.audio import SAMPLE_RATE, Waveform

BANDS, COLUMNS = 64, 256  # of the picture
LOWEST, HIGHEST = 40.0, 20_000.0  # Hz, on a logarithmic axis
RANGE_DB = 90.0  # below a full-scale sine; what is lower is black
_WINDOW = 4096  # samples: 12 Hz apart


def spectrogram(audio: Waveform) -> npt.NDArray[np.float64]:
    """[2, T] -> [F, N] in dB: power of mid in each band, 0 dB for a sine of amplitude 1 in it."""
    mid = audio.mean(axis=0, dtype=np.float64)
    mid = np.pad(mid, (0, max(0, _WINDOW - len(mid))))
    starts = np.linspace(0, len(mid) - _WINDOW, COLUMNS).astype(int)
    window = np.hanning(_WINDOW)
    frames = np.stack([mid[start : start + _WINDOW] for start in starts]) * window
    power = np.abs(np.fft.rfft(frames)) ** 2 / (np.sum(window) / 2) ** 2
    edges = np.geomspace(LOWEST, HIGHEST, BANDS + 1) * _WINDOW / SAMPLE_RATE
    bands = [power[:, int(low) : max(int(high), int(low) + 1)].max(axis=1) for low, high in itertools.pairwise(edges)]
    decibels: npt.NDArray[np.float64] = 10 * np.log10(np.maximum(np.stack(bands), 1e-12))
    return decibels


def picture(audio: Waveform) -> bytes:
    """[2, T] as a PNG with a palette, about 10 kB; equal levels have equal colours in every picture."""
    from matplotlib import colormaps
    from PIL import Image

    shade = np.clip((spectrogram(audio)[::-1] + RANGE_DB) / RANGE_DB, 0, 1) * 63
    image = Image.fromarray(shade.astype(np.uint8), "P")
    image.putpalette((colormaps["magma"](np.linspace(0, 1, 64))[:, :3] * 255).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
