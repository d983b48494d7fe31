"""From folders of music to `tracks.parquet` and `rejected.parquet`: what is there, what it says, what is wrong with it.

A re-scan reads only what is new or changed by size and modification time; files that are no audio by name or content
are glanced at (4 KB) and appear nowhere. What a killed run has read lies in `manifests/.ingest/` for the next one.
"""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from mousai.audio import SAMPLE_RATE
from mousai.errors import UserError
from mousai.progress import progress
from mousai.settings import SelectSettings
from pipeline.decode import HEAD_BYTES, Probe, Unusable, looks_like_audio, probe
from pipeline.duplicates import FILE as FINGERPRINTS
from pipeline.duplicates import has_fingerprints, mark_duplicates, merge_fingerprints, to_record
from pipeline.executors import run_jobs
from pipeline.limits import Limits, given_up_under_others, limited, verdict
from pipeline.manifest import has_columns_of, read_facts, read_table, write_table
from pipeline.metadata import BesideTags, describe_all, naming, remember
from pipeline.quality import Quality
from pipeline.records import Fingerprint, Reason, Rejected, Track
from pipeline.removal import (
    Row,
    kept_out,
    read_removed,
    read_state,
    reject_removed,
    request_for_path,
    requests,
    write_removed,
)
from pipeline.selection import SelectionSummary, exclusions, summarise
from pipeline.tags import FIELDS, read_tags
from pipeline.walk import File, is_other, is_within, out_of_sight, outermost, rejected_file, shown, walk_all

_Read = tuple[Row, Fingerprint | None]
_Rows = dict[bytes, Row]  # by raw path

_TABLES: tuple[tuple[str, type[Row]], ...] = (("tracks", Track), ("rejected", Rejected))
PARTS = ".ingest"  # in manifests/: what killed runs have read
_AHEAD = 4  # files that a worker holds
_SAVE_EVERY = 30.0  # seconds of reading that a kill may cost
_MEASURED = {field.name for field in fields(Probe)} & {field.name for field in fields(Track)}  # by decoding
_FIGURES = [field.name for field in fields(Quality)]
_RETRIED = (Reason.UNREADABLE, Reason.CHANGED)  # the cure need not change size or time


@dataclass(frozen=True, kw_only=True)
class IngestSummary:
    """What the tables hold after a scan, all libraries together, and what the scan changed in them."""

    num_tracks: int
    num_new: int  # tracks that are new or changed
    num_unchanged: int
    num_gone: int  # tracks whose file is no longer there
    num_rejected: int
    reasons: dict[str, int]  # reason code -> rejected files
    duration: float  # s, of all tracks that are measured
    bytes: int  # of all tracks
    selection: SelectionSummary  # what is trained on, and what [select] leaves out
    num_other: int = 0  # files in this scan that are not audio
    num_unread: int = 0  # files that a dry run found new or changed
    num_described: int = 0  # tracks that a metadata file has spoken of, now or before
    unmatched: list[str] = field(default_factory=list)  # its paths that fit no file
    tags_only: bool = False
    changed: bool = False  # whether the tables are not what they were


