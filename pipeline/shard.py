"""From the plan to audio shards: each track decoded once, cut into its chunks, and packed into tars.

`shards/SPLIT/mousai-SPLIT-NNNNNN.tar` holds KEY.flac (or .wav) and KEY.json for each chunk. A track that has changed
since it was ingested, or does not decode, costs its own chunks and no others; they remain in the tables with the error.

Shapes: [2, T], T samples at 48 kHz.
"""

import json
import os
import shlex
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Literal

import numpy as np

from mousai.audio import CHANNELS, SAMPLE_RATE, Waveform, encode_pcm16, peak_gain
from mousai.errors import UserError
from mousai.progress import progress
from mousai.settings import SelectSettings
from mousai.storage import hash_of, require_space
from pipeline.decode import Unusable, stereo_blocks
from pipeline.executors import run_jobs
from pipeline.limits import Limits, given_up_under_others, limited, verdict
from pipeline.manifest import iter_table
from pipeline.prompts import describe_chunk
from pipeline.records import Chunk, Reason, Shard, ShardMember, Track
from pipeline.selection import read_selected
from pipeline.tars import is_done, list_shards, read_members, read_stats, remove_shard, shard_name, write_shard

AudioFormat = Literal["flac", "wav"]

_VERSION = 1  # raise it when the same plan comes to mean other audio: all shards become stale
_FLAC_RATIO = 0.75  # of PCM: generous, music is at 0.5 to 0.7
_SPOOL = 1 << 26  # bytes of one track's encoded chunks that are kept in memory, about 8 minutes; more goes to disk


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """All that one shard is made from."""

    folder: Path
    name: str
    split: str
    audio_format: AudioFormat
    tracks: tuple[tuple[Track, tuple[Chunk, ...]], ...]  # by track id, chunks by index
    limits: Limits | None = None  # on each track; with limits, none is decoded in this process itself
    given_up: Mapping[str | None, str] = field(default_factory=dict)  # id of a track that is not to be read -> why

    @property
    def plan(self) -> str:
        """Hash of what decides the audio: no tag and no path, so that retagging and moving keep the shard."""
        chunks = [
            [chunk.key, chunk.count, chunk.start, chunk.valid_length, _gain(track)]
            for track, chunks in self.tracks
            for chunk in chunks
        ]
        return hash_of([_VERSION, self.audio_format, chunks])

    @property
    def num_chunks(self) -> int:
        """Chunks that the shard should hold."""
        return sum(len(chunks) for _, chunks in self.tracks)

    @property
    def estimated_bytes(self) -> int:
        """About what the tar will take on disk."""
        length = sum(chunk.valid_length for _, chunks in self.tracks for chunk in chunks)
        return round(length * CHANNELS * 2 * (_FLAC_RATIO if self.audio_format == "flac" else 1))


@dataclass(frozen=True, kw_only=True)
class ShardSummary:
    """What a run of `shard` did, and what is there now."""

    num_made: int  # 0: there was nothing to do
    num_kept: int
    num_removed: int  # no longer in the plan
    num_chunks: int
    num_failed: int  # chunks
    duration: float  # s
    bytes: int
    failures: tuple[tuple[str, str], ...]  # (path, error) of each track that is missing from its shard


def shard(
    manifests: Path,
    shards: Path,
    *,
    audio_format: AudioFormat = "flac",
    select: SelectSettings | None = None,
    workers: int,
    limits: Limits | None = None,
) -> ShardSummary:
    """Make every shard of `chunks.parquet` that is missing, torn or stale, and remove those that it does not name.

    A shard with failures is made again once a file that was missing, changed or unreadable is back as it was ingested.
    For files that are meant to have changed, `mousai ingest` is the cure. A track that takes more than `limits` fails.
    """
    jobs = plan_shards(manifests, shards, audio_format, select, limits)
    stale = [job for job in jobs if not _is_current(job)]
    _require_libraries(stale)
    require_space(shards, sum(job.estimated_bytes for job in stale), "mousai shard")
    num_removed = _remove_orphans(shards, jobs)
    with progress("shard", sum(job.num_chunks for job in stale), "chunks") as advance:
        for job, _ in run_jobs(make_shard, stale, workers, _make_without_culprits, apart=limits is not None):
            advance(job.num_chunks, job.name)
    stats = [read_stats(job.folder, job.name) for job in jobs]
    return ShardSummary(
        num_made=len(stale),
        num_kept=len(jobs) - len(stale),
        num_removed=num_removed,
        num_chunks=sum(shard.num_chunks for shard in stats),
        num_failed=sum(shard.num_failed for shard in stats),
        duration=sum(shard.duration for shard in stats),
        bytes=sum(shard.bytes for shard in stats),
        failures=tuple(
            (track.path, error)
            for job, shard in zip(jobs, stats, strict=True)
            if shard.num_failed
            for track, error in _failures(job)
        ),
    )


