"""What the tables say of a dataset, in figures: the content of `mousai report`.

Columns are read as Arrow and counted there, so that a million tracks take memory for their columns and no more. Every
stage may be missing: what depends on it is None, and `missing` says which command makes it.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mousai.audio import SAMPLE_RATE
from pipeline.figures import Breakdown, Histogram, Share, breakdown, first_rows, histogram, total
from pipeline.manifest import read_columns, read_facts
from pipeline.prompts import draw_prompt, top_keywords
from pipeline.records import REASONS, Chunk, Reason, Rejected, Track
from pipeline.split_figures import Split, read_split
from pipeline.tars import finished_shards, read_stats

Columns = dict[str, pa.Array]

_INGEST = "mousai ingest LIBRARY"
_EXAMPLES = 3  # of rejected files a reason, of groups of copies
_PROMPTS = 8
_KEYWORDS = 40
_EXTREMES = 4  # loudest, and quietest, tracks
_BATCH = 50_000  # rows that are objects at a time
_TAGS = ("title", "artists", "album", "genres", "year")
_COLUMNS = ("id", "path", "library", "size", "length", "codec", "sample_rate", "channels", "peak", "header_duration",
            "decoded_length", "decode_errors", *_TAGS)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The usable files of all libraries together."""

    tracks: int
    decoded: int  # tracks whose audio was measured: fewer after `mousai ingest --tags-only`
    duration: float | None  # s
    bytes: int
    libraries: tuple[str, ...]
    tagged: dict[str, int]  # tag -> tracks that have it


@dataclass(frozen=True, kw_only=True)
class Format:
    """Tracks of one codec, sample rate and number of channels."""

    codec: str
    sample_rate: int
    channels: int
    tracks: int
    duration: float  # s
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """The same audio packets under several paths; training uses the first path."""

    groups: int
    copies: int  # files beyond the first of each group
    duration: float  # s, of the copies
    examples: tuple[tuple[str, ...], ...]  # paths


@dataclass(frozen=True, kw_only=True)
class RejectedGroup:
    """The files that were rejected for one reason."""

    reason: str
    meaning: str
    files: int
    bytes: int
    examples: tuple[tuple[str, str], ...]  # (path, detail)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a folder of finished shards holds."""

    shards: int
    chunks: int
    failed: int
    duration: float  # s
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Extreme:
    """A track at one end of the library's range of levels."""

    id: str
    path: str
    title: str | None
    artist: str | None
    level: float  # dB, see `Report.level`
    duration: float  # s


@dataclass(frozen=True, kw_only=True)
class Report:
    """All figures of a dataset. Durations are seconds."""

    totals: Totals
    genres: Breakdown
    artists: Breakdown  # by the first artist
    years: Breakdown  # every year, names are digits
    formats: tuple[Format, ...]
    quality: tuple[Histogram, ...]
    findings: tuple[Share, ...]  # what is odd about some tracks
    duplicates: Duplicates
    rejected: tuple[RejectedGroup, ...]
    split: Split | None
    shards: Stored | None
    latents: Stored | None
    prompts: tuple[str, ...]  # as training draws them
    keywords: tuple[tuple[str, int], ...]  # and in how many tracks each occurs
    level: str  # what loudest and quietest are measured by
    loudest: tuple[Extreme, ...]
    quietest: tuple[Extreme, ...]
    missing: tuple[str, ...]  # what could not be said, and the command that cures it


def read_report(manifests: Path, shards: Path, latents: Path | None, *, top: int = 20) -> Report:
    """The figures of the tables in `manifests` and the shards and latents made from them; `top` names a list.

    UserError where there is no library yet.
    """
    tracks = read_columns(manifests / "tracks.parquet", Track, _COLUMNS, _INGEST)
    tracks["seconds"] = pc.divide(pc.cast(tracks["length"], pa.float64()), float(SAMPLE_RATE))
    spoken = first_rows(tracks["id"])  # as `tracks_by_id`: the first path speaks for a recording
    recordings = {name: column.take(spoken) for name, column in tracks.items()}
    plan = manifests / "chunks.parquet"
    split = read_split(plan, recordings, top) if plan.exists() else None
    ranked = _by_level(recordings)
    report = Report(
        totals=_totals(tracks, read_facts(manifests / "tracks.parquet")),
        genres=breakdown(tracks["genres"], tracks["seconds"], top),
        artists=breakdown(pc.list_element(_at_least_one(tracks["artists"]), 0), tracks["seconds"], top),
        years=breakdown(pc.cast(tracks["year"], pa.string()), tracks["seconds"], 10_000),
        formats=_formats(tracks)[:top],
        quality=_quality(tracks),
        findings=tuple(_findings(tracks)),
        duplicates=_duplicates(tracks, recordings),
        rejected=_rejected(manifests),
        split=split,
        shards=_stored(shards),
        latents=_stored(latents) if latents else None,
        prompts=tuple(_prompts(recordings, plan)) if split else (),
        keywords=tuple(top_keywords(_objects(tracks), _KEYWORDS)),
        level="peak, dB of full scale",
        loudest=ranked[:_EXTREMES],
        quietest=tuple(reversed(ranked[_EXTREMES:][-_EXTREMES:])),
        missing=(),
    )
    return dataclasses.replace(report, missing=tuple(_missing(report)))


