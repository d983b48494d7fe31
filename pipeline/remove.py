"""Taking music out again: of tables, shards, latents and previews, with no other chunk moved or made anew.

What is to go is on the list (`pipeline.removal`) before anything is touched, and the list is marked as unfinished until
all of it has gone: the same work, begun again after a kill, ends in the same bytes. A shard is rewritten from its own
members in a folder beside it and moved into place whole. Shards that held nothing of it keep their bytes.
"""

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mousai.errors import UserError
from mousai.progress import progress
from mousai.storage import read_json, sha256_of_file, write_json
from pipeline.chunks import FILE as CHUNKS
from pipeline.chunks import group_tracks, read_chunks
from pipeline.duplicates import FILE as FINGERPRINTS
from pipeline.duplicates import has_fingerprints, mark_duplicates, merge_fingerprints
from pipeline.encode_latents import SPLITS, latent_plan
from pipeline.ingest import PARTS
from pipeline.manifest import read_facts, read_table, write_table
from pipeline.metadata import drop_said
from pipeline.prompts import tracks_by_id
from pipeline.proof import Proof, by_folder, search
from pipeline.records import Chunk, LatentMember, Reason, Rejected, Removed, ShardMember, Track
from pipeline.removal import (
    FILE,
    Match,
    Row,
    State,
    find_matches,
    kept_out,
    read_removed,
    read_state,
    recordings,
    reject_removed,
    request_for_path,
    requests,
    with_known_wording,
    write_removed,
)
from pipeline.rewrite import STAGING, ShardPlace, put, stage
from pipeline.shard import AudioFormat, ShardJob, jobs_of
from pipeline.tars import list_shards

