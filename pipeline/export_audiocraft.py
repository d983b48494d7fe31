"""Manifests and files for audiocraft (MusicGen, EnCodec): its loader opens files, so chunks are taken out of the tars.

`audio/SPLIT/SHARD/KEY.flac` with `KEY.json` (audiocraft's `MusicInfo`) beside it, `egs/SPLIT/data.jsonl.gz` with a line
a file, and `mousai.yaml`, the configuration that names them. Paths in the manifests are absolute: audiocraft would
resolve others against its own repository.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

from mousai.audio import SAMPLE_RATE
from mousai.progress import progress
from mousai.storage import hash_of, publish_folder, require_space, write_bytes
from pipeline.contents import Content
from pipeline.records import ShardMember
from pipeline.tars import read_member

_VERSION = 1  # raise it when the same shards come to give another export
_SPLITS = {"train": "train", "val": "valid"}  # ours -> audiocraft's
_MARK = ".shard"  # in a shard's folder: the plan that it was made from

_USES = {"train": ("train",), "val": ("valid", "evaluate", "generate")}  # audiocraft's keys
_CONFIG = """\
# @package __global__
# For audiocraft: copy this file to config/dset/audio/ and train with dset=audio/mousai

datasource:
  max_sample_rate: 48000
  max_channels: 2
"""


def write_audiocraft(contents: Sequence[Content], folder: Path) -> Counter[str]:
    """Bring `folder` up to date; returns how many shards were kept, extracted and removed."""
    folder = folder.resolve()
    done: Counter[str] = Counter(removed=_remove_others(contents, folder))
    plans = {content.tar: hash_of([_VERSION, content.fingerprint()]) for content in contents}
    stale = [content for content in contents if not _is_current(content, folder, plans[content.tar])]
    done["kept"], done["extracted"] = len(contents) - len(stale), len(stale)
    require_space(folder, sum(content.stats.bytes for content in stale), "mousai export")
    with progress("export", len(stale), "shards") as advance:
        for content in stale:
            _extract(content, _home(content, folder), plans[content.tar])
            advance(1, content.name)
    done["manifests"] = int(_write_manifests(contents, folder))
    return done


def _home(content: Content, folder: Path) -> Path:
    return folder / "audio" / _SPLITS[content.stats.split] / content.name


def _remove_others(contents: Sequence[Content], folder: Path) -> int:
    wanted = {_home(content, folder) for content in contents}
    others = [path for path in folder.glob("audio/*/*mousai-*") if path not in wanted]
    for path in others:
        rmtree(path)
    return sum(not path.name.startswith(".") for path in others)


def _is_current(content: Content, folder: Path, plan: str) -> bool:
    """Whether the files of a shard are there in their full size, made from this plan."""
    home = _home(content, folder)
    if not (home / _MARK).exists() or (home / _MARK).read_text() != plan:
        return False
    sizes = {path.name: path.stat().st_size for path in home.glob(f"*.{content.audio_format}")}
    return sizes == {f"{row.key}.{content.audio_format}": row.size for row, _ in content.chunks()}


def _extract(content: Content, home: Path, plan: str) -> None:
    with publish_folder(home) as temporary:
        for row, told in content.chunks():
            sound = read_member(content.tar, row.offset, row.size)
            (temporary / f"{row.key}.{content.audio_format}").write_bytes(sound)
            about = json.dumps(_music_info(row, told), ensure_ascii=False)
            (temporary / f"{row.key}.json").write_text(about, encoding="utf-8")
        (temporary / _MARK).write_text(plan)


def _music_info(row: ShardMember, told: dict[str, Any]) -> dict[str, Any]:
    """What `MusicDataset` reads: it insists on each of these keys; those that tags don't know are empty."""
    return {
        "description": told["text"],
        "title": told["title"],
        "artist": told["artists"],
        "genre": told["genres"],
        "name": row.key,
        "key": "",
        "bpm": "",
        "moods": [],
        "instrument": "",
    }


def _write_manifests(contents: Sequence[Content], folder: Path) -> bool:
    """`data.jsonl.gz` of each split, and the configuration that names them; returns whether anything was written."""
    config = [_CONFIG]
    changed = False
    for split, name in _SPLITS.items():
        manifest = folder / "egs" / name / "data.jsonl.gz"
        lines = "".join(_lines([content for content in contents if content.stats.split == split], folder))
        if lines:
            changed |= write_bytes(manifest, gzip.compress(lines.encode(), mtime=0))
            config += [f"  {use}: {json.dumps(str(manifest.parent))}\n" for use in _USES[split]]
        elif manifest.exists():
            manifest.unlink()
            changed = True
    return write_bytes(folder / "mousai.yaml", "".join(config).encode()) or changed


def _lines(contents: Sequence[Content], folder: Path) -> Iterator[str]:
    for content in contents:
        home, audio_format = _home(content, folder), content.audio_format
        for row, _ in content.chunks():
            path = str(home / f"{row.key}.{audio_format}")
            meta = {"path": path, "duration": row.valid_length / SAMPLE_RATE, "sample_rate": SAMPLE_RATE}
            yield json.dumps(meta) + "\n"
