"""Ingest of many small files: is the last thousand as fast as the first, and does memory stay flat?

    python benchmarks/files.py pieces LIBRARY FOLDER --count 20000
    python benchmarks/ingest.py FOLDER [--workers 2]

Reports rate and memory after every twentieth of the files, and how long it takes to look again at all of them.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from files import LIMITS, tracks_of
from results import measure, write_result

import pipeline.ingest as stage

PARTS = 20


def resident(pid: int | str = "self") -> float:
    """MB of memory that a process holds; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * 4096 / 1e6
    except OSError:
        return 0.0


def watched(rows: list[dict[str, float]]) -> Callable[..., object]:
    """A stand-in for `progress` that notes rate and memory of every part."""

    @contextmanager
    def progress(what: str, total: int, unit: str = "") -> Iterator[Callable[..., None]]:
        done, most, started = 0, 0.0, time.perf_counter()

        def advance(count: int, note: str = "") -> None:
            nonlocal done, most, started
            done += count
            most = max([most, *(resident(child.pid or 0) for child in multiprocessing.active_children())])
            if done >= total * (len(rows) + 1) / PARTS:
                now = time.perf_counter()
                rows.append({
                    "files": done,
                    "files/s": round(total / PARTS / (now - started), 1),
                    "MB, this process": round(resident()),
                    "MB, largest worker": round(most),
                })  # fmt: skip
                started, most = now, 0.0

        yield advance

    return progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    count = len(tracks_of(arguments.folder))
    rows: list[dict[str, float]] = []
    stage.progress = watched(rows)  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as manifests:

        def scan() -> None:
            stage.ingest([arguments.folder], Path(manifests), workers=arguments.workers, limits=LIMITS)

        anew = measure(scan)
        again = [measure(scan) for _ in range(3)]
    ratios = [round(anew.wall / each.wall, 1) for each in again]
    write_result(
        "ingest",
        title=f"ingest of {count:,} small files, and again",
        work=f"{count:,} pieces of real tracks, 1 to 2 s, in FLAC, WAV, MP3 and Vorbis; {arguments.workers} processes.",
        command="python benchmarks/ingest.py FOLDER",
        comparisons=[
            {"ours": "mousai, again", "peer": "mousai, the first time", "clock": "wall", "goal": 50, "ratios": ratios}
        ],
        rows=rows,
        notes=[
            f"The first time took {anew.wall:.1f} s, again {min(each.wall for each in again):.2f} s.",
            "What grows in this process is the rows of the table.",
        ],
    )


if __name__ == "__main__":
    main()
