"""Latents: every chunk once through the encoder, its statistics beside it, and no finished work done again."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mousai.audio import encode_pcm16
from mousai.errors import UserError
from pipeline.encode_latents import Array, Encoder, LatentSummary, encode_latents, is_stale
from pipeline.records import LatentMember, ShardMember
from pipeline.tars import read_member, read_members, read_stats, remove_shard, shard_name, write_shard

# WebDataset closes no file it opened
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

HOP, DIVISOR, CHANNELS = 100, 400, 4
SHARDS = {  # (split, number) -> valid lengths of the chunks by key
    ("train", 0): {"a_0001": 1200, "a_0002": 1200, "b_0001": 310, "c_0001": 1200, "d_0001": 1200},
    ("train", 1): {"e_0001": 1200, "f_0001": 800},
    ("val", 0): {"g_0001": 1},
}
KEYS = sorted(key for chunks in SHARDS.values() for key in chunks)
FAILED = ("train", 1), "e_0002"
RATE = 48_000  # Hz


class FakeEncoder:
    """Channel c of a frame is (c + 1) times the left channel's mean over it; remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[Array] = []

    def __call__(self, audio: Array) -> Array:
        self.seen.append(audio)
        means = audio[:, 0].reshape(len(audio), -1, HOP).mean(axis=2)
        return np.arange(1, CHANNELS + 1, dtype=np.float32)[:, None] * means[:, None]

    @property
    def num_chunks(self) -> int:
        return sum(map(len, self.seen))


def sound(key: str, length: int) -> Array:
    rng = np.random.default_rng(sum(key.encode()))
    return rng.uniform(-1, 1, (2, length)).astype(np.float32)


def write_audio_shard(shards: Path, split: str, number: int, gain: float = 1.0) -> None:
    def chunks() -> Iterator[tuple[ShardMember, dict[str, bytes]]]:
        for key, length in SHARDS[split, number].items():
            yield (
                member(key, length, None),
                {
                    "wav" if key == "f_0001" else "flac": encode_pcm16(
                        sound(key, length) * np.float32(gain), "WAV" if key == "f_0001" else "FLAC"
                    ),
                    "json": json.dumps({"key": key, "title": "Moûsai"}).encode(),
                },
            )
            if ((split, number), f"{key[0]}_0002") == FAILED:
                yield member(FAILED[1], length, "decode_failed: noise"), {}

    name = shard_name(split, number)
    write_shard(shards / split, name, split, "plan", chunks(), lambda row: row.valid_length / RATE)


def member(key: str, length: int, error: str | None) -> ShardMember:
    return ShardMember(key=key, track_id=key[0], index=int(key[2:]), count=2, valid_length=length, gain=1.0, offset=-1,
                       size=0, error=error)  # fmt: skip


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for split, number in SHARDS:
        write_audio_shard(tmp_path / "shards", split, number)
    return tmp_path / "shards"


def encode(
    shards: Path, fake: FakeEncoder | None = None, encoder_id: str = "one", batch_size: int = 3
) -> LatentSummary:
    encoder = Encoder(encode=fake or FakeEncoder(), id=encoder_id, hop=HOP, divisor=DIVISOR)
    return encode_latents(shards, shards.parent / "latents", encoder, batch_size=batch_size, workers=2)


def read(shards: Path, encoder_id: str = "one") -> dict[str, tuple[LatentMember, np.ndarray]]:
    """Key -> its row and its latent."""
    found: dict[str, tuple[LatentMember, np.ndarray]] = {}
    for split, number in SHARDS:
        folder = shards.parent / "latents" / encoder_id / split
        for row in read_members(folder, shard_name(split, number), LatentMember):
            content = read_member(folder / f"{shard_name(split, number)}.tar", row.offset, row.size)
            assert row.key not in found
            found[row.key] = row, np.load(io.BytesIO(content))
    return found


def state(shards: Path) -> dict[str, tuple[int, bytes]]:
    files = sorted((shards.parent / "latents").glob("*/*/*"))
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in files}


