"""What the finished audio shards hold: their chunks, with the tags as the library has them now."""

import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mousai.errors import UserError
from mousai.storage import hash_of
from pipeline.prompts import describe_chunk
from pipeline.records import Shard, ShardMember, Track
from pipeline.tars import finished_shards, read_members, read_stats


@dataclass(frozen=True, kw_only=True)
class Content:
    """One finished shard that holds anything, and the tracks that speak for its chunks."""

    tar: Path
    stats: Shard
    tracks: Mapping[str, Track]  # by id

    @property
    def name(self) -> str:
        """The name that the tar and its sidecars share."""
        return self.tar.stem

    @property
    def audio_format(self) -> str:
        """The suffix of its audio members: "flac" or "wav"."""
        with tarfile.open(self.tar, "r:") as file:
            first = file.next()
        assert first is not None
        return first.name.rpartition(".")[2]

    def chunks(self) -> list[tuple[ShardMember, dict[str, Any]]]:
        """(row, `describe_chunk`) of every chunk that is there, in the order of the tar."""
        rows = [row for row in read_members(self.tar.parent, self.name, ShardMember) if row.error is None]
        if any(row.track_id not in self.tracks for row in rows):
            raise UserError(f"{self.tar} holds tracks that are no longer in the library. Remake it with: mousai shard")
        return [(row, describe_chunk(self.tracks[row.track_id], row.index, row.count)) for row in rows]

    def fingerprint(self) -> str:
        """Hash of the shard's bytes and of what its tags say now."""
        return hash_of([self.stats.sha256, [told for _, told in self.chunks()]])


def read_contents(shards: Path, tracks: Mapping[str, Track], splits: Sequence[str]) -> list[Content]:
    """The finished shards of the splits in the order of their names; UserError for none, or one that has been torn."""
    contents = [
        Content(tar=shards / split / f"{name}.tar", stats=stats, tracks=tracks)
        for split in splits
        for name in finished_shards(shards / split)
        if (stats := read_stats(shards / split, name)).num_chunks
    ]
    if not contents:
        raise UserError(f"{shards} holds no chunks of {' or '.join(splits)}. Make them with: mousai shard")
    for content in contents:
        if not content.tar.exists() or content.tar.stat().st_size != content.stats.bytes:
            raise UserError(f"{content.tar} is not as it was finished. Make it again with: mousai shard")
    return contents
