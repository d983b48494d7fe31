"""The loaders that benchmarks/crops.py and benchmarks/latents.py compare, each in a process of its own.

    python benchmarks/contestants.py KIND FOLDER --batch-size 8 --batches 12

Every line on stdin starts a round: so many batches from the loader, whose seconds come back as JSON. One process, one
thread, no workers: rates are those of a core. Needs the packages of the peers (benchmarks/peers.sh).
"""

import argparse
import io
import itertools
import json
import random
import sys
import time
import types
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import soundfile
import torch

LENGTH = 2**18  # samples of a crop
FRAMES = 2048  # of a whole chunk's latent

Batches = Iterator[Any]


def tars(folder: Path) -> list[str]:
    return [str(path) for path in sorted((folder / "train").glob("*.tar"))]


def mousai_crops(folder: Path, batch_size: int) -> Batches:
    from pipeline.load import audio_batches

    return audio_batches(folder, length=LENGTH, batch_size=batch_size, seed=0, workers=0)(0)


def webdataset_crops(folder: Path, batch_size: int) -> Batches:
    """The usual lines: shuffled shards, a shuffle buffer, the whole chunk decoded, a random part of it kept."""
    import webdataset as wds

    def crop(sample: dict[str, bytes]) -> torch.Tensor:
        audio, _ = soundfile.read(io.BytesIO(sample["flac"]), dtype="float32")
        start = random.randint(0, max(0, len(audio) - LENGTH))
        kept = torch.zeros(2, LENGTH)
        kept[:, : len(audio)] = torch.from_numpy(audio[start : start + LENGTH].T)
        return kept

    data = wds.WebDataset(tars(folder), shardshuffle=100, seed=0).repeat().shuffle(16).map(crop)
    return iter(data.batched(batch_size, collation_fn=torch.stack))


def stable_audio_tools_crops(folder: Path, batch_size: int) -> Batches:
    """Its own pipeline over the same tars, without the DataLoader around it, which would copy each batch once more."""
    hollow("stable_audio_tools")
    from stable_audio_tools.data.dataset import LocalWebDatasetConfig, WebDatasetDataLoader

    shards = [LocalWebDatasetConfig("train", str(folder / "train"))]
    loader = WebDatasetDataLoader(shards, batch_size, LENGTH, num_workers=0, epoch_steps=10**6)
    return iter(loader.dataset)


def audio_data_pytorch_crops(folder: Path, batch_size: int) -> Batches:
    """Its dataset over the chunks as files, with what it wants of torchaudio as the soundfile backend was until 2.8.

    torchaudio 2.9 has no `info` and another signature of `load`; the dataset takes that for bad files, and never ends.
    """
    import torchaudio

    torchaudio.info, torchaudio.load = soundfile_info, load_with_soundfile
    hollow("audio_data_pytorch", "datasets")
    from audio_data_pytorch.datasets.wav_dataset import WAVDataset

    files = WAVDataset(str(folder / "files"), sample_rate=48_000, random_crop_size=LENGTH)
    loader = torch.utils.data.DataLoader(files, batch_size, shuffle=True, drop_last=True)
    return itertools.chain.from_iterable(itertools.repeat(loader))


def soundfile_info(path: str) -> types.SimpleNamespace:
    found = soundfile.info(path)
    return types.SimpleNamespace(num_frames=found.frames, sample_rate=found.samplerate)


def load_with_soundfile(filepath: str, frame_offset: int = 0, num_frames: int = -1) -> tuple[torch.Tensor, int]:
    with soundfile.SoundFile(filepath) as file:
        file.seek(frame_offset)
        return torch.from_numpy(file.read(num_frames, dtype="float32", always_2d=True)).T, file.samplerate


def mousai_latents(folder: Path, batch_size: int) -> Batches:
    from pipeline.load import latent_batches, shard_members
    from pipeline.records import LatentMember, Track

    members = shard_members(folder / "train", LatentMember, "")
    blank = dict.fromkeys(Track.__dataclass_fields__)
    tags = {"title": "A title of a song", "artists": ["An Artist"], "album": "An Album (Deluxe Edition)",
            "genres": ["Rock", "Pop"], "year": 1999, "length": 1}  # fmt: skip
    tracks = {row.track_id: Track(**(blank | tags | {"id": row.track_id})) for shard in members for _, row in shard}
    return latent_batches(folder, tracks, frames=FRAMES, batch_size=batch_size, seed=0, workers=0)(0)


def webdataset_latents(folder: Path, batch_size: int) -> Batches:
    """The usual lines, with a prompt drawn from the fields of the JSON."""
    import webdataset as wds

    def prepare(sample: dict[str, Any]) -> tuple[torch.Tensor, str]:
        facts = sample["json"]
        fields = [facts["title"], *facts["artists"], facts["album"], *facts["genres"], str(facts["year"]),
                  f"{facts['index']} of {facts['count']}"]  # fmt: skip
        random.shuffle(fields)
        prompt = random.choice([" ", ", "]).join(field for field in fields if random.random() >= 0.1)
        latent = torch.zeros(32, FRAMES)
        latent[:, : sample["npy"].shape[1]] = torch.from_numpy(sample["npy"])
        return latent, prompt

    def collate(samples: list[tuple[torch.Tensor, str]]) -> tuple[torch.Tensor, list[str]]:
        return torch.stack([latent for latent, _ in samples]), [prompt for _, prompt in samples]

    data = wds.WebDataset(tars(folder), shardshuffle=100, seed=0).repeat().shuffle(1000).decode().map(prepare)
    return iter(data.batched(batch_size, collation_fn=collate))


def hollow(package: str, *inner: str) -> None:
    """Let the modules of a package be imported without its __init__.py, which wants models and downloaders."""
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations is not None, f"{package} is not installed"
    folder = Path(spec.submodule_search_locations[0])
    for name, path in [(package, folder), *((f"{package}.{each}", folder / each) for each in inner)]:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(path)]


KINDS: dict[str, Callable[[Path, int], Batches]] = {
    "mousai crops": mousai_crops,
    "webdataset crops": webdataset_crops,
    "stable-audio-tools crops": stable_audio_tools_crops,
    "audio-data-pytorch crops": audio_data_pytorch_crops,
    "mousai latents": mousai_latents,
    "webdataset latents": webdataset_latents,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    answers, sys.stdout = sys.stdout, sys.stderr  # what loaders print is no answer
    batches = KINDS[arguments.kind](arguments.folder, arguments.batch_size)
    next(batches)  # opens files, fills buffers
    print("{}", file=answers, flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(arguments.batches):
            next(batches)
        cost = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps(cost), file=answers, flush=True)


if __name__ == "__main__":
    main()
