"""One WebDataset tar with its sidecars: NAME.tar, NAME.parquet with a row for each chunk, NAME_stats.json.

The stats are written last: they are the done marker. A shard that was found damaged has NAME_damaged.json in their
place. The same input gives the same bytes.
"""

import dataclasses
import io
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from mousai.errors import UserError
from mousai.storage import hash_of, publish, read_json, sha256_of_file, write_json
from pipeline.manifest import read_table, write_table
from pipeline.records import LatentMember, Shard, ShardMember

if TYPE_CHECKING:
    from typing_extensions import Buffer

Member = TypeVar("Member", ShardMember, LatentMember)

_OWNER = "mousai"  # of every member, so that the bytes name no user of this machine
_MODE = 0o644
_SIDECARS = ("_stats.json", "_damaged.json", ".tar", ".parquet")  # the stats first: without them it is unfinished
_NAME = re.compile(r"\.?(mousai-(?:train|val)-\d{6})(?:_stats\.json|_damaged\.json|\.tar|\.parquet)(?:\.tmp)?")
CHECK = "Find and mend what is damaged with: mousai verify; mousai shard; mousai encode-latents"
_AGAIN = "Make it again with: mousai shard (audio) or mousai encode-latents (latents)"


def shard_name(split: str, number: int) -> str:
    """The name that a tar and its sidecars share."""
    return f"mousai-{split}-{number:06}"


def write_shard(
    folder: Path,
    name: str,
    split: str,
    plan: str,
    samples: Iterable[tuple[Member, Mapping[str, bytes]]],
    duration: Callable[[Member], float],
) -> Shard:
    """Publish the tar `name` and its sidecars, in place of what was there, and return its stats.

    `samples` yields each chunk's row (one at least, ordered by key) with its members, suffix -> content. The first
    member is the main one: the row gets its `offset` and `size`. A failed chunk has no members, only a row.
    `plan` is the hash of all that the tar is made from, `duration` the seconds of music that a row stands for.
    """
    remove_shard(folder, name)
    rows: list[tuple[Member, str | None]] = []  # each with the name of its main member
    tar = folder / f"{name}.tar"
    with publish(tar) as temporary:
        with temporary.open("wb") as file, tarfile.open(fileobj=file, mode="w|") as archive:
            for row, members in samples:
                rows.append((row, f"{row.key}.{next(iter(members))}" if members else None))
                for suffix in sorted(members):
                    _add(archive, f"{row.key}.{suffix}", members[suffix])
        spans = member_spans(temporary)
        digest = sha256_of_file(temporary)
    located = [_located(row, *spans[main]) if main else _located(row, -1, 0) for row, main in rows]
    made = [row for row, main in rows if main]
    table = folder / f"{name}.parquet"
    write_table(table, type(rows[0][0]), located)
    stats = Shard(
        name=tar.name,
        split=split,
        num_chunks=len(made),
        num_failed=len(rows) - len(made),
        duration=sum(map(duration, made)),
        bytes=tar.stat().st_size,
        sha256=digest,
        table_sha256=sha256_of_file(table),
        plan=plan,
        seal="",
    )
    return write_stats(folder, name, stats)


def write_stats(folder: Path, name: str, stats: Shard) -> Shard:
    """Publish the done marker of the tar `name`, sealed; what was written."""
    sealed = dataclasses.replace(stats, seal=_seal(stats))
    write_json(stats_path(folder, name), dataclasses.asdict(sealed))
    return sealed


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """To the byte what webdataset's TarWriter writes, which would bring torch into every worker, for two seconds."""
    info = tarfile.TarInfo(name)  # its time is 0
    info.size, info.mode, info.uname, info.gname = len(content), _MODE, _OWNER, _OWNER
    archive.addfile(info, io.BytesIO(content))


def is_done(folder: Path, name: str, plan: str) -> bool:
    """Whether the tar `name` was finished from just this plan and is still there in its full size."""
    tar = folder / f"{name}.tar"
    if not (tar.exists() and (folder / f"{name}.parquet").exists()):
        return False
    try:
        stats = read_stats(folder, name)
    except UserError:
        return False
    return stats.plan == plan and stats.bytes == tar.stat().st_size


def is_finished(folder: Path, name: str) -> bool:
    """Whether the tar `name` has its stats: all of it was written."""
    return stats_path(folder, name).exists()


def read_stats(folder: Path, name: str) -> Shard:
    """What the finished tar `name` holds; UserError if it isn't finished."""
    path = stats_path(folder, name)
    if not path.exists():
        raise UserError(f"{folder / name}.tar is not finished. {_AGAIN}")
    try:
        stats = Shard(**read_json(path))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged, or of another version ({error}). {_AGAIN}") from error
    if stats.seal != _seal(stats):
        raise UserError(f"{path} is damaged: its fields do not give its seal. {_AGAIN}")
    return stats