def ingest(
    libraries: Sequence[Path],
    manifests: Path,
    *,
    workers: int,
    tags_only: bool = False,
    dry_run: bool = False,
    min_duration: float = 1.0,
    select: SelectSettings | None = None,
    limits: Limits | None = None,
    beside: BesideTags | None = None,
) -> IngestSummary:
    """Bring the tables in `manifests` up to date with `libraries` (folders or files; none: those known there).

    `tags_only` decodes nothing and leaves what only decoding tells null, for a later run to fill in. `dry_run` reads
    and writes nothing. With `limits` no file is read in this process itself, and one that takes more is rejected. Rows
    of other libraries stay; tables of another version are made anew, all libraries of them. The tables depend on the
    files alone, never on the number of workers, and are written only when they change. UserError, with nothing
    changed, for a library that is missing, unreadable or without audio, or a metadata file that
    says what cannot be.
    """
    tracks_path, parts = manifests / "tracks.parquet", manifests / PARTS
    old = _read_rows(manifests)
    facts = read_facts(tracks_path)
    names = naming(beside or BesideTags(), facts)
    known_libraries = [Path(library) for library in facts.get("libraries", {row.library for row in old.values()})]
    outdated = is_outdated(manifests)
    roots = outermost([*libraries, *known_libraries] if outdated else libraries or known_libraries)
    if not roots:
        raise UserError("No library is known yet. Name the folder that holds your music: mousai ingest ~/Music")
    all_libraries = outermost([*roots, *known_libraries])

    files, rows = walk_all(roots, all_libraries, old)
    known = {} if outdated else old
    rows += out_of_sight(known, rows)
    known = known | _read_parts(parts)
    removed = read_removed(manifests)
    out, asked = kept_out(removed), set(requests(removed))
    stale = []
    num_other = 0
    for file in files:
        row = known.get(os.fsencode(file.path))
        if row is not None and not _is_stale(row, file, tags_only, min_duration, asked, limits):
            rows.append(row if row.library == file.library else replace(row, library=file.library))
        elif is_other(file.path):
            num_other += 1
        elif request := request_for_path(out, os.fsencode(file.path)):
            rows.append(rejected_file(file, Reason.REMOVED, request))
        else:
            stale.append(file)
    if dry_run:
        rows += [known[raw_path] for file in stale if (raw_path := os.fsencode(file.path)) in known]
    else:
        read = partial(_read_file, tags_only=tags_only, min_duration=min_duration, limits=limits)
        rows += _read_all(stale, read, parts, workers, limits)
        for root in roots:
            if not any(is_within(row.raw_path, root) for row in rows):
                raise UserError(f"{root} holds no audio. Name the folder that holds your music: mousai ingest ~/Music")

    rows += [row for row in old.values() if not any(is_within(row.raw_path, root) for root in roots)]
    described = describe_all(rows, manifests, [*roots, *all_libraries], names)
    rows, met = reject_removed(described.rows, removed)
    if met and not dry_run:
        write_removed(manifests, [*removed, *met], read_state(manifests))
    new = _by_path(rows)
    new_facts: dict[str, Any] = {"libraries": [str(library) for library in all_libraries]}
    if names.titled:
        new_facts["title_from_filename"] = True
    num_new = sum(isinstance(row, Track) and old.get(row.raw_path) != row for row in new.values())
    changed = new != old or new_facts != facts or outdated
    if not dry_run:
        gone = {row.raw_path for row in rows if isinstance(row, Rejected) and row.reason == Reason.REMOVED}
        remember(manifests, {path: each for path, each in described.overrides.items() if path not in gone})
        if changed:
            new = _mark(manifests, parts, new)
            _write_rows(manifests, "", new.values(), **new_facts)
        shutil.rmtree(parts, ignore_errors=True)
    return replace(
        _summarize(old, new, num_new, select or SelectSettings()),
        num_other=num_other, num_unread=len(stale) if dry_run else 0, tags_only=tags_only, changed=changed,
        num_described=sum(path in new for path in described.overrides), unmatched=described.unmatched,
    )  # fmt: skip


def is_outdated(manifests: Path) -> bool:
    """Whether a table is missing or of another version of mousai, so that ingest will read every file again."""
    lost = (manifests / "tracks.parquet").exists() and not has_fingerprints(manifests / FINGERPRINTS)
    return lost or not all(has_columns_of(manifests / f"{name}.parquet", record) for name, record in _TABLES)


def _mark(manifests: Path, parts: Path, rows: _Rows) -> _Rows:
    """Bring the fingerprints up to date, and say in the tracks which are copies of one another."""
    path = manifests / FINGERPRINTS
    sources = [*([path] if has_fingerprints(path) else []), *sorted(parts.glob(f"*-{FINGERPRINTS}"))]
    tracks = [row for row in rows.values() if isinstance(row, Track)]
    merge_fingerprints(sources, {track.id for track in tracks if track.id is not None}, path)
    return rows | {track.raw_path: track for track in mark_duplicates(tracks, path)}


def _summarize(old: _Rows, new: _Rows, num_new: int, select: SelectSettings) -> IngestSummary:
    tracks = [row for row in new.values() if isinstance(row, Track)]
    reasons = Counter(row.reason for row in new.values() if isinstance(row, Rejected))
    return IngestSummary(
        num_tracks=len(tracks),
        num_new=num_new,
        num_unchanged=len(tracks) - num_new,
        num_gone=sum(isinstance(row, Track) and raw_path not in new for raw_path, row in old.items()),
        num_rejected=reasons.total(),
        reasons=dict(sorted(reasons.items())),
        duration=sum(track.length or 0 for track in tracks) / SAMPLE_RATE,
        bytes=sum(track.size for track in tracks),
        selection=summarise(tracks, exclusions(tracks, select)),
    )


# What is known


def _by_path(rows: Iterable[Row]) -> _Rows:
    return {row.raw_path: row for row in sorted(rows, key=lambda row: (row.path, row.raw_path))}


def _read_rows(folder: Path, prefix: str = "") -> _Rows:
    rows: list[Row] = []
    for name, record in _TABLES:
        path = folder / f"{prefix}{name}.parquet"
        if path.exists() and has_columns_of(path, record):
            rows += read_table(path, record, "mousai ingest")
    return _by_path(rows)


def _read_parts(parts: Path) -> _Rows:
    """What killed runs have read, the latest last."""
    rows: _Rows = {}
    for path in sorted(parts.glob("*-tracks.parquet")):
        rows |= _read_rows(parts, path.name.removesuffix("tracks.parquet"))
    return rows


def _write_part(parts: Path, rows: Sequence[Row], fingerprints: Sequence[Fingerprint]) -> None:
    number = sum(1 for _ in parts.glob("*-tracks.parquet"))
    write_table(parts / f"{number:06}-{FINGERPRINTS}", Fingerprint, fingerprints)
    _write_rows(parts, f"{number:06}-", rows)