def _totals(tracks: Columns, facts: dict[str, Any]) -> Totals:
    return Totals(
        tracks=len(tracks["path"]),
        decoded=len(tracks["length"]) - tracks["length"].null_count,
        duration=total(tracks["seconds"]),
        bytes=pc.sum(tracks["size"]).as_py() or 0,
        libraries=tuple(facts.get("libraries", ())),
        tagged={tag: _count_tagged(tracks[tag]) for tag in _TAGS},
    )


def _count_tagged(column: pa.Array) -> int:
    if pa.types.is_list(column.type):
        return int(pc.sum(pc.greater(pc.list_value_length(column), 0)).as_py() or 0)
    return len(column) - int(column.null_count)


def _at_least_one(lists: pa.Array) -> pa.Array:
    """Empty lists as lists of one null, so that every list has a first element."""
    empty = pa.array([[None]], lists.type).take(pa.array(np.zeros(len(lists), dtype=np.int64)))
    return pc.if_else(pc.equal(pc.list_value_length(lists), 0), empty, lists)


def _formats(tracks: Columns) -> tuple[Format, ...]:
    keys = ["codec", "sample_rate", "channels"]
    table = pa.table({name: tracks[name] for name in (*keys, "seconds", "size")}).filter(pc.is_valid(tracks["codec"]))
    groups = table.group_by(keys, use_threads=False).aggregate([("seconds", "sum"), ("size", "sum"), ([], "count_all")])
    found = [
        Format(
            codec=each["codec"], sample_rate=each["sample_rate"], channels=each["channels"], tracks=each["count_all"],
            duration=each["seconds_sum"], bytes=each["size_sum"],
        )
        for each in groups.to_pylist()
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda each: (-each.duration, each.codec, each.sample_rate, each.channels)))


def _quality(tracks: Columns) -> tuple[Histogram, ...]:
    bits = pc.divide(pc.multiply(pc.cast(tracks["size"], pa.float64()), 0.008), tracks["seconds"])
    found = [
        histogram("length", "min", pc.divide(tracks["seconds"], 60.0), np.arange(0, 12.5, 0.5).tolist()),
        histogram("bit rate of the file", "kbit/s", bits, np.arange(0, 1056, 32).tolist()),
        histogram("peak", "dB of full scale", _decibels(tracks["peak"]), np.arange(-18, 6.5, 0.5).tolist()),
    ]
    return tuple(each for each in found if each is not None)


def _findings(tracks: Columns) -> Iterator[Share]:
    """What is odd about some tracks, as far as their columns tell."""
    decoded = pc.divide(pc.cast(tracks["decoded_length"], pa.float64()), pc.cast(tracks["sample_rate"], pa.float64()))
    wrong_header = pc.greater(pc.abs(pc.subtract(tracks["header_duration"], decoded)), 1.0)
    odd = {
        "packets that did not decode": pc.greater(tracks["decode_errors"], 0),
        "the header is wrong by more than a second": wrong_header,
        "louder than full scale: turned down as a whole": pc.greater(tracks["peak"], 1.0),
        "digital silence": pc.equal(tracks["peak"], 0.0),
        "mono": pc.equal(tracks["channels"], 1),
        "more than two channels: mixed down": pc.greater(tracks["channels"], 2),
        "sampled below 44.1 kHz": pc.less(tracks["sample_rate"], 44_100),
    }
    for name, which in odd.items():
        which = pc.fill_null(which, False)
        if number := pc.sum(which).as_py():
            yield Share(name=name, tracks=number, duration=total(tracks["seconds"].filter(which)))


def _decibels(amplitude: pa.Array) -> pa.Array:
    """Silence is 120 dB down."""
    return pc.multiply(pc.log10(pc.max_element_wise(amplitude, 1e-6, skip_nulls=False)), 20.0)


