"""From shards to batches: which chunks step n sees is a function of (seed, n) alone.

Each epoch permutes the shards and then the chunks inside windows of shards, so that a disk reads a few shards at a
time. Chunks are found by their offsets in the tars; workers make whole batches, so their number changes nothing.

Shapes: B batch, T samples, L latent frames.
"""

import functools
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mousai.audio import read_span
from mousai.batches import AudioBatch, LatentBatch
from mousai.errors import UserError
from mousai.seeds import seed_of
from pipeline.prompts import draw_prompt, plain_prompt
from pipeline.records import LatentMember, ShardMember, Track
from pipeline.tars import damaged, finished_shards, open_member, read_member, read_members

WINDOW = 16  # shards whose chunks are shuffled together

Members = Sequence[tuple[Path, Any]]  # (tar, its member's row), in shard order
Batches = Callable[[int], Iterator[Any]]  # first step -> endless batches


def shard_members(folder: Path, record: type[Any], made_by: str) -> list[list[tuple[Path, Any]]]:
    """The usable members of every finished tar in `folder`, a list a shard; UserError where there is none."""
    shards = [
        [
            (folder / f"{name}.tar", row)
            for row in read_members(folder, name, record)
            if getattr(row, "error", None) is None
        ]
        for name in finished_shards(folder)
    ]
    shards = [shard for shard in shards if shard]
    if not shards:
        raise UserError(f"{folder} holds no chunks. Make them with: {made_by}")
    return shards


def training_tracks(folder: Path, record: type[Any]) -> frozenset[str]:
    """Ids of all tracks with a chunk in the training split of `folder`: what a run on it may draw."""
    return frozenset(
        row.track_id for shard in shard_members(folder / "train", record, "mousai shard") for _, row in shard
    )


