"""The plan: where each track is cut into chunks, which split each belongs to, and which shard will hold it.

Lengths are samples at 48 kHz. The plan grows with the library: what was planned before keeps its split and its shard.

**Cuts.** A track of n = max(1, round(length / chunk_length)) chunks has its first chunk at its start, its last one at
its end and the others evenly between, so that neighbours overlap or skip at most half a chunk. A track shorter than a
chunk is one chunk, padded to the model's divisor.

**Splits.** Tracks that share a first artist, an album, (untagged) a folder or half a minute of music form a group, and
a group is never divided. Validation starts with the smallest groups. A group whose tracks were planned before keeps
its split; where two groups of different splits have become one, through a new album or a new tag, it is for training:
nothing that a checkpoint has been trained on ever comes to judge it. `splits.parquet` remembers the split of tracks
that are no longer planned, whether they are gone or left out by `[select]`; those that are left out still tie their
groups together.
"""

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from mousai.audio import SAMPLE_RATE
from mousai.errors import UserError
from mousai.settings import SelectSettings
from pipeline.manifest import read_facts, read_table, write_table
from pipeline.prompts import tracks_by_id
from pipeline.records import Assignment, Chunk, Track
from pipeline.selection import SelectionSummary, exclusions, summarise

_FILE = "chunks.parquet"
_SPLITS = "splits.parquet"
_REFILL = 0.5  # validation takes in new groups once its share has fallen below this much of what was asked


@dataclass(frozen=True, kw_only=True)
class ChunkPlan:
    """What the plan depends on beside the tracks."""

    chunk_length: int  # samples at 48 kHz
    divisor: int  # of the lengths that the model takes
    chunks_per_shard: int  # of shards to come: those planned before stay as they are
    validation_share: float = 0.01  # of the hours

    def __post_init__(self) -> None:
        if self.chunk_length <= 0 or self.chunk_length % self.divisor:
            raise UserError(f"chunk_length is {self.chunk_length}: it must be a multiple of {self.divisor} samples")


@dataclass(frozen=True, kw_only=True)
class ChunkSummary:
    """What was planned. Durations are seconds."""

    num_chunks: int
    num_tracks: int
    num_groups: int
    num_shards: int
    train_duration: float  # music in the chunks of the split; what overlaps counts twice
    val_duration: float
    skipped_duration: float  # music that is in no chunk
    overlapped_duration: float  # music that is in two chunks
    num_crossing_artists: int  # named after the first on some track, and present in both splits
    changed: bool  # whether the plan differs from the one before
    fallback: str  # why validation is no group of its own, as a sentence; empty if it is
    selection: SelectionSummary  # what is trained on, and what [select] leaves out


def chunk_starts(length: int, chunk_length: int) -> list[int]:
    """First samples of the chunks of a track of `length` samples."""
    count = max(1, round(length / chunk_length))
    if count == 1:
        return [0]
    return [round(i * (length - chunk_length) / (count - 1)) for i in range(count)]


def plan_chunks(
    tracks: Sequence[Track],
    previous: Sequence[Chunk],
    plan: ChunkPlan,
    *,
    excluded: Collection[str] = (),
    remembered: Mapping[str, str] | None = None,
) -> list[Chunk]:
    """The chunks of all decoded tracks whose path is not `excluded`, sorted by split, shard and key.

    `previous` is the plan so far (empty at first). Made with another chunk length or divisor, it hands down its splits
    and nothing else. `remembered` tells the split (by track id) of tracks that were planned before it.
    """
    by_id = tracks_by_id(track for track in tracks if track.path not in excluded)
    if not by_id:
        return []
    groups, _ = group_tracks(by_id, tracks_by_id(tracks))
    before = {**(remembered or {}), **_splits_of(previous)}
    splits = _assign_splits(by_id, groups, before, plan.validation_share)
    cut = [_cut(track_id, by_id[track_id], groups[track_id], splits, plan) for track_id in sorted(by_id)]
    return sorted(_place(cut, previous, plan), key=lambda chunk: (chunk.split, chunk.shard, chunk.key))


