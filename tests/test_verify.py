"""Verify: whatever happens to a tar or to what lies beside it is named, marked, and made again, and nothing else is."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_runs import Chain, mousai, state_of

from mousai.errors import UserError
from pipeline.manifest import read_table, write_table
from pipeline.records import Chunk, LatentMember, ShardMember
from pipeline.tars import finished_shards, member_spans, shard_name, write_shard
from pipeline.verify import Verification, verify

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

NAMES = [shard_name("train", number) for number in range(3)]


def write_audio(folder: Path, number: int) -> None:
    rows = [
        ShardMember(
            key=f"{number}a_{index:04}", track_id=f"{number}a", index=index, count=3, valid_length=48_000, gain=1.0,
            offset=-1, size=0, error="changed: it is gone" if index == 3 else None,
        )
        for index in (1, 2, 3)
    ]  # fmt: skip
    samples = [(row, {} if row.error else {"flac": row.key.encode() * 300, "json": b"{}"}) for row in rows]
    write_shard(folder, NAMES[number], "train", "plan", samples, lambda row: row.valid_length / 48_000)


def write_latents(folder: Path, number: int) -> None:
    row = LatentMember(
        key=f"{number}a_0001", track_id=f"{number}a", index=1, count=1, frames=4, valid_frames=4, mean=[0.0], std=[1.0],
        offset=-1, size=0,
    )  # fmt: skip
    write_shard(folder, NAMES[number], "train", "plan", [(row, {"npy": b"n" * 900, "json": b"{}"})], lambda row: 1.0)


@pytest.fixture
def space(tmp_path) -> Path:
    """Three audio shards with their plan, and their latents."""
    for number in range(3):
        write_audio(tmp_path / "shards" / "train", number)
        write_latents(tmp_path / "latents" / "id" / "train", number)
    chunks = [
        Chunk(
            key=f"{number}a_0001", track_id=f"{number}a", index=1, count=1, start=0, length=48_000, valid_length=48_000,
            split="train", group="g", shard=number,
        )
        for number in range(3)
    ]  # fmt: skip
    write_table(tmp_path / "manifests" / "chunks.parquet", Chunk, chunks)
    return tmp_path


def check(space: Path, mark: bool = True) -> Verification:
    return verify(space / "manifests", space / "shards", space / "latents", workers=1, mark=mark)


def problems(done: Verification) -> dict[str, str]:
    """The name of each damaged tar, below the workspace -> what is wrong with it."""
    return {"/".join(Path(each.path).parts[-3:]): "; ".join(each.problems) for each in done.damages}


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def flip_a_bit(tar: Path) -> None:
    flip(tar, 700)


def flip_a_bit_of_the_table(tar: Path) -> None:
    flip(tar.with_suffix(".parquet"), 40)


def cut_at_a_member(tar: Path) -> None:
    """A tar without its last chunk, which any reader takes for a whole one."""
    offset, _ = member_spans(tar)["1a_0002.flac"]
    os.truncate(tar, offset - 512)
    assert list(member_spans(tar)) == ["1a_0001.flac", "1a_0001.json"]


def delete_the_tar(tar: Path) -> None:
    tar.unlink()


def delete_the_table(tar: Path) -> None:
    tar.with_suffix(".parquet").unlink()


def swap_tables(tar: Path) -> None:
    shutil.copy(tar.with_name(f"{NAMES[2]}.parquet"), tar.with_suffix(".parquet"))


def move_a_member(tar: Path) -> None:
    """A table that points elsewhere."""
    rows = read_table(tar.with_suffix(".parquet"), ShardMember)
    moved = [row if row.error else dataclasses.replace(row, offset=row.offset + 1) for row in rows]
    write_table(tar.with_suffix(".parquet"), ShardMember, moved)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_bit, "its content has changed"),
        (flip_a_bit_of_the_table, f"{NAMES[1]}.parquet has changed"),
        (cut_at_a_member, "bytes, and had"),
        (delete_the_tar, "the tar is missing"),
        (delete_the_table, f"{NAMES[1]}.parquet is missing"),
        (swap_tables, "2 of 2 chunks are not where they were, 2a_0001 first"),
        (move_a_member, "2 of 2 chunks are not where they were, 1a_0001 first"),
    ],
)
def test_damage_is_named_and_marked_once(space: Path, damage: Callable[[Path], None], words: str):
    assert check(space).damages == ()
    damage(space / "shards" / "train" / f"{NAMES[1]}.tar")
    found = problems(check(space))
    assert list(found) == [f"shards/train/{NAMES[1]}.tar"] and words in found[f"shards/train/{NAMES[1]}.tar"]
    assert finished_shards(space / "shards" / "train") == [NAMES[0], NAMES[2]]
    assert problems(check(space)) == {f"shards/train/{NAMES[1]}.tar": "it was found to be damaged before"}


@pytest.mark.parametrize(
    "field", ["name", "split", "num_chunks", "num_failed", "duration", "bytes", "sha256", "table_sha256", "plan"]
)
def test_no_field_of_the_stats_can_be_edited_unnoticed(space: Path, field: str):
    path = space / "latents" / "id" / "train" / f"{NAMES[0]}_stats.json"
    stats = json.loads(path.read_text())
    path.write_text(json.dumps({**stats, field: "0" if isinstance(stats[field], str) else stats[field] + 1}))
    (damage,) = check(space).damages
    assert damage.path == str(path.with_name(f"{NAMES[0]}.tar")) and damage.cure == "mousai encode-latents"
    assert "_stats.json is damaged" in damage.problems[0]


def test_two_tars_that_were_swapped_are_both_named(space: Path):
    folder = space / "shards" / "train"
    for suffix in (".tar", ".parquet", "_stats.json"):  # whole and sound, but not under their names
        paths = [folder / f"{name}{suffix}" for name in NAMES[:2]]
        paths[0].rename(folder / "aside")
        paths[1].rename(paths[0])
        (folder / "aside").rename(paths[1])
    assert problems(check(space)) == {
        f"shards/train/{NAMES[0]}.tar": f"its stats are those of train/{NAMES[1]}.tar",
        f"shards/train/{NAMES[1]}.tar": f"its stats are those of train/{NAMES[0]}.tar",
    }


def test_what_nothing_asks_for_and_what_is_not_there_are_named(space: Path):
    table = space / "manifests" / "chunks.parquet"
    write_table(table, Chunk, [chunk for chunk in read_table(table, Chunk) if chunk.shard != 2])
    for path in (space / "shards" / "train").glob(f"{NAMES[0]}*"):
        path.unlink()
    assert problems(check(space, mark=False)) == {
        f"shards/train/{NAMES[0]}.tar": "it is missing",
        f"shards/train/{NAMES[2]}.tar": "nothing asks for it: it is an orphan",
        f"id/train/{NAMES[0]}.tar": "nothing asks for it: it is an orphan",
    }


def test_an_unfinished_tar_is_named(space: Path):
    (space / "shards" / "train" / f"{NAMES[1]}_stats.json").unlink()
    assert problems(check(space)) == {f"shards/train/{NAMES[1]}.tar": "it was never finished"}


def test_to_look_changes_nothing(space: Path):
    flip_a_bit(space / "shards" / "train" / f"{NAMES[1]}.tar")
    before = state_of(space)
    done = check(space, mark=False)
    assert (done.num_shards, len(done.damages), done.marked) == (6, 1, False)
    assert state_of(space) == before


def test_without_shards_the_command_that_makes_them_is_named(tmp_path):
    with pytest.raises(UserError, match="mousai shard"):
        check(tmp_path)


def test_the_command_names_what_is_damaged_and_the_stages_make_just_that_again(chain: Chain, tmp_path):
    shutil.copytree(chain.workspace, tmp_path / "copy")
    copy = Chain(workspace=tmp_path / "copy", library=chain.library, outcomes={})
    before = state_of(copy.workspace)
    done = mousai("verify", "-w", copy.workspace, "-j", "1")
    assert done.code == 0 and done.out.startswith("0 of 4 tars damaged; the others hold ")

    (latent,) = (copy.workspace / "latents").glob(f"*/train/{NAMES[0]}.tar")
    tars = [copy.workspace / "shards" / "train" / f"{NAMES[0]}.tar", latent]
    for tar in tars:
        flip_a_bit(tar)
    done = mousai("verify", "-w", copy.workspace, "-j", "1", "--json")
    assert (done.code, [each["path"] for each in json.loads(done.out)["damages"]]) == (1, list(map(str, tars)))

    refused = copy.run("encode-latents")  # rather than to remove the latents of the audio that is not there
    assert (refused.code, "Make it again with: mousai shard" in refused.err) == (1, True)
    assert "(1 shards made, 1 kept, 0 removed)" in copy.run("shard").out
    assert "(1 shards made, 1 kept)" in copy.run("encode-latents").out
    after = state_of(copy.workspace)
    assert {name: content for name, (_, content) in after.items()} == {
        name: content for name, (_, content) in before.items()
    }
    changed = {name for name in after if after[name][0] != before[name][0]}
    assert {Path(name).name.partition(".")[0].partition("_")[0] for name in changed} == {NAMES[0]}
