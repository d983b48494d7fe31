"""From music to 48 kHz FLAC in tars: our stages beside one `ffmpeg` process a file and `tar`, in turn.

    python benchmarks/shard.py LIBRARY --ffmpeg PEERS/ffmpeg [--every 8] [--rounds 3]

LIBRARY holds music, of which every eighth track is used. Both read the same files, resample with soxr and use two
processes. Ours also cuts, scales by the peak, hashes, and writes what the tags say; `ingest` before it decodes
everything once more, to measure it.
"""

import argparse
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from files import LIMITS, link, tracks_of
from results import OURS, compare, measure, rates_of, take_turns, write_result

from mousai.presets import PAPER
from pipeline.chunks import ChunkPlan, update_chunks
from pipeline.ingest import ingest
from pipeline.shard import shard

WITH = f"{OURS}, ingest and shard"
INGEST = f"{OURS}, ingest alone"
FFMPEG = "ffmpeg and tar"
PROCESSES = 2
PLAN = ChunkPlan(chunk_length=PAPER.chunk_length, divisor=PAPER.dmae.divisor, chunks_per_shard=32)


def measure_music(library: Path, manifests: Path) -> float:
    """`ingest`: seconds of music found."""
    shutil.rmtree(manifests, ignore_errors=True)
    return ingest([library], manifests, workers=PROCESSES, limits=LIMITS).duration


def make_shards(manifests: Path, shards: Path) -> int:
    """`shard`: bytes written."""
    shutil.rmtree(shards, ignore_errors=True)
    update_chunks(manifests, PLAN)
    return shard(manifests, shards, workers=PROCESSES, limits=LIMITS).bytes


def do_both(library: Path, manifests: Path, shards: Path) -> None:
    measure_music(library, manifests)
    make_shards(manifests, shards)


def convert(library: Path, folder: Path, ffmpeg: str) -> None:
    """One ffmpeg process a file over xargs, then tar."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    script = (
        f'find {library} -type f | xargs -P{PROCESSES} -I@ sh -c \'{ffmpeg} -nostdin -v error -threads 1 -i "@" -vn'
        f' -af aresample=48000:resampler=soxr -ac 2 -sample_fmt s16 {folder}/$(basename "@").flac\''
        f" && tar -cf {folder}.tar -C {folder} ."
    )
    subprocess.run(["sh", "-c", script], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("--ffmpeg", default="ffmpeg")
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    tracks = tracks_of(arguments.library)[:: arguments.every]
    with tempfile.TemporaryDirectory(dir=arguments.library.parent) as scratch:
        library, manifests, shards = (Path(scratch) / name for name in ("library", "manifests", "shards"))
        link(tracks, library, len(tracks))
        duration = measure_music(library, manifests)  # into the page cache as well
        written = make_shards(manifests, shards)
        works = {
            OURS: functools.partial(make_shards, manifests, shards),
            WITH: functools.partial(do_both, library, Path(scratch) / "anew", Path(scratch) / "both"),
            INGEST: functools.partial(measure_music, library, Path(scratch) / "alone"),
            FFMPEG: functools.partial(convert, library, Path(scratch) / "flac", arguments.ffmpeg),
        }
        contestants = {name: functools.partial(measure, work) for name, work in works.items()}
        costs = take_turns(contestants, arguments.rounds)
    write_result(
        "shard",
        title="music to 48 kHz FLAC in tars",
        work=f"{len(tracks)} tracks, {duration / 60:.0f} min of Ogg Vorbis, to 16-bit FLAC in tars; two processes.",
        command=f"python benchmarks/shard.py LIBRARY --ffmpeg PEERS/ffmpeg --every {arguments.every}",
        duration=round(duration, 3),
        bytes_per_second=round(written / duration),
        comparisons=[
            compare(costs, FFMPEG, "cpu", goal=1.0),
            compare(costs, FFMPEG, "cpu", goal=0.6, ours=WITH),
            compare(costs, FFMPEG, "wall", goal=None),
            compare(costs, FFMPEG, "wall", goal=None, ours=WITH),
        ],
        rates=rates_of(costs, duration, "times real time"),
    )


if __name__ == "__main__":
    main()
