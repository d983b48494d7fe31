"""One shard without some of its tracks: made from its own members, in a folder beside it, and moved into place whole.

A run that is killed at any point and begun again ends in the same bytes.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mousai.audio import SAMPLE_RATE
from mousai.errors import UserError
from mousai.storage import sha256_of_file
from pipeline.records import Shard, ShardMember
from pipeline.tars import is_finished, move_shard, read_members, read_samples, read_stats, remove_shard, write_shard

STAGING = ".removing"  # in a split's folder


@dataclass(frozen=True, kw_only=True)
class ShardPlace:
    """Where a shard lies."""

    folder: Path
    name: str
    record: type[Any]  # of its members

    @property
    def tar(self) -> Path:
        return self.folder / f"{self.name}.tar"


def stage(place: ShardPlace, gone: Collection[str], plans: Mapping[str, str]) -> tuple[Shard | None, Shard | None]:
    """A shard's stats as it is, and as it is to be: made beside it, or the same where it stays; None for no shard.

    Only whole shards are copied from: one that is damaged goes altogether, and its stage makes it again. `plans` maps
    the plan that a current shard has to the one that keeps it current; a stale one stays stale.
    """
    _settle(place)
    if not place.tar.exists():
        return None, None
    stats, rows = read_stats(place.folder, place.name), read_members(place.folder, place.name, place.record)
    left = [row for row in rows if row.track_id not in gone]
    plan = plans.get(stats.plan, stats.plan)
    if len(left) == len(rows) and plan == stats.plan:
        return stats, stats
    if not left or sha256_of_file(place.tar) != stats.sha256:
        return stats, None
    return stats, write_shard(
        place.folder / STAGING, place.name, stats.split, plan, _samples(place, left), _duration(stats, rows)
    )


def _settle(place: ShardPlace) -> None:
    """Finish a move that was cut off, and delete what was never finished or cannot be read: it will be made again."""
    staged = place.folder / STAGING
    if not is_finished(place.folder, place.name) and is_finished(staged, place.name):
        move_shard(staged, place.name, place.folder)
    try:
        read_stats(place.folder, place.name)
        read_members(place.folder, place.name, place.record)
    except UserError:
        remove_shard(place.folder, place.name)


def _samples(place: ShardPlace, left: Sequence[Any]) -> Iterator[tuple[Any, dict[str, bytes]]]:
    """The rows that stay, with their members out of the tar; a failed chunk has none."""
    keys = {row.key for row in left}
    contents = (members for key, members in read_samples(place.folder, place.name) if key in keys)
    for row in left:
        members = {} if getattr(row, "error", None) else next(contents)
        yield row, {suffix: members[suffix] for suffix in sorted(members, key="json".__eq__)}  # the main one first


def _duration(stats: Shard, rows: Iterable[Any]) -> Callable[[Any], float]:
    """Seconds that a row stands for; how many samples a latent frame is, the stats tell."""

    def units(row: Any) -> int:
        return int(row.valid_length if isinstance(row, ShardMember) else row.valid_frames)

    made = sum(units(row) for row in rows if getattr(row, "error", None) is None)
    hop = round(stats.duration * SAMPLE_RATE / made) if made else 1
    return lambda row: units(row) * hop / SAMPLE_RATE


def put(place: ShardPlace, old: Shard | None, new: Shard | None, rewritten: list[Path], deleted: list[Path]) -> None:
    """Bring the staged shard into its place, or delete one that has none."""
    if new is None:
        if old is not None:
            deleted.append(place.tar)
            remove_shard(place.folder, place.name)
    elif new != old:
        rewritten.append(place.tar)
        move_shard(place.folder / STAGING, place.name, place.folder)
