"""A folder that Hugging Face `datasets` loads and the Hub shows: WebDataset tars, with a dataset card as README.md.

`train/` and `val/` hold the shards with their sidecars. A tar whose tags are current is a hard link, which takes no
space; where the file system allows none it is a copy. A tar whose tags have changed since is written anew.
"""

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mousai.audio import SAMPLE_RATE
from mousai.progress import progress
from mousai.storage import hash_of, publish, require_space, write_bytes
from pipeline.contents import Content
from pipeline.records import ShardMember
from pipeline.tars import is_done, list_shards, member_spans, read_member, remove_shard, write_shard, write_stats

_VERSION = 1  # raise it when the same shards come to give another export
_SPLITS = ("train", "val")
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP)  # the file system's ways to say no
_SIGNATURE = "\n<!-- mousai export: {} (edit this page, and it will be left as it is) -->\n"


def write_hf(contents: Sequence[Content], folder: Path) -> Counter[str]:
    """Bring `folder` up to date; returns how many tars were kept, linked, copied, retagged and removed."""
    done: Counter[str] = Counter(removed=_remove_others(contents, folder))
    plans = {content.tar: hash_of([_VERSION, content.fingerprint()]) for content in contents}
    stale = [content for content in contents if not is_done(_home(content, folder), content.name, plans[content.tar])]
    done["kept"] = len(contents) - len(stale)
    ways = [_way(content, folder) for content in stale]
    needed = sum(content.stats.bytes for content, way in zip(stale, ways, strict=True) if way != "linked")
    require_space(folder, needed, "mousai export")
    with progress("export", len(stale), "shards") as advance:
        for content, way in zip(stale, ways, strict=True):
            done[_write(content, _home(content, folder), plans[content.tar], way)] += 1
            advance(1, content.name)
    return done


def _home(content: Content, folder: Path) -> Path:
    return folder / content.stats.split


def _remove_others(contents: Sequence[Content], folder: Path) -> int:
    wanted = {(content.stats.split, content.name) for content in contents}
    others = [(split, name) for split in _SPLITS for name in list_shards(folder / split) if (split, name) not in wanted]
    for split, name in others:
        remove_shard(folder / split, name)
    return len(others)


def _way(content: Content, folder: Path) -> str:
    """How a tar gets there: "retagged" where its JSON says something else than the library does now."""
    if any(dict(old, **told) != old for _, told, old in _told(content)):
        return "retagged"
    return "linked" if folder.stat().st_dev == content.tar.stat().st_dev else "copied"


def _told(content: Content) -> Iterator[tuple[ShardMember, dict[str, Any], dict[str, Any]]]:
    """(row, what is to be told of it, what its JSON in the tar tells) of every chunk."""
    spans = member_spans(content.tar)
    for row, told in content.chunks():
        yield row, told, json.loads(read_member(content.tar, *spans[f"{row.key}.json"]))


def _write(content: Content, home: Path, plan: str, way: str) -> str:
    """Make one tar and its sidecars; returns how: "copied" where a link was tried in vain."""
    if way == "retagged":
        write_shard(home, content.name, content.stats.split, plan, _retagged(content), _duration)
        return way
    remove_shard(home, content.name)
    way = _place(content.tar, home / content.tar.name, way)
    _place(content.tar.with_suffix(".parquet"), home / f"{content.name}.parquet", way)
    write_stats(home, content.name, replace(content.stats, plan=plan))
    return way


def _retagged(content: Content) -> Iterator[tuple[ShardMember, dict[str, bytes]]]:
    audio_format = content.audio_format
    for row, told, old in _told(content):
        about = json.dumps(dict(old, **told), ensure_ascii=False).encode()
        yield row, {audio_format: read_member(content.tar, row.offset, row.size), "json": about}


def _duration(row: ShardMember) -> float:
    return row.valid_length / SAMPLE_RATE


def _place(source: Path, target: Path, way: str) -> str:
    """Publish `source` at `target` by a hard link if `way` is "linked" and it can be had, else by a copy."""
    with publish(target) as temporary:
        temporary.unlink(missing_ok=True)
        if way == "linked":
            try:
                os.link(source, temporary)
                return "linked"
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
        shutil.copyfile(source, temporary)
        return "copied"


def write_card(path: Path, text: str) -> bool:
    """Publish the dataset card, unless somebody has edited the one that is there; returns whether it was written."""
    if path.exists() and not _is_ours(path.read_text(encoding="utf-8")):
        return False
    return write_bytes(path, (text + _SIGNATURE.format(hash_of(text))).encode())


def _is_ours(card: str) -> bool:
    """Whether a card still ends in the signature of its text."""
    text, mark, _ = card.rpartition(_SIGNATURE[: _SIGNATURE.index("{")])
    return bool(mark) and card == text + _SIGNATURE.format(hash_of(text))
