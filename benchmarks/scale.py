"""How the stages that read tables bear a library of a million tracks: seconds and peak memory of each.

    python benchmarks/scale.py [--tracks 1000000]

The library is invented: tags and lengths, no audio. Each stage runs in a process of its own.
"""

import argparse
import hashlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from results import write_result

from mousai.presets import PAPER
from pipeline.chunks import ChunkPlan, spread_chunks, update_chunks
from pipeline.manifest import read_table, write_table
from pipeline.prompts import draw_prompt, top_keywords, tracks_by_id
from pipeline.records import Rejected, Track, schema
from pipeline.report import read_report
from pipeline.report_page import write_report
from pipeline.shard import plan_shards

PLAN = ChunkPlan(
    chunk_length=PAPER.chunk_length,
    divisor=PAPER.dmae.divisor,
    chunks_per_shard=PAPER.chunks_per_shard,
    validation_share=PAPER.validation_share,
)
ALBUM = 10  # tracks


def invent_tracks(count: int) -> Iterator[Track]:
    """Tracks in albums of ten, of a few prolific and many rare artists; the same for the same count."""
    generator = random.Random(0)
    syllables = [a + b + c for a in "bdfgklmnprstvw" for b in "aeiou" for c in ("", "n", "r", "s", "l")]
    words = ["".join(generator.choices(syllables, k=generator.randint(1, 3))) for _ in range(40_000)]
    artists = [" ".join(generator.choices(words, k=2)).title() for _ in range(max(2, count // 40))]
    genres = [" ".join(generator.choices(words, k=1)).title() for _ in range(300)]
    blank = {field.name: _blank(field) for field in schema(Track)}
    for number in range(count):
        if number % ALBUM == 0:
            artist = artists[int(len(artists) * generator.random() ** 2)]
            album = " ".join(generator.choices(words, k=generator.randint(1, 4))).capitalize()
            genre, year = generator.choice(genres), generator.randint(1955, 2025)
        title = " ".join(generator.choices(words, k=generator.randint(1, 5))).capitalize()
        guests = [generator.choice(artists)] if generator.random() < 0.1 else []
        path = f"/srv/music/{number // 10_000:03}/{artist}/{year} - {album}/{number:07} {title}.flac"
        length = int(generator.lognormvariate(5.4, 0.4) * 48_000)
        tags = {"ALBUM": [album], "ARTIST": [artist], "DATE": [str(year)], "GENRE": [genre], "TITLE": [title]}
        known = {
            "path": path, "raw_path": path.encode(), "library": "/srv/music", "size": length // 2,
            "mtime_ns": 1_600_000_000_000_000_000 + number * 1_000_003,
            "id": hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest(),
            "container": "flac", "codec": "flac", "header_duration": length / 48_000, "decoded_length": length,
            "length": length, "sample_rate": 48_000, "channels": 2, "mix": "stereo", "peak": generator.random(),
            "decode_errors": 0, "title": title, "artists": [artist, *guests], "album": album, "album_artist": artist,
            "genres": [genre], "year": year, "raw_tags": json.dumps(tags),
        }  # fmt: skip
        yield Track(**(blank | known))


def _blank(field: pa.Field) -> Any:
    """Null, or where a column cannot be null, nothing of its type."""
    if field.nullable:
        return None
    if pa.types.is_list(field.type):
        return []
    return {"string": "", "binary": b"", "int64": 0, "double": 0.0, "bool": False}[str(field.type)]


def invent(manifests: Path, count: int) -> str:
    write_table(manifests / "tracks.parquet", Track, invent_tracks(count), libraries=["/srv/music"])
    write_table(manifests / "rejected.parquet", Rejected, [])
    return f"{(manifests / 'tracks.parquet').stat().st_size / 1e6:.0f} MB"


def plan(manifests: Path, count: int) -> str:
    done = update_chunks(manifests, PLAN)
    assert done.num_tracks == count
    return f"{done.num_chunks:,} chunks in {done.num_shards:,} shards, {done.num_groups:,} groups"


def show_prompts(manifests: Path, count: int) -> str:
    tracks = tracks_by_id(read_table(manifests / "tracks.parquet", Track))
    keywords = top_keywords(list(tracks.values()), 100)
    chunks = spread_chunks(manifests, pq.read_metadata(manifests / "chunks.parquet").num_rows, 10_000)
    for chunk in chunks:
        draw_prompt(tracks[chunk.track_id], chunk.index, chunk.count, seed=0, step=0)
    return f"{len(chunks):,} prompts drawn, {len(keywords)} keywords"


def plan_jobs(manifests: Path, count: int) -> str:
    jobs = plan_shards(manifests, manifests, "flac")
    return f"{len(jobs):,} jobs, {sum(job.estimated_bytes for job in jobs) / 1e12:.1f} TB of FLAC"


def report(manifests: Path, count: int) -> str:
    figures = read_report(manifests, manifests / "no-shards", None)
    assert figures.library.tracks == count
    write_report(manifests / "report.html", figures, {})
    return f"a page of {(manifests / 'report.html').stat().st_size / 1e3:.0f} kB"


STAGES: dict[str, Callable[[Path, int], str]] = {
    "invent the library": invent,
    "plan chunks and splits": plan,
    "plan them again": plan,
    "keywords and prompts": show_prompts,
    "plan the shards": plan_jobs,
    "report": report,
}


def run_stage(name: str, manifests: Path, count: int) -> None:
    """One stage in this process; what it took as JSON."""
    started = time.perf_counter()
    found = STAGES[name](manifests, count)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "stage": name,
                "found": found,
                "seconds": round(time.perf_counter() - started, 1),
                "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
                "peak_gib": round(usage.ru_maxrss / 2**20, 2),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--stage", nargs=2, metavar=("NAME", "MANIFESTS"), help="run one stage only, in this process")
    arguments = parser.parse_args()
    if arguments.stage:
        return run_stage(arguments.stage[0], Path(arguments.stage[1]), arguments.tracks)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as manifests:
        for name in STAGES:
            command = [sys.executable, __file__, "--tracks", str(arguments.tracks), "--stage", name, manifests]
            rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
            print(rows[-1], flush=True)
    write_result(
        "scale",
        title="a library of a million tracks",
        command=f"python benchmarks/scale.py --tracks {arguments.tracks}",
        work=f"An invented library of {arguments.tracks:,} tracks through the stages that read tables only.",
        goals=[{"name": "most memory, GiB", "goal": 4, "value": max(row["peak_gib"] for row in rows), "at_most": True}],
        rows=rows,
    )


if __name__ == "__main__":
    main()
