"""Is it gone? A search of all files of a workspace for the ids of tracks, by what they hold, not by what wrote them.

Tables are searched by value, tars by the names of their members, everything else by its name and its text. Audio and
weights hold no ids inside; what a run was trained on is told by `mousai.lineage`.
"""

import gzip
import os
import re
import shlex
import tarfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mousai.storage import read_json

_ID = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_NO_TEXT = {".wav", ".flac", ".png", ".safetensors"}
_BLOCK = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a search has found."""

    num_files: int
    num_ids: int
    found: dict[str, int]  # file -> how many of the ids are in it; empty: all of them are gone
    unreadable: tuple[str, ...]  # files that nothing can be said of
    cards: tuple[str, ...] = ()  # dataset cards of exports that hold some: they have no ids, but names

    @property
    def left(self) -> tuple[str, ...]:
        """All files that have to go."""
        return tuple(dict.fromkeys([*self.found, *self.unreadable, *self.cards]))

    @property
    def holds(self) -> bool:
        """Whether every file was read and none held any of the ids."""
        return not self.left


@dataclass(frozen=True, kw_only=True)
class Left:
    """What a search has found in one folder of the workspace."""

    folder: str  # below the workspace
    files: tuple[str, ...]
    cure: str


def by_folder(proof: Proof, workspace: Path) -> list[Left]:
    """What is left, by folder: an export, a run, the latents of an encoder, …"""
    files: dict[Path, list[str]] = {}
    for file in proof.left:
        parts = Path(file).relative_to(workspace).parts
        files.setdefault(workspace.joinpath(*parts[: min(2, len(parts) - 1)]), []).append(file)
    return [
        Left(folder=str(folder.relative_to(workspace)), files=tuple(of_folder), cure=_cure(folder, of_folder))
        for folder, of_folder in files.items()
    ]


def _cure(folder: Path, files: Sequence[str]) -> str:
    try:
        export_format = read_json(folder / "export.json")["format"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"delete {Path(files[0]).relative_to(folder)}" + (f" and {len(files) - 1} more" if files[1:] else "")
    if [Path(file).name for file in files] == ["README.md"]:
        return "delete README.md, the card"  # edited: an export would leave it as it is
    out = "" if folder.name == export_format else f" --out {shlex.quote(str(folder))}"
    return f"make it anew with mousai export --format {export_format}{out}, or delete it"


def search(folders: Iterable[Path], ids: Collection[str], exempt: Collection[str]) -> Proof:
    """Look for `ids` in all files below `folders` but those with an `exempt` name."""
    wanted = frozenset(ids)
    num_files, found, unreadable = 0, {}, []
    for path in _files(folders, exempt):
        num_files += 1
        try:
            held = wanted.intersection(_ids_in(path))
        except (OSError, pa.ArrowInvalid, tarfile.TarError):
            unreadable.append(str(path))
            continue
        if held:
            found[str(path)] = len(held)
    return Proof(num_files=num_files, num_ids=len(wanted), found=found, unreadable=tuple(unreadable))


def _files(folders: Iterable[Path], exempt: Collection[str]) -> Iterator[Path]:
    for folder in sorted(set(folders)):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name not in exempt:
                yield path


def _ids_in(path: Path) -> Iterator[str]:
    """All that may be a track id in a file's name and in the file."""
    yield from (match[0].decode() for match in _ID.finditer(os.fsencode(path.name)))
    if path.suffix in _NO_TEXT:
        return
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches():
                for column in batch.columns:
                    yield from _ids_in_column(column)
    elif path.suffix == ".tar":
        with tarfile.open(path, "r:") as tar:
            yield from (member.name[:32] for member in tar)
    else:
        yield from _ids_in_bytes(path)


def _ids_in_column(column: pa.Array) -> Iterator[str]:
    if pa.types.is_list(column.type):
        column = pc.list_flatten(column)
    if pa.types.is_string(column.type):  # a chunk's key begins with the id
        yield from (value for value in pc.utf8_slice_codeunits(column.unique(), 0, 32).to_pylist() if value)


def _ids_in_bytes(path: Path) -> Iterator[str]:
    rest = b""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while block := file.read(_BLOCK):
            text = rest + block
            yield from (match[0].decode() for match in _ID.finditer(text))
            rest = text[-32:]
