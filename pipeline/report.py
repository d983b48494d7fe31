"""What the tables say of a dataset, in figures: the content of `mousai report`.

Columns are read as Arrow and counted there, so that a million tracks take memory for their columns and no more. Every
stage may be missing: what depends on it is None, and `missing` says which command makes it.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mousai.errors import UserError
from mousai.settings import SelectSettings
from pipeline.figures import Histogram
from pipeline.manifest import read_columns, read_facts, read_table
from pipeline.prompts import draw_prompt, top_keywords
from pipeline.records import REASONS, Chunk, Reason, Rejected, Track
from pipeline.selection import MEANINGS, Exclusion, exclusions, summarise
from pipeline.split_figures import Split, read_split
from pipeline.tars import finished_shards, read_stats
from pipeline.track_figures import (
    EXAMPLES,
    EXTREMES,
    Columns,
    Composition,
    Extreme,
    Kinship,
    as_tracks,
    by_loudness,
    composition,
    kinship,
    one_a_recording,
    quality,
    read_tracks,
)

_INGEST = "mousai ingest LIBRARY"
_PROMPTS = 8
_KEYWORDS = 40


@dataclass(frozen=True, kw_only=True)
class RejectedGroup:
    """The files that were rejected for one reason."""

    reason: str
    meaning: str
    files: int
    bytes: int
    examples: tuple[tuple[str, str], ...]  # (path, detail)


@dataclass(frozen=True, kw_only=True)
class LeftOutGroup:
    """The tracks that `[select]` in mousai.toml leaves out of training for one reason; one with two counts twice."""

    code: str
    meaning: str
    tracks: int
    duration: float  # s
    examples: tuple[str, ...]  # paths


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is trained on, and what is left out."""

    tracks: int  # that remain, copies included
    duration: float  # s
    left_out: int  # tracks in all
    left_out_duration: float  # s
    groups: tuple[LeftOutGroup, ...]  # the longest first
    thresholds: dict[str, float | tuple[str, ...] | None]  # the settings of `[select]`; None: switched off


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a folder of finished shards holds."""

    shards: int
    damaged: int  # shards whose stats cannot be read, or are of another version; the other figures leave them out
    chunks: int
    failed: int
    duration: float  # s
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """All figures of a dataset. Durations are seconds."""

    libraries: tuple[str, ...]
    library: Composition  # every usable file
    chosen: Composition  # what is trained on: one file a recording, without those that `[select]` leaves out
    quality: tuple[Histogram, ...]
    copies: Kinship  # several files of one recording
    families: Kinship  # files that share half a minute or more
    rejected: tuple[RejectedGroup, ...]
    selection: Selection
    split: Split | None
    shards: Stored | None
    latents: Stored | None
    prompts: tuple[str, ...]  # as training draws them
    keywords: tuple[tuple[str, int], ...]  # and in how many tracks each occurs
    loudest: tuple[Extreme, ...]
    quietest: tuple[Extreme, ...]
    missing: tuple[str, ...]  # what could not be said, and the command that cures it


def read_report(
    manifests: Path, shards: Path, latents: Path | None, *, select: SelectSettings | None = None, top: int = 20
) -> Report:
    """The figures of the tables in `manifests` and the shards and latents made from them; `top` names a list.

    UserError where there is no library yet.
    """
    tracks = read_tracks(manifests)
    selection, trained_on = _selection(manifests, tracks, select or SelectSettings())
    plan = manifests / "chunks.parquet"
    split = read_split(plan, trained_on, top) if plan.exists() else None
    ranked = by_loudness(trained_on)
    report = Report(
        libraries=tuple(read_facts(manifests / "tracks.parquet").get("libraries", ())),
        library=composition(tracks, top),
        chosen=composition(trained_on, top),
        quality=quality(tracks),
        copies=kinship(tracks, "cluster"),
        families=kinship(tracks, "family"),
        rejected=_rejected(manifests),
        selection=selection,
        split=split,
        shards=_stored(shards),
        latents=_stored(latents) if latents else None,
        prompts=tuple(_prompts(trained_on, plan)) if split else (),
        keywords=tuple(top_keywords(as_tracks(tracks), _KEYWORDS)),
        loudest=ranked[:EXTREMES],
        quietest=tuple(reversed(ranked[EXTREMES:][-EXTREMES:])),
        missing=(),
    )
    return dataclasses.replace(report, missing=tuple(_missing(report)))


def _selection(manifests: Path, tracks: Columns, settings: SelectSettings) -> tuple[Selection, Columns]:
    """What is left out, and the columns of what remains, a row a recording."""
    rows = read_table(manifests / "tracks.parquet", Track, _INGEST)
    excluded = exclusions(rows, settings)
    summary = summarise(rows, excluded)
    groups = [
        LeftOutGroup(
            code=code,
            meaning=MEANINGS[Exclusion(code)],
            tracks=found.num_tracks,
            duration=found.duration,
            examples=tuple(itertools.islice((path for path, codes in excluded.items() if code in codes), EXAMPLES)),
        )
        for code, found in summary.left_out.items()
    ]
    kept = pc.invert(pc.is_in(tracks["path"], value_set=pa.array(excluded, pa.string())))
    return Selection(
        tracks=summary.num_tracks,
        duration=summary.duration,
        left_out=summary.num_left_out,
        left_out_duration=summary.duration_left_out,
        groups=tuple(sorted(groups, key=lambda group: (-group.duration, group.code))),
        thresholds={
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in dataclasses.asdict(settings).items()
        },
    ), one_a_recording({name: column.filter(kept) for name, column in tracks.items()})


def _rejected(manifests: Path) -> tuple[RejectedGroup, ...]:
    """The largest group first."""
    rows = pa.table(read_columns(manifests / "rejected.parquet", Rejected, ("reason", "path", "detail", "size")))
    groups = []
    for reason in Reason:
        files = rows.filter(pc.equal(rows["reason"], reason.value))
        examples = files.slice(0, EXAMPLES).to_pylist()
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
    stats, damaged = [], 0
    for split in ("train", "val"):
        for name in finished_shards(folder / split):
            try:
                stats.append(read_stats(folder / split, name))
            except UserError:  # counted, and reported: the rest of the dataset is there
                damaged += 1
    if not stats and not damaged:
        return None
    return Stored(
        shards=len(stats),
        damaged=damaged,
        chunks=sum(each.num_chunks for each in stats),
        failed=sum(each.num_failed for each in stats),
        duration=sum(each.duration for each in stats),
        bytes=sum(each.bytes for each in stats),
    )


def _prompts(recordings: Columns, plan: Path) -> Iterator[str]:
    """What training would draw at its first steps for chunks that are spread over the plan."""
    chunks = read_columns(plan, Chunk, ("track_id", "index", "count"))
    number = min(_PROMPTS, len(chunks["index"]))
    spread = pa.array([i * len(chunks["index"]) // number for i in range(number)], pa.int64())
    rows = pa.table({name: column.take(spread) for name, column in chunks.items()}).to_pylist()
    for step, row in enumerate(rows):
        place = pc.index(recordings["id"], row["track_id"]).as_py()
        if place >= 0:
            (track,) = as_tracks({name: column.slice(place, 1) for name, column in recordings.items()})
            yield draw_prompt(track, row["index"], row["count"], seed=0, step=step)


def _missing(report: Report) -> Iterator[str]:
    library, split = report.library, report.split
    if library.decoded < library.tracks:
        yield (
            f"{library.tracks - library.decoded:,} tracks are known by their tags alone: no hours, no quality. "
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
    for stored, command in ((report.shards, "shard"), (report.latents, "encode-latents")):
        if stored and stored.damaged:
            yield (
                f"{stored.damaged:,} shards cannot be read or are of another version. "
                f"Make them again with: mousai {command}"
            )
    if report.latents is None:
        yield "There are no latents yet. Make them with: mousai encode-latents"
