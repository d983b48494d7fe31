"""What interop.py runs in each environment: a toolkit loads a workspace's shards or an export, and nothing is missing.

    python interop_checks.py NAME WORKSPACE EXPORTS

Imports nothing of mousai. The truth is what the standard library's tarfile finds in the shards. The last line is JSON.
"""

import functools
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

SPLITS = ("train", "val")
STEP = 1 / 32_768  # of 16 bits: decoders differ in what they call full scale


@dataclass(frozen=True)
class Chunk:
    """One chunk as it is in its tar."""

    split: str
    told: dict[str, Any]
    content: bytes

    def audio(self) -> Any:
        """[2, T] float32."""
        return soundfile.read(io.BytesIO(self.content), dtype="float32", always_2d=True)[0].T


@functools.cache
def truth(workspace: Path) -> dict[str, Chunk]:
    """Key -> chunk, of both splits."""
    chunks = {}
    for split in SPLITS:
        for tar in sorted((workspace / "shards" / split).glob("*.tar")):
            with tarfile.open(tar) as file:
                members = {member.name: file.extractfile(member).read() for member in file}  # type: ignore[union-attr]
            for name, content in members.items():
                key, _, suffix = name.partition(".")
                if suffix != "json":
                    chunks[key] = Chunk(split, json.loads(members[f"{key}.json"]), content)
    return chunks


def same(audio: Any, chunk: Chunk) -> bool:
    """Whether [2, T] is the chunk's audio to the last bit of 16."""
    wanted = chunk.audio()
    return audio.shape == wanted.shape and bool(np.abs(np.asarray(audio) - wanted).max() <= STEP)


def require_all(found: Iterable[str], workspace: Path, split: str) -> None:
    """Every chunk of a split, each once."""
    assert sorted(found) == sorted(key for key, chunk in truth(workspace).items() if chunk.split == split)


def check_webdataset(workspace: Path, exports: Path) -> list[str]:
    from torch.utils.data import DataLoader
    from webdataset import WebDataset

    for split in SPLITS:
        tars = sorted(map(str, (workspace / "shards" / split).glob("*.tar")))
        dataset = WebDataset(tars, shardshuffle=False, empty_check=False)
        read = {sample["__key__"]: sample for sample in DataLoader(dataset, batch_size=None, num_workers=2)}
        require_all(read, workspace, split)
        for key, sample in read.items():
            assert sample.get("flac", sample.get("wav")) == truth(workspace)[key].content
            assert json.loads(sample["json"]) == truth(workspace)[key].told
    return ["the tars as they are, by two workers: every chunk once, byte for byte"]


def check_datasets(workspace: Path, exports: Path) -> list[str]:
    from datasets import load_dataset

    names = {"train": "train", "val": "validation"}
    files = {name: str(workspace / "shards" / split / "*.tar") for split, name in names.items()}
    with tempfile.TemporaryDirectory() as cache:
        for loaded in (
            load_dataset("webdataset", data_files=files, cache_dir=cache),
            load_dataset("webdataset", data_files=files, streaming=True),
            load_dataset(str(exports / "hf"), cache_dir=cache),
        ):
            for split, name in names.items():
                keys = []
                for row in loaded[name]:
                    chunk = truth(workspace)[row["__key__"]]
                    assert row["json"] == chunk.told
                    if len(keys) % 10 == 0:
                        samples = row["flac" if "flac" in row else "wav"].get_all_samples()
                        assert samples.sample_rate == 48_000 and same(samples.data.numpy(), chunk)
                    keys.append(row["__key__"])
                require_all(keys, workspace, split)
    return [
        "the tars as they are, into its cache and streamed: every chunk, its text and tags, its audio (every tenth)",
        "load_dataset of `--format hf`: the same, with the splits train and validation",
    ]


def check_stable_audio_tools(workspace: Path, exports: Path) -> list[str]:
    from stable_audio_tools.data.dataset import create_dataloader_from_config

    length = 2**17
    loud = {
        key for key, chunk in truth(workspace).items() if abs(chunk.audio()[:, :length]).max() > 0.001
    }  # its -60 dB
    for split in SPLITS:
        config = {
            "dataset_type": "wds",
            "datasets": [{"id": split, "path": str(workspace / "shards" / split)}],
            "random_crop": False,
            "resampled_shards": False,
        }
        loader = create_dataloader_from_config(
            config, batch_size=1, sample_size=length, sample_rate=48_000, num_workers=1
        )
        found = set()
        for audio, (about,) in loader:
            key = f"{about['track_id'][0]}_{int(about['index']):04}"  # its loader batches a batch once more
            wanted = truth(workspace)[key]
            assert about["prompt"] == [wanted.told["text"]]
            crop = wanted.audio()[:, :length]
            assert audio.shape == (1, 1, 2, length)
            heard = audio[0, 0, :, : crop.shape[1]].numpy()
            assert min(np.abs(heard - crop).max(), np.abs(heard + crop).max()) <= STEP  # it flips the sign at random
            found.add(key)
        assert found == {key for key in loud if truth(workspace)[key].split == split}
    return ["the tars as they are, through its `wds` loader: every chunk that is not silent, its text, its audio"]


