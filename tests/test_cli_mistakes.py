"""What users do wrong: one line on stderr that names the cure, exit code 1, and nothing broken."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from audio_files import write_tone
from cli_runs import CHAIN, ROOT, TOML, Chain, Outcome, mousai, run_link, state_of, write_workspace
from unprivileged import permissions_hold

from mousai.checkpoint import list_checkpoints
from mousai.runlog import read_rows
from mousai.workspace import open_workspace

# WebDataset closes no file it opened
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

NEED_A_WORKSPACE = ["ingest", "prompts", "shard", "encode-latents", "train", "generate x", "reconstruct x", "params"]


@pytest.fixture
def space(tmp_path) -> Path:
    """An empty workspace."""
    return write_workspace(tmp_path / "space")


@pytest.fixture
def copy(chain: Chain, tmp_path) -> Chain:
    """A finished workspace to be spoilt."""
    shutil.copytree(chain.workspace, tmp_path / "copy")
    return Chain(workspace=tmp_path / "copy", library=chain.library, outcomes={})


def assert_mistake(done: Outcome, *words: str) -> None:
    """One line on stderr with all of `words`, and nothing else."""
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"mousai: [^\n]+\n", done.err), done.err
    for word in words:
        assert word in done.err


@pytest.mark.parametrize("command", NEED_A_WORKSPACE)
def test_a_folder_that_is_no_workspace(tmp_path, command):
    assert_mistake(mousai(*command.split(), "-w", tmp_path), "is not a workspace", f"mousai init {tmp_path}")


def test_an_unknown_preset(tmp_path):
    assert_mistake(mousai("init", tmp_path / "new", "--preset", "huge"), "'huge'", "paper, paper-32x, small")
    assert not (tmp_path / "new").exists()
    assert_mistake(mousai("params", "huge"), "'huge'", "tiny")


def test_another_preset_than_the_workspace_has(space):
    assert_mistake(mousai("init", space, "--preset", "paper"), "'tiny' already", "mousai.toml")


def test_a_file_where_the_workspace_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    assert_mistake(mousai("init", tmp_path / "file"), str(tmp_path / "file"))
    assert_mistake(mousai("ingest", "-w", tmp_path / "file"), "is not a workspace")


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('preset = "tiny"\nbatch = 3\n', ["mousai.toml: unknown key 'batch'", "chunk_length"]),
        ('preset = "tiny"\n[train_dmae]\nbatch = 3\n', ["mousai.toml: train_dmae: unknown key 'batch'", "batch_size"]),
        ('preset = "tiny"\n[train_dmae]\nbatch_size = "3"\n', ["train_dmae: batch_size is '3'", "int"]),
        ('preset = "tiny"\n[dmae.unet]\nlevels = [{ width = 3 }]\n', ["unknown key 'width'", "channels"]),
        ('preset = "tiny"\n[dmae.unet]\nlevels = [{ factor = 3 }]\n', ["levels", "'channels'"]),
        ('preset = "tiny"\n[shard]\naudio_format = "mp3"\n', ["audio_format is 'mp3'", "'flac' or 'wav'"]),
        ('preset = "tiny"\npaths = "elsewhere"\n', ["[paths] is 'elsewhere'", "table"]),
        ('preset = "tiny"\ntrain_dmae = 3\n', ["train_dmae is 3"]),
        ('preset = "huge"\n', ["'huge'", "micro"]),
        ('preset = ["tiny"]\n', ["['tiny']", "micro"]),
        ("chunk_length = 3\n", ["mousai.toml names no preset"]),
        ('preset = "tiny\n', ["mousai.toml is not valid TOML", "line 1"]),
        ('preset = "tiny"  # \xff\n', ["not valid TOML"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_mousai_toml_cannot_say(space, toml, words):
    (space / "mousai.toml").write_bytes(toml.encode("latin-1"))
    assert_mistake(mousai("params", "-w", space), *words)


@pytest.mark.parametrize("place", ["manifests", "./manifests/", "manifests/inner", "."])
def test_two_stages_cannot_share_a_folder(space, place):
    (space / "mousai.toml").write_text(f'preset = "tiny"\n[paths]\nshards = "{place}"\n')
    assert_mistake(mousai("params", "-w", space), "[paths]", "shards", "manifests", "a folder of its own")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("length = 16384", "length = 16000", ["mousai.toml: length of train_dmae is 16000", "1024 samples"]),
        ("length = 65536\nvalid", "length = 65000\nvalid", ["length of train_generator is 65000", "2048 samples"]),
        (
            "batch_size = 2\nlength = 16384",
            "batch_size = 0\nlength = 16384",
            ["train_dmae: batch_size is 0", "1 or more"],
        ),
        (
            "time_features = 16\nlevels",
            "groups = 7\nlevels",
            ["mousai.toml describes a model that cannot be", "divisible"],
        ),
        (
            "chunk_length = 65536",
            "chunk_length = 131072",
            ["chunk_length is 131072", "train_generator 65536", "set both"],
        ),
        (
            "factor = 4, inject",
            "factor = 2, inject",
            ["a level of dmae with 512 samples a step injects the latent, with 1024"],
        ),
    ],
)
def test_numbers_that_do_not_fit_together(copy, old, new, words):
    assert old in TOML
    (copy.workspace / "mousai.toml").write_text(TOML.replace(old, new))
    outcomes = [copy.run(name, "--restart") for name in ("train dmae", "train generator")] + [copy.run("shard")]
    mistakes = [done for done in outcomes if done.code]
    assert mistakes
    for done in mistakes[:1]:
        assert_mistake(Outcome(code=done.code, out=done.out, err=done.err.splitlines(keepends=True)[-1]), *words)


def test_libraries_that_hold_no_music(space, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no music")
    assert_mistake(
        mousai("ingest", tmp_path / "gone", "-w", space), f"{tmp_path / 'gone'}", f"mousai ingest -w {space} DIR"
    )
    assert_mistake(mousai("ingest", tmp_path / "texts", "-w", space), "holds no audio", f"ingest -w {space} ~/Music")
    assert_mistake(mousai("ingest", "-w", space), "No library is known yet", f"ingest -w {space} ~/Music")
    assert not (space / "manifests" / "tracks.parquet").exists()


@pytest.mark.parametrize(
    ("command", "cure"),
    [
        ("prompts", "mousai ingest"),
        ("shard", "mousai ingest"),
        ("train dmae --device cpu", "mousai shard"),
        ("encode-latents --device cpu", "mousai train dmae"),
        ("train generator --device cpu", "mousai encode-latents"),
        ("train --device cpu", "mousai shard"),
        ("generate x", "mousai train generator"),
    ],
)
def test_a_stage_without_its_input_names_the_command_that_makes_it(space, command, cure):
    assert_mistake(mousai(*command.split(), "-w", space), cure)


def test_the_command_that_an_error_names_can_be_pasted(space, tmp_path, monkeypatch):
    assert mousai("shard", "-w", space).err.endswith(f"Make it with: mousai ingest -w {space} LIBRARY\n")
    assert mousai("encode-latents", f"--workspace={space}").err.endswith(f"mousai train dmae -w {space}\n")
    monkeypatch.chdir(space)
    assert mousai("shard", "-w", ".").err.endswith("Make it with: mousai ingest LIBRARY\n")


def test_reconstruct_without_a_dmae_names_the_command_that_makes_one(space, chain):
    assert_mistake(mousai("reconstruct", chain.library / "0.flac", "-w", space), "mousai train dmae")


def test_inputs_that_were_deleted_name_the_command_that_makes_them(copy):
    shutil.rmtree(copy.workspace / "latents" / next(iter(encoders(copy))))
    assert_mistake(copy.run("train generator"), "mousai encode-latents")
    assert_mistake(copy.run("generate"), "mousai encode-latents")


def encoders(chain: Chain) -> list[str]:
    return [path.name for path in (chain.workspace / "latents").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train dmae --for 5x", ["--for 5x", "30m"]),
        ("train dmae --for 0m", ["--for 0m", "30m"]),
        ("train vocoder", ["'vocoder'", "mousai train dmae"]),
        ("train dmae --device abacus", ["'abacus'"]),
        ("train dmae --device cuda:99", ["'cuda:99'"]),
        ("generate", ['"Egyptian Darbuka']),
        ("generate --prompts-file gone.txt", ["gone.txt", "a prompt a line"]),
        ("generate x --out SPACE/mousai.toml", ["mousai.toml is a file", "--out"]),
        ("reconstruct SPACE/mousai.toml --out SPACE/mousai.toml", ["is a file", "--out"]),
        ("reconstruct gone.wav", ["gone.wav does not exist"]),
        ("reconstruct SPACE", ["is not a file"]),
        ("reconstruct SPACE/mousai.toml", ["mousai.toml cannot be used"]),
        ("reconstruct LIBRARY/0.flac --start 9", ["0.flac ends at 2.0 s"]),
        ("encode-latents --checkpoint gone", ["gone holds no checkpoint", "mousai train dmae"]),
        ("encode-latents --checkpoint SPACE/runs/generator/checkpoints/step-00000002", ["checkpoint of a generator"]),
    ],
)
def test_options_that_make_no_sense(chain: Chain, command, words):
    before = state_of(chain.workspace)
    places = command.replace("SPACE", str(chain.workspace)).replace("LIBRARY", str(chain.library))
    assert_mistake(mousai(*places.split(), "-w", chain.workspace), *words)
    assert state_of(chain.workspace) == before


def test_a_prompts_file_that_is_no_text(chain: Chain, tmp_path):
    (tmp_path / "prompts.txt").write_bytes(b"caf\xe9\n")
    done = mousai("generate", "--prompts-file", tmp_path / "prompts.txt", "-w", chain.workspace)
    assert_mistake(done, "prompts.txt is not a text in UTF-8")


def test_a_preset_that_needs_a_gpu_says_why_there_is_none(copy, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (copy.workspace / "mousai.toml").write_text(TOML.replace('"tiny"', '"tiny"\nneeds_gpu = true'))
    done = mousai("train", "dmae", "-w", copy.workspace)
    assert_mistake(done, "the preset tiny needs a GPU, and ", "To insist: --device cpu")
    assert copy.run("train dmae").code == 0


def damage(path: Path) -> None:
    """Cut a file in the middle, as a full disk does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil(tar: Path) -> None:
    """Other bytes in place of each chunk's beginning; the tar is as long as it was."""
    content = tar.read_bytes()
    tar.write_bytes(content.replace(b"fLaC", b"gone"))


