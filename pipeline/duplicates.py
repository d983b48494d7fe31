"""Which tracks are copies of one recording, and which share a part of one.

Copies are found by equal packets (`id`), equal samples (`pcm_id`) and by ear (`pipeline.fingerprint`). By ear there
is an index and no comparison of all with all: two landmarks that are close make a key of 64 bits, and tracks with a
key in common are compared. A copy keeps a third of its words to the bit even at 64 kbit/s, so dozens of some hundred
keys survive; in a million tracks of other music hardly any coincide.
"""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.fingerprint import VERSION, Landmarks, Likeness, compare
from pipeline.manifest import read_facts, write_table
from pipeline.records import Fingerprint, Track, schema

FILE = "fingerprints.parquet"

_ROWS = 50_000  # fingerprints that are held at a time: about 60 MB
_KEYS = 1 << 25  # that are sorted at a time: 256 MB
_STEPS = (1, 2, 3)  # landmarks between the two whose words make a key: a copy lacks some, and has some more
_NEIGHBOURS = 3  # tracks with one key that each is compared with: a loop of a thousand tracks is a chain, no square

_SAME_SHARE = 0.4  # of the landmarks that copies have in common; docs/duplicates.md has the measured margins
_SAME_OVERLAP = 0.75  # of the longer one that copies have in common
_SAME_MATCHED = 5  # landmarks; what is shorter than about 10 s is left to the exact hashes
_FAMILY_MATCHED = 20  # landmarks: about half a minute

Indices = npt.NDArray[np.uint64]


def mark_duplicates(tracks: Sequence[Track], fingerprints: Path) -> list[Track]:
    """The tracks with `cluster` and `family` as they should be; `fingerprints` is the table that holds theirs."""
    copies, relatives = _Sets(), _Sets()
    seen: set[str] = set()
    by_pcm: dict[str, str] = {}
    for track in tracks:
        if track.id is None:
            continue
        if track.id in seen:
            copies.join(track.id, track.id)
        if track.pcm_id is not None and by_pcm.setdefault(track.pcm_id, track.id) != track.id:
            copies.join(track.id, by_pcm[track.pcm_id])
        seen.add(track.id)
    for first, second, same in find_alike(fingerprints):
        (copies if same else relatives).join(first, second)
    for track_id in copies:
        relatives.join(track_id, copies.name(track_id))
    return [_marked(track, copies, relatives) for track in tracks]


def _marked(track: Track, copies: "_Sets", relatives: "_Sets") -> Track:
    cluster = copies.name(track.id) if track.id and track.id in copies else None
    family = relatives.name(track.id) if track.id and track.id in relatives else None
    unchanged = (track.cluster, track.family) == (cluster, family)
    return track if unchanged else dataclasses.replace(track, cluster=cluster, family=family)


