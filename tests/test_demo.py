"""The demo's judgement: its bars must be reachable, and must not be reachable by chance."""

import json
import math

import pytest
import torch

from mousai import demo
from mousai.batches import AudioBatch, LatentBatch
from mousai.centroids import chance_of, confusion, latent_features, make_centroids, mel_features
from mousai.judge import Judgement
from mousai.runlog import append_row
from mousai.stage_one import StageOne
from pipeline.synth import songs

FRAMES = 16
LENGTH = 2**14


def latents_of(genre: str, count: int, seed: int) -> torch.Tensor:
    """[count, 32, FRAMES]: noise around a level of the genre's own."""
    noise = torch.randn(count, 32, FRAMES, generator=torch.Generator().manual_seed(seed))
    return 0.1 * noise + demo.GENRES.index(genre) / 4


def tone_of(genre: str, count: int) -> torch.Tensor:
    """[count, 2, LENGTH]: a tone of the genre's own."""
    time = torch.arange(LENGTH) / 48_000
    return (0.3 * torch.sin(2 * math.pi * 400 * 2 ** demo.GENRES.index(genre) * time)).expand(count, 2, LENGTH)


class FakeCascade:
    """Generates what the prompt asks for, or always the same genre."""

    def __init__(self, deaf: bool) -> None:
        self.deaf = deaf

    def genre(self, prompt: str) -> str:
        return "pop" if self.deaf else prompt.split(",")[0].lower()

    def latents(self, prompts, seeds, settings):
        self.heard = [self.genre(prompt) for prompt in prompts]
        return torch.cat([latents_of(genre, 1, seed) for genre, seed in zip(self.heard, seeds, strict=True)])

    def audio(self, latents, seeds, settings):
        return torch.cat([tone_of(genre, 1) for genre in self.heard])


def real_chunks() -> demo.RealChunks:
    labels = [genre for genre in demo.GENRES for _ in range(3)]
    latents = LatentBatch(
        latents=torch.cat([latents_of(genre, 3, 100) for genre in demo.GENRES]),
        valid_frames=torch.full((12,), FRAMES),
        prompts=labels,
        track_ids=labels,
    )
    audio = AudioBatch(
        audio=torch.cat([tone_of(genre, 3) for genre in demo.GENRES]),
        valid_length=torch.full((12,), LENGTH),
        track_ids=labels,
    )
    return demo.RealChunks(
        train=(latents, labels), val=(latents, labels), train_audio=(audio, labels), val_audio=(audio, labels)
    )


def test_a_cascade_that_follows_the_text_is_recognised_every_time():
    result = demo.run_genre_test(FakeCascade(deaf=False), real_chunks())
    assert result.right == result.right_mels == 40
    assert result.held_out_latents == result.held_out_mels == (12, 12)


def test_a_cascade_that_ignores_the_text_is_right_by_chance_only():
    result = demo.run_genre_test(FakeCascade(deaf=True), real_chunks())
    assert result.right == result.right_mels == 10
    assert [row[demo.GENRES.index("pop")] for row in result.latents] == [10, 10, 10, 10]


def test_the_bar_is_beyond_chance():
    assert chance_of(demo.BAR, 40, 4) < 0.002
    assert chance_of(0, 40, 4) == pytest.approx(1)
    assert chance_of(40, 40, 4) == pytest.approx(0.25**40)


def test_the_prompts_name_no_title_artist_album_or_year_of_the_library():
    prompts = [demo.genre_prompt(genre, i).lower() for genre in demo.GENRES for i in range(demo.PIECES_PER_GENRE)]
    for song in songs():
        names = [song.title, song.album, song.album_artist, str(song.year), *song.artists]
        assert not any(name.lower() in prompt for name in names for prompt in prompts)


def test_centroids_scale_each_feature_by_its_spread():
    # the second feature is larger and says nothing: unscaled it would decide
    features = torch.tensor([[0.0, 900.0], [0.1, -900.0], [1.0, 900.0], [1.1, -900.0]])
    centroids = make_centroids(features, ["a", "a", "b", "b"])
    assert centroids.classify(torch.tensor([[0.05, 500.0], [0.9, -900.0]])) == ["a", "b"]


def test_latent_features_see_valid_frames_only():
    latents = torch.randn(1, 32, 8, generator=torch.Generator().manual_seed(0))
    spoiled = latents.clone()
    spoiled[:, :, 5:] = 1e6
    assert torch.equal(
        latent_features(spoiled, torch.tensor([5])), latent_features(latents[:, :, :5], torch.tensor([5]))
    )


def test_mel_features_do_not_hear_how_loud_a_piece_is():
    sound = tone_of("pop", 1)
    assert torch.allclose(mel_features(sound), mel_features(0.01 * sound), atol=0.1)  # dB


def test_confusion_counts_rows_as_asked_and_columns_as_recognised():
    assert confusion(["a", "b"], ["a", "a", "b"], ["a", "b", "b"]) == [[1, 1], [0, 1]]


def validation_row(loss: float, wrong: float, bar: float) -> dict:
    levels = [0.25, 0.75]
    return {
        "step": 10, "val_loss": loss, "val_loss_wrong_latent": wrong, "val_loss_wrong_prompt": wrong,
        "wiener_loss": bar, "one_number_loss": bar, "levels": levels, "val_by_level": [loss, loss],
        "val_wrong_latent_by_level": [wrong, wrong], "val_wrong_prompt_by_level": [wrong, wrong],
        "wiener_by_level": [bar, bar], "one_number_by_level": [bar, bar],
    }  # fmt: skip


@pytest.mark.parametrize("loss, holds", [(0.5, True), (2.0, False)])
def test_the_page_says_which_bars_hold(tmp_path, loss, holds):
    append_row(tmp_path / "runs" / "generator", {"step": 10, "loss": 1.0})
    append_row(tmp_path / "runs" / "generator", validation_row(loss, 1.0, 0.9))
    right = 40 if holds else 10
    judged_crops = Judgement(
        crops=40, decoder_steps=50, distance=10 * loss / 2, wrong_crop=10, wrong_latent=12, identified=right,
        floor={"low": 0, "mid": 0, "high": 0}, latent_rank=30, latent_saturated=0,
    )  # fmt: skip
    first = StageOne(
        name="tiny", validation=validation_row(loss, 1.0, 0.9), curve=[judged_crops], genres=right, genres_true=40,
        previews=tmp_path / "none",
    )  # fmt: skip
    shown = demo.Demo(
        folder=tmp_path, counts=[("tracks", 3)], rejected=[("a.mp3", "not_audio: a web page")], prompts=["Pop, 1 of 4"],
        pieces=[], genres=demo.run_genre_test(FakeCascade(deaf=not holds), real_chunks()), stage_one=first,
        weights=None, minutes=1.0,
    )  # fmt: skip
    judged = demo.write_demo(shown, tmp_path / "runs")
    assert [ok for ok, _ in judged] == [holds] * 7
    text = (tmp_path / "index.html").read_text()
    assert text.count('class="verdict pass"') == (7 if holds else 0)
    assert "a.mp3" in text
    assert json.dumps(demo.as_json(shown, judged))
