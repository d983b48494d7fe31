"""Counting the columns of large tables in Arrow: sums by name, histograms. Rows never become objects.

Seconds are null where nothing was decoded, and a sum over nothing but nulls is None.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

UNTAGGED = ""  # the name of what has no name


@dataclass(frozen=True, kw_only=True)
class Share:
    """What part of the library goes by one name."""

    name: str  # `UNTAGGED` where the tag is missing
    tracks: int
    duration: float | None  # s


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """The library by the values of one tag, the largest first."""

    rows: tuple[Share, ...]
    num_names: int  # in all, without `UNTAGGED`
    rest: Share | None  # the names that `rows` leave out, together
    untagged: Share | None


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How often which values occur. What lies outside the edges is counted in the first or last bin."""

    name: str
    unit: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]  # one fewer than edges
    num_missing: int
    low: float  # 5th percentile
    median: float
    high: float  # 95th percentile


def folded(name: str) -> str:
    """What names that differ only in case, width or white space have in common."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def breakdown(names: pa.Array, seconds: pa.Array, top: int, *, most_by_tracks: bool = False) -> Breakdown:
    """The library by `names`, a string or null a track, or a list of strings: then a track counts under each of them.

    Names that are `folded` alike are one, in their commonest spelling. The `top` longest in seconds are kept; the most
    frequent where seconds are all null or `most_by_tracks` says so.
    """
    names, rows = _names_and_rows(names)
    table = pa.table({"name": names, "row": rows, "seconds": seconds.take(rows)})
    table = table.group_by(["name", "row"], use_threads=False).aggregate([("seconds", "max")])  # twice in a list: once
    sums = table.group_by("name", use_threads=False).aggregate([("seconds_max", "sum"), ("row", "count")]).to_pylist()
    shares = [Share(name=each["name"], tracks=each["row_count"], duration=each["seconds_max_sum"]) for each in sums]
    by_tracks = most_by_tracks or all(share.duration is None for share in shares)
    named = [share for share in shares if share.name != UNTAGGED]
    named.sort(key=lambda share: (-(share.tracks if by_tracks else share.duration or 0.0), share.name))
    return Breakdown(
        rows=tuple(named[:top]),
        num_names=len(named),
        rest=_together(named[top:]) if named[top:] else None,
        untagged=next((share for share in shares if share.name == UNTAGGED), None),
    )


def histogram(name: str, unit: str, values: pa.Array, edges: Sequence[float]) -> Histogram | None:
    """The histogram of a numeric column; None where no value is known."""
    numbers: npt.NDArray[np.float64] = np.asarray(pc.cast(values.drop_null(), pa.float64()), dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return None
    counts, _ = np.histogram(np.clip(numbers, edges[0], edges[-1]), edges)
    low, median, high = np.percentile(numbers, [5, 50, 95])
    return Histogram(
        name=name,
        unit=unit,
        edges=tuple(map(float, edges)),
        counts=tuple(map(int, counts)),
        num_missing=len(values) - len(numbers),
        low=float(low),
        median=float(median),
        high=float(high),
    )


def total(seconds: pa.Array) -> float | None:
    """The sum; None where nothing is known."""
    value = pc.sum(seconds).as_py()
    return None if value is None else float(value)


def first_rows(keys: pa.Array) -> pa.Array:
    """For each key its first row, in the order of the rows; null is no key."""
    table = pa.table({"key": keys, "row": pa.array(np.arange(len(keys)))}).filter(pc.is_valid(keys))
    rows = table.group_by("key", use_threads=False).aggregate([("row", "min")])["row_min"].combine_chunks()
    return rows.take(pc.sort_indices(rows))


def renamed(names: pa.Array, rename: Callable[[Counter[str]], dict[str, str]]) -> pa.Array:
    """Every name replaced by what `rename` makes of it, given how often each occurs; null stays null."""
    encoded = names.dictionary_encode()
    unique = encoded.dictionary.to_pylist()
    found = pc.value_counts(encoded.indices).to_pylist()
    counts = Counter({unique[each["values"]]: each["counts"] for each in found if each["values"] is not None})
    table = rename(counts)
    return pa.array([table[name] for name in unique], pa.string()).take(encoded.indices)


def say_hours(seconds: float | None) -> str:
    """Seconds for people: "12.3 h", "4.5 min"; a dash for what is not known."""
    if seconds is None:
        return "–"
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h" if seconds < 3_600_000 else f"{seconds / 3600:,.0f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def respelled(lists: pa.Array) -> pa.Array:
    """Lists of names with each name in its commonest spelling."""
    names = pc.list_flatten(lists)
    return pa.ListArray.from_arrays(_offsets(lists), renamed(names, _commonest_spellings))


def _offsets(lists: pa.Array) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(np.asarray(pc.list_value_length(lists)))]), pa.int32())


def _names_and_rows(names: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Every name, in its commonest spelling or `UNTAGGED`, and the row that it stands in."""
    rows = pa.array(np.arange(len(names)))
    if pa.types.is_list(names.type):
        empty = rows.filter(pc.equal(pc.fill_null(pc.list_value_length(names), 0), 0))
        rows = pa.concat_arrays([pc.cast(pc.list_parent_indices(names), pa.int64()), empty])
        names = pa.concat_arrays([pc.list_flatten(names), pa.nulls(len(empty), pa.string())])
    return pc.fill_null(renamed(names, _commonest_spellings), UNTAGGED), rows


def _commonest_spellings(counts: Counter[str]) -> dict[str, str]:
    best: dict[str, str] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        best.setdefault(folded(name), name)
    return {name: best[folded(name)] if folded(name) else UNTAGGED for name in counts}


def _together(shares: Sequence[Share]) -> Share:
    """Several as one; a track with two of the names counts twice."""
    known = [share.duration for share in shares if share.duration is not None]
    return Share(name="", tracks=sum(share.tracks for share in shares), duration=sum(known) if known else None)
