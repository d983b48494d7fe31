"""Shards: the audio in them is the source, failures stay small, and finished work is not done again."""

import dataclasses
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import webdataset

from mousai.audio import SAMPLE_RATE, Waveform
from mousai.errors import UserError
from mousai.settings import SelectSettings
from pipeline import shard as stage
from pipeline.chunks import ChunkPlan, plan_chunks, read_chunks, update_chunks
from pipeline.decode import Unusable, probe, stereo_blocks
from pipeline.manifest import read_table, write_table
from pipeline.records import Chunk, ShardMember, Track
from pipeline.shard import ShardSummary, cut, shard
from pipeline.tars import read_member, read_members

PLAN = ChunkPlan(chunk_length=SAMPLE_RATE, divisor=1_000, chunks_per_shard=4)
LOUD = 1.4  # peak of a track that clips


def write_noise(
    path: Path, duration: float, sample_rate: int = SAMPLE_RATE, channels: int = 2, peak: float = 0.5
) -> None:
    noise = np.random.default_rng(len(path.name)).uniform(-1, 1, (round(duration * sample_rate), channels))
    noise[100] = 1.0  # so that the peak is known
    soundfile.write(path, noise * peak, sample_rate, subtype="FLOAT" if path.suffix == ".wav" else "PCM_16")


def make_track(path: Path) -> Track:
    status = path.stat()
    with path.open("rb") as file:
        measured = dataclasses.asdict(probe(file))
    del measured["landmarks"]
    return Track(
        **measured.pop("quality"), **measured, cluster=None, family=None,
        path=str(path), raw_path=os.fsencode(path), library=str(path.parent),
        size=status.st_size, mtime_ns=status.st_mtime_ns, title=path.stem.title(), artists=[f"{path.stem} é"],
        album=None, album_artist=None, genres=["noise", "test"], year=1999, licence=None,
        consent=None, raw_tags="{}",
    )  # fmt: skip


