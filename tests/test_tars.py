"""A tar and its sidecars: same bytes twice, members found by offset, and done only when the stats say so."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import webdataset

from mousai.errors import UserError
from mousai.storage import sha256_of_file
from pipeline.records import LatentMember, Shard, ShardMember
from pipeline.tars import (
    finished_shards,
    is_done,
    list_shards,
    open_member,
    read_member,
    read_members,
    read_stats,
    remove_shard,
    shard_name,
    write_shard,
)

NAME = "mousai-train-000007"
SUFFIXES = (".parquet", ".tar", "_stats.json")
CONTENTS = {"a_0001": b"one" * 1000, "a_0002": b"two", "b_0001": b""}


def make_row(key: str, error: str | None = None) -> ShardMember:
    return ShardMember(
        key=key, track_id=key[0], index=int(key[2:]), count=2, valid_length=48_000, gain=1.0, offset=-1, size=0,
        error=error,
    )  # fmt: skip


def samples(contents: Mapping[str, bytes] = CONTENTS) -> Iterator[tuple[ShardMember, dict[str, bytes]]]:
    for key, content in contents.items():
        yield make_row(key), {"flac": content, "json": json.dumps({"text": key}).encode()}


def write(folder: Path, plan: str = "plan") -> Shard:
    return write_shard(folder, NAME, "train", plan, samples(), lambda row: row.valid_length / 48_000)


def test_names_are_those_that_webdataset_users_expect():
    assert shard_name("train", 7) == NAME


def test_the_same_samples_give_the_same_bytes(tmp_path: Path):
    assert write(tmp_path / "a") == write(tmp_path / "b")
    for suffix in SUFFIXES:
        assert (tmp_path / "a" / f"{NAME}{suffix}").read_bytes() == (tmp_path / "b" / f"{NAME}{suffix}").read_bytes()


def test_a_finished_tar_leaves_three_files_and_nothing_temporary(tmp_path: Path):
    write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{NAME}{suffix}" for suffix in SUFFIXES]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # WebDataset closes no file it opened
def test_webdataset_streams_the_tar_in_the_order_of_the_keys(tmp_path: Path):
    write(tmp_path)
    read = list(webdataset.WebDataset(str(tmp_path / f"{NAME}.tar"), shardshuffle=False))
    assert {sample["__key__"]: sample["flac"] for sample in read} == CONTENTS
    assert [json.loads(sample["json"])["text"] for sample in read] == list(CONTENTS)


def test_offset_and_size_find_the_main_member_without_reading_the_tar(tmp_path: Path):
    write(tmp_path)
    rows = read_members(tmp_path, NAME, ShardMember)
    tar = tmp_path / f"{NAME}.tar"
    assert {row.key: read_member(tar, row.offset, row.size) for row in rows} == CONTENTS


def test_the_tar_is_to_the_byte_what_webdataset_would_write(tmp_path: Path):
    write(tmp_path)
    with (tmp_path / "theirs.tar").open("wb") as file:
        writer = webdataset.TarWriter(file, encoder=False, mtime=0, user="mousai", group="mousai", mode=0o644)
        for row, members in samples():
            writer.write({"__key__": row.key, **members})
        writer.close()
    assert (tmp_path / f"{NAME}.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()


def test_an_open_member_is_a_file_that_ends_with_its_content(tmp_path: Path):
    write(tmp_path)
    row = read_members(tmp_path, NAME, ShardMember)[0]
    content = CONTENTS[row.key]
    with open_member(tmp_path / f"{NAME}.tar", row.offset, row.size) as file:
        assert file.read() == content and file.read(1) == b""
        assert (file.seek(2), file.read(3), file.tell()) == (2, content[2:5], 5)
        assert (file.seek(-2, os.SEEK_END), file.read(99)) == (len(content) - 2, content[-2:])
        assert (file.seek(1, os.SEEK_CUR), file.read()) == (len(content) + 1, b"")


def test_latents_go_the_same_way(tmp_path: Path):
    row = LatentMember(
        key="a_0001", track_id="a", index=1, count=1, frames=4, valid_frames=3, mean=[0.5], std=[1.0], offset=-1, size=0
    )
    write_shard(tmp_path, NAME, "train", "plan", [(row, {"npy": b"latent"})], lambda row: row.valid_frames)
    (row,) = read_members(tmp_path, NAME, LatentMember)
    assert read_member(tmp_path / f"{NAME}.tar", row.offset, row.size) == b"latent"
    assert read_stats(tmp_path, NAME).duration == 3


def test_a_failed_chunk_has_a_row_and_no_member(tmp_path: Path):
    failed = (make_row("c_0001", "decode_failed: noise"), dict[str, bytes]())
    write_shard(tmp_path, NAME, "train", "plan", [*samples(), failed], lambda row: 1.0)
    stats = read_stats(tmp_path, NAME)
    assert (stats.num_chunks, stats.num_failed, stats.duration) == (3, 1, 3)
    row = read_members(tmp_path, NAME, ShardMember)[-1]
    assert (row.error, row.offset, row.size) == ("decode_failed: noise", -1, 0)


def test_the_stats_tell_size_and_hash_of_the_tar(tmp_path: Path):
    stats = write(tmp_path)
    tar = tmp_path / stats.name
    assert (stats.bytes, stats.sha256) == (tar.stat().st_size, sha256_of_file(tar))
    assert stats == read_stats(tmp_path, NAME)


def test_done_means_that_every_file_is_there_whole_and_of_the_same_plan(tmp_path: Path):
    assert not is_done(tmp_path, NAME, "plan")
    write(tmp_path)
    assert is_done(tmp_path, NAME, "plan")
    assert not is_done(tmp_path, NAME, "another plan")
    for suffix in SUFFIXES:
        write(tmp_path)
        (tmp_path / f"{NAME}{suffix}").unlink()
        assert not is_done(tmp_path, NAME, "plan"), suffix


@pytest.mark.parametrize("file", [".tar", "_stats.json"])
def test_a_torn_file_means_not_done(tmp_path: Path, file: str):
    write(tmp_path)
    torn = tmp_path / f"{NAME}{file}"
    torn.write_bytes(torn.read_bytes()[:-1536])
    assert not is_done(tmp_path, NAME, "plan")


def test_reading_beyond_the_end_of_a_torn_tar_is_a_users_error(tmp_path: Path):
    size = write(tmp_path).bytes
    with pytest.raises(UserError, match="cut short"):
        read_member(tmp_path / f"{NAME}.tar", size - 10, 20)


def test_a_crash_while_writing_leaves_nothing_that_counts_as_done(tmp_path: Path):
    def crash() -> Iterator[tuple[ShardMember, dict[str, bytes]]]:
        yield from samples()
        raise RuntimeError

    write(tmp_path)
    with pytest.raises(RuntimeError):
        write_shard(tmp_path, NAME, "train", "plan", crash(), lambda row: 1.0)
    assert list(tmp_path.iterdir()) == []


def test_removal_takes_sidecars_and_leftovers_and_nothing_else(tmp_path: Path):
    write(tmp_path)
    (tmp_path / f".{NAME}.tar.tmp").write_bytes(b"of a killed run")
    (tmp_path / "mine.txt").write_bytes(b"")
    (tmp_path / ".mousai-val-000001.tar.tmp").write_bytes(b"of a killed run")
    assert list_shards(tmp_path) == [NAME, "mousai-val-000001"]
    assert finished_shards(tmp_path) == [NAME]
    for name in list_shards(tmp_path):
        remove_shard(tmp_path, name)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
