"""What the tracks of a library have in common, counted: totals, formats, quality, copies, the loudest and quietest."""

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
from pipeline.manifest import read_columns
from pipeline.records import Track
from pipeline.selection import CUTOFF_DROP_DB

Columns = dict[str, pa.Array]

EXTREMES = 4  # loudest, and quietest, tracks
EXAMPLES = 3  # of a kind
TAGS = ("title", "artists", "album", "genres", "year")
_COLUMNS = (
    "id", "cluster", "family", "path", "library", "size", "length", "codec", "sample_rate", "channels", "peak",
    "header_duration", "decoded_length", "decode_errors", "true_peak", "loudness", "loudness_range", "silence_head",
    "silence_tail", "silence_within", "clipped_runs", "correlation", "balance_db", "side_db", "cutoff_hz",
    "cutoff_drop_db", "licence", "consent", *TAGS,
)  # fmt: skip
_YEARS = 10_000  # all there are
_BATCH = 50_000  # rows that are objects at a time


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
class Composition:
    """What some tracks are made of."""

    tracks: int
    decoded: int  # tracks whose audio was measured: fewer after `mousai ingest --tags-only`
    duration: float | None  # s
    bytes: int
    tagged: dict[str, int]  # tag -> tracks that have it
    genres: Breakdown
    artists: Breakdown  # by the first artist
    years: Breakdown  # every year, names are digits
    licences: Breakdown
    consents: Breakdown  # what the owners of the rights have agreed to, as written
    formats: tuple[Format, ...]
    findings: tuple[Share, ...]  # what is odd about some tracks


@dataclass(frozen=True, kw_only=True)
class Kinship:
    """Tracks that belong together: copies of one recording (clusters), or parts of one (families)."""

    groups: int
    tracks: int
    duration: float  # s, of all of them
    surplus: float  # s, without the longest of each group
    largest: tuple[tuple[str, ...], ...]  # paths


@dataclass(frozen=True, kw_only=True)
class Extreme:
    """A track at one end of the library's range of loudness."""

    id: str
    path: str
    title: str | None
    artist: str | None
    loudness: float  # LUFS
    duration: float  # s


def read_tracks(manifests: Path) -> Columns:
    """The columns that figures are made of, and `seconds`; UserError where there is no library yet."""
    tracks = read_columns(manifests / "tracks.parquet", Track, _COLUMNS, "mousai ingest LIBRARY")
    tracks["seconds"] = pc.divide(pc.cast(tracks["length"], pa.float64()), float(SAMPLE_RATE))
    return tracks


def one_a_recording(tracks: Columns) -> Columns:
    """As `tracks_by_id`: the first path speaks for a recording, and what was not decoded is absent."""
    spoken = first_rows(tracks["id"])
    return {name: column.take(spoken) for name, column in tracks.items()}


def composition(tracks: Columns, top: int) -> Composition:
    """What `tracks` are made of; `top` names a list."""
    seconds = tracks["seconds"]
    return Composition(
        tracks=len(tracks["path"]),
        decoded=len(tracks["length"]) - tracks["length"].null_count,
        duration=total(seconds),
        bytes=pc.sum(tracks["size"]).as_py() or 0,
        tagged={tag: _count_tagged(tracks[tag]) for tag in TAGS},
        genres=breakdown(tracks["genres"], seconds, top),
        artists=breakdown(first_artists(tracks["artists"]), seconds, top),
        years=breakdown(pc.cast(tracks["year"], pa.string()), seconds, _YEARS),
        licences=breakdown(tracks["licence"], seconds, top),
        consents=breakdown(tracks["consent"], seconds, top),
        formats=formats(tracks)[:top],
        findings=tuple(findings(tracks)),
    )


def _count_tagged(column: pa.Array) -> int:
    if pa.types.is_list(column.type):
        return int(pc.sum(pc.greater(pc.list_value_length(column), 0)).as_py() or 0)
    return len(column) - int(column.null_count)


def first_artists(artists: pa.Array) -> pa.Array:
    """The first of each list; null where it is empty."""
    starts = artists.offsets.slice(0, len(artists))
    return artists.values.take(pc.if_else(pc.equal(pc.list_value_length(artists), 0), None, starts))


def formats(tracks: Columns) -> tuple[Format, ...]:
    """The longest first."""
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