def test_another_dmaes_latents_need_another_generator(copy):
    retrained = mousai("train", "dmae", "--steps", "3", "--device", "cpu", "-w", copy.workspace)
    assert "done at step 3" in retrained.out
    assert "2 shards made" in copy.run("encode-latents").out
    assert len(encoders(copy)) == 2
    assert_mistake(copy.run("train generator"), "was trained on latents of DMAE", "--restart (the old run")
    old = copy.run("generate", "--out", copy.workspace / "again")  # with the DMAE that it was trained with
    assert old.code == 0
    before = state_of(copy.workspace / "runs" / "generator")
    done = copy.run("train generator", "--restart")
    assert (done.code, done.err) == (0, "mousai: the old run is now generator-1\n")
    assert state_of(copy.workspace / "runs" / "generator-1") == before
    assert "done at step 2" in done.out


@pytest.mark.parametrize(
    ("stage", "commands"),
    [
        ("dmae", ["train dmae", "encode-latents", "reconstruct"]),
        ("generator", ["train generator", "generate"]),
    ],
)
@pytest.mark.parametrize("file", ["checkpoint.json", "ema.safetensors"])
def test_a_damaged_checkpoint_is_named(copy, stage, commands, file):
    (checkpoint,) = list_checkpoints(copy.workspace / "runs" / stage)
    damage(checkpoint / file)
    for command in commands:
        anew = ["--seed", 1] if command == "reconstruct" else []  # what is there already needs no checkpoint
        assert_mistake(copy.run(command, *anew), f"{checkpoint}", f"{file} is damaged", "Delete")