def plan_shards(
    manifests: Path,
    shards: Path,
    audio_format: AudioFormat,
    select: SelectSettings | None = None,
    limits: Limits | None = None,
) -> list[ShardJob]:
    """One job for each shard of the plan, in its order; `select` as it was for the plan."""
    tracks = read_selected(manifests, select)
    path = manifests / "chunks.parquet"
    chunks = _known(iter_table(path, Chunk, "mousai shard"), tracks, path)
    return jobs_of(tracks, chunks, shards, audio_format, limits)


def _known(chunks: Iterable[Chunk], tracks: Mapping[str, Track], path: Path) -> Iterator[Chunk]:
    for chunk in chunks:
        if chunk.track_id not in tracks:
            raise UserError(f"{path} names tracks that are gone or left out. Plan again with: mousai shard")
        yield chunk


def jobs_of(
    tracks: Mapping[str, Track],
    chunks: Iterable[Chunk],
    shards: Path,
    audio_format: AudioFormat,
    limits: Limits | None = None,
) -> list[ShardJob]:
    """One job for each shard of these chunks, whose tracks are all there, in their order."""
    jobs = []
    for (split, number), members in groupby(chunks, lambda chunk: (chunk.split, chunk.shard)):
        by_track = [(track_id, tuple(rows)) for track_id, rows in groupby(members, lambda chunk: chunk.track_id)]
        jobs.append(
            ShardJob(
                folder=shards / split,
                name=shard_name(split, number),
                split=split,
                audio_format=audio_format,
                limits=limits,
                tracks=tuple((tracks[track_id], of_track) for track_id, of_track in by_track),
            )
        )
    return jobs


def require_current(
    manifests: Path, shards: Path, audio_format: AudioFormat, select: SelectSettings | None = None
) -> None:
    """UserError unless the shards are those of the plan: every one finished, and no other."""
    jobs = plan_shards(manifests, shards, audio_format, select)
    if _orphans(shards, jobs) or not all(is_done(job.folder, job.name, job.plan) for job in jobs):
        raise UserError(f"{shards} is not what the library is now. Bring it up to date: mousai shard")


def make_shard(job: ShardJob) -> Shard:
    """Make one shard, whatever is there."""
    return write_shard(
        job.folder, job.name, job.split, job.plan, _samples(job), lambda row: row.valid_length / SAMPLE_RATE
    )


def _make_without_culprits(job: ShardJob, exit_code: int | None) -> Shard:
    """Make a shard that kills its worker: each track is tried in a worker of its own first, and fails if that dies."""
    alone = [replace(job, tracks=(pair,)) for pair in job.tracks]
    given_up = {
        tried.tracks[0][0].id: why
        for tried, why in run_jobs(_encodes, alone, 2, lambda tried, code: ": ".join(verdict(code, tried.limits)))
        if why
    }
    ((_, made),) = run_jobs(make_shard, [replace(job, given_up=given_up)], 1, _give_up, apart=True)
    return made


def _encodes(job: ShardJob) -> str:
    """Nothing to say, if it returns at all."""
    deque(_samples(job), maxlen=0)
    return ""


def _give_up(job: ShardJob, exit_code: int | None) -> Shard:
    raise UserError(
        f"the process that makes {job.folder / job.name}.tar dies, though each of its tracks can be read. "
        "If memory is short, try again with fewer processes: mousai shard -j 2"
    )


def cut(blocks: Iterable[Waveform], chunks: Sequence[Chunk], length: int) -> Iterator[Waveform]:
    """The [2, valid_length] audio of each chunk, from a track's consecutive blocks; chunks are ordered and may overlap.

    Holds one chunk and a block at a time. Raises `Unusable` at the end if the blocks don't add up to `length` samples.
    """
    waiting = deque(chunks)
    held: deque[Waveform] = deque()
    first = end = 0  # of the samples in `held`
    for block in blocks:
        held.append(block)
        end += block.shape[1]
        while waiting and end >= waiting[0].start + waiting[0].valid_length:
            chunk = waiting.popleft()
            yield np.concatenate(held, axis=1)[:, chunk.start - first :][:, : chunk.valid_length]
        needed = waiting[0].start if waiting else end
        while held and first + held[0].shape[1] <= needed:
            first += held.popleft().shape[1]
    if end != length:
        raise Unusable(Reason.DECODE_FAILED, f"{end} samples came out, {length} when it was ingested")


def _samples(job: ShardJob) -> Iterator[tuple[ShardMember, dict[str, bytes]]]:
    """Rows and members in the order of the keys. A track is there with all its chunks, or failed with all of them."""
    for track, chunks in job.tracks:
        with SpooledTemporaryFile(_SPOOL, dir=str(job.folder)) as spool:
            error = job.given_up.get(track.id)
            sizes = [0] * len(chunks)
            try:
                if error is None:
                    with limited(job.limits, track.size):
                        sizes = [spool.write(sound) for sound in _encoded(track, chunks, job.audio_format)]
            except Unusable as unusable:
                error = str(unusable)
            except Exception as crash:
                crash.add_note(f"It happened in {track.path}")
                raise
            spool.seek(0)
            for chunk, size in zip(chunks, sizes, strict=True):
                yield (
                    _member(track, chunk, error),
                    {} if error else {job.audio_format: spool.read(size), "json": _describe(track, chunk)},
                )