def stats_path(folder: Path, name: str) -> Path:
    """The done marker of the tar `name`."""
    return folder / f"{name}_stats.json"


def read_members(folder: Path, name: str, record: type[Member]) -> list[Member]:
    """A row for each chunk of the tar `name`, failed ones too."""
    return read_table(folder / f"{name}.parquet", record, "mousai shard, or mousai encode-latents")


def damaged(tar: Path, key: str, error: Exception) -> UserError:
    """What to say of a chunk that cannot be decoded."""
    return UserError(f"chunk {key} of {tar} is damaged ({error}). {CHECK}")


def read_member(tar: Path, offset: int, size: int) -> bytes:
    """The content of one member, by its row's `offset` and `size`."""
    with _open(tar, offset, size) as file:
        return os.pread(file.fileno(), size, offset)


def open_member(tar: Path, offset: int, size: int) -> BinaryIO:
    """The same as a file, from which no more is read than is asked for."""
    return cast("BinaryIO", _Content(_open(tar, offset, size), offset, size))


def _open(tar: Path, offset: int, size: int) -> io.FileIO:
    file = tar.open("rb", buffering=0)
    found = max(0, min(size, os.fstat(file.fileno()).st_size - offset))
    if found != size:
        file.close()
        raise UserError(f"{tar} has been cut short: {found} of {size} bytes at {offset}. {_AGAIN}")
    return file


class _Content(io.RawIOBase):
    """`size` bytes of a file from `start` on, as a file that closes the other one with itself."""

    def __init__(self, file: io.FileIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._position = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: "Buffer", /) -> int:
        wanted = memoryview(buffer)[: max(0, self._size - self._position)]
        count = os.preadv(self._file.fileno(), [wanted], self._start + self._position)
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def member_spans(tar: Path) -> dict[str, tuple[int, int]]:
    """Member name -> where its content starts, and its size, in bytes; only headers are read."""
    with tarfile.open(tar, "r:") as file:
        return {member.name: (member.offset_data, member.size) for member in file}


def read_samples(folder: Path, name: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, suffix -> content) of every chunk in the tar `name`, in its order."""
    with tarfile.open(folder / f"{name}.tar", "r:") as tar:
        for key, members in groupby(tar, key=lambda member: member.name.partition(".")[0]):
            yield key, {member.name.partition(".")[2]: _content(tar, member) for member in members}


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # `write_shard` makes regular files only
    return file.read()


def move_shard(source: Path, name: str, folder: Path) -> None:
    """Put a finished shard in place of the one in `folder`; begun again after a kill, it moves what is left."""
    stats_path(folder, name).unlink(missing_ok=True)
    for suffix in (".tar", ".parquet", "_stats.json"):
        if (source / f"{name}{suffix}").exists():
            (source / f"{name}{suffix}").replace(folder / f"{name}{suffix}")


def list_shards(folder: Path) -> list[str]:
    """Sorted names of which a tar or anything that belongs to one is there, unfinished and orphaned ones too."""
    names = [_NAME.fullmatch(path.name) for path in folder.iterdir()] if folder.exists() else []
    return sorted({match[1] for match in names if match})


def finished_shards(folder: Path) -> list[str]:
    """Sorted names of the tars that have their stats."""
    return [name for name in list_shards(folder) if is_finished(folder, name)]


def set_stats_aside(folder: Path, name: str) -> None:
    """Mark a shard as damaged: NAME_stats.json becomes NAME_damaged.json, so that it is made anew."""
    if stats_path(folder, name).exists():
        stats_path(folder, name).replace(folder / f"{name}_damaged.json")


def is_set_aside(folder: Path, name: str) -> bool:
    """Whether a shard has been marked as damaged."""
    return (folder / f"{name}_damaged.json").exists()


def remove_shard(folder: Path, name: str) -> None:
    """Delete a tar, its sidecars and what a killed run left of them; nothing happens where nothing is."""
    for suffix in _SIDECARS:
        (folder / f"{name}{suffix}").unlink(missing_ok=True)
        (folder / f".{name}{suffix}.tmp").unlink(missing_ok=True)


def _seal(stats: Shard) -> str:
    fields = dataclasses.asdict(stats)
    del fields["seal"]
    return hash_of(fields)


def _located(row: Member, offset: int, size: int) -> Member:
    return dataclasses.replace(row, offset=offset, size=size)
