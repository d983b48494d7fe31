"""Limits on what reading one file may cost: they hold whatever the file does to the process, and cost no other file."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from audio_files import write_tone

from mousai.audio import Waveform
from pipeline import ingest as ingest_stage
from pipeline import shard as shard_stage
from pipeline.chunks import ChunkPlan, update_chunks
from pipeline.executors import run_jobs
from pipeline.ingest import ingest
from pipeline.limits import Limits, limited, verdict
from pipeline.manifest import read_table
from pipeline.records import Reason, Rejected, Shard
from pipeline.shard import ShardJob, shard
from pipeline.walk import File

STRICT = Limits(seconds=0.5, megabytes=150)
HASTY = Limits(seconds=0.03, megabytes=0)  # so that waiting is at an end after 2 s
FIRM = Limits(seconds=3.0, megabytes=0)  # enough for a short file and for what is imported at the first one
LONG = 60.0  # s that no test waits for


def hang() -> None:
    """Years of computing in one call of C code."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def behave(how: str) -> str:
    """A job that does as it is told, under limits."""
    with limited(HASTY if how == "sleeps" else STRICT, 0):
        if how == "hangs":
            hang()
        if how == "sleeps":
            time.sleep(LONG)
        if how == "hoards":
            bytearray(300 << 20)
        if how == "is modest":
            bytearray(50 << 20)
    if how == "is modest":  # outside the block there are no limits
        bytearray(300 << 20)
        began = time.process_time()
        while time.process_time() < began + 2 * STRICT.seconds:
            pass
    return how


def test_what_a_file_does_beyond_its_limits_ends_its_worker_and_the_exit_code_tells_why():
    jobs = ["hangs", "sleeps", "hoards", "is modest"]
    results = dict(run_jobs(behave, jobs, 2, lambda _, code: verdict(code, STRICT), apart=True))
    assert results == {
        "hangs": (Reason.TIMEOUT, "it takes more than time_limit = 0.5"),
        "sleeps": (Reason.TIMEOUT, "it takes more than time_limit = 0.5"),
        "hoards": (Reason.OUT_OF_MEMORY, "it takes more than memory_limit = 150"),
        "is modest": "is modest",
    }


def test_a_longer_file_may_take_longer():
    assert Limits(seconds=60, megabytes=0).allowed(0) == 60
    assert Limits(seconds=60, megabytes=0).allowed(40_000_000) == 660


def test_every_way_to_die_has_its_verdict():
    assert verdict(-9, STRICT)[0] == Reason.CRASHED
    assert verdict(-11, None) == (Reason.CRASHED, "the decoder died of SIGSEGV")
    assert verdict(3, STRICT) == (Reason.CRASHED, "the decoder died of exit code 3")
    assert verdict(None, STRICT)[0] == Reason.CRASHED


def write_library(folder: Path) -> Path:
    folder.mkdir()
    for number, name in enumerate(("hostile", "a", "b")):
        write_tone(folder / f"{name}.wav", 1.5, frequency=300 + 20 * number)
    return folder


read_content, read_file = ingest_stage._read_content, ingest_stage._read_file
stereo_blocks, make_shard, encodes = shard_stage.stereo_blocks, shard_stage.make_shard, shard_stage._encodes


def hang_at_hostile_content(file: File, *how) -> ingest_stage._Read:
    if file.path.stem == "hostile":
        hang()
    return read_content(file, *how)


def hang_at_hostile_blocks(file: BinaryIO) -> Iterator[Waveform]:
    if "hostile" in file.name:
        hang()
    return stereo_blocks(file)


# A worker's process knows nothing of a test's patches: these bring them along.


def patched_read_file(file: File, **how) -> ingest_stage._Read:
    ingest_stage._read_content = hang_at_hostile_content
    return read_file(file, **how)


def patched_make_shard(job: ShardJob) -> Shard:
    shard_stage.stereo_blocks = hang_at_hostile_blocks
    return make_shard(job)


def patched_encodes(job: ShardJob) -> str:
    shard_stage.stereo_blocks = hang_at_hostile_blocks
    return encodes(job)


def test_a_file_that_hangs_costs_one_row_with_one_worker_too(tmp_path, monkeypatch):
    library, manifests = write_library(tmp_path / "library"), tmp_path / "manifests"
    with monkeypatch.context() as patch:
        patch.setattr(ingest_stage, "_read_file", patched_read_file)
        summary = ingest([library], manifests, workers=1, limits=FIRM)
        assert (summary.num_tracks, summary.reasons) == (2, {"timeout": 1})
        (row,) = read_table(manifests / "rejected.parquet", Rejected)
        assert (Path(row.path).name, row.detail) == ("hostile.wav", "it takes more than time_limit = 3")
    assert not ingest([], manifests, workers=1, limits=FIRM).changed  # the same limits: not tried again
    assert ingest([], manifests, workers=1, limits=Limits(seconds=30, megabytes=0)).num_tracks == 3


def test_a_track_that_hangs_fails_alone_in_its_shard(tmp_path, monkeypatch):
    library, manifests, shards = write_library(tmp_path / "library"), tmp_path / "manifests", tmp_path / "shards"
    ingest([library], manifests, workers=1)
    update_chunks(manifests, ChunkPlan(chunk_length=2**16, divisor=2**10, chunks_per_shard=16))
    with monkeypatch.context() as patch:
        patch.setattr(shard_stage, "make_shard", patched_make_shard)
        patch.setattr(shard_stage, "_encodes", patched_encodes)
        done = shard(manifests, shards, workers=1, limits=FIRM)
    assert [(Path(path).name, error) for path, error in done.failures] == [
        ("hostile.wav", "timeout: it takes more than time_limit = 3")
    ]
    assert (done.num_chunks, done.num_failed) == (2, 1)
    assert shard(manifests, shards, workers=1, limits=FIRM).num_made == 0
    again = shard(manifests, shards, workers=1, limits=None)
    assert (again.num_made, again.num_failed) == (1, 0)
