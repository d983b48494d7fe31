"""The plan: chunk geometry, splits that don't leak, and what stays where it is while the library grows."""

import dataclasses
import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mousai.errors import UserError
from mousai.settings import SelectSettings
from pipeline.chunks import (
    ChunkPlan,
    chunk_starts,
    group_tracks,
    plan_chunks,
    read_chunks,
    spread_chunks,
    update_chunks,
)
from pipeline.manifest import write_table
from pipeline.prompts import tracks_by_id
from pipeline.records import Chunk, Track
from pipeline.selection import exclusions

SECOND = 48_000
LENGTH = 10 * SECOND  # of a chunk
PLAN = ChunkPlan(chunk_length=LENGTH, divisor=1_000, chunks_per_shard=8, validation_share=0.1)


def make_track(name: str, artist: str | None = None, album: str | None = None, **known: Any) -> Track:
    blank = {field.name: None for field in dataclasses.fields(Track)}
    usual = {
        "id": name, "path": f"/music/{name}.ogg", "raw_path": f"/music/{name}.ogg".encode(), "library": "/music",
        "size": 1, "mtime_ns": 1, "length": 25 * SECOND, "raw_tags": "{}", "genres": [],
        "artists": [artist] if artist else [], "album": album, "album_artist": artist if album else None,
    }  # fmt: skip
    return Track(**(blank | usual | known))


def make_library(size: int, seed: int = 0) -> list[Track]:
    """Tracks of a third as many artists, with albums, guests, compilations and untagged folders among them."""
    generator = random.Random(seed)
    tracks = []
    for number in range(size):
        artist = f"Artist {generator.randrange(1 + size // 3)}"
        guests = [f"Artist {generator.randrange(size)}"] if generator.random() < 0.2 else []
        tagged = generator.random() < 0.9
        compilation = generator.random() < 0.05
        tracks.append(
            make_track(
                f"{generator.getrandbits(64):016x}",
                path=f"/music/folder {number % 7}/{number}.ogg",
                artists=[artist, *guests] if tagged else [],
                album=f"Album {generator.randrange(3)}" if tagged else None,
                album_artist="Various" if compilation else artist if tagged else None,
                length=generator.randrange(1, 60 * SECOND),
            )
        )
    return tracks


