"""Tags of five thousand real files: our ingest beside a plain mutagen loop and beets, in turn.

    python benchmarks/files.py links LIBRARY FOLDER --count 5000
    python benchmarks/tags.py FOLDER --beet PEERS/beets/bin/beet [--rounds 3]

The loop opens each file with mutagen and looks at its tags, in one process. Ours and beets also write what they found.
"""

import argparse
import functools
import os
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path

import mutagen
from files import LIMITS, tracks_of
from results import OURS, compare, measure, rates_of, take_turns, write_result

from pipeline.ingest import ingest

ALONE = f"{OURS}, one process"
AGAIN = f"{OURS}, again"
LOOP = "mutagen loop"
BEETS = "beet import -A"
CONFIG = "import: {copy: no, write: no, duplicate_action: keep, resume: no, quiet: yes}\nplugins: []\n"


def read_tags_of(folder: Path) -> int:
    """How many files have tags."""
    return sum(bool(getattr(mutagen.File(path), "tags", None)) for path in tracks_of(folder))


def scan(folder: Path, manifests: Path, workers: int, *, anew: bool = True) -> None:
    if anew:
        shutil.rmtree(manifests, ignore_errors=True)
    limits = LIMITS if workers > 1 else None
    done = ingest([folder], manifests, workers=workers, tags_only=True, limits=limits)
    assert done.changed == anew


def beet_import(folder: Path, scratch: Path, beet: str) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    (scratch / "config.yaml").write_text(CONFIG, encoding="utf-8")
    library = ["-d", str(scratch), "-l", str(scratch / "library.db")]
    command = [beet, *library, "import", "-A", "-C", "-W", "-q", str(folder)]
    environment = os.environ | {"BEETSDIR": str(scratch)}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with sqlite3.connect(scratch / "library.db") as database:
        ((count,),) = database.execute("select count(*) from items")
    assert count == len(tracks_of(folder)), f"beets took {count} files only"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--beet", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    folder, count = arguments.folder, len(tracks_of(arguments.folder))
    with tempfile.TemporaryDirectory() as scratch:
        manifests = Path(scratch) / "manifests"
        read_tags_of(folder)  # into the page cache
        scan(folder, manifests, 1)
        works = {
            OURS: functools.partial(scan, folder, manifests, 2),
            AGAIN: functools.partial(scan, folder, manifests, 2, anew=False),
            ALONE: functools.partial(scan, folder, Path(scratch) / "alone", 1),
            LOOP: functools.partial(read_tags_of, folder),
            BEETS: functools.partial(beet_import, folder, Path(scratch) / "beets", arguments.beet),
        }
        contestants = {name: functools.partial(measure, work) for name, work in works.items()}
        costs = take_turns(contestants, arguments.rounds)
    write_result(
        "tags",
        title=f"tags of {count:,} files",
        work=f"{count:,} links to whole tracks of the benchmark library (Ogg Vorbis), read and written to a table.",
        command="python benchmarks/tags.py FOLDER --beet PEERS/beets/bin/beet",
        comparisons=[
            compare(costs, LOOP, "wall", goal=1.2),
            compare(costs, BEETS, "wall", goal=5.0),
            compare(costs, LOOP, "cpu", goal=None, ours=ALONE),
        ],
        rates=rates_of(costs, count, "files/s"),
        notes=[
            f"{OURS} runs two processes, which take about a second to start: that is most of what it takes here.",
            "The loop reads tags and keeps nothing. mousai opens the file by content, cleans and normalises, keeps the",
            "raw tags as JSON, asks afterwards whether the file has changed, and writes the table.",
        ],
    )


if __name__ == "__main__":
    main()