def _encoded(track: Track, chunks: Sequence[Chunk], audio_format: AudioFormat) -> Iterator[bytes]:
    """Each chunk's audio as the bytes of a file; raises `Unusable` where the track is not what was ingested."""
    try:
        with _path(track).open("rb") as file:
            _require_unchanged(track, file)
            for audio in cut(stereo_blocks(file), chunks, track.length or 0):
                yield _encode(audio * np.float32(_gain(track)), audio_format)
            _require_unchanged(track, file)
    except FileNotFoundError as error:
        raise Unusable(Reason.CHANGED, "it is gone: bring it back or run mousai ingest") from error
    except OSError as error:
        raise Unusable(Reason.UNREADABLE, str(error)) from error


def _encode(audio: Waveform, audio_format: AudioFormat) -> bytes:
    try:
        return encode_pcm16(audio, audio_format.upper())
    except ValueError as error:
        raise Unusable(Reason.DECODE_FAILED, f"louder than when it was ingested ({error})") from error


def _require_unchanged(track: Track, file: BinaryIO) -> None:
    if not _matches(track, os.fstat(file.fileno())):
        raise Unusable(Reason.CHANGED, "size or modification time differ: run mousai ingest")


def _matches(track: Track, status: os.stat_result) -> bool:
    return (status.st_size, status.st_mtime_ns) == (track.size, track.mtime_ns)


def _member(track: Track, chunk: Chunk, error: str | None) -> ShardMember:
    """A chunk's row; `write_shard` finds offset and size."""
    return ShardMember(
        key=chunk.key,
        track_id=chunk.track_id,
        index=chunk.index,
        count=chunk.count,
        valid_length=chunk.valid_length,
        gain=_gain(track),
        offset=-1,
        size=0,
        error=error,
    )


def _describe(track: Track, chunk: Chunk) -> bytes:
    """The JSON member: a copy of what the tables know, for readers that have the tar only."""
    fields = {
        **describe_chunk(track, chunk.index, chunk.count),
        "start": chunk.start,
        "valid_length": chunk.valid_length,
        "track_id": chunk.track_id,
        "sample_rate": SAMPLE_RATE,
        "gain": _gain(track),
    }
    return json.dumps(fields, ensure_ascii=False).encode()


def _gain(track: Track) -> float:
    return peak_gain(track.peak or 0.0)


def _path(track: Track) -> Path:
    return Path(os.fsdecode(track.raw_path))


def _require_libraries(jobs: Iterable[ShardJob]) -> None:
    """UserError where a whole library is out of reach: what is left of its shards must not be replaced by failures."""
    tracks = [track for job in jobs for track, _ in job.tracks]
    gone = {track.library for track in tracks if not Path(track.library).exists()}
    for library in sorted(gone):
        if not any(_path(track).exists() for track in tracks if track.library == library):
            raise UserError(
                f"{library} is out of reach, and there are shards to be made of it. Mount its disk; "
                f"or, if its music is gone for good, run: mousai remove --forget --path {shlex.quote(library)}"
            )


def _remove_orphans(shards: Path, jobs: Iterable[ShardJob]) -> int:
    """Delete what is not in the plan; returns how many shards that were."""
    orphans = _orphans(shards, jobs)
    for split, name in orphans:
        remove_shard(shards / split, name)
    return len(orphans)


def _orphans(shards: Path, jobs: Iterable[ShardJob]) -> list[tuple[str, str]]:
    """(split, name) of what lies in the folders of the splits and is not in the plan."""
    planned = {(job.split, job.name) for job in jobs}
    return [
        (split, name)
        for split in ("train", "val")
        for name in list_shards(shards / split)
        if (split, name) not in planned
    ]


def _is_current(job: ShardJob) -> bool:
    """Whether the shard is there and making it again would give nothing new."""
    if not is_done(job.folder, job.name, job.plan):
        return False
    if read_stats(job.folder, job.name).num_failed == 0:
        return True
    return not any(_may_be_cured(track, error, job.limits) for track, error in _failures(job))


def _failures(job: ShardJob) -> list[tuple[Track, str]]:
    """The tracks that are missing from a finished shard, and why."""
    rows = read_members(job.folder, job.name, ShardMember)
    errors = {row.track_id: row.error for row in rows if row.error is not None}
    return [(track, errors[track.id]) for track, _ in job.tracks if track.id in errors]


def _may_be_cured(track: Track, error: str, limits: Limits | None) -> bool:
    """Whether a failure lay in the file's surroundings, and the file is now as it was when it was ingested."""
    reason, _, detail = error.partition(": ")
    if reason not in (Reason.CHANGED, Reason.UNREADABLE) and not given_up_under_others(reason, detail, limits):
        return False  # the same bytes would fail the same way
    path = _path(track)
    return os.access(path, os.R_OK) and _matches(track, path.stat())
