"""Copies of a recording are found by packets, by samples and by ear, and the best one is known."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audio_files import tune, write_audio
from mutagen.flac import FLAC

import pipeline.duplicates as duplicates_module
from mousai.settings import SelectSettings
from pipeline.duplicates import (
    FILE,
    find_alike,
    has_fingerprints,
    mark_duplicates,
    merge_fingerprints,
    to_record,
)
from pipeline.fingerprint import VERSION, Landmarks
from pipeline.ingest import ingest
from pipeline.manifest import read_table, write_table
from pipeline.records import Fingerprint, Track
from pipeline.selection import exclusions, worse_copies

RATE = 16_000  # Hz, of the tunes


def make_track(name: str, **known: Any) -> Track:
    blank = {field.name: None for field in dataclasses.fields(Track)}
    usual = {
        "id": name, "path": f"/music/{name}", "raw_path": f"/music/{name}".encode(), "library": "/music", "size": 10**6,
        "mtime_ns": 1, "length": 100 * 48_000, "sample_rate": 44_100, "raw_tags": "{}", "genres": [], "artists": [],
    }  # fmt: skip
    return Track(**(blank | usual | known))


def make_landmarks(seed: int, count: int = 100) -> Landmarks:
    generator = np.random.default_rng(seed)
    times = np.cumsum(generator.integers(15, 60, count))
    return Landmarks(times=times.astype(np.uint32), words=generator.integers(2**32, size=count, dtype=np.uint32))


def worn(original: Landmarks, seed: int, *, start: int = 0, kept: float = 0.35) -> Landmarks:
    """A copy from landmark `start` on of which `kept` of the words have survived, and the others but for two bits."""
    generator = np.random.default_rng(seed)
    times, words = original.times[start:] - original.times[start], original.words[start:].copy()
    flips = np.uint32(1) << generator.integers(32, size=(2, len(words)), dtype=np.uint32)
    changed = generator.random(len(words)) > kept
    words[changed] ^= (flips[0] ^ flips[1])[changed]
    return Landmarks(times=times, words=words)


def write_fingerprints(path: Path, landmarks: dict[str, Landmarks]) -> Path:
    rows = [to_record(track_id, landmarks[track_id]) for track_id in sorted(landmarks)]
    write_table(path, Fingerprint, rows, version=VERSION)
    return path


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    """The fingerprints of 300 recordings, every tenth of which has a worn copy, and the first a longer cut."""
    landmarks = {f"{number:04}": make_landmarks(number) for number in range(300)}
    landmarks |= {f"{number:04} copy": worn(landmarks[f"{number:04}"], number, start=3) for number in range(0, 300, 10)}
    first, other = landmarks["0000"], make_landmarks(1000)
    times = np.concatenate([first.times, other.times + first.times[-1] + np.uint32(20)])
    landmarks["long"] = Landmarks(times=times, words=np.concatenate([first.words, other.words]))
    return write_fingerprints(tmp_path / FILE, landmarks)


# By ear


def test_all_copies_in_a_crowd_are_found_and_nothing_else(crowd: Path):
    found = list(find_alike(crowd))
    assert [pair for *pair, same in found if same] == [[f"{n:04}", f"{n:04} copy"] for n in range(0, 300, 10)]
    assert [pair for *pair, same in found if not same] == [["0000", "long"], ["0000 copy", "long"]]


def test_what_is_held_at_a_time_changes_nothing(crowd: Path, monkeypatch):
    at_once = list(find_alike(crowd))
    monkeypatch.setattr(duplicates_module, "_ROWS", 7)
    monkeypatch.setattr(duplicates_module, "_KEYS", 1_000)
    assert list(find_alike(crowd)) == at_once


def test_fifty_copies_are_one_cluster(tmp_path: Path):
    original = make_landmarks(1)
    names = [f"{number:02}" for number in range(50)]
    path = write_fingerprints(tmp_path / FILE, {name: worn(original, int(name), kept=0.5) for name in names})
    marked = mark_duplicates([make_track(name) for name in names], path)
    assert {track.cluster for track in marked} == {"00"}


def test_no_fingerprints_are_alike(tmp_path: Path):
    assert list(find_alike(write_fingerprints(tmp_path / FILE, {}))) == []
    silence = Landmarks(times=np.empty(0, np.uint32), words=np.empty(0, np.uint32))
    assert list(find_alike(write_fingerprints(tmp_path / FILE, {"a": silence, "b": silence}))) == []


# Clusters


def test_equal_packets_equal_samples_and_equal_sound_make_one_cluster(tmp_path: Path):
    original = make_landmarks(1)
    prints = {"b": original, "c": make_landmarks(2), "d": worn(original, 3), "e": make_landmarks(4)}
    tracks = [
        make_track("b", path="/1"), make_track("b", path="/2"),  # the same packets
        make_track("c", pcm_id="same"), make_track("b", path="/3", pcm_id="same"),
        make_track("d"), make_track("e"),
    ]  # fmt: skip
    marked = mark_duplicates(tracks, write_fingerprints(tmp_path / FILE, prints))
    assert [track.cluster for track in marked] == ["b"] * 5 + [None]
    assert [track.family for track in marked] == ["b"] * 5 + [None]


def test_a_medley_is_of_one_family_with_its_songs_and_no_copy_of_them(tmp_path: Path):
    first, second = make_landmarks(1), make_landmarks(2)
    times = np.concatenate([first.times, second.times + first.times[-1] + np.uint32(20)])
    medley = Landmarks(times=times, words=np.concatenate([first.words, second.words]))
    path = write_fingerprints(tmp_path / FILE, {"a": first, "b": second, "m": medley, "x": make_landmarks(3)})
    marked = mark_duplicates([make_track(name) for name in "abmx"], path)
    assert [track.cluster for track in marked] == [None] * 4
    assert [track.family for track in marked] == ["a", "a", "a", None]


def test_tracks_that_were_never_decoded_are_nobodys_copies(tmp_path: Path):
    tracks = [make_track(name, id=None, length=None) for name in "ab"]
    assert mark_duplicates(tracks, write_fingerprints(tmp_path / FILE, {})) == tracks


def test_the_best_copy_is_lossless_long_of_a_high_rate_and_well_tagged_in_this_order():
    minute = 60 * 48_000
    ranked = [
        make_track("1", codec="flac", length=minute, title="tagged"),
        make_track("2", codec="pcm_s16le", length=minute, size=10**7),  # more bits say nothing where none is lost
        make_track("3", codec="flac", length=minute, sample_rate=32_000),
        make_track("4", codec="flac", length=minute - 2 * 48_000),
        make_track("5", codec="mp3", length=minute + 48_000 // 2, size=2 * 10**6),
        make_track("6", codec="mp3", length=minute + 48_000 // 2, size=10**6),
        make_track("7", codec="pcm_mulaw", length=minute, sample_rate=8_000, size=10**7),
    ]
    for seed in range(5):
        cluster = [dataclasses.replace(track, cluster="1") for track in ranked]
        shuffled = random.Random(seed).sample(cluster, len(cluster))
        assert [track.id for track in worse_copies(shuffled)] == ["2", "3", "4", "5", "6", "7"]
    assert worse_copies(ranked) == []


def test_the_best_copy_is_sought_among_those_against_which_nothing_else_speaks():
    tracks = [
        make_track("1", codec="flac", cluster="1", decode_errors=1000), make_track("2", codec="mp3", cluster="1"),
        make_track("3", codec="mp3", cluster="1", size=10), make_track("4", codec="mp3", decode_errors=0),
    ]  # fmt: skip
    tracks = [dataclasses.replace(track, decode_errors=track.decode_errors or 0) for track in tracks]
    assert exclusions(tracks, SelectSettings()) == {"/music/1": ["decode_errors"], "/music/3": ["duplicate"]}
    assert exclusions(tracks, SelectSettings(keep_duplicates=True)) == {"/music/1": ["decode_errors"]}


# Ingest


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One song as WAV, FLAC and a trimmed, quieter MP3; another song; a stem of it."""
    folder = tmp_path_factory.mktemp("music")
    song, other = tune(25, seed=1), tune(25, seed=2)
    write_audio(folder / "song.flac", np.round(song[:2] * 32_768) / 32_768, RATE)
    write_audio(folder / "song.wav", np.round(song[:2] * 32_768) / 32_768, RATE)
    write_audio(folder / "song.mp3", song[:2, 3 * RATE :] * 0.4, RATE)
    write_audio(folder / "other.mp3", other.sum(axis=0, keepdims=True), RATE)
    write_audio(folder / "stem.mp3", other[:1], RATE)
    tags = FLAC(folder / "song.flac")
    tags["title"] = "Song"
    tags.save()
    return folder


