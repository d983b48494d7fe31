"""How a plan divides a library, counted: hours, groups and genres on both sides, what is skipped, who crosses."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mousai.audio import SAMPLE_RATE
from pipeline.figures import breakdown, folded, renamed, respelled, total
from pipeline.manifest import read_columns, read_facts
from pipeline.records import Chunk


@dataclass(frozen=True, kw_only=True)
class SplitSide:
    """One split of the plan."""

    tracks: int
    chunks: int
    shards: int
    groups: int
    duration: float  # s of music in its chunks; what overlaps counts twice


@dataclass(frozen=True, kw_only=True)
class GenreBalance:
    """What part of each split's hours is of one genre, 0 to 1."""

    name: str
    train: float
    val: float


@dataclass(frozen=True, kw_only=True)
class Split:
    """How the plan divides the library. Durations are seconds."""

    train: SplitSide
    val: SplitSide
    genres: tuple[GenreBalance, ...]  # the largest by the sum of both
    skipped: float  # of planned tracks, in no chunk
    overlapped: float  # in two chunks
    crossing_artists: int  # named after the first on some track, and present on both sides
    chunk_length: int  # samples of a whole chunk
    unplanned: int  # tracks to train on that are in no chunk: new since the plan
    gone: int  # planned tracks that are no longer to be trained on, or no longer there


def read_split(plan: Path, tracks: dict[str, pa.Array], top: int) -> Split:
    """The figures of the plan at `plan` for `tracks`: columns id, length, artists and genres, one row an id."""
    chunks = read_columns(plan, Chunk, ("track_id", "valid_length", "split", "group", "shard"), "mousai shard")
    planned = pa.table({name: chunks[name] for name in ("track_id", "valid_length", "split")})
    planned = planned.group_by(["track_id", "split"], use_threads=False).aggregate([("valid_length", "sum")])
    rows = pc.index_in(planned["track_id"].combine_chunks(), value_set=tracks["id"])
    known = pc.is_valid(rows)
    rows, planned = rows.filter(known), planned.filter(known)
    chunked = np.asarray(planned["valid_length_sum"].combine_chunks(), dtype=np.int64)
    uncovered = np.asarray(pc.fill_null(tracks["length"].take(rows), 0), dtype=np.int64) - chunked  # > 0: skipped
    splits = planned["split"].combine_chunks()
    decoded = pc.sum(pc.is_valid(tracks["length"])).as_py() or 0
    seconds = pc.divide(pc.cast(tracks["length"].take(rows), pa.float64()), float(SAMPLE_RATE))
    genres = respelled(tracks["genres"].take(rows))
    sides = {split: _side(split, chunks, pc.sum(pc.equal(splits, split)).as_py() or 0) for split in ("train", "val")}
    return Split(
        train=sides["train"],
        val=sides["val"],
        genres=tuple(_balance(genres, seconds, splits)[:top]),
        skipped=float(uncovered[uncovered > 0].sum()) / SAMPLE_RATE,
        overlapped=-float(uncovered[uncovered < 0].sum()) / SAMPLE_RATE,
        crossing_artists=_count_crossing(tracks["artists"].take(rows), splits),
        chunk_length=read_facts(plan)["chunk_length"],
        unplanned=decoded - len(rows),
        gone=len(known) - len(rows),
    )


def _side(split: str, chunks: dict[str, pa.Array], num_tracks: int) -> SplitSide:
    here = pc.equal(chunks["split"], split)
    samples = pc.sum(chunks["valid_length"].filter(here)).as_py() or 0
    return SplitSide(
        tracks=num_tracks,
        chunks=pc.sum(here).as_py() or 0,
        shards=len(chunks["shard"].filter(here).unique()),
        groups=len(chunks["group"].filter(here).unique()),
        duration=samples / SAMPLE_RATE,
    )


def _balance(genres: pa.Array, seconds: pa.Array, splits: pa.Array) -> list[GenreBalance]:
    """Every genre, the largest first."""
    parts: dict[str, dict[str, float]] = {}
    for split in ("train", "val"):
        here = pc.equal(splits, split)
        whole = total(seconds.filter(here)) or 1.0
        rows = breakdown(genres.filter(here), seconds.filter(here), len(genres)).rows
        parts[split] = {share.name: (share.duration or 0.0) / whole for share in rows}
    balance = [
        GenreBalance(name=name, train=parts["train"].get(name, 0.0), val=parts["val"].get(name, 0.0))
        for name in {**parts["train"], **parts["val"]}
    ]
    return sorted(balance, key=lambda each: (-each.train - each.val, each.name))


def _count_crossing(artists: pa.Array, splits: pa.Array) -> int:
    """Artists who follow the first on some track and are on tracks of both splits."""
    parents = pc.list_parent_indices(artists)
    names = renamed(pc.list_flatten(artists), _folded_names)
    follows: npt.NDArray[np.bool_] = np.diff(np.asarray(parents), prepend=-1) == 0
    featured = names.filter(pa.array(follows)).unique()
    sides = splits.take(parents)
    both = pa.table({"name": names, "side": sides}).group_by(["name", "side"]).aggregate([])
    on_both = Counter(both["name"].to_pylist())
    return sum(on_both[name] == 2 for name in featured.to_pylist())


def _folded_names(counts: Counter[str]) -> dict[str, str]:
    return {name: folded(name) for name in counts}