def update_chunks(manifests: Path, plan: ChunkPlan, select: SelectSettings | None = None) -> ChunkSummary:
    """Bring `chunks.parquet` up to date with `tracks.parquet`; it is written only if the plan has changed."""
    path = manifests / _FILE
    tracks = read_table(manifests / "tracks.parquet", Track, "mousai ingest LIBRARY")
    excluded = exclusions(tracks, select or SelectSettings())
    previous = read_chunks(manifests) if path.exists() else []
    remembered = _read_splits(manifests)
    chunks = plan_chunks(tracks, previous, plan, excluded=excluded, remembered=remembered)
    if not chunks:
        left_out = f" that is trained on ({len(excluded)} are left out by [select])" if excluded else ""
        raise UserError(
            f"{manifests / 'tracks.parquet'} has no decoded track{left_out}. Add music with: mousai ingest LIBRARY"
        )
    splits = {**remembered, **_splits_of(previous), **_splits_of(chunks)}
    if splits != remembered:  # before the plan, so that a kill between the two forgets nothing
        rows = [Assignment(track_id=track_id, split=splits[track_id]) for track_id in sorted(splits)]
        write_table(manifests / _SPLITS, Assignment, rows)
    facts = dataclasses.asdict(plan)
    changed = chunks != previous
    if changed or read_facts(path) != facts:
        write_table(path, Chunk, chunks, **facts)
    return _summarise(tracks, excluded, chunks, changed)


def read_chunks(manifests: Path) -> list[Chunk]:
    """The plan as it was last written."""
    return read_table(manifests / _FILE, Chunk, "mousai shard")


def _read_splits(manifests: Path) -> dict[str, str]:
    path = manifests / _SPLITS
    rows = read_table(path, Assignment, "mousai shard") if path.exists() else []
    return {row.track_id: row.split for row in rows}


def _splits_of(chunks: Iterable[Chunk]) -> dict[str, str]:
    return {chunk.track_id: chunk.split for chunk in chunks}


def group_tracks(by_id: Mapping[str, Track], linking: Mapping[str, Track] | None = None) -> tuple[dict[str, str], str]:
    """Track id -> name of its group, and why the groups are narrower than they should be ("" if they are not).

    `linking` tracks tie groups together without being planned; they are in the result as well.
    A library that is all one group, such as one musician's work, is grouped by album, and else by track.
    """
    linked = "All tracks are linked by artist, album, folder or recording, so validation"
    levels: list[tuple[str, Callable[[str, Track], list[str]]]] = [
        ("", lambda _, track: _links(track)),
        (f"{linked} holds other albums of the artists it trains on.", lambda _, track: [_album(track)]),
        (f"{linked} holds other tracks of the albums it trains on.", lambda track_id, _: [f"track {track_id}"]),
    ]
    tracks = {**(linking or {}), **by_id}
    for fallback, names in levels:
        groups = _connect({
            track_id: [*names(track_id, track), *([f"recording {track.family}"] if track.family else [])]
            for track_id, track in tracks.items()
        })  # fmt: skip
        if len({groups[track_id] for track_id in by_id}) > 1:
            return groups, fallback
    return groups, "There is one track only, so there is no validation."


def _normalise(name: str | None) -> str:
    return " ".join(unicodedata.normalize("NFKC", name or "").casefold().split())


def _links(track: Track) -> list[str]:
    """The names that tie a track to others. A release sorts last: groups are called by an artist or a folder."""
    artist = _normalise(track.artists[0] if track.artists else None)
    album, album_artist = _normalise(track.album), _normalise(track.album_artist)
    first = f"artist {artist}" if artist else _folder(track)
    return [first, f"release {album_artist}\t{album}"] if album and album_artist else [first]


def _album(track: Track) -> str:
    album = _normalise(track.album)
    return f"album {album}" if album else _folder(track)


def _folder(track: Track) -> str:
    return f"folder {PurePath(track.path).parent}"