def padded(key: str, length: int) -> Array:
    """What the encoder should see: the 16-bit audio, followed by zeros."""
    pcm = np.rint(sound(key, length) * 32_767) / 32_767
    return np.pad(pcm, ((0, 0), (0, -length % DIVISOR))).astype(np.float32)


def test_every_chunk_is_encoded_exactly_once(shards: Path):
    fake = FakeEncoder()
    encode(shards, fake)
    assert sorted(read(shards)) == KEYS
    assert fake.num_chunks == len(KEYS)


def test_latents_are_those_of_the_encoder_in_fp16(shards: Path):
    encode(shards)
    for split_chunks in SHARDS.values():
        for key, length in split_chunks.items():
            latent = read(shards)[key][1]
            assert latent.dtype == np.float16
            (expected,) = FakeEncoder()(padded(key, length)[None])
            np.testing.assert_allclose(latent, expected, atol=2e-3)  # fp16 has 11 bits, and values are below 1


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_batch_size_changes_nothing_in_the_tars(shards: Path, batch_size: int):
    encode(shards, batch_size=3)
    before = {name: content for name, (_, content) in state(shards).items()}
    for split, number in SHARDS:
        remove_shard(shards.parent / "latents" / "one" / split, shard_name(split, number))
    fake = FakeEncoder()
    encode(shards, fake, batch_size=batch_size)
    assert {name: content for name, (_, content) in state(shards).items()} == before
    assert max(map(len, fake.seen)) <= batch_size


def test_chunks_of_one_length_go_through_the_encoder_together(shards: Path):
    fake = FakeEncoder()
    encode(shards, fake)
    assert [batch.shape for batch in fake.seen] == [
        (2, 2, 1200), (1, 2, 400), (2, 2, 1200), (1, 2, 1200), (1, 2, 800), (1, 2, 400),
    ]  # fmt: skip


def test_short_chunks_are_padded_with_zeros_to_the_divisor(shards: Path):
    fake = FakeEncoder()
    encode(shards, fake)
    (short,) = fake.seen[1]
    np.testing.assert_allclose(short, padded("b_0001", 310), atol=1e-7)
    assert not short[:, 310:].any()


def test_a_frame_that_holds_any_music_is_valid(shards: Path):
    encode(shards)
    found = {key: (row.frames, row.valid_frames) for key, (row, _) in read(shards).items()}
    assert (found["a_0001"], found["b_0001"], found["f_0001"], found["g_0001"]) == ((12, 12), (4, 4), (8, 8), (4, 1))


def test_mean_and_std_are_of_the_valid_frames(shards: Path):
    encode(shards)
    for row, latent in read(shards).values():
        valid = latent[:, : row.valid_frames].astype(np.float64)
        np.testing.assert_allclose(row.mean, valid.mean(axis=1), rtol=1e-12)
        np.testing.assert_allclose(row.std, valid.std(axis=1), rtol=1e-12)
        assert len(row.mean) == len(row.std) == CHANNELS


