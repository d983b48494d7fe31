"""Manifests for lhotse: recordings, supervisions and cuts of each split, a line a chunk.

No audio is copied. A recording is a command that cuts the chunk's file out of its tar, in the manner of Kaldi's pipes;
`cuts.to_shar(…)` turns that into lhotse's own tars, for those who want them.
"""

import gzip
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

from mousai.audio import CHANNELS, SAMPLE_RATE
from mousai.storage import write_bytes
from pipeline.contents import Content
from pipeline.records import ShardMember

_SPLITS = ("train", "val")
_KINDS = ("recordings", "supervisions", "cuts")


def write_lhotse(contents: Sequence[Content], folder: Path) -> Counter[str]:
    """Bring `folder` up to date; returns how many manifests were kept, written and removed.

    They are called `mousai_recordings_train.jsonl.gz` and so on, as `lhotse.recipes` would call them.
    """
    done: Counter[str] = Counter()
    for split in _SPLITS:
        of_split = [content for content in contents if content.stats.split == split]
        for kind, packed in zip(_KINDS, _pack(of_split), strict=True):
            path = folder / f"mousai_{kind}_{split}.jsonl.gz"
            if of_split:
                done["written" if write_bytes(path, packed) else "kept"] += 1
            elif path.exists():
                path.unlink()
                done["removed"] += 1
    return done


def _pack(contents: Sequence[Content]) -> list[bytes]:
    """The three manifests as gzipped JSON lines; the same chunks give the same bytes."""
    buffers = [BytesIO() for _ in _KINDS]
    with ExitStack() as stack:
        files = [stack.enter_context(gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0)) for buffer in buffers]
        for content in contents:
            for entry in _entries(content):
                for file, value in zip(files, entry, strict=True):
                    file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
    return [buffer.getvalue() for buffer in buffers]


def _entries(content: Content) -> Iterator[tuple[dict[str, Any], ...]]:
    """(Recording, SupervisionSegment, Cut) of each chunk, as lhotse writes them."""
    for row, told in content.chunks():
        recording = _recording(content.tar, row)
        duration, channels = recording["duration"], recording["channel_ids"]
        custom = {key: value for key, value in told.items() if key != "text"}
        supervision = {
            "id": row.key,
            "recording_id": row.key,
            "start": 0.0,
            "duration": duration,
            "channel": channels,
            "text": told["text"],
            "custom": {**custom, "track_id": row.track_id},
        }
        cut = {
            "id": row.key,
            "start": 0.0,
            "duration": duration,
            "channel": channels,
            "supervisions": [supervision],
            "recording": recording,
            "type": "MultiCut",
        }
        yield recording, supervision, cut


def _recording(tar: Path, row: ShardMember) -> dict[str, Any]:
    channels = list(range(CHANNELS))
    command = f"tail -c +{row.offset + 1} {shlex.quote(str(tar.resolve()))} | head -c {row.size}"
    return {
        "id": row.key,
        "sources": [{"type": "command", "channels": channels, "source": command}],
        "sampling_rate": SAMPLE_RATE,
        "num_samples": row.valid_length,
        "duration": row.valid_length / SAMPLE_RATE,
        "channel_ids": channels,
    }
