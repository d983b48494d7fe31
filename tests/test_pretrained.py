"""The weights that come with mousai: they fit their preset, are small enough, and are where a workspace starts."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from cli_runs import mousai
from safetensors import safe_open

from mousai.checkpoint import latest_checkpoint, load_checkpoint, read_about
from mousai.config import EnvelopeConfig
from mousai.generate import load_dmae
from mousai.mel import log_mel_distance
from mousai.presets import PRESETS
from mousai.pretrained import WEIGHTS, pretrained_dmae
from pipeline.songs import songs
from pipeline.synth import render

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from audio_files import write_tone

    folder = tmp_path_factory.mktemp("library")
    for number in range(4):
        write_tone(folder / f"{number}.flac", seconds=3, frequency=200 * (number + 1))
    return folder


@pytest.fixture
def workspace(tmp_path: Path, library: Path) -> Path:
    folder = tmp_path / "space"
    assert mousai("init", folder, "--preset", "tiny").code == 0
    with (folder / "mousai.toml").open("a") as file:
        file.write("[train_dmae]\nvalidation_examples = 2\nlength = 32768\nbatch_size = 1\npreview_every = 1000000\n")
    for command in (["ingest", library], ["shard"]):
        assert mousai(*command, "-w", folder, "-j", "1").code == 0
    return folder


def test_only_tiny_comes_trained():
    assert pretrained_dmae(TINY.dmae) == WEIGHTS / "tiny"
    assert [name for name, preset in PRESETS.items() if pretrained_dmae(preset.dmae)] == ["tiny"]


def test_another_configuration_has_none():
    assert pretrained_dmae(dataclasses.replace(TINY.dmae, envelope=EnvelopeConfig(bands=256))) is None


@pytest.mark.parametrize("folder", sorted(WEIGHTS.iterdir()), ids=lambda folder: folder.name)
def test_weights_are_half_precision_under_30_megabytes_with_a_card(folder: Path):
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size < 30e6
    with safe_open(folder / "ema.safetensors", "pt") as file:
        dtypes = {str(file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118
    assert dtypes <= {"torch.float16", "torch.float32"} and "torch.float16" in dtypes
    card = (folder / "README.md").read_text(encoding="utf-8")
    for word in ("CC-BY-SA-3.0", "held-out", "cannot"):
        assert word in card


def test_the_card_states_the_figures_that_were_measured():
    figures = json.loads((WEIGHTS / "tiny" / "figures.json").read_text())
    card = (WEIGHTS / "tiny" / "README.md").read_text(encoding="utf-8")
    assert figures
    for found in figures.values():
        for row in found["curve"]:
            assert f"{row['distance']:.2f}" in card and f"{row['identified']} of {row['crops']}" in card


def test_shipped_weights_listen_to_their_latent():
    dmae = load_dmae(WEIGHTS / "tiny", torch.device("cpu"))
    chosen = [next(song for song in songs() if song.genre == genre) for genre in ("metal", "pop", "hip hop")]
    audio = torch.stack([torch.from_numpy(render(song)[:, 480_000 : 480_000 + 2**16]) for song in chosen]).float()
    audio = audio.expand(-1, 2, -1)
    decoded = dmae.decode(dmae.encode(audio), [0, 1, 2], 25)
    own = log_mel_distance(audio, decoded)
    assert (own < log_mel_distance(audio, decoded.roll(1, 0))).all()
    assert own.mean() < 0.5 * log_mel_distance(audio, audio.roll(1, 0)).mean()


def test_a_new_workspace_encodes_without_training(workspace: Path):
    assert "comes trained" in mousai("init", workspace, "--preset", "tiny").out
    assert "mousai encode-latents" in mousai("shard", "-w", workspace).out
    done = mousai("encode-latents", "-w", workspace, "--device", "cpu")
    assert done.code == 0, done.err
    assert not (workspace / "runs").exists()


def test_training_fine_tunes_them_unless_told_otherwise(workspace: Path, tmp_path: Path):
    scratch = tmp_path / "scratch"
    shutil.copytree(workspace, scratch)
    for folder, more in ((workspace, []), (scratch, ["--from-scratch"])):
        done = mousai("train", "dmae", "--steps", "1", "-w", folder, "--device", "cpu", *more)
        assert done.code == 0, done.err
    shipped = load_checkpoint(WEIGHTS / "tiny", "dmae").ema
    far = {}
    for folder in (workspace, scratch):
        latest = latest_checkpoint(folder / "runs" / "dmae")
        assert latest is not None
        ema = load_checkpoint(latest, "dmae").ema
        far[folder] = max(
            (ema[name] - value.float()).abs().max().item() for name, value in shipped.items() if "conv" in name
        )
        assert read_about(latest, "dmae")["provenance"]["pretrained"] == ("tiny" if folder == workspace else None)
    assert far[workspace] < 1e-3 < 0.1 < far[scratch]

    refused = mousai("train", "dmae", "--steps", "2", "-w", workspace, "--device", "cpu", "--from-scratch")
    assert refused.code == 1 and "--restart --from-scratch" in refused.err
    resumed = mousai("train", "dmae", "--steps", "2", "-w", scratch, "--device", "cpu")
    assert resumed.code == 0
    latest = latest_checkpoint(scratch / "runs" / "dmae")
    assert latest is not None and read_about(latest, "dmae")["provenance"]["pretrained"] is None


def test_the_generator_has_no_weights_to_go_without(workspace: Path):
    refused = mousai("train", "generator", "-w", workspace, "--from-scratch")
    assert refused.code == 1 and "for the DMAE" in refused.err