@pytest.mark.parametrize(
    ("file", "command", "cure"),
    [
        ("manifests/tracks.parquet", "ingest", "mousai ingest"),
        ("manifests/rejected.parquet", "ingest", "mousai ingest"),
        ("manifests/tracks.parquet", "prompts", "mousai ingest"),
        ("manifests/tracks.parquet", "train generator", "mousai ingest"),
        ("manifests/chunks.parquet", "shard", "mousai shard"),
        ("shards/train/mousai-train-000000.parquet", "train dmae", "mousai shard"),
        ("shards/train/mousai-train-000000_stats.json", "train dmae", "mousai shard"),
        ("latents/ID/train/mousai-train-000000.parquet", "train generator", "mousai encode-latents"),
        ("latents/ID/train/mousai-train-000000_stats.json", "train generator", "mousai encode-latents"),
        ("latents/encoder.json", "train generator", "mousai encode-latents"),
    ],
)
def test_a_damaged_table_is_named_with_what_makes_it_again(copy, file, command, cure):
    damage(copy.workspace / file.replace("ID", encoders(copy)[0]))
    assert_mistake(copy.run(command), Path(file).name, cure)


def test_a_damaged_table_that_was_deleted_is_made_again_without_naming_the_library(copy):
    table = copy.workspace / "manifests" / "tracks.parquet"
    before = table.read_bytes()
    table.unlink()
    assert mousai("ingest", "-j", "1", "-w", copy.workspace).code == 0
    assert table.read_bytes() == before


