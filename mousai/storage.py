"""The one place where files are published: temporary name, fsync, hash, rename.

A reader never sees half a file: `publish` hands out a temporary path beside the target and renames it only when the
block ends without an error. The temporary name is the same every time, so what a killed run left is overwritten by
the run that finishes its work.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mousai.errors import UserError

_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_BLOCK = 1 << 20  # bytes per read while hashing


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """A temporary file path that becomes `path` when the block succeeds, and vanishes when it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            error.filename = str(path)  # a write does not know where it goes
        raise


@contextmanager
def publish_folder(path: Path) -> Iterator[Path]:
    """Like `publish`, for a folder: it appears whole, or not at all. A folder already at `path` is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _fsync(file)
        if path.exists():
            old = path.with_name(f".{path.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
        _fsync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> bool:
    """Publish `content` at `path`, unless just that is there; returns whether it was written."""
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return False
    with publish(path) as temporary:
        temporary.write_bytes(content)
    return True


def write_json(path: Path, value: Any) -> None:
    """Publish `value` as indented JSON in UTF-8."""
    with publish(path) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The value in the JSON file at `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def hash_of(value: Any) -> str:
    """SHA-256 in hex of a JSON-able value, the same for equal values whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise a `UserError` unless the disk of `folder` has `needed` bytes free."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"{purpose} needs about {needed / 1e9:.1f} GB in {folder}, and {free / 1e9:.1f} GB are free. "
            "Free some, or point [paths] in mousai.toml at another disk."
        )