def _connect(names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Track id -> the smallest of all names that it is connected to, directly or through other tracks."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while (parent := parents.setdefault(name, name)) != name:
            parents[name] = name = parents[parent]
        return name

    for first, *others in names.values():
        for other in others:
            smaller, larger = sorted((root(first), root(other)))
            parents[larger] = smaller
    return {track_id: root(first) for track_id, (first, *_) in names.items()}


def _assign_splits(
    by_id: Mapping[str, Track], groups: Mapping[str, str], planned: Mapping[str, str], share: float
) -> dict[str, str]:
    """Group -> "train" or "val": as before where it was planned before, and the smallest new groups to fill up."""
    sizes: Counter[str] = Counter()
    for track_id, track in by_id.items():
        sizes[groups[track_id]] += track.length or 0
    before: dict[str, set[str]] = {group: set() for group in groups.values()}  # the splits that its tracks were in
    for track_id, split in planned.items():
        if track_id in groups:
            before[groups[track_id]].add(split)
    by_size = sorted(sizes, key=lambda group: (sizes[group], group))
    new = [group for group in by_size if not before[group]]
    splits = {group: "val" if before[group] == {"val"} else "train" for group in by_size}

    wanted = share * sizes.total()
    held = sum(sizes[group] for group in by_size if splits[group] == "val")
    if held < _REFILL * wanted:
        for group in new:
            if held >= wanted:
                break
            splits[group] = "val"
            held += sizes[group]
    if "val" not in splits.values():
        splits[(new or by_size)[0]] = "val"
    if "train" not in splits.values():
        splits[by_size[-1]] = "train"
    return splits


def _cut(track_id: str, track: Track, group: str, splits: Mapping[str, str], plan: ChunkPlan) -> list[Chunk]:
    """The chunks of one track, not yet in a shard."""
    length = track.length or 0
    valid_length = min(length, plan.chunk_length)
    starts = chunk_starts(length, plan.chunk_length)
    return [
        Chunk(
            key=f"{track_id}_{index:04}",
            track_id=track_id,
            index=index,
            count=len(starts),
            start=start,
            length=_round_up(valid_length, plan.divisor),
            valid_length=valid_length,
            split=splits[group],
            group=group,
            shard=-1,
        )
        for index, start in enumerate(starts, 1)
    ]


def _place(cut: Iterable[list[Chunk]], previous: Sequence[Chunk], plan: ChunkPlan) -> list[Chunk]:
    """The chunks in their shards: old ones where they were, new tracks in new shards, a track never divided."""
    same_plan = all(chunk.length == _planned_length(chunk, plan) for chunk in previous)
    before = {_identity(chunk): chunk.shard for chunk in previous if same_plan}
    placed: list[Chunk] = []
    new: list[list[Chunk]] = []
    for chunks in cut:
        shards = {before.get(_identity(chunk), -1) for chunk in chunks}
        if -1 in shards:
            new.append(chunks)
        else:
            placed += _in_shard(chunks, shards.pop())
    last = {"train": -1, "val": -1}
    for chunk in placed:
        last[chunk.split] = max(last[chunk.split], chunk.shard)
    space = {"train": 0, "val": 0}
    for chunks in new:
        split = chunks[0].split
        if len(chunks) > space[split]:
            last[split] += 1
            space[split] = plan.chunks_per_shard
        space[split] -= len(chunks)
        placed += _in_shard(chunks, last[split])
    return placed


def _in_shard(chunks: Iterable[Chunk], shard: int) -> list[Chunk]:
    return [dataclasses.replace(chunk, shard=shard) for chunk in chunks]


def _identity(chunk: Chunk) -> tuple[str, str, int, int, int, int]:
    """What must stay the same for a chunk to stay in its shard."""
    return chunk.split, chunk.key, chunk.count, chunk.start, chunk.length, chunk.valid_length


def _planned_length(chunk: Chunk, plan: ChunkPlan) -> int:
    """The length that `plan` would have given to a chunk."""
    full = chunk.count > 1 or chunk.valid_length > plan.chunk_length
    return plan.chunk_length if full else _round_up(chunk.valid_length, plan.divisor)


def _round_up(length: int, divisor: int) -> int:
    return -(-length // divisor) * divisor


def _summarise(
    tracks: Sequence[Track], excluded: Mapping[str, list[str]], chunks: Sequence[Chunk], changed: bool
) -> ChunkSummary:
    by_id = tracks_by_id(track for track in tracks if track.path not in excluded)
    chunked: Counter[str] = Counter()  # samples by track
    durations = {"train": 0.0, "val": 0.0}
    for chunk in chunks:
        chunked[chunk.track_id] += chunk.valid_length
        durations[chunk.split] += chunk.valid_length / SAMPLE_RATE
    uncovered = [(track.length or 0) - chunked[track_id] for track_id, track in by_id.items()]  # > 0: skipped
    return ChunkSummary(
        num_chunks=len(chunks),
        num_tracks=len(chunked),
        num_groups=len({chunk.group for chunk in chunks}),
        num_shards=len({(chunk.split, chunk.shard) for chunk in chunks}),
        train_duration=durations["train"],
        val_duration=durations["val"],
        skipped_duration=sum(length for length in uncovered if length > 0) / SAMPLE_RATE,
        overlapped_duration=-sum(length for length in uncovered if length < 0) / SAMPLE_RATE,
        num_crossing_artists=len(_crossing_artists(by_id, chunks)),
        changed=changed,
        fallback=group_tracks(by_id, tracks_by_id(tracks))[1],
        selection=summarise(tracks, excluded),
    )


def _crossing_artists(by_id: Mapping[str, Track], chunks: Sequence[Chunk]) -> set[str]:
    """Normalised names that follow the first artist on some track and occur on tracks of both splits."""
    splits = _splits_of(chunks)
    names: dict[str, set[str]] = {"train": set(), "val": set()}
    featured: set[str] = set()
    for track_id, track in by_id.items():
        artists = [_normalise(artist) for artist in track.artists]
        names[splits[track_id]].update(artists)
        featured.update(artists[1:])
    return featured & names["train"] & names["val"]
