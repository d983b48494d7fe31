"""Audio tars -> latent tars: every chunk once, whole, through an encoder that is handed in.

A latent shard has the name of its audio shard and lies in `latents/ENCODER/SPLIT/`. Members are KEY.npy (raw latent
[32, L], fp16) and KEY.json (the chunk's facts and text, as in the audio shard).

Shapes: B batch, T samples at 48 kHz, L latent frames of `hop` samples.
"""

import functools
import io
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mousai.audio import SAMPLE_RATE, Waveform, read_span
from mousai.errors import UserError
from mousai.progress import progress
from mousai.storage import hash_of, require_space
from pipeline.records import LatentMember, Shard, ShardMember
from pipeline.tars import (
    CHECK,
    damaged,
    finished_shards,
    is_done,
    list_shards,
    read_members,
    read_stats,
    remove_shard,
    write_shard,
)

A = TypeVar("A")
B = TypeVar("B")

SPLITS = ("train", "val")
_VERSION = 1  # of the members' layout; a new one makes every latent shard stale

Array = npt.NDArray[np.float32]
Encode = Callable[[Array], Array]  # audio [B, 2, T] in [-1, 1] -> latents [B, 32, L]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The first stage as this stage sees it."""

    encode: Encode
    id: str  # of its weights; latents of another encoder never mix with these
    hop: int  # samples per latent frame
    divisor: int  # audio lengths must be multiples of it


@dataclass(frozen=True, kw_only=True)
class LatentSummary:
    """What there is after a run."""

    num_made: int
    num_kept: int
    num_removed: int
    num_chunks: int
    duration: float  # seconds
    bytes: int


def encode_latents(shards: Path, latents: Path, encoder: Encoder, *, batch_size: int, workers: int) -> LatentSummary:
    """Encode all audio shards that have no latent shard of this encoder yet; UserError where there are no shards."""
    audio = _audio_shards(shards)
    if not audio:
        raise UserError(f"{shards} holds no finished shards. Make them with: mousai shard")
    _require_finished(shards)
    folder = latents / encoder.id
    plans = {job: latent_plan(stats, encoder.id) for job, stats in audio.items()}
    waiting = [job for job, plan in plans.items() if not is_done(folder / job[0], job[1], plan)]
    seconds = sum(audio[job].duration for job in waiting)
    if waiting:
        needed = int(seconds * SAMPLE_RATE / encoder.hop * 32 * 2 * 1.1) + 2**20  # fp16, and a tenth for the tar
        require_space(folder, needed, "encode-latents")
    orphans = [(split, name) for split in SPLITS for name in list_shards(folder / split) if (split, name) not in plans]
    for split, name in orphans:
        remove_shard(folder / split, name)
    with progress("encode-latents", seconds / 60, "min") as advance, ThreadPoolExecutor(max(1, workers)) as pool:
        for split, name in waiting:
            samples = _samples(shards / split, name, encoder, batch_size, pool, advance)
            duration = functools.partial(_duration, encoder.hop)
            write_shard(folder / split, name, split, plans[split, name], samples, duration)
    made = [read_stats(folder / split, name) for split, name in plans]
    return LatentSummary(
        num_made=len(waiting),
        num_kept=len(plans) - len(waiting),
        num_removed=len(orphans),
        num_chunks=sum(each.num_chunks for each in made),
        duration=sum(each.duration for each in made),
        bytes=sum(each.bytes for each in made),
    )


def is_stale(shards: Path, latents: Path, encoder_id: str) -> bool:
    """Whether the latents of an encoder are no longer those of the audio shards: music came, went or changed.

    Where the audio shards are gone altogether, to save space, there is nothing to compare with: False.
    """
    audio = _audio_shards(shards)
    folder = latents / encoder_id
    current = {(split, name) for split in SPLITS for name in finished_shards(folder / split)}
    if not audio:
        return False
    return current != set(audio) or any(
        read_stats(folder / split, name).plan != latent_plan(stats, encoder_id)
        for (split, name), stats in audio.items()
    )


def _audio_shards(shards: Path) -> dict[tuple[str, str], Shard]:
    """(split, name) -> stats of every finished audio shard that holds anything."""
    return {
        (split, name): stats
        for split in SPLITS
        for name in finished_shards(shards / split)
        if (stats := read_stats(shards / split, name)).num_chunks
    }