EXEMPT = (FILE, "splits.parquet", "tracks.txt")  # they know what has gone by its id alone, and must
PREVIEW_TRACKS = "tracks.json"  # in a preview's folder: the ids of the tracks that its files 0, 1, … are of


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a workspace's data lies."""

    manifests: Path
    shards: Path
    latents: Path
    runs: Path
    exports: Path


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a run has changed; all zero where everything had gone before."""

    num_tracks: int  # files that were in tracks.parquet
    num_chunks: int
    rewritten: tuple[Path, ...]  # tars of audio and latents that held some of it
    deleted: tuple[Path, ...]  # those that held nothing else, or were damaged
    num_previews: int  # of held-out tracks that went, in runs/*/previews

    @property
    def changed(self) -> bool:
        """Whether anything was there to be taken out."""
        return bool(self.num_tracks or self.num_chunks or self.rewritten or self.deleted or self.num_previews)


@dataclass(frozen=True, kw_only=True)
class _Change:
    """The rows before and after, and the ids that go."""

    before: tuple[Row, ...]
    after: tuple[Row, ...]
    libraries: tuple[str, ...]
    gone: frozenset[str]


Forget = Callable[[bytes], bool]  # raw path -> whether it is to be dropped, and kept out by nothing


def find_removals(manifests: Path, rules: Sequence[Removed], *, all_must_match: bool) -> list[Match]:
    """What each rule would take out, under the words that the list has for it.

    UserError where a rule matches nothing and is not on the list, if all must; names like its own are in the message.
    """
    path = manifests / "tracks.parquet"
    tracks = read_table(path, Track, "mousai ingest LIBRARY") if path.exists() else []
    listed = read_removed(manifests)
    matches = find_matches(tracks, with_known_wording(dict.fromkeys(rules), listed))
    for match in matches:
        if all_must_match and not match.tracks and match.rule not in listed:
            like = f" Names like it: {'; '.join(match.similar)}." if match.similar else ""
            raise UserError(
                f"{match.rule.request} matches none of {len(tracks)} tracks.{like} "
                "To keep out music that is not there yet, put it into a file: mousai remove --list FILE"
            )
    return matches


def remove(places: Places, rules: Sequence[Removed], audio_format: AudioFormat) -> tuple[Taken, Proof]:
    """Put the rules on the list, take out all that is on it, and search for what is left of it."""
    listed = read_removed(places.manifests)
    if not set(rules) <= set(listed):
        _write_begun(places.manifests, [*listed, *rules])
    taken, gone = take_out(places, audio_format)
    proof = search_for(places, gone)
    before, after = read_state(places.manifests), _state_after(places, proof)
    if before.unfinished and after != before:
        write_removed(places.manifests, read_removed(places.manifests), after)
    return taken, proof


def _write_begun(manifests: Path, rows: Iterable[Removed]) -> None:
    """The list, while what it names may still be in tables, shards or latents."""
    write_removed(manifests, rows, replace(read_state(manifests), unfinished=True, left={}))


def _state_after(places: Places, proof: Proof) -> State:
    left = {each.folder: each.cure for each in by_folder(proof, places.manifests.parent)}
    cards = {str(Path(card).relative_to(places.exports)): sha256_of_file(Path(card)) for card in proof.cards}
    return State(unfinished=not proof.holds, left=left, cards=cards)


def forget(places: Places, rules: Sequence[Removed], audio_format: AudioFormat) -> tuple[Taken, Proof]:
    """Take out all below the paths that the rules name, libraries too, and keep none of it out of later scans."""
    out = kept_out(rules)
    taken, gone = take_out(places, audio_format, lambda raw_path: request_for_path(out, raw_path) is not None)
    return taken, search_for(places, gone)


def undo(manifests: Path, rules: Sequence[Removed], *, dry_run: bool = False) -> dict[str, int]:
    """Take requests off the list: their words -> how many files of the library each has kept out.

    UserError, with nothing changed, for one that is not on it, or where none is named.
    """
    listed = read_removed(manifests)
    there = f"On it: {'; '.join(requests(listed)) or 'nothing'}"
    if not rules:
        raise UserError(f"name what is to be taken off the list: mousai remove --undo --artist NAME. {there}")
    known = with_known_wording(rules, listed)
    for rule in known:
        if rule not in listed:
            raise UserError(f"{rule.request} is not on the list of what was removed. {there}")
    path = manifests / "rejected.parquet"
    rejected = read_table(path, Rejected, "mousai ingest") if path.exists() else []
    kept = Counter(row.detail for row in rejected if row.reason == Reason.REMOVED)
    undone = {rule.request: kept[rule.request] for rule in known}
    if not dry_run:
        write_removed(manifests, [row for row in listed if row.request not in undone], read_state(manifests))
    return undone


def search_for(places: Places, ids: Collection[str]) -> Proof:
    """Look for track ids in all that the workspace holds, and for the cards that were made of exports with some."""
    proof = search(dataclasses.astuple(places), ids, EXEMPT)
    below = [Path(file).relative_to(places.exports) for file in proof.left if places.exports in Path(file).parents]
    beside = {places.exports / path.parts[0] / "README.md" for path in below}
    noted = read_state(places.manifests).cards  # beside what is gone by now; once rewritten, a card is another
    cards = {card for card in beside if card.is_file()} | {
        card
        for card, sha256 in ((places.exports / name, sha256) for name, sha256 in noted.items())
        if card.is_file() and sha256_of_file(card) == sha256
    }
    return replace(proof, cards=tuple(sorted(map(str, cards))))


def take_out(
    places: Places, audio_format: AudioFormat, forget: Forget = lambda raw_path: False
) -> tuple[Taken, frozenset[str]]:
    """Take out all that is on the list, and the files that `forget` names; what was done, and the ids that are to go.

    The tables are the last to change: until then they tell a run that was begun again what there is to do.
    """
    change = _plan_change(places.manifests, forget)
    rewritten, deleted = _rewrite_shards(places, change, audio_format)
    num_previews = _delete_previews(places.runs, change.gone)
    num_chunks = _drop_chunks(places.manifests, change)
    _drop_parts(places.manifests / PARTS, read_removed(places.manifests), forget)
    if change.after != change.before or list(change.libraries) != _libraries(places.manifests):
        kept = {track.raw_path for track in _tracks(change.after)}
        drop_said(places.manifests, {track.raw_path for track in _tracks(change.before)} - kept)
        facts = read_facts(places.manifests / "tracks.parquet") | {"libraries": list(change.libraries)}
        _write_rows(places.manifests, change.after, **facts)
    taken = Taken(
        num_tracks=len(_tracks(change.before)) - len(_tracks(change.after)),
        num_chunks=num_chunks,
        rewritten=tuple(rewritten),
        deleted=tuple(deleted),
        num_previews=num_previews,
    )
    return taken, change.gone


# Tables


def _plan_change(manifests: Path, forget: Forget) -> _Change:
    """What becomes of the rows; recordings that a rule meets only now are on the list when this returns.

    The fingerprints of what goes have gone when this returns: they tell nothing that the rest would need.
    """
    removed = read_removed(manifests)
    before = _read_rows(manifests)
    after, met = reject_removed([row for row in before if not forget(row.raw_path)], removed)
    if met:
        _write_begun(manifests, [*removed, *met])
    out = kept_out(removed)
    libraries = _libraries(manifests)
    dropped = [each for each in libraries if forget(each.encode()) or request_for_path(out, each.encode())]
    after = [row for row in after if row.library not in dropped]
    fingerprints = manifests / FINGERPRINTS
    left = {track.id for track in _tracks(after) if track.id is not None}
    if after != before and has_fingerprints(fingerprints):  # clusters are called by an id, which may have gone
        merge_fingerprints([fingerprints], left, fingerprints)
        marked = {track.raw_path: track for track in mark_duplicates(_tracks(after), fingerprints)}
        after = [marked.get(row.raw_path, row) for row in after]
    forgotten = {track.id for track in _tracks(before) if track.id is not None} - left
    return _Change(
        before=tuple(before),
        after=tuple(after),
        libraries=tuple(each for each in libraries if each not in dropped),
        gone=frozenset(recordings([*removed, *met]) | forgotten),
    )


def _libraries(manifests: Path) -> list[str]:
    return list(read_facts(manifests / "tracks.parquet").get("libraries", []))


def _tracks(rows: Iterable[Row]) -> list[Track]:
    return [row for row in rows if isinstance(row, Track)]


def _read_rows(folder: Path, prefix: str = "") -> list[Row]:
    rows: dict[bytes, Row] = {}  # a run that was killed between the two tables may have left a file in both
    for name, record in (("rejected", Rejected), ("tracks", Track)):
        path = folder / f"{prefix}{name}.parquet"
        of_table: list[Row] = read_table(path, record, "mousai ingest") if path.exists() else []
        rows |= {row.raw_path: row for row in of_table}
    return sorted(rows.values(), key=lambda row: (row.path, row.raw_path))


def _write_rows(folder: Path, rows: Sequence[Row], prefix: str = "", **facts: object) -> None:
    """As ingest leaves them: sorted by path, the tracks last."""
    ordered = sorted(rows, key=lambda row: (row.path, row.raw_path))
    write_table(folder / f"{prefix}rejected.parquet", Rejected, [row for row in ordered if isinstance(row, Rejected)])
    write_table(folder / f"{prefix}tracks.parquet", Track, _tracks(ordered), **facts)


def _drop_parts(parts: Path, removed: Sequence[Removed], forget: Forget) -> None:
    """What killed runs of ingest have read."""
    for path in sorted(parts.glob("*-tracks.parquet")):
        prefix = path.name.removesuffix("tracks.parquet")
        before = _read_rows(parts, prefix)
        after, _ = reject_removed([row for row in before if not forget(row.raw_path)], removed)
        if after != before:
            heard = parts / f"{prefix}{FINGERPRINTS}"
            if heard.exists():
                merge_fingerprints([heard], {track.id for track in _tracks(after) if track.id is not None}, heard)
            _write_rows(parts, after, prefix)


def _drop_chunks(manifests: Path, change: _Change) -> int:
    """Drop the chunks of what goes; the others keep split and shard, and no group is called by one who has gone."""
    path = manifests / CHUNKS
    if not path.exists():
        return 0
    before = read_chunks(manifests)
    left = [chunk for chunk in before if chunk.track_id not in change.gone]
    if len(left) < len(before):
        planned = {chunk.track_id for chunk in left}
        by_id = tracks_by_id(_tracks(change.after))
        groups, _ = group_tracks(
            {each: track for each, track in by_id.items() if each in planned}, _tracks(change.after)
        )
        renamed = [replace(chunk, group=groups.get(chunk.track_id, chunk.group)) for chunk in left]
        write_table(path, Chunk, renamed, **read_facts(path))
    return len(before) - len(left)


# Shards


def _rewrite_shards(places: Places, change: _Change, audio_format: AudioFormat) -> tuple[list[Path], list[Path]]:
    """The tars, of audio and of latents, that were rewritten, and those that were deleted.

    An audio shard is staged, its latents are changed, and then it takes its place: until then the old one tells which
    latents are current, and those stay so.
    """
    plans = _plans(places, change, audio_format)
    encoders = sorted(path for path in places.latents.glob("*") if path.is_dir())
    names = [(split, name) for split in SPLITS for name in _names([places.shards, *encoders], split)]
    rewritten: list[Path] = []
    deleted: list[Path] = []
    with progress("remove", len(names), "shards") as advance:
        for split, name in names:
            audio = ShardPlace(folder=places.shards / split, name=name, record=ShardMember)
            old, new = stage(audio, change.gone, plans.get((split, name), {}))
            for encoder in encoders:
                same = {latent_plan(old, encoder.name): latent_plan(new, encoder.name)} if old and new else {}
                latents = ShardPlace(folder=encoder / split, name=name, record=LatentMember)
                put(latents, *stage(latents, change.gone, same), rewritten, deleted)
            put(audio, old, new, rewritten, deleted)
            advance(1, name)
    for folder in (shelf / split / STAGING for shelf in (places.shards, *encoders) for split in SPLITS):
        shutil.rmtree(folder, ignore_errors=True)
    return rewritten, deleted


def _names(shelves: Iterable[Path], split: str) -> list[str]:
    return sorted({name for shelf in shelves for name in list_shards(shelf / split)})


def _plans(places: Places, change: _Change, audio_format: AudioFormat) -> dict[tuple[str, str], dict[str, str]]:
    """(split, name) of each planned shard -> its plan with what goes, and the same without."""
    chunks = read_chunks(places.manifests) if (places.manifests / CHUNKS).exists() else []
    tracks = tracks_by_id(_tracks(change.before))
    known = [chunk for chunk in chunks if chunk.track_id in tracks]  # a shard that held others is stale, and stays so
    return {
        (job.split, job.name): {job.plan: _without(job, change.gone).plan}
        for job in jobs_of(tracks, known, places.shards, audio_format)
    }


def _without(job: ShardJob, gone: Collection[str | None]) -> ShardJob:
    return replace(job, tracks=tuple(pair for pair in job.tracks if pair[0].id not in gone))


# Previews


def _delete_previews(runs: Path, gone: Collection[str]) -> int:
    """Delete the sounds and pictures that training drew of held-out tracks which go; how many tracks' they were."""
    num_deleted = 0
    for path in sorted(runs.glob(f"*/previews/*/{PREVIEW_TRACKS}")):
        ids = read_json(path)
        for number, track_id in enumerate(ids):
            if track_id in gone:
                for file in [*path.parent.glob(f"{number}.*"), *path.parent.glob(f"{number}-*")]:
                    file.unlink()
                num_deleted += 1
        if any(track_id in gone for track_id in ids):
            write_json(path, [None if track_id in gone else track_id for track_id in ids])
    return num_deleted
