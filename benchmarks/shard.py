"""How fast audio becomes 48 kHz FLAC: our sharding beside one `ffmpeg` process a file, on one core, in the same run.

    python benchmarks/shard.py FOLDER [--repeats 3]

FOLDER holds music. Both read the same files; ours cuts, scales by the peak and packs as well. Prints real-time factors
and their ratio, median over the repeats, one after the other in turn.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from mousai.presets import PAPER
from pipeline.chunks import ChunkPlan, update_chunks
from pipeline.ingest import ingest
from pipeline.manifest import read_table
from pipeline.records import Track
from pipeline.shard import shard


def ours(manifests: Path, shards: Path) -> float:
    """Seconds to make all shards anew."""
    shutil.rmtree(shards, ignore_errors=True)
    started = time.perf_counter()
    shard(manifests, shards, workers=1)
    return time.perf_counter() - started


def theirs(paths: list[str], folder: Path) -> float:
    """Seconds for ffmpeg to write each file as 48 kHz stereo 16-bit FLAC, resampled by soxr as ours."""
    started = time.perf_counter()
    for number, path in enumerate(paths):
        resample = ["-af", "aresample=48000:resampler=soxr", "-ac", "2", "-sample_fmt", "s16"]
        quiet = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-threads", "1"]
        command = [*quiet, "-i", path, "-vn", *resample, str(folder / f"{number}.flac")]
        subprocess.run(command, check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if shutil.which("ffmpeg") is None:
        raise SystemExit("ffmpeg is not installed: it is what this compares with")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as scratch:
        manifests = Path(scratch) / "manifests"
        started = time.perf_counter()
        done = ingest([arguments.folder], manifests, workers=1)
        print(
            f"ingest: {done.duration / (time.perf_counter() - started):.0f} x real time, {done.duration / 60:.1f} min"
        )
        plan = ChunkPlan(chunk_length=PAPER.chunk_length, divisor=PAPER.dmae.divisor, chunks_per_shard=256)
        update_chunks(manifests, plan)
        paths = [track.path for track in read_table(manifests / "tracks.parquet", Track)]
        ours(manifests, Path(scratch) / "shards")  # warms the page cache and the imports
        pairs = [
            (ours(manifests, Path(scratch) / "shards"), theirs(paths, Path(scratch))) for _ in range(arguments.repeats)
        ]
    mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"shard:  {done.duration / mine:.0f} x real time")
    print(f"ffmpeg: {done.duration / other:.0f} x real time")
    print(f"ours / ffmpeg: {statistics.median(b / a for a, b in pairs):.2f} times as fast")


if __name__ == "__main__":
    main()