@pytest.mark.parametrize("workers", [0, 1])
def test_a_chunk_that_does_not_decode_is_named_in_training(copy, workers):
    for tar in (copy.workspace / "shards" / "train").glob("*.tar"):
        spoil(tar)
    done = copy.run("train dmae", "--steps", "3", "--workers", workers)
    assert_mistake(done, "_0001 of ", ".tar is damaged", f"mousai verify -w {copy.workspace}", "mousai shard")


def test_a_cut_tar_is_named_and_made_again(copy):
    tar = copy.workspace / "shards" / "train" / "mousai-train-000000.tar"
    whole = tar.read_bytes()
    damage(tar)
    done = copy.run("train dmae", "--restart")
    assert (done.code, done.err.count("\n")) == (1, 2)  # and where the old run is
    assert "mousai-train-000000.tar has been cut short" in done.err
    assert copy.run("shard").code == 0
    assert tar.read_bytes() == whole


@pytest.mark.parametrize(
    ("place", "command"),
    [
        ("manifests", "ingest"), ("shards", "shard"), ("runs", "train dmae"), ("latents", "encode-latents"),
        ("runs", "train generator"), ("generated", "generate"), ("generated", "reconstruct"),
    ],
)  # fmt: skip
def test_a_file_where_a_folder_is_expected(copy, place, command):
    folder = copy.workspace / place
    if place == "runs":
        folder /= command.split()[1]
    shutil.rmtree(folder)
    folder.write_text("in the way")
    assert_mistake(copy.run(command), str(folder))
    assert folder.read_text() == "in the way"