def _duplicates(tracks: Columns, recordings: Columns) -> Duplicates:
    table = pa.table({name: tracks[name] for name in ("id", "path", "seconds")}).filter(pc.is_valid(tracks["id"]))
    groups = table.group_by("id", use_threads=False).aggregate([("path", "list"), ("seconds", "sum")])
    groups = groups.filter(pc.greater(pc.list_value_length(groups["path_list"]), 1))
    examples = groups.slice(0, _EXAMPLES)["path_list"].to_pylist()
    return Duplicates(
        groups=len(groups),
        copies=len(table) - len(recordings["id"]),
        duration=(total(table["seconds"]) or 0.0) - (total(recordings["seconds"]) or 0.0),
        examples=tuple(tuple(paths) for paths in examples),
    )


def _rejected(manifests: Path) -> tuple[RejectedGroup, ...]:
    """The largest group first."""
    rows = pa.table(read_columns(manifests / "rejected.parquet", Rejected, ("reason", "path", "detail", "size")))
    groups = []
    for reason in Reason:
        files = rows.filter(pc.equal(rows["reason"], reason.value))
        examples = files.slice(0, _EXAMPLES).to_pylist()
        groups.append(
            RejectedGroup(
                reason=reason.value,
                meaning=REASONS[reason],
                files=len(files),
                bytes=pc.sum(files["size"]).as_py() or 0,
                examples=tuple((each["path"], each["detail"]) for each in examples),
            )
        )
    return tuple(sorted((group for group in groups if group.files), key=lambda group: -group.files))


def _stored(folder: Path) -> Stored | None:
    stats = [read_stats(folder / split, name) for split in ("train", "val") for name in finished_shards(folder / split)]
    if not stats:
        return None
    return Stored(
        shards=len(stats),
        chunks=sum(each.num_chunks for each in stats),
        failed=sum(each.num_failed for each in stats),
        duration=sum(each.duration for each in stats),
        bytes=sum(each.bytes for each in stats),
    )


def _objects(tracks: Columns) -> Iterator[Track]:
    """The tracks with their id and tags, and nothing else; a batch of them exists at a time."""
    table = pa.table({name: tracks[name] for name in ("id", *_TAGS)})
    blank = dict.fromkeys(field.name for field in dataclasses.fields(Track))
    for batch in table.to_batches(max_chunksize=_BATCH):
        for row in batch.to_pylist():
            tags: dict[str, Any] = {**blank, **row}
            yield Track(**tags)


def _prompts(recordings: Columns, plan: Path) -> Iterator[str]:
    """What training would draw at its first steps for chunks that are spread over the plan."""
    chunks = read_columns(plan, Chunk, ("track_id", "index", "count"))
    number = min(_PROMPTS, len(chunks["index"]))
    spread = pa.array([i * len(chunks["index"]) // number for i in range(number)], pa.int64())
    rows = pa.table({name: column.take(spread) for name, column in chunks.items()}).to_pylist()
    for step, row in enumerate(rows):
        place = pc.index(recordings["id"], row["track_id"]).as_py()
        if place >= 0:
            (track,) = _objects({name: column.slice(place, 1) for name, column in recordings.items()})
            yield draw_prompt(track, row["index"], row["count"], seed=0, step=step)


def _by_level(recordings: Columns) -> tuple[Extreme, ...]:
    """The loudest and then the quietest tracks, the loudest first."""
    level = _decibels(recordings["peak"])
    table = pa.table({name: recordings[name] for name in ("id", "path", "title", "artists", "seconds")})
    table = table.append_column("level", level).filter(pc.is_valid(level))
    table = table.sort_by([("level", "descending"), ("path", "ascending")])
    ends = [*range(min(_EXTREMES, len(table))), *range(max(_EXTREMES, len(table) - _EXTREMES), len(table))]
    return tuple(
        Extreme(
            id=row["id"],
            path=row["path"],
            title=row["title"],
            artist=row["artists"][0] if row["artists"] else None,
            level=row["level"],
            duration=row["seconds"],
        )
        for row in table.take(pa.array(ends, pa.int64())).to_pylist()
    )


def _missing(report: Report) -> Iterator[str]:
    totals, split = report.totals, report.split
    if totals.decoded < totals.tracks:
        yield (
            f"{totals.tracks - totals.decoded:,} tracks are known by their tags alone: no hours, no quality. "
            "Decode them with: mousai ingest"
        )
    if split is None:
        yield "There is no plan yet: no splits, no prompts. Make it with: mousai prompts, or mousai shard"
    elif split.gone:
        yield f"{split.gone:,} planned tracks are no longer in the library. Plan again with: mousai shard"
    if report.shards is None:
        yield "There are no shards yet. Make them with: mousai shard"
    elif report.shards.failed:
        yield f"{report.shards.failed:,} chunks failed. Mend them with: mousai ingest && mousai shard"
    if report.latents is None:
        yield "There are no latents yet. Make them with: mousai encode-latents"