def check_lhotse(workspace: Path, exports: Path) -> list[str]:
    from lhotse import CutSet, Recording
    from lhotse.qa import validate
    from lhotse.recipes.utils import read_manifests_if_cached

    def in_memory(cut: Any) -> Any:
        command = cut.recording.sources[0].source
        cut.recording = Recording.from_bytes(subprocess.check_output(command, shell=True), cut.id)
        return cut

    folder = exports / "lhotse"
    kinds = ["recordings", "supervisions"]
    manifests = read_manifests_if_cached(list(SPLITS), folder, prefix="mousai", types=kinds)
    for split in SPLITS:
        for kind in kinds:
            validate(manifests[split][kind])
        cuts = CutSet.from_file(folder / f"mousai_cuts_{split}.jsonl.gz")
        validate(cuts)
        require_all([cut.id for cut in cuts], workspace, split)
        require_all([recording.id for recording in manifests[split]["recordings"]], workspace, split)
        for cut in cuts:
            assert same(cut.load_audio(), truth(workspace)[cut.id])
            assert cut.supervisions[0].text == truth(workspace)[cut.id].told["text"]
        with tempfile.TemporaryDirectory() as shar:
            cuts.map(in_memory).to_shar(shar, fields={"recording": "flac"}, shard_size=256)
            again = list(CutSet.from_shar(in_dir=shar))
            require_all([cut.id for cut in again], workspace, split)
            assert same(again[-1].load_audio(), truth(workspace)[again[-1].id])
    return ["the manifests validate; every cut, its text, its audio out of the tar; and by way of its own Shar"]


def check_audiocraft(workspace: Path, exports: Path) -> list[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as team:  # its wheel lacks the file that it looks for
        team.write("default: {dora_dir: /tmp, partitions: {global: none, team: none}, reference_dir: /tmp}\n")
        team.flush()
        os.environ["AUDIOCRAFT_CONFIG"] = team.name
        return _check_audiocraft(workspace, exports)


def _check_audiocraft(workspace: Path, exports: Path) -> list[str]:
    from audiocraft.data.music_dataset import MusicDataset
    from torch.utils.data import DataLoader

    for split, name in (("train", "train"), ("val", "valid")):
        egs = exports / "audiocraft" / "egs" / name
        whole = MusicDataset.from_meta(egs, segment_duration=None, shuffle=False, sample_rate=48_000, channels=2)
        require_all([Path(meta.path).stem for meta in whole.meta], workspace, split)
        for audio, about in (whole[i] for i in range(len(whole))):
            chunk = truth(workspace)[about.name]
            assert same(audio.numpy(), chunk) and about.description == chunk.told["text"]
            assert (about.artist or "") == chunk.told["artists"] and (about.title or "") == chunk.told["title"]
        musicgen = MusicDataset.from_meta(
            egs, segment_duration=2.0, num_samples=32, sample_rate=32_000, channels=1, min_segment_ratio=0.0,
            merge_text_p=0.25, drop_desc_p=0.5, drop_other_p=0.5,
        )  # fmt: skip
        for batch, abouts in DataLoader(musicgen, batch_size=8, num_workers=2, collate_fn=musicgen.collater):
            assert batch.shape == (8, 1, 64_000) and len(abouts) == 8
    return [
        "`MusicDataset` reads every file, its description, title and artist; and segments as MusicGen trains on them"
    ]


CHECKS: dict[str, Callable[[Path, Path], list[str]]] = {
    "webdataset": check_webdataset,
    "datasets": check_datasets,
    "stable-audio-tools": check_stable_audio_tools,
    "lhotse": check_lhotse,
    "audiocraft": check_audiocraft,
}

if __name__ == "__main__":
    toolkit, place, exported = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    facts = CHECKS[toolkit](place, exported)
    print(json.dumps({"version": version(toolkit), "num_chunks": len(truth(place)), "facts": facts}))
