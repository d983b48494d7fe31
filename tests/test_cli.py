"""The command line, as a user meets it: help, the chain from init to reconstruct, and the same commands once more."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import typer
from audio_files import write_tone
from cli_runs import CHAIN, ROOT, Chain, Outcome, mousai, state_of, write_workspace

import cli
from mousai.generate import file_name
from mousai.progress import progress
from pipeline.chunks import read_chunks
from pipeline.manifest import read_facts, read_table, write_table
from pipeline.records import Track

# WebDataset closes no file it opened
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
SLOW_MODULES = ("torch", "torchaudio", "transformers", "matplotlib", "pandas", "webdataset", "av", "pyarrow")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["generate", "--help"]], ids=" ".join)
def test_help_does_not_wait_for_slow_modules(words):
    script = (
        f"import sys\nsys.argv = ['mousai', *{words!r}]\nimport cli\n"
        "try:\n    cli.main()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        f"print('loaded:', [name for name in {SLOW_MODULES!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Usage: mousai" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_the_installed_command_runs(tmp_path):
    command = Path(sys.executable).with_name("mousai")
    done = subprocess.run([command, "init", "space", "--preset", "tiny"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("Next: mousai ingest ~/Music -w space\n")
    again = subprocess.run([command, "doctor"], cwd=tmp_path / "space", capture_output=True, text=True)
    assert again.stdout.endswith("Next: mousai ingest ~/Music\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_each_of_its_options_has_help(name):
    command = COMMANDS[name]
    assert command.help
    assert [each.name for each in command.params if not each.help] == []
    assert mousai(name, "--help").code == 0


def test_the_help_lists_the_chain_in_its_order():
    chain = ["init", "ingest", "prompts", "shard", "encode-latents", "train", "generate"]
    assert [name for name in COMMANDS if name in chain] == chain


def test_each_command_names_the_next_one(chain: Chain):
    following = {
        "ingest": "mousai shard", "prompts": "mousai shard", "shard": "mousai train dmae",
        "train dmae": "mousai encode-latents", "encode-latents": "mousai train generator",
        "train generator": 'mousai generate "PROMPT"',
    }  # fmt: skip
    last = {name: chain.outcomes[name].out.splitlines()[-1] for name in following}
    assert last == {name: f"Next: {command} -w {chain.workspace}" for name, command in following.items()}


def test_the_chain_tells_what_it_found_and_made(chain: Chain):
    told = {name: outcome.out for name, outcome in chain.outcomes.items()}
    assert "3 tracks, 0.1 min" in told["ingest"]
    assert "1 files rejected: 1 decode_failed" in told["ingest"]
    assert "\n       3 Drone\n" in told["prompts"]
    assert "1 of 3" in told["prompts"]
    assert "(2 shards made, 0 kept, 0 removed)" in told["shard"]
    assert "done at step 2" in told["train dmae"]
    assert "validation loss" in told["train generator"]
    assert "log-mel distance" in told["reconstruct"]


def test_the_chain_ends_in_music(chain: Chain):
    (piece,) = chain.workspace.glob("generated/a-song-of-the-second-tone-*.wav")
    with soundfile.SoundFile(piece) as sound:
        assert (sound.samplerate, sound.channels, sound.frames) == (48_000, 2, 65_536)
        assert sound.title == "a song of the second tone"
    facts = json.loads(piece.with_suffix(".json").read_text())
    assert (facts["seed"], facts["steps"], facts["decoder_steps"]) == (0, 2, 1)
    (decoded,) = chain.workspace.glob("generated/1-*-decoded.wav")
    assert soundfile.info(decoded).frames == 48_000
    assert len(list(chain.workspace.glob("generated/1-*.png"))) == 1


@pytest.mark.parametrize("name", [name for name in CHAIN if name != "prompts"])
def test_a_finished_command_does_nothing_and_says_so(chain: Chain, name):
    before = state_of(chain.workspace)
    again = chain.run(name)
    assert again.code == 0
    assert "Nothing to do" in again.out or "was there already" in again.out
    assert state_of(chain.workspace) == before


def test_prompts_changes_nothing(chain: Chain):
    before = state_of(chain.workspace)
    assert chain.run("prompts").out == chain.outcomes["prompts"].out
    assert state_of(chain.workspace) == before


def test_a_file_is_reconstructed_the_same_way_each_time(chain: Chain, tmp_path):
    again = chain.run("reconstruct", "--out", tmp_path)
    assert again.code == 0
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (chain.workspace / "generated" / path.name).read_bytes()


def test_init_leaves_a_workspace_as_it_is(chain: Chain):
    before = state_of(chain.workspace)
    again = mousai("init", chain.workspace, "--preset", "tiny")
    assert "is a workspace already" in again.out
    assert state_of(chain.workspace) == before


@pytest.mark.parametrize("name", CHAIN)
def test_json_is_json_and_nothing_else(chain: Chain, name):
    done = chain.run(name, "--json")
    assert done.code == 0
    assert json.loads(done.out)


@pytest.mark.parametrize("words", [["params"], ["params", "paper"], ["doctor"]], ids=" ".join)
def test_json_of_what_needs_no_chain(chain: Chain, words):
    assert json.loads(mousai(*words, "-w", chain.workspace, "--json").out)


def test_train_without_a_stage_takes_the_next_one(chain: Chain):
    done = mousai("train", "--steps", "2", "--device", "cpu", "-w", chain.workspace)
    assert done.out.startswith(f"Nothing to do: {chain.workspace / 'runs' / 'generator'} is at step 2")


def test_doctor_names_the_command_that_is_due(chain: Chain, tmp_path):
    assert mousai("doctor", "-w", chain.workspace).out.splitlines()[-1].startswith('Next: mousai generate "PROMPT"')
    assert mousai("doctor", "-w", tmp_path).out.splitlines()[-1].startswith("Next: mousai init")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_piece(chain: Chain, tmp_path):
    (piece,) = chain.workspace.glob("generated/a-song-of-the-second-tone-*.wav")
    assert chain.run("generate", "--out", tmp_path, "--count", 2).code == 0
    first, second = sorted(tmp_path.glob("*.wav"), key=lambda path: path.name != piece.name)
    assert first.read_bytes() == piece.read_bytes()
    assert second.read_bytes() != piece.read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate", "x", "--seconds", "1e9"], "--seconds 1e+09 is not a length"),
        (["generate", "x", "--cfg", "inf"], "--cfg inf is not a number"),
        (["generate", "bad \udcff prompt"], "no UTF-8 text"),
        (["reconstruct", "SONG", "--seconds", "inf"], "is no stretch of"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_length_or_prompt_that_cannot_be_is_one_line(chain: Chain, words, said):
    words = [str(chain.library / "1.flac") if word == "SONG" else word for word in words]
    done = mousai(*words, "-w", chain.workspace, "--device", "cpu")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert said in done.err


def test_the_generator_is_not_trained_on_music_that_has_left_the_library(chain: Chain, tmp_path):
    workspace = shutil.copytree(chain.workspace, tmp_path / "copy")
    table = workspace / "manifests" / "tracks.parquet"
    tracks, chunks = read_table(table, Track), read_chunks(table.parent)
    gone = next(chunk.track_id for chunk in chunks if chunk.split == "train")
    write_table(table, Track, [track for track in tracks if track.id != gone], **read_facts(table))

    def train() -> Outcome:
        return mousai("train", "generator", "--steps", "3", "--device", "cpu", "-w", workspace)

    assert "1 tracks that are no longer in the library" in train().err
    assert mousai("shard", "-j", "1", "-w", workspace).code == 0
    stale = train()
    assert (stale.code, stale.err.count("\n")) == (1, 1)
    assert stale.err.endswith(f"Bring them up to date: mousai encode-latents -w {workspace}\n")
    assert mousai("shard", "-w", workspace).out.endswith(f"Next: mousai encode-latents -w {workspace}\n")
    assert mousai("verify", "-j", "1", "-w", workspace).out.endswith(f"Next: mousai encode-latents -w {workspace}\n")


def test_ingest_names_the_command_that_is_due(chain: Chain, tmp_path):
    done = f'Next: mousai generate "PROMPT" -w {chain.workspace}\n'
    assert mousai("ingest", "--dry-run", "-w", chain.workspace).out.endswith(done)
    assert mousai("ingest", "-j", "1", "-w", chain.workspace).out.endswith(done)
    workspace = shutil.copytree(chain.workspace, tmp_path / "copy")
    (tmp_path / "more music").mkdir()
    write_tone(tmp_path / "more music" / "new.wav", 2.0)
    more = mousai("ingest", tmp_path / "more music", "--dry-run", "-w", workspace).out
    assert more.endswith(f"Next: mousai ingest '{tmp_path / 'more music'}' -w {workspace}\n")
    for _ in range(2):
        again = mousai("ingest", tmp_path / "more music", "-j", "1", "-w", workspace).out
        assert again.endswith(f"Next: mousai shard -w {workspace}\n")


def test_a_dry_run_in_a_new_workspace_names_no_table_that_is_not_there(chain: Chain, tmp_path):
    space = write_workspace(tmp_path / "space")
    said = mousai("ingest", chain.library, "--dry-run", "-w", space).out
    assert "manifests" not in said and "No track is known yet.\n4 files are new" in said


def test_tracks_of_which_only_tags_are_read_are_not_passed_over_without_a_word(chain: Chain, tmp_path):
    library = shutil.copytree(chain.library, tmp_path / "library")
    workspace = write_workspace(tmp_path / "space")
    assert mousai("ingest", library, "-j", "1", "-w", workspace).code == 0
    write_tone(library / "0.flac", 2.5)
    assert mousai("ingest", "--tags-only", "-j", "1", "-w", workspace).code == 0
    for command in (["prompts", "--no-tokens"], ["shard", "-j", "1"]):
        said = mousai(*command, "-w", workspace).err
        assert "mousai: 1 tracks are passed over" in said and f"mousai ingest -w {workspace}" in said
    assert mousai("ingest", "-j", "1", "-w", workspace).code == 0
    assert "passed over" not in mousai("shard", "-j", "1", "-w", workspace).err


def test_file_names_are_short_and_sayable():
    assert file_name("Egyptian Darbuka, Drums, 2 of 4") == "egyptian-darbuka-drums-2-of-4"
    assert len(file_name(70 * "\U0001d4f6").encode()) <= 60
    assert file_name("../../\udcff[/b]") == "b"


def test_a_note_with_brackets_is_shown_as_it_is(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    written = io.StringIO()
    with contextlib.redirect_stderr(written), progress("generate", 2, "stages") as advance:
        advance(1, "[/b] x")
    assert "[/b] x" in written.getvalue()
