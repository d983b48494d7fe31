"""Mel spectrograms: a tone lies in its band, distances are in dB; and pictures are there to be looked at."""

import math
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import Tensor

from mousai.audio import SAMPLE_RATE
from mousai.mel import FLOOR, HOP, NUM_BANDS, log_mel, log_mel_distance
from mousai.pictures import draw_confusion, draw_curves, draw_mels

PNG = b"\x89PNG\r\n\x1a\n"
DURATION = 0.5  # seconds


def tone(frequency: float, amplitude: float = 0.5) -> Tensor:
    time = torch.arange(int(DURATION * SAMPLE_RATE), dtype=torch.float64) / SAMPLE_RATE
    return (amplitude * torch.sin(2 * math.pi * frequency * time)).float().expand(2, -1)


def mel(frequency: float) -> float:
    return 2595 * math.log10(1 + frequency / 700)  # O'Shaughnessy, 1987


def band(frequency: float) -> int:
    """The band, of NUM_BANDS between 30 Hz and half the sample rate, whose centre is nearest."""
    return round((mel(frequency) - mel(30)) / (mel(SAMPLE_RATE / 2) - mel(30)) * (NUM_BANDS + 1)) - 1


def noise(seed: int) -> Tensor:
    return 0.1 * torch.randn(2, 8192, generator=torch.Generator().manual_seed(seed))


def pixels(path: Path) -> np.ndarray:
    assert path.read_bytes().startswith(PNG)
    return np.asarray(matplotlib.image.imread(path))


@pytest.mark.parametrize("frequency", [110.0, 440.0, 1000.0, 4000.0, 15_000.0])
def test_a_tone_peaks_in_its_band(frequency: float):
    spectrogram = log_mel(tone(frequency))
    assert spectrogram.shape == (NUM_BANDS, int(DURATION * SAMPLE_RATE) // HOP + 1)
    assert spectrogram[:, 10].argmax().item() == band(frequency)


def test_twice_the_amplitude_is_six_decibels():
    louder = (log_mel(tone(440, 0.5)) - log_mel(tone(440, 0.25))).amax(dim=0)
    torch.testing.assert_close(louder, torch.full_like(louder, 20 * math.log10(2)), atol=0.01, rtol=0)


def test_silence_is_at_the_floor():
    assert log_mel(torch.zeros(2, 4096)).unique().tolist() == pytest.approx([10 * math.log10(FLOOR)])


def test_a_sound_is_at_no_distance_from_itself_and_three_decibels_from_a_gain_of_three():
    sound = noise(0)
    assert log_mel_distance(sound, sound).item() == 0
    assert log_mel_distance(sound, 10 ** (3 / 20) * sound).item() == pytest.approx(3, abs=0.01)


def test_the_distance_is_symmetric_and_one_number_a_pair():
    one, other = torch.stack([noise(0), noise(1)]), torch.stack([noise(2), noise(3)])
    there, back = log_mel_distance(one, other), log_mel_distance(other, one)
    assert there.shape == (2,)
    assert torch.equal(there, back)
    assert there[1] == pytest.approx(log_mel_distance(noise(1), noise(3)).item())


def test_what_is_60_decibels_below_the_peak_does_not_count():
    loud = noise(0)
    assert log_mel_distance(loud, loud + 1e-6 * noise(1)).item() < 0.01
    faint = torch.cat([loud, 1e-5 * loud], dim=1)
    silent = torch.cat([loud, torch.zeros_like(loud)], dim=1)
    assert log_mel_distance(faint, silent).item() < 0.01


def test_mels_are_drawn_one_above_the_other(tmp_path: Path):
    draw_mels(tmp_path / "one.png", [("a tone", tone(440))])
    draw_mels(tmp_path / "sub" / "two.png", [("a tone", tone(440)), ("noise", noise(0))])
    one, two = pixels(tmp_path / "one.png"), pixels(tmp_path / "sub" / "two.png")
    assert two.shape[0] == 2 * one.shape[0] and two.shape[1] == one.shape[1]
    assert one.std() > 0.1  # not blank


@pytest.mark.parametrize("title", ["Ca$h_ ^$tar, A$AP", r"a \frac{ $\x$ of _", "Moûsai, 2 of 4"])
def test_a_prompt_is_no_formula(tmp_path: Path, title: str):
    draw_mels(tmp_path / "mel.png", [(title, noise(0))])
    assert pixels(tmp_path / "mel.png").size


def test_the_same_sound_gives_the_same_picture(tmp_path: Path):
    for name in ("a.png", "b.png"):
        draw_mels(tmp_path / name, [("noise", noise(0))])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_curves_are_drawn(tmp_path: Path):
    draw_curves(tmp_path / "a.png", {"loss": ([0, 1, 2], [1.0, 0.5, 0.25])}, "step", "loss")
    draw_curves(tmp_path / "b.png", {"loss": ([0, 1, 2], [1.0, 0.5, 0.75])}, "step", "loss")
    assert not np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_confusion_matrices_stand_side_by_side(tmp_path: Path):
    matrix = [[3, 1], [0, 4]]
    draw_confusion(tmp_path / "one.png", ["a", "b"], {"ours": matrix})
    draw_confusion(tmp_path / "two.png", ["a", "b"], {"ours": matrix, "theirs": matrix})
    one, two = pixels(tmp_path / "one.png"), pixels(tmp_path / "two.png")
    assert two.shape[1] == 2 * one.shape[1] and two.shape[0] == one.shape[0]


def test_a_picture_that_fails_leaves_no_file(tmp_path: Path):
    with pytest.raises(ValueError):
        draw_curves(tmp_path / "a.png", {"loss": ([0, 1], [1.0])}, "step", "loss")
    assert list(tmp_path.iterdir()) == []
