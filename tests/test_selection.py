"""Which tracks are trained on: each code and its threshold, what the summary counts, and how the plan follows."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from cli_runs import mousai, state_of, write_library, write_workspace
from test_chunks import PLAN, SECOND, make_library, make_track, shard_of, split_of, write_tracks

from mousai.errors import UserError
from mousai.settings import SelectSettings
from pipeline.chunks import group_tracks, plan_chunks, read_chunks, update_chunks
from pipeline.manifest import read_table, write_table
from pipeline.prompts import tracks_by_id
from pipeline.records import Track
from pipeline.selection import MEANINGS, Exclusion, LeftOut, exclusions, selected, summarise

BY_NO_FIGURE = ("duplicate", "licence", "consent")
DEFAULT = SelectSettings()
MINUTE = 60 * SECOND


def test_every_code_has_its_meaning():
    assert MEANINGS.keys() == set(Exclusion)


FIGURES: dict[str, Any] = {  # of a track that nothing speaks against
    "length": 2 * MINUTE, "header_duration": 120.0, "decode_errors": 0, "silence_head": 0.0, "silence_tail": 0.0,
    "silence_within": 0.0, "loudness": -14.0, "clipped_runs": 0, "dc": 0.0, "correlation": 0.5, "balance_db": 0.0,
    "true_peak": 0.9, "side_db": -6.0, "cutoff_hz": 16_000.0, "cutoff_drop_db": 50.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "settings", "at", "beyond"),
    [
        ("decode_errors", {}, {"decode_errors": 120}, {"decode_errors": 121}),
        ("truncated", {"max_missing_share": 0.5}, {"header_duration": 240.0}, {"header_duration": 241.0}),
        ("silent", {}, {"silence_head": 8.0, "silence_within": 90.0, "silence_tail": 10.0}, {"silence_head": 108.1}),
        ("quiet", {}, {"loudness": -60.0}, {"loudness": -60.1}),
        ("quiet", {}, {"loudness": -60.0}, {"loudness": None}),
        ("clipped", {"max_clips_per_minute": 10.0}, {"clipped_runs": 20}, {"clipped_runs": 21}),
        ("dc_offset", {}, {"dc": 0.5}, {"dc": 0.51}),
        ("dead_channel", {}, {"balance_db": 40.0}, {"balance_db": -120.0}),
        ("anti_phase", {}, {"correlation": -0.95}, {"correlation": -0.96}),
        ("mono", {"min_side_db": -60.0}, {"side_db": -60.0}, {"side_db": -120.0}),
        ("band_limited", {"min_cutoff_hz": 12_000.0}, {"cutoff_hz": 12_000.0}, {"cutoff_hz": 11_999.0}),
    ],
)
def test_a_track_is_left_out_beyond_the_threshold_and_not_at_it(
    code: str, settings: dict[str, float], at: dict[str, Any], beyond: dict[str, Any]
):
    kept, left_out = (make_track(name, **FIGURES | known) for name, known in {"a": at, "b": beyond}.items())
    assert exclusions([kept, left_out], SelectSettings(**settings)) == {left_out.path: [code]}


def test_every_code_has_a_threshold_that_switches_it_off():
    worst = {
        "decode_errors": 10**6, "header_duration": 1e9, "silence_head": 120.0, "loudness": None, "clipped_runs": 10**6,
        "dc": 1.0, "balance_db": 120.0, "correlation": -1.0, "side_db": -120.0, "cutoff_hz": 2_000.0,
    }  # fmt: skip
    track = make_track("a", **FIGURES | worst)
    names = [field.name for field in dataclasses.fields(DEFAULT) if field.name.startswith(("max_", "min_"))]
    strictest = SelectSettings(**{name: 0.0 if name.startswith("max_") else math.inf for name in names})
    off = SelectSettings(**{name: math.inf if name.startswith("max_") else -math.inf for name in names})
    assert exclusions([track], strictest) == {
        track.path: [code.value for code in Exclusion if code not in BY_NO_FIGURE]
    }
    assert exclusions([track], off) == {}


def test_what_was_not_measured_or_has_no_value_speaks_for_no_code():
    unknown = ("header_duration", "decode_errors", "clipped_runs", "correlation", "balance_db", "side_db", "cutoff_hz")
    track = make_track("a", **FIGURES | dict.fromkeys(unknown))
    strict = SelectSettings(max_missing_share=0.1, max_clips_per_minute=0, min_side_db=0, min_cutoff_hz=20_000)
    assert exclusions([track], strict) == {}


def test_a_slope_that_is_not_steep_is_no_band_limit():
    soft = make_track("a", **FIGURES | {"cutoff_hz": 3_000.0, "cutoff_drop_db": 29.0})
    assert exclusions([soft], SelectSettings(min_cutoff_hz=20_000)) == {}


def test_nothing_speaks_against_a_track_that_is_not_decoded():
    assert exclusions([make_track("a", id=None, length=None, decode_errors=None)], DEFAULT) == {}


def test_another_path_of_a_recording_speaks_where_the_first_is_left_out():
    first, second = make_track("a", decode_errors=999), make_track("a", path="/music/b.ogg")
    assert tracks_by_id(selected([first, second], DEFAULT)) == {"a": second}


def test_the_summary_counts_tracks_and_seconds():
    tracks = [make_track("a", length=SECOND), make_track("b", length=2 * SECOND), make_track("c", id=None, length=None)]
    found = summarise(tracks, {tracks[1].path: ["decode_errors"]})
    assert (found.num_tracks, found.duration, found.num_left_out, found.duration_left_out) == (1, 1, 1, 2)
    assert found.left_out == {"decode_errors": LeftOut(num_tracks=1, duration=2)}


def damaged(tracks, *names):
    return [dataclasses.replace(track, decode_errors=10_000 if track.id in names else 0) for track in tracks]


def test_a_track_that_is_left_out_loses_its_chunks_and_comes_back_to_its_split(tmp_path: Path):
    tracks = [make_track(name, name, length=length * SECOND) for name, length in {"a": 20, "b": 30, "c": 300}.items()]
    write_tracks(tmp_path, tracks)
    update_chunks(tmp_path, PLAN)
    before = read_chunks(tmp_path)
    assert split_of(before) == {"a": "val", "b": "val", "c": "train"}
    write_tracks(tmp_path, damaged(tracks, "a", "c"))
    with_less = [*damaged(tracks, "a", "c"), *(make_track(f"new {n}", f"new {n}", length=900 * SECOND) for n in "12")]
    write_tracks(tmp_path, with_less)
    assert update_chunks(tmp_path, PLAN).selection.num_left_out == 2
    assert {"a", "c"}.isdisjoint(split_of(read_chunks(tmp_path)))
    write_tracks(tmp_path, damaged(with_less))
    update_chunks(tmp_path, PLAN)
    assert {name: split_of(read_chunks(tmp_path))[name] for name in "abc"} == split_of(before)


def test_a_plan_of_another_version_is_made_anew_and_keeps_its_splits(tmp_path: Path):
    tracks = [make_track(name, name, length=length * SECOND) for name, length in {"a": 20, "b": 30, "c": 300}.items()]
    write_tracks(tmp_path, tracks)
    update_chunks(tmp_path, PLAN)
    before = read_chunks(tmp_path)
    path = tmp_path / "chunks.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["group"]), path)
    write_tracks(tmp_path, [*tracks, *(make_track(f"new {n}", f"new {n}", length=SECOND) for n in "12")])
    assert update_chunks(tmp_path, PLAN).changed
    assert {name: split_of(read_chunks(tmp_path))[name] for name in "abc"} == split_of(before)


def test_leaving_out_moves_no_other_chunk():
    tracks = make_library(100)
    chunks = plan_chunks(tracks, [], PLAN)
    out = next(track for track in tracks if split_of(chunks)[track.id] == "train")
    left = plan_chunks(tracks, chunks, PLAN, excluded={out.path})
    assert shard_of(left) == shard_of([chunk for chunk in chunks if chunk.track_id != out.id])


def test_an_artist_who_was_trained_on_is_never_validated_on_though_the_tracks_were_left_out():
    tracks = [make_track("old", "Ann", length=SECOND), make_track("new", "Ann", length=SECOND)]
    others = [make_track(name, name, length=900 * SECOND) for name in "bc"]
    planned = plan_chunks(
        [*tracks, *others], [], PLAN, excluded={tracks[0].path}, remembered={"old": "train", "b": "train", "c": "val"}
    )
    assert split_of(planned) == {"new": "train", "b": "train", "c": "val"}


def test_a_track_that_is_left_out_ties_groups_and_is_no_group_of_its_own():
    ann, bob = make_track("1", "Ann"), make_track("2", "Bob")
    both = [make_track(f"of {name}", name, album="Duets", album_artist="Various") for name in ("Ann", "Bob")]
    groups, fallback = group_tracks(tracks_by_id([ann, bob]), both)
    assert groups["1"] != groups["2"] and "other" in fallback  # all one artist's, so grouped more narrowly
    assert group_tracks(tracks_by_id([ann, bob]))[1] == ""


def test_a_library_that_is_left_out_as_a_whole_is_a_users_error(tmp_path: Path):
    write_tracks(tmp_path, damaged([make_track("a")], "a"))
    with pytest.raises(UserError, match=r"1 are left out by \[select\]"):
        update_chunks(tmp_path, PLAN)


def test_the_command_line_says_what_a_threshold_leaves_out_and_acts_on_it_without_reading_again(tmp_path: Path):
    space = write_workspace(tmp_path / "space")
    assert mousai("ingest", write_library(tmp_path / "music"), "-w", space, "-j", "1").code == 0
    before = state_of(space / "manifests")
    toml = (space / "mousai.toml").read_text()
    tone = next(track for track in read_table(space / "manifests/tracks.parquet", Track) if track.title == "Tone 0")
    assert tone.side_db == -120  # as all three are
    (space / "mousai.toml").write_text(toml + "[select]\nmin_side_db = -60\n")
    done = mousai("ingest", "--dry-run", "-w", space)
    assert "3 tracks, 0.1 min, are left out of training by [select] in mousai.toml: 3 mono (0.1 min)." in done.out
    assert "0 files are new or changed" in done.out
    assert mousai("shard", "-w", space).err.strip().endswith(f"Add music with: mousai ingest -w {space} LIBRARY")
    assert state_of(space / "manifests") == before
    tones = read_table(space / "manifests/tracks.parquet", Track)
    write_table(space / "manifests/tracks.parquet", Track, [dataclasses.replace(tones[0], side_db=-6.0), *tones[1:]])
    assert "1 tracks" in mousai("prompts", "--no-tokens", "-w", space).out
    assert {chunk.track_id for chunk in read_chunks(space / "manifests")} == {tones[0].id}
    found = json.loads(mousai("shard", "-w", space, "-j", "1", "--json").out)["selection"]
    assert found["left_out"] == {"mono": {"num_tracks": 2, "duration": 7.0}}
