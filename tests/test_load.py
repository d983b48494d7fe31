"""Batches: what step n sees follows from (seed, n) alone, every chunk comes once an epoch, and crops hold music."""

import dataclasses
import io
import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mousai.audio import encode_pcm16
from mousai.batches import AudioBatch, LatentBatch
from mousai.errors import UserError
from pipeline import load
from pipeline.load import audio_batches, audio_examples, epoch_order, latent_batches, latent_examples
from pipeline.prompts import draw_prompt, plain_prompt
from pipeline.records import LatentMember, ShardMember, Track
from pipeline.tars import shard_name, write_shard

LENGTH = 600  # samples of a whole chunk
VALID = {"a": (600, 600), "b": (600,), "c": (250,), "d": (600, 600, 600), "e": (600, 400)}  # of each track's chunks
SHARDS = [("a", "b"), ("c",), ("d", "e")]  # tracks of each training shard
CHUNKS = sum(map(len, VALID.values()))
FRAMES = 6
UNITS = 32_767  # an audio sample is a whole number of these


def make_track(track_id: str) -> Track:
    blank = {field.name: None for field in dataclasses.fields(Track)}
    tags = {"title": f"Title {track_id}", "artists": ["Artist"], "genres": ["Genre"], "year": 1999}
    return Track(**(blank | {"id": track_id, "length": LENGTH} | tags))


TRACKS = {track_id: make_track(track_id) for track_id in VALID}


def code(track_id: str, index: int, position: int) -> int:
    """A number, at most 16 bits, that tells where a sample was."""
    return ("abcde".index(track_id) * 3 + index) * 1000 + position


def audio_chunks(tracks: tuple[str, ...]) -> Iterator[tuple[ShardMember, dict[str, bytes]]]:
    """Chunks whose left channel counts from code(…, 0) on; the right one is its negative."""
    for track in tracks:
        for index, valid in enumerate(VALID[track], start=1):
            row = ShardMember(key=f"{track}_{index:04}", track_id=track, index=index, count=len(VALID[track]),
                              valid_length=valid, gain=1.0, offset=-1, size=0, error=None)  # fmt: skip
            left = (code(track, index, 0) + np.arange(valid, dtype=np.float32)) / UNITS
            yield row, {"flac": encode_pcm16(np.stack([left, -left])), "json": b"{}"}


