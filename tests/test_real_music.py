"""The chain on real music: Debian's amoebax-data, from ingest to a training step.

The package is fetched by apt-get and unpacked into ~/.cache/mousai-tests, unless MOUSAI_REAL_MUSIC names a folder that
holds it. Where it cannot be had these tests are skipped; with CI=true they fail.
"""

import io
import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest
import soundfile
from cli_runs import TOML, mousai
from webdataset import WebDataset

from mousai.audio import FULL_SCALE
from pipeline.manifest import read_table
from pipeline.records import Chunk, Rejected, ShardMember, Track
from pipeline.tars import finished_shards, read_members

# WebDataset closes no file it opened
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

PACKAGE = "amoebax-data"  # Free Art License, 9 MB
CACHE = Path("~/.cache/mousai-tests").expanduser()
HOW = (
    f"Run `apt-get download {PACKAGE} && dpkg -x {PACKAGE}_*.deb FOLDER` on a Debian machine and set "
    "MOUSAI_REAL_MUSIC=FOLDER to run them."
)


def fetch() -> Path:
    """The unpacked package; OSError or CalledProcessError where it cannot be had."""
    folder = CACHE / PACKAGE
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        for refresh in (False, True):  # an index that is missing or out of date is fetched once
            if refresh:
                call("apt-get", "update", "-q")
            try:
                call("apt-get", "download", "-q", PACKAGE)
                break
            except subprocess.CalledProcessError:
                if refresh:
                    raise
        (deb,) = CACHE.glob(f"{PACKAGE}_*.deb")
        unpacked = CACHE / f".{PACKAGE}.tmp"
        shutil.rmtree(unpacked, ignore_errors=True)
        call("dpkg", "-x", str(deb), str(unpacked))
        unpacked.rename(folder)
        deb.unlink()
    return folder


def call(*command: str) -> None:
    subprocess.run(command, cwd=CACHE, check=True, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="session")
def library() -> Path:
    given = os.environ.get("MOUSAI_REAL_MUSIC")
    try:
        folder = Path(given) if given else fetch()
        if not list(folder.rglob("*.ogg")):
            raise FileNotFoundError(f"{folder} holds no .ogg file")
        return folder
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        why = f"{PACKAGE} cannot be had: {error} {getattr(error, 'stderr', None) or ''}".strip()
        if os.environ.get("CI") == "true":
            pytest.fail(f"{why}\n{HOW}")
        pytest.skip(f"{why}. {HOW}")


@pytest.fixture(scope="session")
def space(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the library ingested and sharded."""
    folder = tmp_path_factory.mktemp("real") / "space"
    assert mousai("init", folder, "--preset", "tiny").code == 0
    (folder / "mousai.toml").write_text(TOML.replace("65536", str(2**19)))
    for command in (["ingest", library], ["shard"]):
        done = mousai(*command, "-w", folder)
        assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="session")
def music(space: Path) -> dict[str, Track]:
    """The tracks of the folder `music` by name; the sound effects lie elsewhere."""
    tracks = read_table(space / "manifests" / "tracks.parquet", Track)
    return {Path(track.path).name: track for track in tracks if Path(track.path).parent.name == "music"}


def test_all_music_is_found_and_fully_tagged(music):
    assert len(music) == 9
    for track in music.values():
        assert track.title and track.album == "Amoebax" and track.genres == ["soundtrack"]
    artists = Counter(artist for track in music.values() for artist in track.artists)
    assert artists == {"Alex Almarza": 8, "Àlex Almarza": 1}  # so the files say
    assert music["menu.ogg"].title == "Menu Background Music"
    assert music["menu.ogg"].year == 2006


def test_its_facts_are_those_of_libsndfile(music):
    for track in music.values():
        reference = soundfile.info(track.path)
        assert (track.codec, track.container) == ("vorbis", "ogg")
        assert (track.sample_rate, track.channels) == (reference.samplerate, reference.channels) == (44_100, 2)
        assert (track.decoded_length, track.decode_errors) == (reference.frames, 0)
        assert abs((track.length or 0) - reference.duration * 48_000) < 2  # samples


def test_the_music_lasts_nine_minutes_and_most_of_it_is_too_loud(music):
    assert sum(track.length or 0 for track in music.values()) / 48_000 / 60 == pytest.approx(9.17, abs=0.01)
    assert sum((track.peak or 0) > 1 for track in music.values()) == 8


def test_sound_effects_are_tracks_or_too_short_to_be(space, music):
    tracks = read_table(space / "manifests" / "tracks.parquet", Track)
    effects = {Path(track.path).name: track for track in tracks if track.path not in {t.path for t in music.values()}}
    assert {name: (track.codec, track.sample_rate, track.mix) for name, track in effects.items()} == {
        "youlose.wav": ("pcm_s16le", 44_100, "stereo"),
        "youwin.wav": ("pcm_s16le", 11_025, "doubled"),
    }
    rejected = read_table(space / "manifests" / "rejected.parquet", Rejected)
    assert {Path(row.path).name: row.reason for row in rejected} == {
        "die.wav": "too_short",
        "levelup.wav": "too_short",
    }


def test_one_musicians_tracks_are_all_in_one_split(space, music):
    chunks = read_table(space / "manifests" / "chunks.parquet", Chunk)
    alex = {track.id for track in music.values() if track.artists == ["Alex Almarza"]}
    assert len({chunk.split for chunk in chunks if chunk.track_id in alex}) == 1
    assert {chunk.split for chunk in chunks} == {"train", "val"}


def test_webdataset_reads_every_chunk_at_full_scale_and_no_louder(space, music):
    chunks = {chunk.key: chunk for chunk in read_table(space / "manifests" / "chunks.parquet", Chunk)}
    tracks = {track.id: track for track in music.values()}
    tars = sorted(map(str, (space / "shards").glob("*/*.tar")))
    peaks: Counter[str] = Counter()
    read = set()
    for sample in WebDataset(tars, shardshuffle=False):
        chunk, facts = chunks[sample["__key__"]], json.loads(sample["json"])
        sound, rate = soundfile.read(io.BytesIO(sample["flac"]))
        assert (rate, sound.shape) == (48_000, (chunk.valid_length, 2))
        peaks[chunk.track_id] = max(peaks[chunk.track_id], abs(sound).max())
        if chunk.track_id in tracks:
            assert (facts["title"], facts["index"]) == (tracks[chunk.track_id].title, chunk.index)
            assert f"{chunk.index} of {chunk.count}" in facts["text"]
        read.add(chunk.key)
    assert read == set(chunks)
    loud = [peaks[track.id or ""] for track in music.values() if (track.peak or 0) > 1]
    assert max(peaks.values()) <= FULL_SCALE
    assert max(loud) == pytest.approx(FULL_SCALE, abs=1 / 32_768)  # the loudest moment of some is in a chunk


def test_no_chunk_has_failed(space):
    for split in ("train", "val"):
        folder = space / "shards" / split
        for name in finished_shards(folder):
            assert all(row.error is None for row in read_members(folder, name, ShardMember))


def test_a_second_run_finds_nothing_to_do(space):
    assert mousai("ingest", "-w", space).out.startswith("Nothing to do: 11 tracks")
    assert "Nothing to do" in mousai("shard", "-w", space).out


def test_the_first_stage_trains_on_it(space):
    with mock.patch("mousai.train_dmae.PREVIEW_STEPS", 1):
        done = mousai("train", "dmae", "--steps", 1, "--device", "cpu", "-w", space)
    assert done.code == 0, done.err
    assert "done at step 1" in done.out
