"""What is there: the files below the libraries, and the folders that cannot be looked into."""

import errno
import os
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mousai.errors import UserError
from pipeline.decode import AUDIO_SUFFIXES, HEAD_BYTES, is_apple_double, looks_like_audio
from pipeline.records import Reason, Rejected, Track

_Rows = Mapping[bytes, Track | Rejected]  # by raw path


@dataclass(frozen=True, kw_only=True)
class File:
    """A file as the walk saw it."""

    path: Path
    library: str  # as shown in the tables
    size: int = 0
    mtime_ns: int = 0


def outermost(libraries: Sequence[Path]) -> list[Path]:
    """The libraries as absolute paths, without those that lie in another one, sorted."""
    absolute = sorted({library.expanduser().resolve() for library in libraries})
    return [path for path in absolute if not any(other in path.parents for other in absolute)]


def is_within(raw_path: bytes, library: Path) -> bool:
    """Whether a file is the library, or lies in it."""
    raw_library = os.fsencode(library)
    return raw_path == raw_library or raw_path.startswith(raw_library.rstrip(b"/") + b"/")


def walk_all(roots: Sequence[Path], libraries: Sequence[Path], old: _Rows) -> tuple[list[File], list[Track | Rejected]]:
    """All files below `roots`, and rows for what cannot be looked into.

    UserError for a root that is missing or unreadable, or shows none of the tracks that `old` knows there.
    """
    files: list[File] = []
    rows: list[Track | Rejected] = []
    for root in roots:
        (library,) = (library for library in libraries if library == root or library in root.parents)
        found = list(_walk(root, shown(library), rows.append))
        had = {path for path, row in old.items() if isinstance(row, Track) and is_within(path, root)}
        if had and not any(os.fsencode(file.path) in had or _is_audio_by_name(file.path) for file in found):
            raise UserError(
                f"{root} held {len(had)} tracks and now shows no audio, so nothing was changed. Mount its disk; or if "
                f"they are gone for good, run: mousai remove --forget --path {shlex.quote(str(root))}"
            )
        files += found
    return files, rows


def out_of_sight(old: _Rows, rejected: Iterable[Track | Rejected]) -> list[Track | Rejected]:
    """The tracks in folders that cannot be looked into this time: they are not gone."""
    blind = [row.raw_path + b"/" for row in rejected]
    return [row for path, row in old.items() if isinstance(row, Track) and path.startswith(tuple(blind))]


def _walk(root: Path, library: str, reject: Callable[[Rejected], None]) -> Iterator[File]:
    """Regular files below `root`, links to files included, links to folders not."""

    def unreadable(error: OSError) -> None:
        if Path(error.filename) == root:
            raise UserError(f"{root}: {error.strerror}. Mount it, or name the folder of your music: mousai ingest DIR")
        reject(rejected_file(File(path=Path(error.filename), library=library), Reason.UNREADABLE, str(error.strerror)))

    folders: Iterable[tuple[str, list[str], list[str]]] = os.walk(root, onerror=unreadable)
    if root.is_file():
        folders = [(str(root.parent), [], [root.name])]
    for folder, inner, names in folders:
        inner.sort()
        for name in sorted(names):
            path = Path(folder, name)
            try:
                status = path.stat()
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ELOOP):  # broken links are nothing
                    unreadable(error)
                continue
            if stat.S_ISREG(status.st_mode):
                yield File(path=path, library=library, size=status.st_size, mtime_ns=status.st_mtime_ns)


def _is_audio_by_name(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES


def is_other(path: Path) -> bool:
    """Whether a file is no audio and does not pretend to be; AppleDouble beside a song is no pretence."""
    named_audio = _is_audio_by_name(path)
    if named_audio and not path.name.startswith("._"):
        return False
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:
        return not named_audio
    return not looks_like_audio(head, path.suffix) and (not named_audio or is_apple_double(head))


def rejected_file(file: File, reason: Reason, detail: str) -> Rejected:
    """The row of a file that cannot be used; `detail` may hold what is no text."""
    return Rejected(
        path=shown(file.path),
        raw_path=os.fsencode(file.path),
        library=file.library,
        size=file.size,
        mtime_ns=file.mtime_ns,
        reason=reason.value,
        detail=detail.encode("utf-8", "backslashreplace").decode(),
    )


def shown(path: Path) -> str:
    """A path for people and Parquet: bytes that are not UTF-8 as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
