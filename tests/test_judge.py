"""What an autoencoder is judged by: a perfect one, a deaf one and a noisy one get what they deserve."""

import dataclasses
from html import escape
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mousai import stage_one
from mousai.batches import AudioBatch
from mousai.dmae import DMAE
from mousai.judge import Judgement, effective_rank, judge, judgement
from mousai.presets import TINY
from mousai.pretrained import WEIGHTS
from mousai.storage import read_json

TRACKS = 6
LENGTH = 2**15


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def coloured(count: int, seed: int = 0) -> Tensor:
    """[count, 2, LENGTH]: noise through a filter of each example's own, loud and quiet by turns."""
    noise = torch.fft.rfft(draw(count, 2, LENGTH, seed=seed))
    frequency = torch.arange(noise.shape[-1]) / noise.shape[-1]
    centres = (torch.arange(count) + 0.5)[:, None] / count
    shaped = torch.fft.irfft(noise * torch.exp(-((frequency - centres) ** 2) * 100)[:, None])
    gate = 0.01 + (torch.arange(LENGTH) // 4096 % 2)
    return 0.1 * shaped * gate


def crops() -> AudioBatch:
    return AudioBatch(
        audio=coloured(TRACKS), valid_length=torch.full((TRACKS,), LENGTH), track_ids=[str(i) for i in range(TRACKS)]
    )


def test_a_perfect_autoencoder_is_at_no_distance_and_identifies_every_track():
    found = judgement(crops(), draw(TRACKS, 32, 32), crops().audio, steps=1)
    assert found.distance == 0 and found.identified == found.crops == TRACKS
    assert found.wrong_crop > 10 and found.wrong_latent == pytest.approx(found.wrong_crop)
    assert all(value == 0 for value in found.floor.values())


def test_one_that_always_says_the_same_is_as_far_as_a_wrong_crop_and_identifies_one():
    said = crops().audio[:1].expand(TRACKS, -1, -1)
    found = judgement(crops(), draw(TRACKS, 32, 32), said, steps=1)
    assert found.identified == 1
    assert found.distance == pytest.approx(found.wrong_latent, rel=0.5)


def test_a_noise_floor_is_found_in_the_bands_that_have_it():
    high = torch.fft.rfft(draw(TRACKS, 2, LENGTH, seed=9))
    high[..., : high.shape[-1] // 3] = 0  # above 8 kHz
    noisy = crops().audio + 0.02 * torch.fft.irfft(high)
    floor = judgement(crops(), draw(TRACKS, 32, 32), noisy, steps=1).floor
    assert floor["high"] > 10 and abs(floor["low"]) < 1


def test_the_rank_counts_independent_channels():
    independent = draw(4, 32, 4000)
    assert effective_rank(independent) == pytest.approx(32, rel=0.02)
    assert effective_rank(independent[:, :1].expand(-1, 32, -1)) == pytest.approx(1, rel=0.02)
    assert effective_rank(torch.cat([independent[:, :2], independent[:, :2]], dim=1)) == pytest.approx(2, rel=0.02)


def test_saturated_values_are_counted():
    latents = torch.cat([torch.full((TRACKS, 16, 8), 0.99), torch.zeros(TRACKS, 16, 8)], dim=1)
    assert judgement(crops(), latents, crops().audio, steps=1).latent_saturated == 0.5


def test_judging_decodes_every_crop_the_same_way_every_time():
    torch.manual_seed(0)
    dmae = DMAE(TINY.dmae).eval()
    (first, audio), (second, again) = (judge(dmae, crops(), steps=2) for _ in range(2))
    assert first == second and torch.equal(audio, again) and audio.shape == crops().audio.shape


GOOD = Judgement(
    crops=40, decoder_steps=50, distance=4, wrong_crop=10, wrong_latent=12, identified=40,
    floor={"low": 0, "mid": 0, "high": 0}, latent_rank=30, latent_saturated=0,
)  # fmt: skip


def found(tmp_path, gap: float = 0.1, genres: int = 40, **changes: float) -> stage_one.StageOne:
    levels = [0.05, 0.75, 0.95]
    row = {"levels": levels, "val_by_level": [0.5] * 3, "val_wrong_latent_by_level": [0.6, 0.5 + gap, 0.5],
           "wiener_by_level": [0.7] * 3}  # fmt: skip
    return stage_one.StageOne(
        name="tiny", validation=row, curve=[dataclasses.replace(GOOD, **changes)], genres=genres, genres_true=40,
        previews=tmp_path,
    )  # fmt: skip


def test_every_bar_of_stage_one_can_fail(tmp_path):
    assert [ok for ok, _ in stage_one.bars(found(tmp_path))] == [True] * 4  # at .95 they need not differ
    worse = [{"distance": 5.1}, {"identified": 35}, {"genres": 35}, {"gap": -0.01}]
    for i, change in enumerate(worse):
        assert [ok for ok, _ in stage_one.bars(found(tmp_path, **change))] == [j != i for j in range(4)]


def test_the_section_shows_the_figures(tmp_path):
    text = "".join(stage_one.section(found(tmp_path / "none"), tmp_path))
    assert "40 of 40" in text and "4.00" in text and (tmp_path / "dmae-steps.png").exists()


@pytest.mark.parametrize("weights", sorted(WEIGHTS.iterdir()), ids=lambda folder: folder.name)
def test_the_page_shows_what_weights_were_measured_by_and_lets_it_be_heard(weights: Path):
    figures, text = read_json(weights / "figures.json"), "".join(stage_one.card_section(weights))
    for name, found in figures.items():
        assert f"tracks of {name} " in text and f'<td class="number">{found["curve"][-1]["distance"]:.2f}</td>' in text
    titles = read_json(weights / "heard" / "titles.json")
    assert len(titles) == 3 and text.count("<audio") == 6
    assert all(escape(title) in text for title in titles.values())
