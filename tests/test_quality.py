"""Quality figures: signals of which every figure is known, as they are and as files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from audio_files import write_audio

from mousai.audio import SAMPLE_RATE, Waveform
from pipeline import quality
from pipeline.decode import probe
from pipeline.quality import Clipping, Quality, QualityMeter


def noise(seconds: float, seed: int = 0, level: float = 0.1, rate: int = SAMPLE_RATE) -> Waveform:
    """[2, T] white noise, the channels independent."""
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal((2, round(seconds * rate)))).astype(np.float32)


def figures(audio: Waveform, block: int = SAMPLE_RATE) -> Quality:
    meter = QualityMeter()
    for start in range(0, audio.shape[1], block):
        meter.update(audio[:, start : start + block])
    return meter.finish(None)


def of_file(path: Path) -> Quality:
    with path.open("rb") as file:
        return probe(file).quality


def clipped(audio: Any, block: int = 1000) -> int:
    counter = Clipping()
    for start in range(0, len(audio[0]), block):
        counter.update(np.asarray(audio, np.float32)[:, start : start + block])
    return counter.finish()


def gap(seconds: float) -> Waveform:
    return np.zeros((2, round(seconds * SAMPLE_RATE)), np.float32)


# Silence


def test_silence_at_head_and_tail_and_in_pauses_is_told_apart():
    found = figures(np.concatenate([gap(0.5), noise(1), gap(2), noise(1), gap(0.9), noise(1), gap(0.25)], axis=1))
    assert (found.silence_head, found.silence_tail, found.silence_within) == (0.5, 0.25, 2.0)  # 0.9 s is a rest


def test_silence_is_what_stays_below_60_db():
    below, above = (np.full((2, SAMPLE_RATE), value, np.float32) for value in (0.00099, 0.00101))
    assert figures(below).silence_head == 1
    assert figures(above).silence_head == 0


def test_a_silent_track_is_all_head_and_has_no_other_figure():
    found = figures(gap(2))
    assert (found.silence_head, found.silence_tail, found.silence_within, found.true_peak, found.dc) == (2, 0, 0, 0, 0)
    assert [found.loudness, found.loudness_range, found.correlation, found.balance_db, found.side_db] == [None] * 5
    assert [found.cutoff_hz, found.cutoff_drop_db] == [None] * 2


# Clipping


def test_three_samples_in_a_row_at_full_scale_are_a_run_and_two_are_not():
    assert clipped([[0, 1, 1, 1, 0, -1, -1, 0, 1, 1, 1, 1, 1, 1, 0, -1, -1, -1]]) == 3
    assert clipped([[0.9998] * 9]) == 0
    assert clipped([[32_767 / 32_768] * 3, [0] * 3]) == 1


@pytest.mark.parametrize("block", range(1, 9))
def test_a_run_across_blocks_is_one(block: int):
    audio = np.zeros((2, 40))
    audio[0, 3:12], audio[1, 7:10], audio[1, 20:22], audio[0, 37:] = 1, -1, 1, 2
    assert clipped(audio, block) == 3


def test_a_clipped_sine_has_two_runs_a_period_whatever_the_rate_of_its_file(tmp_path: Path):
    time = np.arange(2 * 44_100) / 44_100
    sine = np.clip(2 * np.sin(2 * np.pi * 100 * time + 0.1), -1, 1).astype(np.float32)
    write_audio(tmp_path / "a.wav", np.stack([sine]), 44_100)
    assert of_file(tmp_path / "a.wav").clipped_runs == 400
    write_audio(tmp_path / "a.flac", np.stack([sine, 0.9 * sine]), 44_100)
    assert of_file(tmp_path / "a.flac").clipped_runs == 400


def test_what_is_downmixed_has_no_count_of_clipping(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.ones((48_000, 6)), 48_000)
    assert of_file(tmp_path / "a.wav").clipped_runs is None


# Channels


def test_the_offset_is_the_mean_of_the_worse_channel_and_changes_nothing_else():
    audio = noise(10)
    offset = audio + np.array([[0.02], [-0.2]], np.float32)
    assert figures(offset).dc == pytest.approx(0.2, abs=0.001)
    assert figures(audio).dc == pytest.approx(0, abs=0.001)
    for name in ("correlation", "balance_db", "side_db"):
        assert getattr(figures(offset), name) == pytest.approx(getattr(figures(audio), name), abs=0.01)


def test_equal_channels_are_fake_stereo():
    left = noise(2)[:1]
    found = figures(np.concatenate([left, left]))
    assert (found.correlation, found.balance_db, found.side_db) == (1, 0, -120)


def test_a_channel_that_is_the_negative_of_the_other_is_anti_phase():
    left = noise(2)[:1]
    found = figures(np.concatenate([left, -left]))
    assert (found.correlation, found.balance_db, found.side_db) == (-1, 0, 120)


def test_independent_channels_are_as_much_side_as_middle():
    found = figures(noise(10))
    assert found.correlation == pytest.approx(0, abs=0.01)
    assert found.side_db == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(("left", "right", "balance"), [(1, 0, 120), (0, 1, -120), (1, 0.1, 20), (0.5, 1, -6.02)])
def test_balance_is_the_ratio_of_the_channels_and_a_dead_one_shows(left: float, right: float, balance: float):
    audio = np.repeat(noise(2)[:1], 2, axis=0) * np.array([[left], [right]], np.float32)
    found = figures(audio)
    assert found.balance_db == pytest.approx(balance, abs=0.01)
    assert found.correlation == (None if abs(balance) == 120 else 1)


def test_a_dead_channel_that_hums_with_an_offset_is_dead():
    audio = noise(2) * np.array([[1], [0]], np.float32) + np.array([[0], [0.3]], np.float32)
    assert figures(audio).balance_db == pytest.approx(120)


# Band limits


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 32_000])
def test_an_upsampled_track_ends_at_its_old_nyquist_frequency(rate: int):
    audio = noise(5, rate=rate)
    found = figures(soxr.resample(audio.T, rate, SAMPLE_RATE, "HQ").T.astype(np.float32))
    assert found.cutoff_hz == pytest.approx(rate / 2, rel=0.1)
    assert found.cutoff_drop_db > 70


def test_untouched_noise_ends_nowhere(tmp_path: Path):
    assert figures(noise(5)).cutoff_drop_db < 6
    write_audio(tmp_path / "a.flac", noise(5, rate=44_100), 44_100)  # our own resampling lies above the range
    assert of_file(tmp_path / "a.flac").cutoff_drop_db < 6


def test_the_low_pass_of_an_mp3_shows(tmp_path: Path):
    write_audio(tmp_path / "a.mp3", noise(5, rate=44_100), 44_100)  # 128 kbit/s: LAME passes up to 17 kHz
    found = of_file(tmp_path / "a.mp3")
    assert 15_000 < found.cutoff_hz < 18_500
    assert found.cutoff_drop_db > 40


def test_a_band_limit_is_seen_in_either_channel_and_in_anti_phase():
    left = soxr.resample(noise(5, rate=16_000)[0], 16_000, SAMPLE_RATE, "HQ").astype(np.float32)
    for audio in ([left, 0 * left], [0 * left, left], [left, -left]):
        found = figures(np.stack(audio))
        assert found.cutoff_hz == pytest.approx(8_000, rel=0.1)
        assert found.cutoff_drop_db > 70


def test_a_long_track_is_measured_by_frames_all_over_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quality, "_MOST_FRAMES", 32)
    limited = soxr.resample(noise(27, rate=16_000).T, 16_000, SAMPLE_RATE).T.astype(np.float32)
    meter = QualityMeter()
    for audio in (limited, noise(3)):  # 10% of it has no limit: so the 95th percentile has none
        meter.update(audio)
    assert meter.finish(None).cutoff_drop_db < 20
    assert 16 <= len(meter._band._powers) < 32


# All together


def test_the_size_of_the_blocks_does_not_matter():
    audio = np.concatenate([gap(0.5), noise(2.3, level=0.5), gap(1.2), noise(1, seed=1)], axis=1)
    assert figures(audio, 48_000) == figures(audio, 7_777) == figures(audio, audio.shape[1])


def test_mono_files_are_fake_stereo_and_their_figures_those_of_both_channels(tmp_path: Path):
    sine = 0.5 * np.sin(2 * np.pi * 997 * np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE)
    write_audio(tmp_path / "a.wav", sine[None].astype(np.float32), SAMPLE_RATE)
    found = of_file(tmp_path / "a.wav")
    assert (found.correlation, found.side_db) == (1, -120)
    assert found.loudness == pytest.approx(-6.02, abs=0.02)
    assert found.true_peak == pytest.approx(0.5, abs=0.005)
