"""Configs and workspaces: what is written comes back, and what cannot be is told by its name."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mousai.config import DMAEConfig, FitConfig, Level, Preset, from_dict, to_dict
from mousai.errors import UserError
from mousai.presets import PRESETS, TINY, find_preset
from mousai.settings import IngestSettings, Paths, SelectSettings
from mousai.workspace import FILE, make_workspace, open_workspace


def edit(folder: Path, text: str) -> None:
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(f"\n{text}\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_workspace(tmp_path / "music", "tiny")
    return tmp_path / "music"


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_preset_comes_back_from_json(preset: Preset):
    assert from_dict(Preset, json.loads(json.dumps(to_dict(preset))), "test") == preset


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_preset_injects_the_latent_where_its_frames_fit(preset: Preset):
    unet = preset.dmae.unet
    (depth,) = [i for i, level in enumerate(unet.levels) if level.inject]
    assert unet.levels[depth].inject == preset.dmae.encoder.latent_channels == preset.generator.unet.in_channels
    assert preset.dmae.patch * math.prod(level.factor for level in unet.levels[: depth + 1]) == preset.dmae.hop


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_presets_lengths_divide(preset: Preset):
    for length in (preset.train_dmae.length, preset.chunk_length):
        assert length % preset.dmae.divisor == 0
    for length in (preset.train_generator.length, preset.chunk_length):
        assert length % (preset.dmae.hop * preset.generator.unet.divisor) == 0
    assert preset.train_dmae.length <= preset.chunk_length >= preset.train_generator.length


def test_presets_are_found_by_their_name():
    assert all(find_preset(name) is preset and preset.name == name for name, preset in PRESETS.items())


def test_a_preset_that_does_not_exist_is_told_with_those_that_do():
    with pytest.raises(UserError, match=r"'huge'; there are paper, paper-32x, small, micro, tiny"):
        find_preset("huge")


def test_what_is_left_out_comes_from_the_base():
    base = FitConfig(length=8, seed=3)
    assert from_dict(FitConfig, {"steps": 7}, "here", base) == dataclasses.replace(base, steps=7)


def test_what_is_left_out_without_a_base_comes_from_the_defaults():
    assert from_dict(FitConfig, {"length": 8}, "here") == FitConfig(length=8)


def test_an_override_deep_inside_leaves_its_neighbours():
    values = {"dmae": {"unet": {"heads": 3}}, "train_dmae": {"betas": [0.5, 0.6]}}
    changed = from_dict(Preset, values, "here", TINY)
    unet = dataclasses.replace(TINY.dmae.unet, heads=3)
    assert changed == dataclasses.replace(
        TINY,
        dmae=dataclasses.replace(TINY.dmae, unet=unet),
        train_dmae=dataclasses.replace(TINY.train_dmae, betas=(0.5, 0.6)),
    )


def test_levels_are_given_as_a_list_of_tables():
    unet = {"in_channels": 2, "levels": [{"channels": 8}, {"channels": 16, "factor": 4, "attention": True}]}
    levels = from_dict(DMAEConfig, {"unet": unet}, "here").unet.levels
    assert levels == (Level(channels=8), Level(channels=16, factor=4, attention=True))


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (FitConfig, {"stesp": 1}, r"^here: unknown key 'stesp'; there are steps, batch_size, "),
        (Preset, {"dmae": {"encoder": {"hops": 1}}}, r"^here: dmae: encoder: unknown key 'hops'; there are "),
        (FitConfig, {"steps": "many"}, r"^here: steps is 'many', and should be int$"),
        (FitConfig, {"steps": 1.5}, r"^here: steps is 1.5, and should be int$"),
        (FitConfig, {"steps": True}, r"^here: steps is True, and should be int$"),
        (FitConfig, {"learning_rate": "1e-4"}, r"^here: learning_rate is '1e-4', and should be float$"),
        (FitConfig, {"betas": [0.9]}, r"^here: betas is \[0.9\], and should be "),
        (FitConfig, {"betas": [0.9, "high"]}, r"^here: betas is 'high', and should be float$"),
        (Level, {"channels": 8, "attention": 1}, r"^here: attention is 1, and should be bool$"),
        (Preset, {"dmae": 5}, r"^here: dmae is 5, and should be DMAEConfig$"),
        (
            Preset,
            {"dmae": {"stem_init": "fft"}},
            r"^here: dmae: stem_init is 'fft', and should be 'random' or 'dct'$",
        ),
        (Preset, {"dmae": {"unet": {"levels": [{"factor": 2}]}}}, r"^here: dmae: unet: levels: .*'channels'"),
        (Preset, {"dmae": {"unet": {"levels": []}}}, r"levels is empty"),
        (Preset, {"dmae": {"unet": {"groups": 0}}}, r"groups is 0, and should be 1 or more$"),
        (Preset, {"dmae": {"patch": 0}}, r"patch is 0, and should be 1 or more$"),
        (Preset, {"dmae": {"encoder": {"hop": 0}}}, r"hop is 0, and should be 1 or more$"),
        (Preset, {"dmae": {"encoder": {"n_fft": 1024}}}, r"n_fft is 1024, and should be odd"),
        (Preset, {"dmae": {"encoder": {"downs": [[0, 1], [2, 1]]}}}, r"downs should be "),
        (Preset, {"generator": {"text_length": -3}}, r"text_length is -3, and should be 1 or more$"),
        (Preset, {"train_dmae": {"learning_rate": -1.0}}, r"learning_rate is -1.0, and should be above 0$"),
        (Preset, {"train_dmae": {"ema_beta": math.nan}}, r"nan is not$"),
        (Preset, {"train_generator": {"text_drop": 7.0}}, r"text_drop is 7.0, and should be between 0 and 1$"),
        (Preset, {"train_dmae": {"validation_examples": 0}}, r"validation_examples is 0, and should be 1 or more$"),
        (Preset, {"chunks_per_shard": 0}, r"chunks_per_shard is 0, and should be 1 or more$"),
        (Preset, {"validation_share": math.nan}, r"validation_share is nan, and should be between 0 and 1$"),
        (Paths, {"shards": "s3://bucket/x"}, r"URLs are not read yet$"),
        (SelectSettings, {"max_errors_per_minute": -1}, r"max_errors_per_minute is -1.0, and should be 0 or more$"),
        (IngestSettings, {"min_duration": math.nan}, r"min_duration is nan, and should be 0 or more$"),
    ],
)
def test_what_cannot_be_is_named(kind: type[Any], values: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        from_dict(kind, values, "here", TINY if kind is Preset else None)


def test_a_whole_number_does_for_a_float():
    rate = from_dict(FitConfig, {"length": 8, "learning_rate": 1}, "here").learning_rate
    assert (rate, type(rate)) == (1.0, float)


def test_a_new_workspace_has_its_preset_and_its_folders_inside(folder: Path):
    workspace = open_workspace(folder)
    assert workspace.preset == TINY
    for name in ("manifests", "shards", "latents", "runs", "generated"):
        assert getattr(workspace, name) == folder / name


def test_every_preset_makes_a_workspace_that_opens_again(tmp_path: Path):
    for name, preset in PRESETS.items():
        make_workspace(tmp_path / name, name)
        assert open_workspace(tmp_path / name).preset == preset


def test_the_template_names_the_defaults(folder: Path):
    assert open_workspace(folder).paths == Paths()


def test_making_a_workspace_twice_leaves_it_as_it_is(folder: Path):
    edit(folder, "[train_dmae]\nsteps = 7")
    before = (folder / FILE).read_bytes()
    assert make_workspace(folder, "tiny").preset.train_dmae.steps == 7
    assert (folder / FILE).read_bytes() == before


def test_another_preset_in_the_same_folder_is_a_users_error(folder: Path):
    with pytest.raises(UserError, match=r"with the preset 'tiny' already"):
        make_workspace(folder, "paper")
    assert open_workspace(folder).preset == TINY


def test_paths_may_lead_to_another_disk(tmp_path: Path):
    make_workspace(tmp_path, "tiny")
    text = (tmp_path / FILE).read_text().replace('shards = "shards"', 'shards = "/disk/shards"')
    (tmp_path / FILE).write_text(text)
    assert open_workspace(tmp_path).shards == Path("/disk/shards")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train_dmea]\nsteps = 1", r"mousai\.toml: unknown key 'train_dmea'; there are name, about, "),
        ("[train_dmae]\nstesp = 1", r"mousai\.toml: train_dmae: unknown key 'stesp'"),
        ("[generator.unet]\nheads = '4'", r"mousai\.toml: generator: unet: heads is '4', and should be int"),
        ("what is this", r"mousai\.toml is not valid TOML"),
    ],
)
def test_a_workspace_that_says_what_cannot_be_is_a_users_error(folder: Path, text: str, message: str):
    edit(folder, text)
    with pytest.raises(UserError, match=message):
        open_workspace(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"names no preset: add a line such as preset = \"paper\""),
        ('preset = "huge"', r"no preset is called 'huge'"),
        (
            'preset = "tiny"\n[paths]\nsharts = "x"',
            r"mousai\.toml \[paths\]: unknown key 'sharts'; there are manifests",
        ),
        (
            'preset = "tiny"\n[shard]\naudio_format = "mp3"',
            r"\[shard\]: audio_format is 'mp3', and should be 'flac' or",
        ),
        ('preset = "tiny"\n[ingest]\nmin_duration = "1s"', r"\[ingest\]: min_duration is '1s', and should be float"),
    ],
)
def test_a_written_workspace_that_says_what_cannot_be_is_a_users_error(tmp_path: Path, text: str, message: str):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=message):
        open_workspace(tmp_path)


def test_a_folder_that_is_no_workspace_is_told_how_to_become_one(tmp_path: Path):
    with pytest.raises(UserError, match=r"is not a workspace .*mousai init"):
        open_workspace(tmp_path)


def test_one_command_at_a_time_writes_in_a_workspace(folder: Path):
    with (
        open_workspace(folder).lock(),
        pytest.raises(UserError, match="another mousai command is at work"),
        open_workspace(folder).lock(),
    ):
        raise AssertionError("two at once")
    with open_workspace(folder).lock():
        pass  # it is free again


def test_a_killed_command_leaves_no_lock(folder: Path):
    code = (
        "import os, pathlib, sys; from mousai.workspace import open_workspace\n"
        "with open_workspace(pathlib.Path(sys.argv[1])).lock(): os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, cwd=Path(__file__).parents[1])
    with open_workspace(folder).lock():
        pass