def _require_finished(shards: Path) -> None:
    """UserError where an audio shard is unfinished or damaged: its latents are neither to be made nor to be removed."""
    for folder in (shards / split for split in SPLITS):
        unfinished = sorted(set(list_shards(folder)) - set(finished_shards(folder)))
        if unfinished:
            raise UserError(f"{folder / unfinished[0]}.tar is unfinished or damaged. Make it again with: mousai shard")


def latent_plan(audio: Shard, encoder_id: str) -> str:
    """Hash of what a latent shard is made from."""
    return hash_of([_VERSION, audio.plan, audio.sha256, encoder_id])


def _duration(hop: int, row: LatentMember) -> float:
    return row.valid_frames * hop / SAMPLE_RATE


def _samples(
    shards: Path, name: str, encoder: Encoder, batch_size: int, pool: ThreadPoolExecutor,
    advance: Callable[[float, str], None],
) -> Iterator[tuple[LatentMember, Mapping[str, bytes]]]:  # fmt: skip
    """The latent members of one audio shard, in its order; chunks of one length go through the encoder together."""
    rows = {row.key: row for row in read_members(shards, name, ShardMember) if row.error is None}
    tar = shards / f"{name}.tar"
    read = functools.partial(_padded, tar, divisor=encoder.divisor)
    chunks = _ahead(pool, read, _audio_members(tar), 2 * batch_size)
    num_encoded = 0
    for _, group in itertools.groupby(chunks, key=lambda chunk: chunk[2].shape[1]):
        while batch := list(itertools.islice(group, batch_size)):
            latents = encoder.encode(np.stack([audio for _, _, audio in batch]))
            for (key, about, _), latent in zip(batch, latents, strict=True):
                yield _sample(rows[key], about, latent, encoder)
                advance(rows[key].valid_length / SAMPLE_RATE / 60, name)
            num_encoded += len(batch)
    if num_encoded != len(rows):  # a tar that is cut between two members ends without a word
        raise UserError(f"{tar} holds {num_encoded} of its {len(rows)} chunks. {CHECK}")


def _audio_members(tar: Path) -> Iterator[tuple[str, bytes, bytes]]:
    """(key, JSON, audio file) of every chunk of an audio shard, read as a stream."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with tar.open("rb") as stream:  # `WebDataset` would leave it to the garbage collector
        for sample in group_by_keys(tar_file_expander([{"url": str(tar), "stream": stream}])):
            yield sample["__key__"], sample["json"], sample.get("flac") or sample["wav"]


def _padded(tar: Path, member: tuple[str, bytes, bytes], divisor: int) -> tuple[str, bytes, Waveform]:
    """(key, JSON, audio [2, T]) with T rounded up to `divisor` by zeros."""
    key, about, content = member
    try:
        audio = read_span(io.BytesIO(content))
    except RuntimeError as error:  # libsndfile's
        raise damaged(tar, key, error) from error
    return key, about, np.pad(audio, ((0, 0), (0, -audio.shape[1] % divisor)))


def _ahead(pool: ThreadPoolExecutor, function: Callable[[A], B], values: Iterable[A], most: int) -> Iterator[B]:
    """function(value) for every value, in order, with at most `most` of them under way."""
    waiting: deque[Future[B]] = deque()
    for value in values:
        waiting.append(pool.submit(function, value))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _sample(row: ShardMember, about: bytes, latent: Array, encoder: Encoder) -> tuple[LatentMember, dict[str, bytes]]:
    valid_frames = -(-row.valid_length // encoder.hop)  # a frame that holds any music is valid
    stored = latent.astype(np.float16)
    valid = stored[:, :valid_frames].astype(np.float64)
    buffer = io.BytesIO()
    np.save(buffer, stored)
    member = LatentMember(
        key=row.key,
        track_id=row.track_id,
        index=row.index,
        count=row.count,
        frames=stored.shape[1],
        valid_frames=valid_frames,
        mean=valid.mean(axis=1).tolist(),
        std=valid.std(axis=1).tolist(),
        offset=0,
        size=0,
    )
    facts = {**json.loads(about), "encoder": encoder.id, "frames": member.frames, "valid_frames": valid_frames}
    return member, {"npy": buffer.getvalue(), "json": json.dumps(facts, ensure_ascii=False).encode()}
