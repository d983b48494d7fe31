"""Waveforms as the project holds them: 48 kHz stereo, float in [-1, 1], and their way in and out of FLAC and WAV.

Shapes: [2, T], T samples a channel.
"""

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from mousai.storage import publish

SAMPLE_RATE = 48_000  # Hz (Moûsai, section 5.1)
CHANNELS = 2
FULL_SCALE = 32_767 / 32_768  # the highest value that 16 bits hold without clipping

Waveform = npt.NDArray[np.float32]  # [2, T]


def to_pcm16(audio: Waveform) -> npt.NDArray[np.int16]:
    """[2, T] float in [-1, 1] -> [T, 2] int16, rounded to nearest; ValueError where it would clip."""
    peak = float(np.abs(audio).max(initial=0.0))
    if not peak <= 1.0:  # also catches NaN
        raise ValueError(f"peak {peak} is above full scale: apply the track's gain first")
    return np.rint(audio.T * 32_767).astype(np.int16)


def encode_pcm16(audio: Waveform, container: str = "FLAC", sample_rate: int = SAMPLE_RATE) -> bytes:
    """[2, T] float in [-1, 1] as the bytes of a 16-bit "FLAC" or "WAV" file; the same audio gives the same bytes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, to_pcm16(audio), sample_rate, format=container, subtype="PCM_16")
    return buffer.getvalue()


def read_span(file: BinaryIO, start: int = 0, length: int = -1, into: Waveform | None = None) -> Waveform:
    """`length` samples (-1: all) from sample `start` of an open 16-bit file, as [2, T] float in [-1, 1].

    With `into`, [2, T'] with T' >= T, its beginning is where they are written.
    """
    with soundfile.SoundFile(file) as sound:
        sound.seek(start)
        pcm = sound.read(length, dtype="int16", always_2d=True)
    audio = np.empty((pcm.shape[1], len(pcm)), np.float32) if into is None else into[:, : len(pcm)]
    np.divide(pcm.T, np.float32(32_767), out=audio, dtype=np.float32)
    return audio


def write_audio(path: Path, audio: Waveform, *, title: str = "", comment: str = "") -> None:
    """Publish [2, T] as 16-bit stereo at 48 kHz; the container follows the suffix, .wav or .flac.

    Audio louder than full scale is turned down as a whole, never clipped.
    """
    container = {".wav": "WAV", ".flac": "FLAC"}.get(path.suffix.lower())
    if container is None:
        raise ValueError(f"{path} must end in .wav or .flac")
    gain = peak_gain(float(np.abs(audio).max(initial=0.0)))
    pcm = to_pcm16(np.asarray(audio * gain, dtype=np.float32))
    with (
        publish(path) as temporary,
        temporary.open("wb") as file,  # libsndfile would not say what is wrong with a folder
        soundfile.SoundFile(file, "w", SAMPLE_RATE, CHANNELS, "PCM_16", format=container) as sound,
    ):
        for name, value in {"title": title, "comment": comment, "software": "mousai"}.items():
            if value:  # libsndfile refuses empty strings
                setattr(sound, name, value)
        sound.write(pcm)


def peak_gain(peak: float) -> float:
    """The factor that brings `peak` down to full scale; 1 where it already fits: nothing is ever turned up."""
    return min(1.0, FULL_SCALE / peak) if peak > 0 else 1.0