def latent_chunks(tracks: tuple[str, ...]) -> Iterator[tuple[LatentMember, dict[str, bytes]]]:
    for track in tracks:
        for index, valid in enumerate(VALID[track], start=1):
            frames = -(-valid // 100)
            row = LatentMember(
                key=f"{track}_{index:04}", track_id=track, index=index, count=len(VALID[track]), frames=frames,
                valid_frames=frames, mean=[0.0], std=[1.0], offset=-1, size=0,
            )  # fmt: skip
            buffer = io.BytesIO()
            np.save(buffer, np.full((4, frames), "abcde".index(track) * 3 + index, np.float16))
            yield row, {"npy": buffer.getvalue(), "json": json.dumps({}).encode()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shards")
    for number, tracks in enumerate(SHARDS):
        name = shard_name("train", number)
        write_shard(path / "audio" / "train", name, "train", "plan", audio_chunks(tracks), lambda row: 1.0)
        write_shard(path / "latents" / "train", name, "train", "plan", latent_chunks(tracks), lambda row: 1.0)
    failed = ShardMember(key="f_0001", track_id="f", index=1, count=1, valid_length=LENGTH, gain=1.0, offset=-1, size=0,
                         error="decode_failed: noise")  # fmt: skip
    write_shard(path / "audio" / "train", shard_name("train", 3), "train", "plan", [(failed, {})], lambda row: 1.0)
    return path


def audio(folder: Path, *, first: int = 0, count: int = 6, workers: int = 0, **changed: Any) -> list[AudioBatch]:
    options = {"length": 200, "batch_size": 4, "seed": 0} | changed
    return list(islice(audio_batches(folder / "audio", workers=workers, **options)(first), count))


def latent(folder: Path, *, first: int = 0, count: int = 6, workers: int = 0, **changed: Any) -> list[LatentBatch]:
    options = {"frames": FRAMES, "batch_size": 4, "seed": 0} | changed
    return list(islice(latent_batches(folder / "latents", TRACKS, workers=workers, **options)(first), count))


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        for field in dataclasses.fields(one):
            a, b = getattr(one, field.name), getattr(other, field.name)
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


def origin(crop: torch.Tensor) -> tuple[int, int]:
    """(number of the chunk, position of the first sample) of a crop."""
    chunk, position = divmod(round(crop[0, 0].item() * UNITS), 1000)
    return chunk, position


@pytest.mark.parametrize("sizes", [(5,), (3, 1, 4), (2,) * 100])
def test_an_epoch_is_a_permutation(sizes: tuple[int, ...]):
    order = epoch_order(sizes, seed=0, epoch=0)
    assert sorted(order.tolist()) == list(range(sum(sizes)))


def test_epochs_and_seeds_differ_and_repeat():
    orders = {(seed, epoch): tuple(epoch_order((50, 50), seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(set(orders.values())) == 4
    assert tuple(epoch_order((50, 50), 1, 1)) == orders[1, 1]


def test_a_window_of_shards_is_finished_before_the_next_begins():
    order = epoch_order((10,) * (3 * load.WINDOW), seed=0, epoch=0)
    windows = [{int(position) // 10 for position in part} for part in np.split(order, 3)]
    assert [len(shards) for shards in windows] == [load.WINDOW] * 3
    assert len(set.union(*windows)) == 3 * load.WINDOW


def test_chunks_of_a_window_are_mixed():
    order = epoch_order((100,) * load.WINDOW, seed=0, epoch=0)
    changes = np.count_nonzero(np.diff(order // 100))
    assert changes > 0.8 * len(order)  # 15 of 16 neighbours come from different shards


@pytest.mark.parametrize("batch_size", [4, CHUNKS, 2 * CHUNKS + 1])
def test_every_chunk_comes_exactly_once_an_epoch(folder: Path, batch_size: int):
    """Whatever the batch size; a batch may hold the end of an epoch and the beginning of the next."""
    batches = audio(folder, batch_size=batch_size, count=-(-3 * CHUNKS // batch_size))
    chunks = [origin(crop)[0] for batch in batches for crop in batch.audio][: 3 * CHUNKS]
    for epoch in (chunks[:CHUNKS], chunks[CHUNKS : 2 * CHUNKS], chunks[2 * CHUNKS :]):
        assert len(set(epoch)) == CHUNKS


def test_latents_come_in_the_same_order_as_audio(folder: Path):
    chunks = [origin(crop)[0] for batch in audio(folder) for crop in batch.audio]
    assert [int(each[0, 0].item()) for batch in latent(folder) for each in batch.latents] == chunks


# torch advises against more workers than cores; the result must not depend on that
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_do_not_depend_on_the_number_of_workers(folder: Path, workers: int):
    assert_same(audio(folder, workers=workers), audio(folder))
    assert_same(latent(folder, workers=workers), latent(folder))


@pytest.mark.parametrize("read", [audio, latent])
@pytest.mark.parametrize("first", [1, 5, 40])
def test_starting_at_step_n_equals_skipping_n(folder: Path, read: Any, first: int):
    assert_same(read(folder, first=first, count=2), read(folder, count=first + 2)[first:])


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_so_it_does_with_workers(folder: Path):
    assert_same(audio(folder, first=5, count=4, workers=3), audio(folder, count=9)[5:])


def test_another_seed_gives_other_batches(folder: Path):
    assert audio(folder, seed=1)[0].track_ids != audio(folder)[0].track_ids


def test_crops_lie_inside_valid_audio(folder: Path):
    starts: dict[int, set[int]] = {}
    for batch in audio(folder, count=60):
        for crop, valid, track in zip(batch.audio, batch.valid_length.tolist(), batch.track_ids, strict=True):
            chunk, position = origin(crop)
            index = chunk - "abcde".index(track) * 3
            assert valid == 200
            assert position + 200 <= VALID[track][index - 1]
            expected = torch.arange(code(track, index, position), code(track, index, position) + 200) / UNITS
            torch.testing.assert_close(crop, torch.stack([expected, -expected]))
            starts.setdefault(chunk, set()).add(position)
    assert min(map(len, starts.values())) > 10  # crops wander: 20 epochs, and 51 starts at least to choose from


def test_a_chunk_shorter_than_a_crop_is_followed_by_zeros(folder: Path):
    (batch,) = audio(folder, length=500, batch_size=CHUNKS, count=1)
    at = batch.track_ids.index("c")
    crop = batch.audio[at]
    assert (batch.valid_length[at], origin(crop)[1]) == (250, 0)
    assert crop[:, 249].abs().min() > 0
    assert not crop[:, 250:].any()


def test_latent_prompts_are_drawn_afresh_for_each_step(folder: Path):
    for step, batch in enumerate(latent(folder, seed=5)):
        chunks = [int(each[0, 0].item()) - "abcde".index(track) * 3
                  for each, track in zip(batch.latents, batch.track_ids, strict=True)]  # fmt: skip
        assert batch.prompts == [
            draw_prompt(TRACKS[track], index, len(VALID[track]), seed=5, step=step)
            for track, index in zip(batch.track_ids, chunks, strict=True)
        ]


def test_retagging_changes_prompts_without_new_shards(folder: Path):
    retagged = {key: dataclasses.replace(track, title="Other") for key, track in TRACKS.items()}
    batches = latent_batches(folder / "latents", retagged, frames=FRAMES, batch_size=40, seed=0, workers=0)(0)
    prompts = " ".join(next(batches).prompts)
    assert "Other" in prompts and "Title" not in prompts


def test_short_latents_are_followed_by_zeros(folder: Path):
    batch = latent(folder, batch_size=CHUNKS, count=1)[0]
    assert batch.latents.shape == (CHUNKS, 4, FRAMES)
    assert batch.latents.dtype == torch.float32
    valid = dict(zip(batch.track_ids, batch.valid_frames.tolist(), strict=True))
    assert (valid["b"], valid["c"]) == (6, 3)
    at = batch.track_ids.index("c")
    assert batch.latents[at, :, :3].all() and not batch.latents[at, :, 3:].any()


def test_long_latents_are_cut(folder: Path):
    batch = latent(folder, batch_size=CHUNKS, count=1, frames=2)[0]
    assert batch.latents.shape == (CHUNKS, 4, 2)
    assert set(batch.valid_frames.tolist()) == {2}


def test_examples_are_the_same_every_time_and_lie_in_the_middle(folder: Path):
    examples = audio_examples(folder / "audio", "train", length=200, count=3)
    assert_same([examples], [audio_examples(folder / "audio", "train", length=200, count=3)])
    chunks = [origin(crop) for crop in examples.audio]
    assert len(set(chunks)) == 3
    assert all(position == (VALID[track][chunk - "abcde".index(track) * 3 - 1] - 200) // 2
               for (chunk, position), track in zip(chunks, examples.track_ids, strict=True))  # fmt: skip


def test_more_examples_than_chunks_are_other_crops_of_the_same_chunks(folder: Path):
    examples = audio_examples(folder / "audio", "train", length=200, count=60)
    places = {origin(crop) for crop in examples.audio}
    assert len(examples.track_ids) == 60 and len(places) > len({chunk for chunk, _ in places}) > 3


def test_latent_examples_have_their_whole_prompts(folder: Path):
    examples = latent_examples(folder / "latents", "train", TRACKS, frames=FRAMES)
    whole = [plain_prompt(TRACKS[track], index, len(lengths)) for track, lengths in VALID.items()
             for index in range(1, len(lengths) + 1)]  # fmt: skip
    assert examples.prompts == whole
    assert Counter(examples.track_ids) == {track: len(lengths) for track, lengths in VALID.items()}


def test_without_shards_the_stage_that_makes_them_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"holds no chunks\. Make them with: mousai shard"):
        audio_batches(tmp_path, length=1, batch_size=1, seed=0, workers=0)
    with pytest.raises(UserError, match="Make them with: mousai encode-latents"):
        latent_batches(tmp_path, TRACKS, frames=1, batch_size=1, seed=0, workers=0)