@pytest.mark.skipif(sys.platform != "linux", reason="permissions are switched on for root by Linux's capabilities")
@pytest.mark.parametrize("command", ["ingest", "prompts", "shard", "train dmae", "encode-latents"])
def test_a_read_only_workspace(copy, tmp_path, command):
    write_tone(tmp_path / "new.wav", 2.0)  # something to do
    for path in [copy.workspace, *copy.workspace.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    before = state_of(copy.workspace)
    with permissions_hold():
        done = run_link(command, copy.workspace, tmp_path)
    assert_mistake(done, "Permission denied")
    assert state_of(copy.workspace) == before


@pytest.mark.skipif(sys.platform != "linux", reason="permissions are switched on for root by Linux's capabilities")
def test_a_read_only_workspace_can_be_looked_at(copy, tmp_path):
    for path in [copy.workspace, *copy.workspace.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    with permissions_hold():
        (tmp_path / "page").mkdir()
        for words in (["remove", "--artist", "Ann", "--dry-run"], ["ingest", "--dry-run"], ["plan"],
                      ["report", "--out", tmp_path / "page"]):  # fmt: skip
            assert mousai(*words, "-w", copy.workspace).code == 0, words
        assert_mistake(mousai("report", "-w", copy.workspace), "Permission denied", "--out")
        assert_mistake(mousai("shard", "-w", copy.workspace), "Permission denied", "make that writable")
        assert mousai("verify", "--dry-run", "-j", "1", "-w", copy.workspace).code == 0
        assert_mistake(mousai("verify", "-j", "1", "-w", copy.workspace), "Permission denied")


WRITERS = ["ingest", "prompts", "shard", "train dmae", "encode-latents", "train generator", "verify", "demo"]


@pytest.mark.parametrize("command", WRITERS)
def test_two_commands_at_once(copy, command):
    before = state_of(copy.workspace)
    with open_workspace(copy.workspace).lock(".demo.lock" if command == "demo" else ".lock"):
        if command in CHAIN:
            done = copy.run(command)
        else:
            done = mousai(command, *(["-w"] if command == "verify" else []), copy.workspace)
    assert_mistake(done, "another mousai command is at work", "Wait until it is done")
    assert state_of(copy.workspace) == before


@pytest.mark.parametrize("command", ["ingest", "prompts", "shard", "encode-latents"])
def test_a_disk_that_is_full_costs_nothing_that_was_there(copy, tmp_path, command):
    import resource

    before = state_of(copy.workspace)
    for path in outputs_of(command, copy.workspace):
        path.unlink()
    left = state_of(copy.workspace)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, hard))  # bytes a file: no table and no tar fits
    try:
        done = copy.run(command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (done.code, "Traceback" in done.err) == (1, False), done.err
    assert re.search(r"^mousai: .*File too large: .*/(manifests|shards|latents)/", done.err.splitlines()[-1])
    assert {name: state for name, state in state_of(copy.workspace).items() if name in left} == left
    assert copy.run(command).code == 0  # once there is room
    assert {name: content for name, (_, content) in state_of(copy.workspace).items()} == {
        name: content for name, (_, content) in before.items()
    }


def outputs_of(command: str, workspace: Path) -> list[Path]:
    patterns = {
        "ingest": ["manifests/tracks.parquet", "manifests/rejected.parquet"],
        "prompts": ["manifests/chunks.parquet"],
        "shard": ["shards/*/*"],
        "encode-latents": ["latents/*/*/mousai-*"],
    }
    return [path for pattern in patterns[command] for path in workspace.glob(pattern)]


def wait_for(fact: Callable[[], bool], run: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while not fact():
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_during_training_saves_and_the_same_command_goes_on(copy):
    folder = copy.workspace / "runs" / "dmae"
    shutil.rmtree(folder)
    command = ["train", "dmae", "--steps", "1000000", "--device", "cpu", "-w", str(copy.workspace)]
    run = subprocess.Popen(
        [sys.executable, ROOT / "cli.py", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},  # many threads are slow on a busy machine
    )  # fmt: skip
    wait_for(lambda: bool(read_rows(folder)), run)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Traceback" not in err
    (checkpoint,) = list_checkpoints(folder)
    step = int(checkpoint.name.removeprefix("step-"))
    assert f"interrupted and saved at step {step}," in out
    command[3] = str(step + 1)
    with mock.patch("mousai.train_dmae.PREVIEW_STEPS", 1):
        assert f"done at step {step + 1}," in mousai(*command).out
    assert [row["step"] for row in read_rows(folder) if "loss" in row][-2:] == [step, step + 1]