def clusters(manifests: Path) -> dict[str, str | None]:
    return {Path(track.path).name: track.cluster for track in read_table(manifests / "tracks.parquet", Track)}


@pytest.fixture(scope="module")
def manifests(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifests")
    summary = ingest([library], folder, workers=1)
    assert (summary.num_tracks, summary.num_new) == (5, 5)
    left_out = summary.selection.left_out["duplicate"]
    assert (left_out.num_tracks, left_out.duration) == (2, pytest.approx(25 + 22, abs=0.2))
    return folder


def test_ingest_finds_the_copies_and_keeps_the_tagged_flac(manifests: Path):
    tracks = {Path(track.path).name: track for track in read_table(manifests / "tracks.parquet", Track)}
    assert tracks["song.flac"].pcm_id == tracks["song.wav"].pcm_id is not None
    assert tracks["song.flac"].cluster == tracks["song.wav"].cluster == tracks["song.mp3"].cluster is not None
    assert tracks["other.mp3"].cluster is tracks["stem.mp3"].cluster is None
    assert sorted(Path(track.path).name for track in worse_copies(tracks.values())) == ["song.mp3", "song.wav"]


def test_a_copy_that_is_gone_leaves_no_cluster_and_no_fingerprint(manifests: Path, library: Path, tmp_path: Path):
    mine, music = tmp_path / "manifests", tmp_path / "music"
    music.mkdir()
    for name in ("song.flac", "song.wav"):
        (music / name).write_bytes((library / name).read_bytes())
    ingest([music], mine, workers=1)
    assert len(set(clusters(mine).values())) == 1
    (music / "song.wav").unlink()
    assert ingest([], mine, workers=1).selection.left_out == {}
    assert clusters(mine) == {"song.flac": None}
    assert len(read_table(mine / FILE, Fingerprint)) == 1
    (music / "song.wav").write_bytes((library / "song.wav").read_bytes())
    assert ingest([], mine, workers=1).num_new == 1
    assert len(set(clusters(mine).values())) == 1 and None not in clusters(mine).values()


@pytest.mark.parametrize("content", [None, b"PAR1 no longer"])
def test_fingerprints_that_are_lost_or_damaged_are_taken_anew(manifests: Path, tmp_path: Path, content: bytes | None):
    mine = tmp_path / "manifests"
    mine.mkdir()
    for name in ("tracks.parquet", "rejected.parquet", FILE):
        (mine / name).write_bytes((manifests / name).read_bytes())
    if content is None:
        (mine / FILE).unlink()
    else:
        (mine / FILE).write_bytes(content)
    assert not has_fingerprints(mine / FILE)
    ingest([], mine, workers=1)
    for name in ("tracks.parquet", FILE):
        assert (mine / name).read_bytes() == (manifests / name).read_bytes()


def test_where_fingerprints_come_from_changes_no_byte(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(duplicates_module, "_ROWS", 4)
    landmarks = {f"{number:02}": make_landmarks(number, 10) for number in range(10)}
    whole = write_fingerprints(tmp_path / "whole.parquet", landmarks)
    even = write_fingerprints(tmp_path / "even.parquet", {k: v for k, v in landmarks.items() if int(k) % 2 == 0})
    rest = write_fingerprints(tmp_path / "rest.parquet", {k: v for k, v in landmarks.items() if int(k) > 4})
    odd = write_fingerprints(tmp_path / "odd.parquet", {k: v for k, v in landmarks.items() if int(k) % 2})
    ids = [f"{number:02}" for number in range(9)]
    merge_fingerprints([whole], ids, tmp_path / "1")
    merge_fingerprints([rest, odd, even], ids, tmp_path / "2")
    assert [row.id for row in read_table(tmp_path / "1", Fingerprint)] == ids
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