def with_copies(tracks: list[Track], seed: int) -> list[Track]:
    """A tenth of the tracks become copies of others, and a tenth their relatives, whatever their tags say."""
    generator = random.Random(seed)
    for name in ("cluster", "family"):
        for _ in range(len(tracks) // 10):
            first, second = generator.sample(range(len(tracks)), 2)
            family = tracks[first].family or tracks[second].family or tracks[first].id
            shared = {"family": family, "cluster": family} if name == "cluster" else {"family": family}
            members = {tracks[first].family, tracks[second].family} - {None}
            tracks = [
                dataclasses.replace(track, **shared) if number in (first, second)
                else dataclasses.replace(track, family=family) if track.family in members
                else track
                for number, track in enumerate(tracks)
            ]  # fmt: skip
    return tracks


def assert_nothing_leaks(tracks: Sequence[Track], splits: dict[str, str]) -> None:
    """No first artist, release, cluster or family of `tracks` is in both splits."""
    sides: dict[object, set[str]] = {}
    for track in tracks:
        names = [
            ("artist", " ".join(track.artists[0].casefold().split()) if track.artists else Path(track.path).parent),
            ("release", track.album_artist, track.album) if track.album and track.album_artist else None,
            ("cluster", track.cluster) if track.cluster else None,
            ("family", track.family) if track.family else None,
        ]
        for name in filter(None, names):
            sides.setdefault(name, set()).add(splits[track.id or ""])
    assert [name for name, side in sides.items() if len(side) > 1] == []


def split_of(chunks: Sequence[Chunk]) -> dict[str, str]:
    return {chunk.track_id: chunk.split for chunk in chunks}


def shard_of(chunks: Sequence[Chunk]) -> dict[str, tuple[str, int]]:
    return {chunk.key: (chunk.split, chunk.shard) for chunk in chunks}


# Geometry


@pytest.mark.parametrize(
    "length", [1, 999, LENGTH - 1, LENGTH, *random.Random(0).sample(range(LENGTH, 50 * LENGTH), 30)]
)
def test_first_and_last_chunk_hold_start_and_end_and_neighbours_overlap_or_skip_at_most_half_a_chunk(length: int):
    starts = chunk_starts(length, LENGTH)
    assert starts[0] == 0
    if len(starts) > 1:
        assert starts[-1] + LENGTH == length
        gaps = [later - earlier - LENGTH for earlier, later in itertools.pairwise(starts)]
        assert max(map(abs, gaps)) <= LENGTH / 2
        assert max(gaps) - min(gaps) <= 1  # evenly spaced
    else:
        assert length <= 1.5 * LENGTH


@pytest.mark.parametrize(
    ("length", "count"), [(0.2, 1), (1, 1), (1.4, 1), (1.6, 2), (2, 2), (2.4, 2), (2.6, 3), (7, 7)]
)
def test_the_number_of_chunks_is_the_rounded_ratio(length: float, count: int):
    assert len(chunk_starts(round(length * LENGTH), LENGTH)) == count


def test_a_track_shorter_than_a_chunk_is_padded_to_the_divisor():
    (chunk,) = plan_chunks([make_track("a", length=12_345)], [], PLAN)
    assert (chunk.start, chunk.valid_length, chunk.length) == (0, 12_345, 13_000)


def test_a_track_a_little_longer_than_a_chunk_is_its_first_chunk():
    (chunk,) = plan_chunks([make_track("a", length=round(1.4 * LENGTH))], [], PLAN)
    assert (chunk.start, chunk.valid_length, chunk.length) == (0, LENGTH, LENGTH)


def test_keys_name_track_and_place():
    chunks = plan_chunks([make_track("abc", length=3 * LENGTH)], [], PLAN)
    assert [(chunk.key, chunk.index, chunk.count, chunk.start) for chunk in chunks] == [
        ("abc_0001", 1, 3, 0), ("abc_0002", 2, 3, LENGTH), ("abc_0003", 3, 3, 2 * LENGTH),
    ]  # fmt: skip


def test_a_recording_under_two_paths_is_chunked_once_and_an_undecoded_track_never():
    tracks = [make_track("a"), make_track("a", path="/music/copy.ogg"), make_track("b", id=None, length=None)]
    assert [chunk.key for chunk in plan_chunks(tracks, [], PLAN)] == ["a_0001", "a_0002"]


def test_a_chunk_length_that_the_model_cannot_take_is_a_users_error():
    with pytest.raises(UserError, match="multiple of 1000"):
        ChunkPlan(chunk_length=1_500, divisor=1_000, chunks_per_shard=1)


# Splits


@pytest.mark.parametrize("seed", range(5))
def test_no_first_artist_album_or_untagged_folder_crosses_the_split(seed: int):
    tracks = make_library(200, seed)
    splits = split_of(plan_chunks(tracks, [], PLAN))
    assert set(splits.values()) == {"train", "val"}
    sides: dict[object, set[str]] = {}
    for track in tracks:
        sides.setdefault(track.artists[0] if track.artists else Path(track.path).parent, set()).add(splits[track.id])
        sides.setdefault((track.album_artist, track.album) if track.album else track.id, set()).add(splits[track.id])
    assert all(len(side) == 1 for side in sides.values())


def test_all_paths_of_a_recording_tie_groups_together_also_those_that_are_left_out():
    single = make_track("song", "Zoe", album="Single", path="/music/a.ogg")
    compiled = make_track("song", "Bob", album="Hits", path="/music/b.ogg")  # the same packets
    better = make_track("flac", "Ann", album="Remastered", cluster="flac", family="flac")
    worse = make_track("mp3", "Abe", cluster="flac", family="flac")
    tracks = [single, compiled, better, worse, make_track("bob", "Bob"), make_track("abe", "Abe")]
    by_id = tracks_by_id(track for track in tracks if track is not worse)
    groups, _ = group_tracks(by_id, tracks)
    assert groups["song"] == groups["bob"] == "artist bob"
    assert groups["flac"] == groups["abe"] == "artist abe"


@pytest.mark.parametrize("seed", range(8))
def test_no_cluster_artist_or_album_crosses_the_split_while_a_library_grows_and_shrinks(seed: int):
    generator = random.Random(seed)
    library = make_library(300, seed)
    chunks: list[Chunk] = []
    planned: dict[str, str] = {}
    trained: set[str] = set()  # what a checkpoint may have heard
    for scan in range(6):
        known = generator.sample(library, 60 + 40 * scan)  # some are new, some are gone
        tracks = with_copies(known, seed * 10 + scan)  # and copies turn up as their fingerprints do
        excluded = exclusions(tracks, SelectSettings())
        chunks = plan_chunks(tracks, chunks, PLAN, excluded=excluded, remembered=planned)
        splits = split_of(chunks)
        assert set(splits.values()) == {"train", "val"}
        assert_nothing_leaks([track for track in tracks if track.path not in excluded], splits)
        judged = [track for track in tracks if splits.get(track.id or "") == "val"]
        heard = {name for track in tracks if track.id in trained for name in (track.id, track.family or track.id)}
        assert not heard & {name for track in judged for name in (track.id, track.family or track.id)}
        planned |= splits
        trained |= {track_id for track_id, split in splits.items() if split == "train"}


def test_names_are_the_same_whatever_their_case_spacing_and_unicode_form():
    names = ["Björk", "  BJÖRK ", "Bjo\u0308rk", "ｂｊöｒｋ"]
    tracks = [make_track(str(number), name) for number, name in enumerate(names)]
    groups, _ = group_tracks(tracks_by_id([*tracks, make_track("other", "Other")]))
    assert {groups[track.id] for track in tracks} == {"artist björk"}


def test_groups_are_linked_through_other_tracks_and_called_by_their_smallest_artist():
    tracks = [
        make_track("1", "Zoe", album="Duets", album_artist="Various"),
        make_track("2", "Bob", album="Duets", album_artist="Various"),
        make_track("3", "Bob"),
        make_track("4", "Ann"),
    ]
    groups, fallback = group_tracks(tracks_by_id(tracks))
    assert groups == {"1": "artist bob", "2": "artist bob", "3": "artist bob", "4": "artist ann"}
    assert fallback == ""


def test_validation_takes_the_smallest_groups_until_its_share_is_reached():
    durations = {"a": 50, "b": 2, "c": 3, "d": 30, "e": 15}
    tracks = [make_track(name, name, length=duration * SECOND) for name, duration in durations.items()]
    splits = split_of(plan_chunks(tracks, [], dataclasses.replace(PLAN, validation_share=0.05)))
    assert {name for name, split in splits.items() if split == "val"} == {"b", "c"}


def test_validation_is_one_group_at_least_and_never_all():
    tracks = [make_track("a", "a", length=9 * SECOND), make_track("b", "b", length=8 * SECOND)]
    for share in (0.0, 0.01, 1.0):
        plan = dataclasses.replace(PLAN, validation_share=share)
        assert split_of(plan_chunks(tracks, [], plan)) == {"a": "train", "b": "val"}


def test_one_musicians_library_is_split_by_album_and_says_so():
    tracks = [make_track(f"{album}{number}", "Me", album=album) for album in "xy" for number in range(3)]
    groups, fallback = group_tracks(tracks_by_id(tracks))
    assert set(groups.values()) == {"album x", "album y"}
    assert "other albums" in fallback
    splits = split_of(plan_chunks(tracks, [], PLAN))
    assert all(splits[track.id] == {"x": "val", "y": "train"}[track.album] for track in tracks)


def test_one_untagged_folder_is_split_by_track_and_says_so():
    tracks = [make_track(name) for name in "abc"]
    assert "other tracks" in group_tracks(tracks_by_id(tracks))[1]
    assert sorted(split_of(plan_chunks(tracks, [], PLAN)).values()) == ["train", "train", "val"]


def test_one_track_is_trained_on_and_nothing_is_left_for_validation():
    assert "no validation" in group_tracks(tracks_by_id([make_track("a")]))[1]
    assert split_of(plan_chunks([make_track("a")], [], PLAN)) == {"a": "train"}


# Growth


@pytest.mark.parametrize("seed", range(5))
def test_growth_moves_no_group_and_no_shard(seed: int):
    # New tracks of new artists only: what links old groups is tested below.
    tracks = make_library(100, seed)
    newer = [
        dataclasses.replace(track, artists=[f"New {track.id[0]}"], album=None) for track in make_library(60, -seed - 1)
    ]
    before = plan_chunks(tracks, [], PLAN)
    after = shard_of(plan_chunks([*tracks, *newer], before, PLAN))
    assert {key: after[key] for key in shard_of(before)} == shard_of(before)
    assert not set(shard_of(before).values()) & {after[key] for key in set(after) - set(shard_of(before))}


def test_planning_twice_changes_nothing():
    tracks = make_library(100)
    chunks = plan_chunks(tracks, [], PLAN)
    assert plan_chunks(tracks, chunks, PLAN) == chunks


def test_the_order_of_the_tracks_does_not_matter():
    tracks = make_library(100)
    assert plan_chunks(tracks[::-1], [], PLAN) == plan_chunks(tracks, [], PLAN)


def test_retagging_titles_and_years_changes_nothing():
    tracks = make_library(100)
    chunks = plan_chunks(tracks, [], PLAN)
    retagged = [dataclasses.replace(track, title="New", year=1999, genres=["new"], mtime_ns=2) for track in tracks]
    assert plan_chunks(retagged, chunks, PLAN) == chunks


def test_new_groups_go_to_train_while_validation_is_large_enough():
    tracks = [make_track(name, name, length=100 * SECOND) for name in "abcdefghij"]
    chunks = plan_chunks(tracks, [], PLAN)
    grown = plan_chunks([*tracks, make_track("new", "new", length=SECOND)], chunks, PLAN)
    assert split_of(grown)["new"] == "train"


def test_new_groups_fill_validation_up_once_it_has_fallen_below_half():
    tracks = [make_track(name, name, length=100 * SECOND) for name in "abcdefghij"]  # validation: a
    newer = [make_track(f"new {number}", f"new {number}", length=(101 + number) * SECOND) for number in range(12)]
    chunks = plan_chunks(tracks, [], PLAN)
    grown = split_of(plan_chunks([*tracks, *newer], chunks, PLAN))
    # 100 of 2278 s is 4.4%: the two smallest new groups bring it above 10%.
    assert {name for name, split in grown.items() if split == "val"} == {"a", "new 0", "new 1"}


def test_a_group_that_joins_one_for_training_is_never_validated_on_again():
    lengths = {"a": 10, "b": 40, "c": 45, "d": 360}
    tracks = [make_track(name, name, length=length * SECOND) for name, length in lengths.items()]
    chunks = plan_chunks(tracks, [], PLAN)
    assert split_of(chunks) == {"a": "val", "b": "val", "c": "train", "d": "train"}
    one_album = {"album": "Split", "album_artist": "Various"}
    merged = [dataclasses.replace(track, **(one_album if track.id in "abc" else {})) for track in tracks]
    again = plan_chunks([*merged, make_track("new", "new", length=50 * SECOND)], chunks, PLAN)
    # though more hours of the new group were validated on than trained on
    assert split_of(again) == {"a": "train", "b": "train", "c": "train", "d": "train", "new": "val"}
    shards = {chunk.track_id: chunk.shard for chunk in chunks}
    kept = [chunk for chunk in again if chunk.track_id in "cd"]
    assert all(chunk.shard == shards[chunk.track_id] for chunk in kept)
    moved = {chunk.shard for chunk in again if chunk.track_id in "ab"}
    assert moved.isdisjoint(chunk.shard for chunk in kept)  # what moves goes into new shards: no old one changes


def test_a_musicians_library_that_gains_an_artist_is_split_by_artist_from_then_on():
    mine = [make_track(f"{album}{number}", "Me", album=album) for album in "xy" for number in range(3)]
    chunks = plan_chunks(mine, [], PLAN)
    assert set(split_of(chunks).values()) == {"train", "val"}  # by album
    grown = split_of(plan_chunks([*mine, make_track("z", "Other")], chunks, PLAN))
    assert grown == {"z": "val"} | {track.id: "train" for track in mine}


def test_validation_that_has_vanished_is_refilled_by_new_groups_and_never_by_what_was_trained_on():
    tracks = [make_track(name, name, length=length * SECOND) for name, length in {"a": 1, "b": 20, "c": 90}.items()]
    chunks = plan_chunks(tracks, [], dataclasses.replace(PLAN, validation_share=0.001))
    assert split_of(chunks)["a"] == "val"
    left = plan_chunks(tracks[1:], chunks, PLAN)
    assert split_of(left) == {"b": "train", "c": "train"}
    assert split_of(plan_chunks([*tracks[1:], make_track("new", "new")], left, PLAN))["new"] == "val"


def test_vanished_tracks_lose_their_chunks_and_move_nothing_else():
    tracks = make_library(100)
    chunks = plan_chunks(tracks, [], PLAN)
    gone = next(chunk.track_id for chunk in chunks if chunk.split == "train")
    left = plan_chunks([track for track in tracks if track.id != gone], chunks, PLAN)
    assert shard_of(left) == shard_of([chunk for chunk in chunks if chunk.track_id != gone])


@pytest.mark.parametrize("change", [{"chunk_length": 2 * LENGTH}, {"chunk_length": LENGTH // 2}, {"divisor": 7_500}])
def test_another_chunk_length_or_divisor_plans_shards_afresh_and_keeps_the_splits(change: dict[str, int]):
    tracks = make_library(100)
    chunks = plan_chunks(tracks, [], PLAN)
    plan = dataclasses.replace(PLAN, **change)
    again = plan_chunks(tracks, chunks, plan)
    assert split_of(again) == split_of(chunks)
    assert shard_of(again) == shard_of(plan_chunks(tracks, [], plan))


# Shards


def test_shards_are_about_full_and_never_divide_a_track():
    chunks = plan_chunks(make_library(300), [], PLAN)
    of_track: dict[str, set[int]] = {}
    sizes: dict[int, int] = {}
    for chunk in chunks:
        of_track.setdefault(chunk.track_id, set()).add(chunk.shard)
        if chunk.split == "train":
            sizes[chunk.shard] = sizes.get(chunk.shard, 0) + 1
    assert all(len(shards) == 1 for shards in of_track.values())
    assert max(sizes.values()) <= PLAN.chunks_per_shard
    assert all(size > PLAN.chunks_per_shard - 6 for shard, size in sizes.items() if shard < max(sizes))  # 6 a track
    assert sorted(sizes) == list(range(len(sizes)))


def test_a_track_of_more_chunks_than_a_shard_has_a_shard_of_its_own():
    tracks = [make_track("a", "a", length=SECOND), make_track("b", "b", length=20 * LENGTH), make_track("c", "c")]
    chunks = plan_chunks(tracks, [], dataclasses.replace(PLAN, validation_share=0.001))
    shards = {chunk.track_id: (chunk.split, chunk.shard) for chunk in chunks}
    assert shards == {"a": ("val", 0), "b": ("train", 0), "c": ("train", 1)}


def test_chunks_are_sorted_by_split_shard_and_key():
    chunks = plan_chunks(make_library(100), [], PLAN)
    assert chunks == sorted(chunks, key=lambda chunk: (chunk.split, chunk.shard, chunk.key))


# The table


def write_tracks(manifests: Path, tracks: Sequence[Track]) -> None:
    write_table(manifests / "tracks.parquet", Track, tracks)


def test_the_summary_counts_what_is_skipped_overlapped_and_crossing(tmp_path: Path):
    tracks = [
        make_track("a", "a", length=11 * SECOND),  # 1 s skipped at its end
        make_track("b", "b", length=18 * SECOND, artists=["b", "A"]),  # 2 s in two chunks; artist a is validation's
        make_track("c", "c", length=24 * SECOND, artists=["c", "b"]),  # 4 s skipped in its middle; b does not cross
    ]
    write_tracks(tmp_path, tracks)
    summary = update_chunks(tmp_path, PLAN)
    assert (summary.num_chunks, summary.num_tracks, summary.num_groups, summary.num_shards) == (5, 3, 3, 2)
    assert (summary.train_duration, summary.val_duration) == (40, 10)
    assert (summary.skipped_duration, summary.overlapped_duration) == (5, 2)
    assert summary.num_crossing_artists == 1
    assert summary.changed and summary.fallback == ""


def test_a_second_run_writes_nothing(tmp_path: Path):
    write_tracks(tmp_path, make_library(50))
    assert update_chunks(tmp_path, PLAN).changed
    written = (tmp_path / "chunks.parquet").stat()
    assert not update_chunks(tmp_path, PLAN).changed
    assert (tmp_path / "chunks.parquet").stat().st_ino == written.st_ino
    assert read_chunks(tmp_path) == plan_chunks(make_library(50), [], PLAN)


@pytest.mark.parametrize("count", [0, 1, 7, 10**6])
def test_some_chunks_are_picked_at_even_distances(tmp_path: Path, count: int):
    write_tracks(tmp_path, make_library(20))
    num_chunks = update_chunks(tmp_path, PLAN).num_chunks
    chunks = read_chunks(tmp_path)
    picked = [chunks.index(chunk) for chunk in spread_chunks(tmp_path, num_chunks, count)]
    assert len(picked) == min(count, num_chunks)
    assert picked[:1] == [0][:count]
    gaps = {later - earlier for earlier, later in itertools.pairwise(picked)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_library_without_decoded_tracks_names_the_cure(tmp_path: Path):
    write_tracks(tmp_path, [make_track("a", id=None, length=None)])
    with pytest.raises(UserError, match="mousai ingest"):
        update_chunks(tmp_path, PLAN)
