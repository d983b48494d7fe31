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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, zip_longest
from pathlib import Path, PurePath

from mousai.audio import SAMPLE_RATE
from mousai.errors import UserError
from mousai.settings import SelectSettings
from pipeline.manifest import has_columns_of, iter_table, read_facts, read_table, write_table
from pipeline.prompts import tracks_by_id
from pipeline.records import Assignment, Chunk, Track
from pipeline.selection import SelectionSummary, exclusions, summarise

FILE = "chunks.parquet"
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
    num_unmeasured: int  # tracks that are passed over, since only their tags have been read

    @property
    def duration(self) -> float:
        """All music of the planned tracks, once."""
        return self.train_duration + self.val_duration + self.skipped_duration - self.overlapped_duration


def chunk_starts(length: int, chunk_length: int) -> list[int]:
    """First samples of the chunks of a track of `length` samples."""
    count = max(1, round(length / chunk_length))
    if count == 1:
        return [0]
    return [round(i * (length - chunk_length) / (count - 1)) for i in range(count)]


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where everything goes, by track: the chunks, of which a large library has millions, are made one by one."""

    plan: ChunkPlan
    by_id: Mapping[str, Track]  # the tracks that are planned
    groups: Mapping[str, str]
    fallback: str
    splits: Mapping[str, str]  # of tracks that are no longer planned as well
    shards: Mapping[str, int]

    def chunks(self) -> Iterator[Chunk]:
        """All chunks, sorted by split, shard and key."""
        for track_id in sorted(
            self.by_id, key=lambda track_id: (self.splits[track_id], self.shards[track_id], f"{track_id}_")
        ):
            cuts = _cut(self.by_id[track_id], self.plan)
            for index, (start, length, valid_length) in enumerate(cuts, 1):
                yield Chunk(
                    key=f"{track_id}_{index:04}",
                    track_id=track_id,
                    index=index,
                    count=len(cuts),
                    start=start,
                    length=length,
                    valid_length=valid_length,
                    split=self.splits[track_id],
                    group=self.groups[track_id],
                    shard=self.shards[track_id],
                )


def plan_chunks(
    tracks: Sequence[Track],
    previous: Iterable[Chunk],
    plan: ChunkPlan,
    *,
    excluded: Collection[str] = (),
    remembered: Mapping[str, str] | None = None,
) -> list[Chunk]:
    """The chunks of all decoded tracks whose path is not `excluded`, sorted by split, shard and key.

    `previous` is the plan so far (empty at first), in the same order. Made with another chunk length or divisor, it
    hands down its splits and nothing else. `remembered` tells the split (by track id) of tracks planned before it.
    """
    return list(_lay_out(tracks, previous, plan, excluded, remembered or {}).chunks())


def update_chunks(manifests: Path, plan: ChunkPlan, select: SelectSettings | None = None) -> ChunkSummary:
    """Bring `chunks.parquet` up to date with `tracks.parquet`; it is written only if the plan has changed."""
    path = manifests / FILE
    layout, summary = _prepare(manifests, plan, select)
    if layout.splits != _read_splits(manifests):  # before the plan, so that a kill between the two forgets nothing
        rows = (Assignment(track_id=track_id, split=layout.splits[track_id]) for track_id in sorted(layout.splits))
        write_table(manifests / _SPLITS, Assignment, rows)
    facts = dataclasses.asdict(plan)
    if summary.changed or read_facts(path) != facts:
        write_table(path, Chunk, layout.chunks(), **facts)
    return summary


def preview_chunks(manifests: Path, plan: ChunkPlan, select: SelectSettings | None = None) -> ChunkSummary:
    """What `update_chunks` would plan; nothing is written."""
    return _prepare(manifests, plan, select)[1]


def _prepare(manifests: Path, plan: ChunkPlan, select: SelectSettings | None) -> tuple[_Layout, ChunkSummary]:
    tracks = read_table(manifests / "tracks.parquet", Track, "mousai ingest LIBRARY")
    excluded = exclusions(tracks, select or SelectSettings())
    layout = _lay_out(tracks, _iter_chunks(manifests), plan, excluded, _read_splits(manifests))
    if not layout.by_id:
        left_out = f" that is trained on ({len(excluded)} are left out by [select])" if excluded else ""
        raise UserError(
            f"{manifests / 'tracks.parquet'} has no decoded track{left_out}. Add music with: mousai ingest LIBRARY"
        )
    changed = any(new != old for new, old in zip_longest(layout.chunks(), _iter_chunks(manifests)))
    num_unmeasured = sum(track.length is None for track in tracks)
    return layout, _summarise(layout, summarise(tracks, excluded), changed, num_unmeasured)


def read_chunks(manifests: Path) -> list[Chunk]:
    """The plan as it was last written."""
    return read_table(manifests / FILE, Chunk, "mousai shard")


def spread_chunks(manifests: Path, num_chunks: int, count: int) -> list[Chunk]:
    """Up to `count` of the plan's `num_chunks` chunks, at even distances."""
    count = min(count, num_chunks)
    wanted = {i * num_chunks // count for i in range(count)}
    return [chunk for number, chunk in enumerate(_iter_chunks(manifests)) if number in wanted] if count else []


def _iter_chunks(manifests: Path) -> Iterator[Chunk]:
    """The plan so far; one of another version counts as none: `splits.parquet` remembers what must stay."""
    path = manifests / FILE
    return iter_table(path, Chunk, "mousai shard") if path.exists() and has_columns_of(path, Chunk) else iter(())


def _read_splits(manifests: Path) -> dict[str, str]:
    path = manifests / _SPLITS
    rows = iter_table(path, Assignment, "mousai shard") if path.exists() else ()
    return {row.track_id: row.split for row in rows}


def _lay_out(
    tracks: Sequence[Track],
    previous: Iterable[Chunk],
    plan: ChunkPlan,
    excluded: Collection[str],
    remembered: Mapping[str, str],
) -> _Layout:
    by_id = tracks_by_id(track for track in tracks if track.path not in excluded)
    before, kept = dict(remembered), {}
    same_plan = True
    for track_id, rows in groupby(previous, lambda chunk: chunk.track_id):
        chunks = list(rows)
        before[track_id] = chunks[0].split
        same_plan = same_plan and all(chunk.length == _planned_length(chunk, plan) for chunk in chunks)
        cuts = [(chunk.start, chunk.length, chunk.valid_length) for chunk in chunks]
        if track_id in by_id and cuts == _cut(by_id[track_id], plan):
            kept[track_id] = chunks[0].shard
    groups, fallback = group_tracks(by_id, tracks)
    by_group = _assign_splits(by_id, groups, before, plan.validation_share) if by_id else {}
    splits = {track_id: by_group[groups[track_id]] for track_id in by_id}
    kept = {key: shard for key, shard in kept.items() if same_plan and splits[key] == before[key]}
    return _Layout(
        plan=plan,
        by_id=by_id,
        groups=groups,
        fallback=fallback,
        splits={**before, **splits},
        shards=_place(by_id, splits, kept, plan),
    )


def group_tracks(by_id: Mapping[str, Track], linking: Iterable[Track] = ()) -> tuple[dict[str, str], str]:
    """Track id -> name of its group, and why the groups are narrower than they should be ("" if they are not).

    `linking` tracks tie groups together without being planned: those that are left out, and other paths of a recording.
    A library that is all one group, such as one musician's work, is grouped by album, and else by track.
    """
    linked = "All tracks are linked by artist, album, folder or recording, so validation"
    levels: list[tuple[str, Callable[[Track], list[str]]]] = [
        ("", _links),
        (f"{linked} holds other albums of the artists it trains on.", lambda track: [_album(track)]),
        (f"{linked} holds other tracks of the albums it trains on.", lambda track: [f"track {track.id}"]),
    ]
    others = [each for each in linking if each.id is not None and each.length and each is not by_id.get(each.id)]
    for fallback, names_of in levels:
        names: dict[str, list[str]] = {}
        for track in chain(by_id.values(), others):
            recording = [f"recording {track.family}"] if track.family else []
            names.setdefault(track.id or "", []).extend([*names_of(track), *recording])
        groups = _connect(names)
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
    if "val" not in splits.values() and new:  # where there are none, what was trained on must not take their place
        splits[new[0]] = "val"
    if "train" not in splits.values():
        splits[by_size[-1]] = "train"
    return splits


def _cut(track: Track, plan: ChunkPlan) -> list[tuple[int, int, int]]:
    """Start, length and valid length of the chunks of a track."""
    length = track.length or 0
    valid_length = min(length, plan.chunk_length)
    padded_length = _round_up(valid_length, plan.divisor)
    return [(start, padded_length, valid_length) for start in chunk_starts(length, plan.chunk_length)]


def _place(
    by_id: Mapping[str, Track], splits: Mapping[str, str], kept: Mapping[str, int], plan: ChunkPlan
) -> dict[str, int]:
    """Track id -> shard: old tracks where they are `kept`, new ones in new shards, a track never divided."""
    shards = dict(kept)
    last = {"train": -1, "val": -1}
    for track_id, shard in kept.items():
        last[splits[track_id]] = max(last[splits[track_id]], shard)
    space = {"train": 0, "val": 0}
    for track_id in sorted(by_id):
        if track_id in kept:
            continue
        split, count = splits[track_id], len(_cut(by_id[track_id], plan))
        if count > space[split]:
            last[split] += 1
            space[split] = plan.chunks_per_shard
        space[split] -= count
        shards[track_id] = last[split]
    return shards


def _planned_length(chunk: Chunk, plan: ChunkPlan) -> int:
    """The length that `plan` would have given to a chunk."""
    full = chunk.count > 1 or chunk.valid_length > plan.chunk_length
    return plan.chunk_length if full else _round_up(chunk.valid_length, plan.divisor)


def _round_up(length: int, divisor: int) -> int:
    return -(-length // divisor) * divisor


def _summarise(layout: _Layout, selection: SelectionSummary, changed: bool, num_unmeasured: int) -> ChunkSummary:
    planned: Counter[str] = Counter()  # samples by split
    num_chunks = skipped = overlapped = 0
    for track_id, track in layout.by_id.items():
        valid_lengths = [valid_length for _, _, valid_length in _cut(track, layout.plan)]
        num_chunks += len(valid_lengths)
        planned[layout.splits[track_id]] += sum(valid_lengths)
        uncovered = (track.length or 0) - sum(valid_lengths)
        skipped += max(0, uncovered)
        overlapped += max(0, -uncovered)
    return ChunkSummary(
        num_chunks=num_chunks,
        num_tracks=len(layout.by_id),
        num_groups=len({layout.groups[track_id] for track_id in layout.by_id}),
        num_shards=len({(layout.splits[track_id], shard) for track_id, shard in layout.shards.items()}),
        train_duration=planned["train"] / SAMPLE_RATE,
        val_duration=planned["val"] / SAMPLE_RATE,
        skipped_duration=skipped / SAMPLE_RATE,
        overlapped_duration=overlapped / SAMPLE_RATE,
        num_crossing_artists=len(_crossing_artists(layout.by_id, layout.splits)),
        changed=changed,
        fallback=layout.fallback,
        selection=selection,
        num_unmeasured=num_unmeasured,
    )


def _crossing_artists(by_id: Mapping[str, Track], splits: Mapping[str, str]) -> set[str]:
    """Normalised names that follow the first artist on some track and occur on tracks of both splits."""
    names: dict[str, set[str]] = {"train": set(), "val": set()}
    featured: set[str] = set()
    for track_id, track in by_id.items():
        artists = [_normalise(artist) for artist in track.artists]
        names[splits[track_id]].update(artists)
        featured.update(artists[1:])
    return featured & names["train"] & names["val"]