class Workspace:
    """A library of five tracks, ingested and planned: 11 chunks in four shards."""

    def __init__(self, root: Path) -> None:
        self.library, self.manifests, self.shards = root / "library", root / "manifests", root / "shards"
        self.library.mkdir()
        write_noise(self.library / "long.wav", 3.3)
        write_noise(self.library / "loud one.wav", 2.7, peak=LOUD)
        write_noise(self.library / "mono.flac", 1.7, sample_rate=44_100, channels=1)
        write_noise(self.library / "short.flac", 0.4)
        write_noise(self.library / "tight.flac", 2.0)
        self.ingest()

    def ingest(self) -> None:
        tracks = [make_track(path) for path in sorted(self.library.iterdir())]
        write_table(self.manifests / "tracks.parquet", Track, tracks)
        update_chunks(self.manifests, PLAN)

    def shard(self, audio_format: stage.AudioFormat = "flac", workers: int = 1) -> ShardSummary:
        return shard(self.manifests, self.shards, audio_format=audio_format, workers=workers)

    def tars(self) -> list[Path]:
        return sorted(self.shards.glob("*/*.tar"))

    def state(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.shards)): path.read_bytes() for path in sorted(self.shards.glob("*/*"))}

    def written(self) -> dict[Path, int]:
        return {tar: tar.stat().st_ino for tar in self.tars()}

    def track(self, name: str) -> Track:
        tracks = read_table(self.manifests / "tracks.parquet", Track)
        return next(track for track in tracks if Path(track.path).name == name)

    def rows(self) -> Iterator[tuple[Path, ShardMember]]:
        for tar in self.tars():
            for row in read_members(tar.parent, tar.stem, ShardMember):
                yield tar, row

    def tar_of(self, track: Track) -> Path:
        return next(tar for tar, row in self.rows() if row.track_id == track.id)

    def pcm(self, chunk: Chunk) -> np.ndarray:
        """[T, 2] int16 as it is stored."""
        tar, row = next((tar, row) for tar, row in self.rows() if row.key == chunk.key)
        with (tar.parent / "chunk").open("wb+") as file:
            file.write(read_member(tar, row.offset, row.size))
            file.seek(0)
            pcm, sample_rate = soundfile.read(file, dtype="int16")
        (tar.parent / "chunk").unlink()
        assert sample_rate == SAMPLE_RATE
        return pcm


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Sharded once; tests that change it take a `copy`."""
    workspace = Workspace(tmp_path_factory.mktemp("finished"))
    assert workspace.shard().num_made == 4
    return workspace


@pytest.fixture
def copy(finished: Workspace, tmp_path: Path) -> Workspace:
    """The finished workspace with shards of its own, and the same library."""
    workspace = object.__new__(Workspace)
    workspace.library, workspace.manifests, workspace.shards = (
        finished.library,
        tmp_path / "manifests",
        tmp_path / "shards",
    )
    shutil.copytree(finished.manifests, workspace.manifests)
    shutil.copytree(finished.shards, workspace.shards)
    return workspace


def source(track: Track) -> Waveform:
    with Path(track.path).open("rb") as file:
        return np.concatenate(list(stereo_blocks(file)), axis=1)


# What is in them


@pytest.mark.parametrize("audio_format", ["flac", "wav"])
def test_every_chunk_is_the_decoded_source_times_its_gain_rounded_to_16_bits(
    copy: Workspace, audio_format: stage.AudioFormat
):
    assert copy.shard(audio_format).num_failed == 0
    tracks = {track.id: track for track in read_table(copy.manifests / "tracks.parquet", Track)}
    gains = {row.track_id: row.gain for _, row in copy.rows()}
    for chunk in read_chunks(copy.manifests):
        wanted = source(tracks[chunk.track_id])[:, chunk.start : chunk.start + chunk.valid_length]
        wanted = wanted.T.astype(np.float64) * gains[chunk.track_id] * 32_767
        assert np.abs(copy.pcm(chunk) - wanted).max() < 0.51  # half a step, and float32


def test_a_track_above_full_scale_is_turned_down_as_a_whole_and_not_clipped(finished: Workspace):
    track = finished.track("loud one.wav")
    assert track.peak == pytest.approx(LOUD)
    (gain,) = {row.gain for _, row in finished.rows() if row.track_id == track.id}
    assert gain == pytest.approx(1 / LOUD, rel=1e-4)
    chunks = [chunk for chunk in read_chunks(finished.manifests) if chunk.track_id == track.id]
    first = np.abs(finished.pcm(chunks[0]).astype(int))
    assert first.max() == first[100, 0] >= 32_766  # the peak that was written there reaches full scale
    assert (first >= 32_766).sum() < 10  # and little else does


def test_quieter_tracks_keep_their_level(finished: Workspace):
    assert {row.gain for _, row in finished.rows() if row.track_id != finished.track("loud one.wav").id} == {1.0}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # WebDataset closes no file it opened
def test_webdataset_reads_every_chunk_with_its_text(finished: Workspace):
    planned = {chunk.key: chunk for chunk in read_chunks(finished.manifests)}
    read = list(webdataset.WebDataset([str(tar) for tar in finished.tars()], shardshuffle=False))
    assert sorted(sample["__key__"] for sample in read) == sorted(planned)
    for sample in read:
        chunk, said = planned[sample["__key__"]], json.loads(sample["json"])
        assert (said["index"], said["count"], said["start"]) == (chunk.index, chunk.count, chunk.start)
        assert said["text"].endswith(f"é, noise, test, 1999, {chunk.index} of {chunk.count}")


def test_nothing_in_a_tar_tells_path_clock_or_user(finished: Workspace):
    for tar in finished.tars():
        assert str(finished.library).encode() not in tar.read_bytes()
        with tarfile.open(tar) as file:
            told = {(member.uname, member.gname, member.uid, member.gid, member.mtime) for member in file}
        assert told == {("mousai", "mousai", 0, 0, 0)}


def test_the_number_of_workers_changes_no_byte(finished: Workspace, tmp_path: Path):
    summary = shard(finished.manifests, tmp_path / "shards", audio_format="flac", workers=2)
    again = object.__new__(Workspace)
    again.shards = tmp_path / "shards"
    assert summary.num_made == 4
    assert again.state() == finished.state()


@pytest.mark.parametrize("block", [1, 7, 10, 100])
def test_cutting_does_not_depend_on_the_blocks(block: int):
    audio = np.arange(2 * 47, dtype=np.float32).reshape(2, 47)
    track = Track(**({field.name: None for field in dataclasses.fields(Track)} | {"id": "a", "length": 47}))
    for length in (9, 11, 47):  # gaps of 1, overlaps, a single chunk
        plan = ChunkPlan(chunk_length=length, divisor=1, chunks_per_shard=1)
        chunks = plan_chunks([dataclasses.replace(track, path="/a", artists=["a"])], [], plan)
        blocks = (audio[:, start : start + block] for start in range(0, 47, block))
        pieces = list(cut(blocks, chunks, 47))
        assert len(pieces) == len(chunks)
        for piece, chunk in zip(pieces, chunks, strict=True):
            assert np.array_equal(piece, audio[:, chunk.start : chunk.start + length])


def test_a_track_of_another_length_than_planned_cannot_be_cut():
    with pytest.raises(Unusable, match="40 samples came out, 50"):
        list(cut([np.zeros((2, 40), np.float32)], [], 50))


# What is done again


def test_a_second_run_does_nothing(copy: Workspace):
    before = copy.written()
    summary = copy.shard()
    assert (summary.num_made, summary.num_kept, summary.num_removed) == (0, 4, 0)
    assert (summary.num_chunks, summary.num_failed, summary.failures) == (11, 0, ())
    assert summary.bytes == sum(tar.stat().st_size for tar in copy.tars())
    assert copy.written() == before


def delete_tar(tar: Path) -> None:
    tar.unlink()


def tear_tar(tar: Path) -> None:
    os.truncate(tar, tar.stat().st_size // 1024 * 512)


def forget_stats(tar: Path) -> None:  # what a kill between tar and stats leaves
    tar.with_name(f"{tar.stem}_stats.json").unlink()


@pytest.mark.parametrize("damage", [delete_tar, tear_tar, forget_stats])
def test_what_is_damaged_is_made_again_byte_by_byte_and_nothing_else(copy: Workspace, finished: Workspace, damage):
    before = copy.written()
    victim = copy.tars()[1]
    damage(victim)
    assert copy.shard().num_made == 1
    assert copy.state() == finished.state()
    assert {tar for tar, inode in copy.written().items() if tar != victim and inode != before[tar]} == set()


def test_retagging_makes_nothing_again(copy: Workspace):
    path = copy.manifests / "tracks.parquet"
    tracks = [dataclasses.replace(track, title="New", year=2001) for track in read_table(path, Track)]
    write_table(path, Track, tracks)
    assert copy.shard().num_made == 0


def test_another_format_makes_all_again(copy: Workspace):
    assert copy.shard("wav").num_made == 4


def test_what_the_plan_no_longer_names_is_removed(copy: Workspace):
    gone = copy.tars()[0]
    number, split = int(gone.stem[-6:]), gone.parent.name
    chunks = [chunk for chunk in read_chunks(copy.manifests) if (chunk.split, chunk.shard) != (split, number)]
    write_table(copy.manifests / "chunks.parquet", Chunk, chunks)
    (gone.parent / ".mousai-train-000099.tar.tmp").write_bytes(b"of a killed run")
    summary = copy.shard()
    assert (summary.num_made, summary.num_kept, summary.num_removed) == (0, 3, 2)
    assert not list(copy.shards.rglob(f"*{gone.stem}*")) and not list(copy.shards.rglob("*99*"))


def test_a_threshold_that_leaves_a_track_out_makes_only_its_shards_again(copy: Workspace):
    path = copy.manifests / "tracks.parquet"
    out = copy.track("loud one.wav")
    tracks = [dataclasses.replace(track, decode_errors=int(track.id == out.id)) for track in read_table(path, Track)]
    write_table(path, Track, tracks)
    strict = SelectSettings(max_errors_per_minute=0)
    update_chunks(copy.manifests, PLAN, strict)
    planned = {chunk.track_id for chunk in read_chunks(copy.manifests)}
    assert planned == {track.id for track in tracks} - {out.id}
    held, before = copy.tar_of(out), copy.written()
    shard(copy.manifests, copy.shards, select=strict, workers=1)
    assert {tar: inode for tar, inode in copy.written().items() if tar != held} == {
        tar: inode for tar, inode in before.items() if tar != held
    }
    assert out.id not in {row.track_id for _, row in copy.rows()}


def test_chunks_of_tracks_that_are_gone_name_the_cure(copy: Workspace):
    write_table(copy.manifests / "tracks.parquet", Track, [])
    with pytest.raises(UserError, match="Plan again"):
        copy.shard()


# What fails


@pytest.fixture
def mutable(tmp_path: Path) -> Workspace:
    """A workspace whose library may be harmed; not sharded yet."""
    return Workspace(tmp_path)


def spoil(track: Track) -> None:
    """Other bytes in the second half, under the same size and time of modification."""
    path = Path(track.path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    os.utime(path, ns=(track.mtime_ns, track.mtime_ns))


def test_a_track_that_fails_costs_its_own_chunks_and_no_others(mutable: Workspace):
    victim = mutable.track("tight.flac")
    spoil(victim)
    summary = mutable.shard()
    assert (summary.num_chunks, summary.num_failed) == (9, 2)
    ((path, error),) = summary.failures
    assert path == victim.path and error.startswith("decode_failed")
    assert {row.track_id for _, row in mutable.rows() if row.error} == {victim.id}


def test_a_failure_that_would_come_again_is_not_tried_again(mutable: Workspace):
    spoil(mutable.track("tight.flac"))
    first = mutable.shard()
    assert mutable.shard() == dataclasses.replace(first, num_made=0, num_kept=4)


# What stands in the file's place meanwhile: an empty file, nothing, a folder.
@pytest.mark.parametrize(
    ("harm", "reason"), [(Path.touch, "changed: "), (Path.exists, "changed: "), (Path.mkdir, "unreadable: ")]
)
def test_a_file_that_comes_back_is_put_into_its_shard_and_no_other_is_made(mutable: Workspace, harm, reason: str):
    path, aside = Path(mutable.track("tight.flac").path), mutable.library.parent / "aside"
    path.rename(aside)
    harm(path)
    first = mutable.shard()
    assert first.num_failed == 2 and first.failures[0][1].startswith(reason)
    assert mutable.shard().num_made == 0  # nothing has changed yet
    if path.is_dir():
        path.rmdir()
    aside.replace(path)
    second = mutable.shard()
    assert (second.num_made, second.num_failed) == (1, 0)


def test_a_track_that_turned_louder_than_ingested_fails_rather_than_clips(mutable: Workspace):
    table = mutable.manifests / "tracks.parquet"
    tracks = [dataclasses.replace(track, peak=0.5) for track in read_table(table, Track)]
    write_table(table, Track, tracks)
    ((path, error),) = mutable.shard().failures
    assert path.endswith("loud one.wav") and "louder" in error


def test_a_crash_names_the_file(mutable: Workspace, monkeypatch: pytest.MonkeyPatch):
    def crash(_: object) -> Iterator[Waveform]:
        raise RuntimeError("a bug in a decoder")

    monkeypatch.setattr(stage, "stereo_blocks", crash)
    with pytest.raises(RuntimeError) as caught:
        mutable.shard()
    assert str(mutable.library) in caught.value.__notes__[0]


def test_a_full_disk_is_noticed_before_anything_is_written(mutable: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(UserError, match="free"):
        mutable.shard()
    assert not mutable.shards.exists()