def epoch_order(sizes: Sequence[int], seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """All positions 0 … sum(sizes) - 1 of an epoch, shuffled inside windows of shuffled shards."""
    rng = np.random.Generator(np.random.PCG64(seed_of(seed, "epoch", epoch)))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    shards = rng.permutation(len(sizes))
    windows = [shards[first : first + WINDOW] for first in range(0, len(shards), WINDOW)]
    ranges = [np.concatenate([np.arange(starts[i], starts[i + 1]) for i in window]) for window in windows]
    return np.concatenate([rng.permutation(positions) for positions in ranges])


@dataclass(frozen=True)
class _Order:
    """Which chunks are in which batch."""

    sizes: tuple[int, ...]
    batch_size: int
    seed: int

    def positions(self, step: int) -> list[int]:
        total = sum(self.sizes)
        wanted = range(step * self.batch_size, (step + 1) * self.batch_size)
        orders = {epoch: _epoch(self.sizes, self.seed, epoch) for epoch in {each // total for each in wanted}}
        return [int(orders[each // total][each % total]) for each in wanted]


@functools.lru_cache(maxsize=4)
def _epoch(sizes: tuple[int, ...], seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return epoch_order(sizes, seed, epoch)


def audio_batches(shards: Path, *, length: int, batch_size: int, seed: int, workers: int) -> Batches:
    """Endless random crops of `length` samples from the training shards, as `AudioBatch`.

    A crop starts inside valid audio; chunks shorter than a crop are followed by zeros.
    """
    members = shard_members(shards / "train", ShardMember, "mousai shard")
    order = _Order(tuple(map(len, members)), batch_size, seed)
    flat = [member for shard in members for member in shard]
    return functools.partial(_batches, functools.partial(_audio_batch, flat, order, length), workers)


def _audio_batch(members: Members, order: _Order, length: int, step: int) -> AudioBatch:
    rng = np.random.Generator(np.random.PCG64(seed_of(order.seed, "crop", step)))
    chosen = [members[position] for position in order.positions(step)]
    starts = [int(rng.integers(0, max(0, row.valid_length - length) + 1)) for _, row in chosen]
    return _read_audio(chosen, starts, length)


def audio_examples(shards: Path, split: str, *, length: int, count: int) -> AudioBatch:
    """`count` fixed crops of a split, spread evenly over its chunks; one is in the middle of its chunk, unless a chunk
    must serve several.
    """
    members = shard_members(shards / split, ShardMember, "mousai shard")
    flat = [member for shard in members for member in shard]
    chosen = [flat[(2 * i + 1) * len(flat) // (2 * count)] for i in range(count)]
    places = [0.5 if count <= len(flat) else ((2 * i + 1) * len(flat) / (2 * count)) % 1 for i in range(count)]
    starts = [int(max(0, row.valid_length - length) * place) for (_, row), place in zip(chosen, places, strict=True)]
    return _read_audio(chosen, starts, length)


def _read_audio(chosen: Members, starts: Sequence[int], length: int) -> AudioBatch:
    audio = torch.empty(len(chosen), 2, length)
    valid = []
    for (tar, row), start, crop in zip(chosen, starts, audio.numpy(), strict=True):
        with open_member(tar, row.offset, row.size) as file:  # a crop needs an eighth of its chunk
            try:
                found = read_span(file, start, min(length, row.valid_length), into=crop)
            except RuntimeError as error:  # libsndfile's
                raise damaged(tar, row.key, error) from error
        crop[:, found.shape[1] :] = 0
        valid.append(found.shape[1])
    return AudioBatch(audio=audio, valid_length=torch.tensor(valid), track_ids=[row.track_id for _, row in chosen])


def latent_batches(
    latents: Path, tracks: Mapping[str, Track], *, frames: int, batch_size: int, seed: int, workers: int
) -> Batches:
    """Endless training latents with freshly drawn prompts, as `LatentBatch`; `tracks` by id give the tags."""
    members = _latent_members(latents / "train", tracks)
    order = _Order(tuple(map(len, members)), batch_size, seed)
    flat = [member for shard in members for member in shard]
    return functools.partial(_batches, functools.partial(_latent_batch, flat, tracks, order, frames), workers)


def _latent_members(folder: Path, tracks: Mapping[str, Track]) -> list[list[tuple[Path, Any]]]:
    """The members of a split; UserError where one is of a track that the library no longer has."""
    members = shard_members(folder, LatentMember, "mousai encode-latents")
    gone = {row.track_id for shard in members for _, row in shard} - set(tracks)
    if gone:
        raise UserError(
            f"{folder} holds latents of {len(gone)} tracks that are no longer in the library. "
            "Bring them up to date: mousai shard && mousai encode-latents"
        )
    return members


def _latent_batch(members: Members, tracks: Mapping[str, Track], order: _Order, frames: int, step: int) -> LatentBatch:
    chosen = [members[position] for position in order.positions(step)]
    prompts = [draw_prompt(tracks[row.track_id], row.index, row.count, seed=order.seed, step=step) for _, row in chosen]
    return _read_latents(chosen, prompts, frames)


def latent_examples(
    latents: Path, split: str, tracks: Mapping[str, Track], *, frames: int, count: int | None = None
) -> LatentBatch:
    """Up to `count` (None: all) fixed chunks of a split, spread evenly, with their whole prompts in plain order."""
    members = _latent_members(latents / split, tracks)
    flat = [member for shard in members for member in shard]
    chosen = _spread(flat, count or len(flat))
    prompts = [plain_prompt(tracks[row.track_id], row.index, row.count) for _, row in chosen]
    return _read_latents(chosen, prompts, frames)


def latent_statistics(latents: Path) -> tuple[Tensor, Tensor]:
    """Mean and std of each channel [32] over all valid frames of the training latents."""
    members = shard_members(latents / "train", LatentMember, "mousai encode-latents")
    rows = [row for shard in members for _, row in shard]
    weights = np.array([row.valid_frames for row in rows], dtype=np.float64)[:, None]
    means, stds = np.array([row.mean for row in rows]), np.array([row.std for row in rows])
    mean = (weights * means).sum(axis=0) / weights.sum()
    variance = (weights * (stds**2 + (means - mean) ** 2)).sum(axis=0) / weights.sum()
    return torch.from_numpy(mean).float(), torch.from_numpy(np.sqrt(variance)).float()


def _read_latents(chosen: Members, prompts: list[str], frames: int) -> LatentBatch:
    latents = [_read_latent(tar, row)[:, :frames] for tar, row in chosen]
    batch = torch.empty(len(chosen), latents[0].shape[0], frames)
    for whole, latent in zip(batch, latents, strict=True):
        whole[:, : latent.shape[1]] = latent  # fp16 becomes fp32 here: NumPy takes ten times as long
        whole[:, latent.shape[1] :] = 0
    valid = torch.tensor([min(row.valid_frames, frames) for _, row in chosen])
    return LatentBatch(
        latents=batch, valid_frames=valid, prompts=prompts, track_ids=[row.track_id for _, row in chosen]
    )


def _read_latent(tar: Path, row: LatentMember) -> Tensor:
    """One raw latent [32, L] as it is stored, in fp16."""
    content = read_member(tar, row.offset, row.size)
    start = 10 + int.from_bytes(content[8:10], "little")  # where the array begins (version 1.0 of the .npy format)
    try:
        shape, dtype = _npy_header(content[:start])
        return torch.from_numpy(np.frombuffer(content, dtype, offset=start).reshape(shape).copy())
    except ValueError as error:
        raise damaged(tar, row.key, error) from error


@functools.lru_cache(maxsize=1024)
def _npy_header(header: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array behind a .npy header: to parse one takes longer than to read 128 KiB."""
    file = io.BytesIO(header)
    version = np.lib.format.read_magic(file)
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if version != (1, 0) or is_fortran:
        raise ValueError("encode-latents writes no such .npy file")
    return shape, dtype


def _spread(members: Members, count: int) -> Members:
    """`count` of the members at even distances; all where there are fewer."""
    count = min(count, len(members))
    return [members[(2 * i + 1) * len(members) // (2 * count)] for i in range(count)]


class _Steps(IterableDataset[Any]):
    """make(first), make(first + 1), …; worker k of n makes every n-th of them.

    A UserError is handed over like a batch: one that is raised in a worker would come as the text of a traceback.
    """

    def __init__(self, make: Callable[[int], Any], first: int) -> None:
        self.make, self.first = make, first

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        step, stride = (self.first + worker.id, worker.num_workers) if worker else (self.first, 1)
        while True:
            try:
                made = self.make(step)
            except UserError as error:
                made = error
            yield made
            step += stride


def _batches(make: Callable[[int], Any], workers: int, first: int) -> Iterator[Any]:
    """The batches from step `first` on, made by this process or, in the same order, by `workers` others."""
    ahead = 4 if workers else None
    for made in DataLoader(_Steps(make, first), batch_size=None, num_workers=workers, prefetch_factor=ahead):
        if isinstance(made, UserError):
            raise made
        yield made
