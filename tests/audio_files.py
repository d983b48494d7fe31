"""Audio files with known content, made on the spot for the tests."""

from pathlib import Path

import av
import numpy as np
import soundfile

from mousai.audio import Waveform

_SOUNDFILE = {".wav": "PCM_16", ".flac": "PCM_16", ".ogg": "VORBIS"}
_PYAV = {".mp3": "libmp3lame", ".m4a": "aac", ".opus": "libopus", ".wma": "wmav2", ".wv": "wavpack", ".tta": "tta"}


def tone(
    seconds: float, *, frequency: float = 440.0, sample_rate: int = 44100, channels: int = 2, amplitude: float = 0.5
) -> Waveform:
    """A sine of `frequency` Hz as [channels, T] at `sample_rate`, the same in every channel."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    wave = amplitude * np.sin(2 * np.pi * frequency * times)
    return np.tile(wave.astype(np.float32), (channels, 1))


def tune(seconds: float, seed: int, *, sample_rate: int = 16_000, tempo: float = 1.0) -> Waveform:
    """Three voices of random notes as [3, T], their sum within [-1, 1]: music enough for a fingerprint."""
    generator = np.random.default_rng(seed)
    voices = np.zeros((3, round(seconds * sample_rate)), np.float32)
    for voice in voices:
        start = 0
        while start < len(voice):
            length = int(generator.choice([0.2, 0.4, 0.8]) / tempo * sample_rate)
            times = np.arange(min(length, len(voice) - start)) / sample_rate
            pitch = 110 * 2 ** (generator.integers(36) / 12)
            partials = generator.uniform(0, 1, 12) / np.arange(1, 13)
            waves = np.sin(2 * np.pi * pitch * np.outer(np.arange(1, 13), times))
            voice[start : start + len(times)] = partials @ waves * np.exp(-3 * times)
            start += length
    return voices / np.abs(voices).sum(axis=0).max()


def write_tone(
    path: Path,
    seconds: float,
    *,
    frequency: float = 440.0,
    sample_rate: int = 44100,
    channels: int = 2,
    amplitude: float = 0.5,
) -> None:
    """Write a sine to `path`; the suffix picks the encoder: .wav .flac .ogg .mp3 .m4a .opus .wma .wv .tta."""
    audio = tone(seconds, frequency=frequency, sample_rate=sample_rate, channels=channels, amplitude=amplitude)
    write_audio(path, audio, sample_rate)


def write_audio(path: Path, audio: Waveform, sample_rate: int) -> None:
    """Write [C, T] (one or two channels) to `path`, the encoder picked by the suffix; Opus is always at 48 kHz."""
    if path.suffix in _SOUNDFILE:
        soundfile.write(path, audio.T, sample_rate, subtype=_SOUNDFILE[path.suffix])
        return
    with av.open(path, "w", format="asf" if path.suffix == ".wma" else None) as container:
        coded_rate = 48_000 if path.suffix == ".opus" else sample_rate
        stream = container.add_stream(_PYAV[path.suffix], rate=coded_rate)
        stream.bit_rate = 128_000
        stream.layout = "mono" if len(audio) == 1 else "stereo"
        resampler = av.AudioResampler(stream.format, stream.layout, coded_rate, stream.frame_size)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio), "fltp", stream.layout.name)
        frame.sample_rate = sample_rate
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(piece))