class _Sets:
    """Disjoint sets of names, each called by its smallest; a name joined with itself is in them too."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def __contains__(self, member: object) -> bool:
        return member in self._parents

    def __iter__(self) -> Iterator[str]:
        return iter(self._parents)

    def name(self, member: str) -> str:
        while (parent := self._parents.setdefault(member, member)) != member:
            self._parents[member] = member = self._parents[parent]
        return member

    def join(self, first: str, second: str) -> None:
        smaller, larger = sorted((self.name(first), self.name(second)))
        self._parents[larger] = smaller


# By ear


def find_alike(fingerprints: Path) -> Iterator[tuple[str, str, bool]]:
    """Ids of two tracks that share music, and whether they are one recording; each pair once, sorted."""
    pairs = _candidates(fingerprints)
    rows = np.unique(np.concatenate([pairs >> np.uint64(32), pairs & np.uint64(0xFFFFFFFF)]))
    known = _landmarks_of(fingerprints, rows)
    for pair in pairs.tolist():
        (first_id, first), (second_id, second) = known[pair >> 32], known[pair & 0xFFFFFFFF]
        likeness = compare(first, second)
        if likeness is None:
            continue
        if is_same(first, second, likeness):
            yield first_id, second_id, True
        elif likeness.matched >= _FAMILY_MATCHED:
            yield first_id, second_id, False


def is_same(first: Landmarks, second: Landmarks, likeness: Likeness) -> bool:
    """Whether two tracks are copies of one recording, but for a stretch at their ends."""
    longer = max(first.duration, second.duration)
    return (
        likeness.matched >= _SAME_MATCHED
        and likeness.share >= _SAME_SHARE
        and likeness.overlap >= _SAME_OVERLAP * longer
    )


def _candidates(path: Path) -> Indices:
    """Pairs of rows with a key in common, the lower row << 32 | the higher one, sorted."""
    file = pq.ParquetFile(path)
    row_bits = np.uint64(max(1, file.metadata.num_rows.bit_length()))
    num_keys = sum(len(words) for words, _ in _words(file)) * len(_STEPS)
    num_parts = 1 << max(0, (num_keys // _KEYS).bit_length())
    found = [_coinciding(_entries(file, part, num_parts, row_bits), row_bits) for part in range(num_parts)]
    return np.unique(np.concatenate(found))


def _entries(file: pq.ParquetFile, part: int, num_parts: int, row_bits: np.uint64) -> Indices:
    """All keys whose first word is of this part: a hash of two words << row_bits | the row, sorted, each once."""
    entries = [np.empty(0, np.uint64)]
    for words, rows in _words(file):
        mine = np.flatnonzero(words % np.uint32(num_parts) == part)
        for step in _STEPS:
            first = mine[mine + step < len(words)]
            first = first[rows[first] == rows[first + step]]
            keys = words[first].astype(np.uint64) << np.uint64(32) | words[first + step]
            keys *= np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing, twice: the row replaces the low bits
            keys ^= keys >> np.uint64(32)
            keys *= np.uint64(0xD6E8FEB86659FD93)
            entries.append(keys >> row_bits << row_bits | rows[first])
    together = np.concatenate(entries)
    together.sort()
    return together[np.append(True, together[1:] != together[:-1])] if len(together) else together


def _coinciding(entries: Indices, row_bits: np.uint64) -> Indices:
    """Pairs of rows that have an entry each with the same key."""
    limit = np.uint64(1) << row_bits
    pairs = [np.empty(0, np.uint64)]
    for step in range(1, _NEIGHBOURS + 1):
        same = np.flatnonzero(entries[:-step] ^ entries[step:] < limit)
        pairs.append(entries[same] % limit << np.uint64(32) | entries[same + step] % limit)
    return np.unique(np.concatenate(pairs))


def _words(file: pq.ParquetFile) -> Iterator[tuple[npt.NDArray[np.uint32], Indices]]:
    """Words of many rows in a row, and the row of each."""
    start = 0
    for batch in file.iter_batches(_ROWS, columns=["words"]):
        column = batch.column(0)
        offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
        words = np.frombuffer(column.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]].view("<u4")
        yield words, np.repeat(np.arange(start, start + len(column), dtype=np.uint64), np.diff(offsets) // 4)
        start += len(column)


def _landmarks_of(path: Path, rows: Indices) -> dict[int, tuple[str, Landmarks]]:
    """Row -> id and fingerprint."""
    found: dict[int, tuple[str, Landmarks]] = {}
    start = 0
    for batch in pq.ParquetFile(path).iter_batches(_ROWS):
        wanted = rows[(rows >= start) & (rows < start + len(batch))]
        contents = batch.take(pa.array(wanted - np.uint64(start))).to_pylist()
        for row, content in zip(wanted.tolist(), contents, strict=True):
            found[row] = content["id"], from_record(Fingerprint(**content))
        start += len(batch)
    return found


# The table


def to_record(track_id: str, landmarks: Landmarks) -> Fingerprint:
    """A row of `fingerprints.parquet`."""
    return Fingerprint(
        id=track_id, times=landmarks.times.astype("<u4").tobytes(), words=landmarks.words.astype("<u4").tobytes()
    )


def from_record(row: Fingerprint) -> Landmarks:
    """What `to_record` was made from."""
    return Landmarks(times=np.frombuffer(row.times, "<u4"), words=np.frombuffer(row.words, "<u4"))


def has_fingerprints(path: Path) -> bool:
    """Whether there is a sound table of this version: else all tracks must be heard again."""
    try:
        return read_facts(path).get("version") == VERSION
    except pa.ArrowInvalid:
        return False


def merge_fingerprints(sources: Sequence[Path], ids: Collection[str], path: Path) -> None:
    """Publish the fingerprints of `ids` at `path`, taken from the tables `sources`.

    The same ids give the same bytes, whatever the sources. Memory holds `_ROWS` fingerprints.
    """
    wanted = sorted(ids)
    blocks = (_select(sources, wanted[start : start + _ROWS]) for start in range(0, len(wanted), _ROWS))
    write_table(
        path, Fingerprint, (Fingerprint(**row) for block in blocks for row in block.to_pylist()), version=VERSION
    )


def _select(sources: Sequence[Path], ids: Sequence[str]) -> pa.Table:
    """The rows with `ids`, a sorted list, each once."""
    within = [("id", ">=", ids[0]), ("id", "<=", ids[-1])]
    parts = [schema(Fingerprint).empty_table()]
    parts += [pq.read_table(source, filters=within).replace_schema_metadata() for source in sources]
    table = pa.concat_tables(parts)
    table = table.filter(pc.is_in(table["id"], pa.array(ids, pa.string()))).sort_by("id")
    found = table["id"].to_pylist()
    first = [number == 0 or each != found[number - 1] for number, each in enumerate(found)]
    return table.filter(pa.array(first, pa.bool_()))
