"""Pictures of the loudest and quietest tracks: ten seconds from the middle, out of a shard or else out of the file."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mousai.audio import SAMPLE_RATE, Waveform, read_span
from mousai.errors import UserError
from mousai.progress import progress
from pipeline.decode import Unusable
from pipeline.excerpt import read_stretch
from pipeline.manifest import read_columns
from pipeline.records import Chunk, ShardMember, Track
from pipeline.spectrogram import picture
from pipeline.tars import damaged, read_member, read_members, shard_name
from pipeline.track_figures import Extreme

_SECONDS = 10.0  # shown
_DEEPEST = 120.0  # s: a file is decoded from its start, so the middle of an hour is too far


def draw_extremes(tracks: Sequence[Extreme], manifests: Path, shards: Path) -> tuple[dict[str, bytes], list[str]]:
    """Track id -> PNG, without tracks that can be read nowhere; and what is said of each chunk that is damaged."""
    pictures: dict[str, bytes] = {}
    damages: list[str] = []
    with progress("drawing", len(tracks), "tracks") as advance:
        for track in tracks:
            try:
                audio = _from_shard(track, manifests, shards)
            except UserError as error:
                damages.append(str(error))
                audio = None
            audio = _from_file(track, manifests) if audio is None else audio
            if audio is not None:
                pictures[track.id] = picture(audio)
            advance(1, Path(track.path).name)
    return pictures, damages


def _from_shard(track: Extreme, manifests: Path, shards: Path) -> Waveform | None:
    """The middle of the track's middle chunk, [2, T], as loud as in the file; UserError where that is damaged."""
    plan = manifests / "chunks.parquet"
    if not plan.exists():
        return None
    columns = read_columns(plan, Chunk, ("track_id", "index", "count", "key", "split", "shard"))
    rows = pa.table(columns).filter(pc.equal(columns["track_id"], track.id)).to_pylist()
    place = next((row for row in rows if row["index"] == (row["count"] + 1) // 2), None)
    if place is None:
        return None
    folder, name = shards / place["split"], shard_name(place["split"], place["shard"])
    try:
        members = {row.key: row for row in read_members(folder, name, ShardMember) if row.error is None}
        member = members[place["key"]]
    except (UserError, OSError, KeyError):  # not made yet, or made of another plan: there is the file
        return None
    tar = folder / f"{name}.tar"
    length = min(member.valid_length, round(_SECONDS * SAMPLE_RATE))
    try:
        content = read_member(tar, member.offset, member.size)
        audio = read_span(io.BytesIO(content), (member.valid_length - length) // 2, length)
    except FileNotFoundError:
        return None
    except RuntimeError as error:  # libsndfile's
        raise damaged(tar, member.key, error) from error
    return audio / np.float32(member.gain)


def _from_file(track: Extreme, manifests: Path) -> Waveform | None:
    columns = read_columns(manifests / "tracks.parquet", Track, ("id", "raw_path"))
    place = pc.index(columns["id"], track.id).as_py()
    path = Path(os.fsdecode(columns["raw_path"][place].as_py()))
    start = min(max(0.0, (track.duration - _SECONDS) / 2), _DEEPEST)
    try:
        return read_stretch(path, start, _SECONDS)
    except (UserError, OSError, Unusable):  # gone or changed since: the page says that there is no picture
        return None