def _write_rows(folder: Path, prefix: str, rows: Collection[Row], **facts: object) -> None:
    """Both tables, tracks last: where they are, the rejects are."""
    tracks = [row for row in rows if isinstance(row, Track)]
    rejected = [row for row in rows if isinstance(row, Rejected)]
    write_table(folder / f"{prefix}rejected.parquet", Rejected, rejected)
    write_table(folder / f"{prefix}tracks.parquet", Track, tracks, **facts)


def _is_stale(
    row: Row, file: File, tags_only: bool, min_duration: float, asked: Collection[str], limits: Limits | None
) -> bool:
    """Whether a file must be read (again) although there is a row of it; `asked` are the requests on the list."""
    if (row.size, row.mtime_ns) != (file.size, file.mtime_ns):
        return True
    if isinstance(row, Track):
        return not tags_only if row.length is None else row.length < min_duration * SAMPLE_RATE
    if row.reason == Reason.TOO_SHORT:
        return not row.detail.endswith(_shorter_than(min_duration))
    if row.reason == Reason.REMOVED:
        return row.detail not in asked
    return row.reason in _RETRIED or given_up_under_others(row.reason, row.detail, limits)


# What a file holds


def _read_all(
    files: Sequence[File], read: Callable[[File], _Read], parts: Path, workers: int, limits: Limits | None
) -> list[Row]:
    """The rows of every file; what is read is saved in `parts` on the way, and the fingerprints only there."""
    rows: list[Row] = []
    fingerprints: list[Fingerprint] = []
    num_saved, num_rejected, saved = 0, 0, time.monotonic()
    with progress("reading", len(files), "files") as advance:
        try:
            give_up = partial(_give_up, limits)
            for _, (row, fingerprint) in run_jobs(
                read, files, workers, give_up, apart=limits is not None, ahead=_AHEAD
            ):
                rows.append(row)
                fingerprints += [fingerprint] if fingerprint is not None else []
                num_rejected += isinstance(row, Rejected)
                advance(1, f"{num_rejected} rejected" if num_rejected else "")
                if time.monotonic() - saved >= _SAVE_EVERY:
                    _write_part(parts, rows[num_saved:], fingerprints)
                    fingerprints.clear()
                    num_saved, saved = len(rows), time.monotonic()
        finally:
            if len(rows) > num_saved:
                _write_part(parts, rows[num_saved:], fingerprints)
    return rows


def _give_up(limits: Limits | None, file: File, exit_code: int | None) -> _Read:
    """The row of a file at which workers died."""
    return rejected_file(file, *verdict(exit_code, limits)), None


def _read_file(file: File, tags_only: bool, min_duration: float, limits: Limits | None) -> _Read:
    row: Row
    fingerprint = None
    try:
        with limited(limits, file.size):
            row, fingerprint = _read_content(file, tags_only, min_duration)
    except Unusable as error:
        row = rejected_file(file, error.reason, error.detail)
    except FileNotFoundError:
        return rejected_file(file, Reason.CHANGED, "it vanished before it was read"), None
    except OSError as error:
        return rejected_file(file, Reason.UNREADABLE, error.strerror or str(error)), None
    except Exception as error:  # whatever one file does to a decoder must not stop a library; the row tells
        row = rejected_file(file, Reason.DECODE_FAILED, f"{type(error).__name__}: {error}")
    if not _is_as_seen(file):
        return rejected_file(file, Reason.CHANGED, "it changed while it was read"), None
    return row, fingerprint


def _is_as_seen(file: File) -> bool:
    try:
        status = file.path.stat()
    except OSError:
        return False
    return (file.size, file.mtime_ns) == (status.st_size, status.st_mtime_ns)


def _read_content(file: File, tags_only: bool, min_duration: float) -> _Read:
    with file.path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
        if not looks_like_audio(head, file.path.suffix):
            reason = Reason.NOT_AUDIO if head else Reason.EMPTY
            return rejected_file(file, reason, f"it starts with {head[:16]!r}" if head else "0 bytes"), None
        tags = read_tags(stream)
        found = None if tags_only else probe(stream)
    if found is not None and found.length < min_duration * SAMPLE_RATE:
        detail = f"{found.length / SAMPLE_RATE:.3f} s, {_shorter_than(min_duration)}"
        return rejected_file(file, Reason.TOO_SHORT, detail), None
    measured: dict[str, Any] = {name: getattr(found, name, None) for name in _MEASURED}
    measured |= {name: getattr(found and found.quality, name, None) for name in _FIGURES}
    track = Track(
        path=shown(file.path),
        raw_path=os.fsencode(file.path),
        library=file.library,
        size=file.size,
        mtime_ns=file.mtime_ns,
        **measured,
        cluster=None,
        family=None,
        **{name: getattr(tags, name) for name in FIELDS},
        raw_tags=json.dumps(tags.raw, sort_keys=True),  # ASCII: whatever a tag holds can be stored
    )
    return track, to_record(found.id, found.landmarks) if found else None


def _shorter_than(min_duration: float) -> str:
    return f"shorter than {min_duration:g} s"