def quality(tracks: Columns) -> tuple[Histogram, ...]:
    """Histograms of the figures that are known."""
    minutes = pc.divide(tracks["seconds"], 60.0)
    bits = pc.divide(pc.multiply(pc.cast(tracks["size"], pa.float64()), 0.008), tracks["seconds"])
    silence = pc.add(pc.add(tracks["silence_head"], tracks["silence_tail"]), tracks["silence_within"])
    clipped = pc.divide(pc.cast(tracks["clipped_runs"], pa.float64()), minutes)
    steep = pc.greater_equal(tracks["cutoff_drop_db"], CUTOFF_DROP_DB)
    cutoff = pc.divide(pc.if_else(steep, tracks["cutoff_hz"], None), 1000.0)
    found = [
        _histogram("length", "min", minutes, (0, 12, 24)),
        _histogram("bit rate of the file", "kbit/s", bits, (0, 1024, 32)),
        _histogram("loudness", "LUFS", tracks["loudness"], (-40, 0, 40)),
        _histogram("loudness range", "LU", tracks["loudness_range"], (0, 24, 24)),
        _histogram("true peak", "dB of full scale", _decibels(tracks["true_peak"]), (-18, 6, 48)),
        _histogram("clipped runs", "a minute", clipped, (0, 80, 40)),
        _histogram("silence", "% of the track", pc.multiply(pc.divide(silence, tracks["seconds"]), 100.0), (0, 40, 40)),
        _histogram("correlation of left and right", "", tracks["correlation"], (-1, 1, 40)),
        _histogram("width: left − right over left + right", "dB", tracks["side_db"], (-60, 12, 36)),
        _histogram("balance: left over right", "dB", tracks["balance_db"], (-12, 12, 48)),
        _histogram("where the spectrum ends, if it does", "kHz", cutoff, (2, 20, 36)),
        _histogram("steepest drop of the spectrum", "dB", tracks["cutoff_drop_db"], (0, 80, 40)),
    ]
    return tuple(each for each in found if each is not None)


def _histogram(name: str, unit: str, values: pa.Array, bins: tuple[float, float, int]) -> Histogram | None:
    first, last, number = bins
    return histogram(name, unit, values, np.linspace(first, last, number + 1).tolist())


def findings(tracks: Columns) -> Iterator[Share]:
    """What is odd about some tracks, as far as their columns tell."""
    decoded = pc.divide(pc.cast(tracks["decoded_length"], pa.float64()), pc.cast(tracks["sample_rate"], pa.float64()))
    wrong_header = pc.greater(pc.abs(pc.subtract(tracks["header_duration"], decoded)), 1.0)
    steep = pc.greater_equal(tracks["cutoff_drop_db"], CUTOFF_DROP_DB)
    same = pc.and_(pc.greater(tracks["channels"], 1), pc.less(tracks["side_db"], -60.0))
    odd = {
        "packets that did not decode": pc.greater(tracks["decode_errors"], 0),
        "the header is wrong by more than a second": wrong_header,
        "louder than full scale: turned down as a whole": pc.greater(tracks["peak"], 1.0),
        "digital silence": pc.equal(tracks["peak"], 0.0),
        "mono": pc.equal(tracks["channels"], 1),
        "several channels, all the same": same,
        "more than two channels: mixed down": pc.greater(tracks["channels"], 2),
        "sampled below 44.1 kHz": pc.less(tracks["sample_rate"], 44_100),
        "the spectrum ends below 16 kHz": pc.and_(steep, pc.less(tracks["cutoff_hz"], 16_000.0)),
    }
    for name, which in odd.items():
        which = pc.fill_null(which, False)
        if number := pc.sum(which).as_py():
            yield Share(name=name, tracks=number, duration=total(tracks["seconds"].filter(which)))


def _decibels(amplitude: pa.Array) -> pa.Array:
    """Silence is 120 dB down."""
    return pc.multiply(pc.log10(pc.max_element_wise(amplitude, 1e-6, skip_nulls=False)), 20.0)


def kinship(tracks: Columns, column: str) -> Kinship:
    """The groups that `column` names; null is no group."""
    table = pa.table({name: tracks[name] for name in (column, "path", "seconds")}).filter(pc.is_valid(tracks[column]))
    groups = table.group_by(column, use_threads=False).aggregate(
        [("path", "list"), ("path", "count"), ("seconds", "sum"), ("seconds", "max")]
    )
    groups = groups.sort_by([("path_count", "descending"), (column, "ascending")])
    duration = total(groups["seconds_sum"]) or 0.0
    return Kinship(
        groups=len(groups),
        tracks=len(table),
        duration=duration,
        surplus=duration - (total(groups["seconds_max"]) or 0.0),
        largest=tuple(tuple(paths) for paths in groups.slice(0, EXAMPLES)["path_list"].to_pylist()),
    )


def by_loudness(recordings: Columns) -> tuple[Extreme, ...]:
    """The loudest and then the quietest tracks, the loudest first; silence has no loudness."""
    table = pa.table({name: recordings[name] for name in ("id", "path", "title", "artists", "seconds", "loudness")})
    table = table.filter(pc.is_valid(table["loudness"])).sort_by([("loudness", "descending"), ("path", "ascending")])
    ends = [*range(min(EXTREMES, len(table))), *range(max(EXTREMES, len(table) - EXTREMES), len(table))]
    return tuple(
        Extreme(
            id=row["id"],
            path=row["path"],
            title=row["title"],
            artist=row["artists"][0] if row["artists"] else None,
            loudness=row["loudness"],
            duration=row["seconds"],
        )
        for row in table.take(pa.array(ends, pa.int64())).to_pylist()
    )


def as_tracks(tracks: Columns) -> Iterator[Track]:
    """The tracks with their id and tags, and nothing else; a batch of them exists at a time."""
    table = pa.table({name: tracks[name] for name in ("id", *TAGS)})
    blank = dict.fromkeys(field.name for field in dataclasses.fields(Track))
    for batch in table.to_batches(max_chunksize=_BATCH):
        for row in batch.to_pylist():
            tags: dict[str, Any] = {**blank, **row}
            yield Track(**tags)
