"""Loudness and true peak against the signals with stated results of EBU Tech 3341 and 3342, and against FFmpeg."""

import math

import av
import numpy as np
import pytest

from mousai.audio import SAMPLE_RATE, Waveform
from pipeline.loudness import _PHASES, Loudness, TruePeak


def tones(*parts: tuple[float, float], frequency: float = 1000.0) -> Waveform:
    """[2, T]: an in-phase sine in pieces of (peak level in dBFS, seconds)."""
    gains = np.concatenate([np.full(round(seconds * SAMPLE_RATE), 10 ** (level / 20)) for level, seconds in parts])
    sine = gains * np.sin(2 * np.pi * frequency * np.arange(len(gains)) / SAMPLE_RATE)
    return np.stack([sine, sine]).astype(np.float32)


def music_like(seconds: float = 20.0) -> Waveform:
    """[2, T]: noise that swells and fades, the channels half alike."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((3, round(seconds * SAMPLE_RATE)))
    swell = 10 ** (-1 + 0.8 * np.sin(2 * np.pi * np.arange(noise.shape[1]) / (7 * SAMPLE_RATE)))
    return (0.1 * swell * (noise[:2] + noise[2])).astype(np.float32)


def measured(audio: Waveform) -> Loudness:
    meter = Loudness()
    for start in range(0, audio.shape[1], SAMPLE_RATE):
        meter.update(audio[:, start : start + SAMPLE_RATE])
    return meter


def true_peak(audio: Waveform, block: int = SAMPLE_RATE) -> float:
    meter = TruePeak()
    for start in range(0, audio.shape[1], block):
        meter.update(audio[:, start : start + block])
    return meter.finish()


def decibels(value: float) -> float:
    return 20 * math.log10(value)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [  # EBU Tech 3341, test signals 1 to 5
        ([(-23, 20)], -23),
        ([(-33, 20)], -33),
        ([(-36, 10), (-23, 60), (-36, 10)], -23),
        ([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -23),
        ([(-26, 20), (-20, 20.1), (-26, 20)], -23),
    ],
)
def test_integrated_loudness_is_what_tech_3341_states(parts: list[tuple[float, float]], expected: float):
    assert measured(tones(*parts)).integrated() == pytest.approx(expected, abs=0.1)


def test_a_sine_of_997_hz_in_one_channel_alone_is_3_lu_below_the_same_in_both():
    both = tones((0, 5), frequency=997)
    left = both * np.array([[1], [0]], np.float32)
    assert measured(left).integrated() == pytest.approx(-3.01, abs=0.01)  # BS.1770-4: 0 dBFS reads -3.01 LKFS
    assert measured(both).integrated() == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [([-20, -30], 10), ([-20, -15], 5), ([-40, -20], 20), ([-50, -35, -20, -35, -50], 15)],  # EBU Tech 3342
)
def test_loudness_range_is_what_tech_3342_states(levels: list[float], expected: float):
    assert measured(tones(*((level, 20) for level in levels))).range() == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("amplitude", "divisor", "phase", "expected"),
    [(0.5, 4, 0, -6), (0.5, 4, 45, -6), (0.5, 6, 60, -6), (0.5, 8, 67.5, -6), (1.41, 4, 45, 3)],  # 15 to 19
)
def test_true_peak_is_what_tech_3341_states(amplitude: float, divisor: int, phase: float, expected: float):
    time = np.arange(SAMPLE_RATE)
    fade = np.minimum(1, np.minimum(time, time[::-1]) / 1000)
    sine = amplitude * fade * np.sin(2 * np.pi * time / divisor + np.deg2rad(phase))
    peak = decibels(true_peak(np.stack([sine, sine]).astype(np.float32)))
    assert expected - 0.4 <= peak <= expected + 0.2


def test_true_peak_is_that_of_interpolating_every_sample():
    rng = np.random.default_rng(1)
    for audio in (music_like(2), rng.uniform(-1, 1, (2, 5000)), rng.uniform(-1, 1, (2, 30)), np.ones((2, 1))):
        padded = np.pad(audio, ((0, 0), (0, 20)))
        everywhere = [np.abs(np.convolve(channel, phase)).max() for channel in padded for phase in _PHASES]
        assert true_peak(audio.astype(np.float32)) == pytest.approx(max(*everywhere, np.abs(audio).max()), rel=1e-5)


def test_true_peak_between_two_blocks_is_found():
    sine = 0.5 * np.sin(2 * np.pi * np.arange(200) / 4 + np.pi / 4) * np.hanning(200)
    audio = np.stack([sine, sine]).astype(np.float32)
    whole = true_peak(audio)
    assert whole > np.abs(audio).max() * 1.3
    assert true_peak(audio, block=100) == pytest.approx(whole, rel=1e-6)
    assert true_peak(audio, block=1) == pytest.approx(whole, rel=1e-6)


def test_silence_and_what_is_too_short_have_no_loudness():
    silence = np.zeros((2, 5 * SAMPLE_RATE), np.float32)
    assert (measured(silence).integrated(), measured(silence).range(), true_peak(silence)) == (None, None, 0)
    assert measured(tones((-20, 0.39))).integrated() is None
    assert measured(tones((-20, 2.9))).range() is None


def test_ffmpeg_measures_the_same():
    audio = music_like()
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=SAMPLE_RATE, format="fltp", layout="stereo")
    meter, sink = graph.add("ebur128", "metadata=1:peak=true"), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(audio, "fltp", "stereo")
    frame.sample_rate = SAMPLE_RATE
    source.push(frame)
    source.push(None)
    found: dict[str, str] = {}
    while True:
        try:
            found.update(sink.pull().metadata)
        except (av.EOFError, av.BlockingIOError):
            break
    ours = measured(audio)
    assert ours.integrated() == pytest.approx(float(found["lavfi.r128.I"]), abs=0.05)
    assert ours.range() == pytest.approx(float(found["lavfi.r128.LRA"]), abs=0.2)
    # Another interpolator: both may be off by half a decibel near the Nyquist frequency (BS.1770-4, Annex 2).
    assert decibels(true_peak(audio)) == pytest.approx(decibels(float(found["lavfi.r128.true_peak"])), abs=0.5)