def test_the_training_latents_statistics_are_those_of_all_their_valid_frames(shards: Path):
    from pipeline.load import latent_statistics

    encode(shards)
    frames = np.concatenate([latent[:, : row.valid_frames].astype(np.float64)
                             for key, (row, latent) in read(shards).items() if key != "g_0001"], axis=1)  # fmt: skip
    mean, std = latent_statistics(shards.parent / "latents" / "one")
    np.testing.assert_allclose(mean, frames.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(std, frames.std(axis=1), rtol=1e-5)


def test_the_json_keeps_the_chunks_facts_and_names_the_encoder(shards: Path):
    from webdataset import WebDataset

    encode(shards)
    tar = shards.parent / "latents" / "one" / "train" / f"{shard_name('train', 0)}.tar"
    about = {sample["__key__"]: json.loads(sample["json"]) for sample in WebDataset(str(tar), shardshuffle=False)}
    assert about["b_0001"] == {"key": "b_0001", "title": "Moûsai", "encoder": "one", "frames": 4, "valid_frames": 4}


def test_a_failed_chunk_has_no_latent(shards: Path):
    encode(shards)
    assert FAILED[1] not in read(shards)
    assert read_stats(shards.parent / "latents" / "one" / "train", shard_name("train", 1)).num_failed == 0


def test_the_summary_counts(shards: Path):
    summary = encode(shards)
    frames = sum(-(-length // HOP) for chunks in SHARDS.values() for length in chunks.values())
    assert (summary.num_made, summary.num_kept, summary.num_removed, summary.num_chunks) == (3, 0, 0, len(KEYS))
    assert summary.duration == pytest.approx(frames * HOP / RATE)
    assert summary.bytes == sum(path.stat().st_size for path in shards.parent.glob("latents/*/*/*.tar"))


def test_a_second_run_does_nothing(shards: Path):
    encode(shards)
    before, fake = state(shards), FakeEncoder()
    again = encode(shards, fake)
    assert (again.num_made, again.num_kept, fake.num_chunks) == (0, 3, 0)
    assert state(shards) == before


def test_a_deleted_tar_is_made_again_and_only_that(shards: Path):
    encode(shards)
    before, fake = state(shards), FakeEncoder()
    (shards.parent / "latents" / "one" / "train" / f"{shard_name('train', 1)}.tar").unlink()
    again = encode(shards, fake)
    assert (again.num_made, again.num_kept, fake.num_chunks) == (1, 2, 2)
    after = state(shards)
    assert {name: content for name, (_, content) in after.items()} == {
        name: content for name, (_, content) in before.items()
    }
    kept = [name for name in before if shard_name("train", 1) not in name]
    assert [after[name] for name in kept] == [before[name] for name in kept]


def test_a_changed_audio_shard_is_encoded_again_and_only_that(shards: Path):
    encode(shards)
    write_audio_shard(shards, "train", 0, gain=0.5)
    fake = FakeEncoder()
    assert (encode(shards, fake).num_made, fake.num_chunks) == (1, 5)


def test_a_vanished_audio_shard_takes_its_latents_with_it(shards: Path):
    encode(shards)
    remove_shard(shards / "train", shard_name("train", 1))
    assert encode(shards).num_removed == 1
    assert not any(shard_name("train", 1) in name for name in state(shards))


def test_another_encoder_has_another_folder(shards: Path):
    encode(shards)
    before = state(shards)
    assert encode(shards, encoder_id="two").num_made == 3
    ones = (shards.parent / "latents" / "one").glob("*/*")
    assert {path.name: (path.stat().st_ino, path.read_bytes()) for path in ones} == before
    assert sorted(read(shards, "two")) == KEYS


def test_without_audio_shards_the_stage_that_makes_them_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"holds no finished shards\. Make them with: mousai shard"):
        encode(tmp_path / "shards")


@pytest.mark.parametrize(("fails_after", "left_to_do"), [(3, 3), (5, 2)])
def test_a_failure_costs_the_shard_that_was_being_written_and_no_finished_one(
    shards: Path, fails_after: int, left_to_do: int
):
    class Broken(FakeEncoder):
        def __call__(self, audio: Array) -> Array:
            if self.num_chunks >= fails_after:
                raise RuntimeError("out of memory")
            return super().__call__(audio)

    with pytest.raises(RuntimeError, match="out of memory"):
        encode(shards, Broken())
    assert len([name for name in state(shards) if name.endswith(".tar")]) == 3 - left_to_do
    assert encode(shards).num_made == left_to_do
    assert sorted(read(shards)) == KEYS


def test_latents_are_stale_once_the_audio_is_another(shards: Path):
    latents = shards.parent / "latents"
    assert is_stale(shards, latents, "one")  # there are none
    encode(shards)
    assert not is_stale(shards, latents, "one")
    assert is_stale(shards, latents, "two")
    write_audio_shard(shards, "train", 1, gain=0.5)
    assert is_stale(shards, latents, "one")
    encode(shards)
    remove_shard(shards / "train", shard_name("train", 0))
    assert is_stale(shards, latents, "one")


def test_latents_outlive_audio_that_was_deleted_to_save_space(shards: Path):
    encode(shards)
    shutil.rmtree(shards)
    assert not is_stale(shards, shards.parent / "latents", "one")
