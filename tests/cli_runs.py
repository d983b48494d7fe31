"""The command line as the tests run it, in this process; and a workspace small enough to be trained in seconds."""

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from audio_files import write_tone
from mutagen.flac import FLAC

import cli

ROOT = Path(__file__).parents[1]

TOML = """\
preset = "tiny"
chunk_length = 65536

[ingest]  # no limits: with -j 1, files are read in this process
time_limit = 0
memory_limit = 0

[train_dmae]
batch_size = 2
length = 16384
validation_examples = 2
preview_every = 1000000

[dmae]
encoder = { channels = 16 }

[dmae.unet]
time_features = 16
levels = [{ channels = 16, factor = 1 }, { channels = 16, factor = 4 }, { channels = 16, factor = 4, inject = 32 }]

[train_generator]
batch_size = 2
length = 65536
validation_examples = 2
preview_every = 1000000

[generator.unet]
time_features = 16
heads = 2
head_features = 8
levels = [
    { channels = 16, factor = 1, cross_attention = true },
    { channels = 16, factor = 2, attention = true, cross_attention = true },
]
"""
FAST = ["--steps", "2", "--decoder-steps", "1"]
CHAIN: dict[str, list[str]] = {  # in this order; -w comes behind
    "ingest": ["ingest", "LIBRARY", "-j", "1"],
    "prompts": ["prompts", "--show", "3", "--top", "2"],
    "shard": ["shard", "-j", "1"],
    "train dmae": ["train", "dmae", "--steps", "2", "--device", "cpu"],
    "encode-latents": ["encode-latents", "--device", "cpu", "-j", "1"],
    "train generator": ["train", "generator", "--steps", "2", "--device", "cpu"],
    "generate": ["generate", "a song of the second tone", "--device", "cpu", *FAST],
    "reconstruct": ["reconstruct", "SONG", "--start", "1", "--seconds", "1", "--decoder-steps", "1", "--device", "cpu"],
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def mousai(*words: Any) -> Outcome:
    """Run `mousai WORDS`."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["mousai", *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
            code: Any = 0
        except SystemExit as ended:
            code = ended.code or 0
    return Outcome(code=code, out=out.getvalue(), err=err.getvalue())


def write_library(folder: Path) -> Path:
    """Three tagged tones of 2, 3 and 4 seconds by two artists, and a broken file."""
    folder.mkdir()
    for number, artist in enumerate(("Ann", "Bob", "Bob")):
        path = folder / f"{number}.flac"
        write_tone(path, 2.0 + number, frequency=220 * (number + 1))
        tags = FLAC(path)
        tags["title"], tags["artist"], tags["genre"] = f"Tone {number}", artist, "Drone"
        tags.save()
    (folder / "broken.flac").write_bytes(b"fLaC")
    return folder


def write_workspace(folder: Path) -> Path:
    """A workspace as `init` makes it, with the sizes of `TOML`."""
    assert mousai("init", folder, "--preset", "tiny").code == 0
    (folder / "mousai.toml").write_text(TOML)
    return folder


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A workspace in which every command has been run once."""

    workspace: Path
    library: Path
    outcomes: dict[str, Outcome]

    def run(self, name: str, *more: Any) -> Outcome:
        """Run a command of `CHAIN` again, with options more."""
        return run_link(name, self.workspace, self.library, *more)


def run_link(name: str, workspace: Path, library: Path, *more: Any) -> Outcome:
    places = {"LIBRARY": library, "SONG": library / "1.flac"}
    return mousai(*(places.get(word, word) for word in CHAIN[name]), "-w", workspace, *more)


def run_chain(folder: Path) -> Chain:
    """All of `CHAIN`, with previews in as few steps as can be."""
    workspace, library = write_workspace(folder / "space"), write_library(folder / "library")
    outcomes = {}
    with mock.patch("mousai.train_dmae.PREVIEW_STEPS", 1), mock.patch("mousai.train_generator.PREVIEW_STEPS", 1):
        for name in CHAIN:
            outcomes[name] = run_link(name, workspace, library)
            assert outcomes[name].code == 0, (name, outcomes[name])
    return Chain(workspace=workspace, library=library, outcomes=outcomes)


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Modification time and content of every file, the locks left out."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".lock")]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
