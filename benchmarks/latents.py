"""Latent batches with fresh prompts for the generator: our loader beside plain webdataset, on a core, in turn.

    python benchmarks/latents.py --python PEERS/loaders/bin/python [--chunks 2048] [--rounds 5]

The latents are noise in the shape of the paper's: [32, 2048] in fp16, 128 KiB a chunk, in the tars of encode-latents.
"""

import argparse
import io
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from results import OURS, compare, rates_of, take_turns, write_result
from rounds import started

from pipeline.records import LatentMember
from pipeline.tars import shard_name, write_shard

CHUNKS_PER_SHARD = 256
CHUNKS_PER_TRACK = 4
BATCH_SIZE, BATCHES = 32, 32
FACTS = {"title": "A title of a song", "artists": ["An Artist"], "album": "An Album (Deluxe Edition)",
         "album_artist": "An Artist", "genres": ["Rock", "Pop"], "year": 1999}  # fmt: skip


def latent_chunks(shard: int) -> Iterator[tuple[LatentMember, dict[str, bytes]]]:
    """A shard's worth of noise."""
    rng = np.random.default_rng(shard)
    for number in range(CHUNKS_PER_SHARD):
        track, index = divmod(number, CHUNKS_PER_TRACK)
        track_id = f"{shard:08x}{track:024x}"
        row = LatentMember(
            key=f"{track_id}_{index + 1:04}", track_id=track_id, index=index + 1, count=CHUNKS_PER_TRACK, frames=2048,
            valid_frames=2048, mean=[0.0] * 32, std=[1.0] * 32, offset=-1, size=0,
        )  # fmt: skip
        file = io.BytesIO()
        np.save(file, rng.standard_normal((32, 2048), np.float32).astype(np.float16))
        facts = FACTS | {"index": index + 1, "count": CHUNKS_PER_TRACK}
        yield row, {"npy": file.getvalue(), "json": json.dumps(facts).encode()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="the interpreter of the peers' environment")
    parser.add_argument("--chunks", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for shard in range(arguments.chunks // CHUNKS_PER_SHARD):
            write_shard(
                folder / "train", shard_name("train", shard), "train", "", latent_chunks(shard), lambda row: 1.0
            )
        kinds = {name: f"{name} latents" for name in (OURS, "webdataset")}
        with started(kinds, folder, arguments.python, BATCH_SIZE, BATCHES) as contestants:
            costs = take_turns(contestants, arguments.rounds)
    rates = rates_of(costs, BATCH_SIZE * BATCHES, "chunks/s, one process, one thread")
    write_result(
        "latents",
        title="latent batches with fresh prompts",
        work=f"{BATCH_SIZE * BATCHES} latents [32, 2048] in batches of {BATCH_SIZE}, each with a prompt drawn anew.",
        command="python benchmarks/latents.py --python PEERS/loaders/bin/python",
        goals=[{"name": "chunks/s a core", "goal": 5000, "value": round(statistics.median(rates[0]["cpu"]))}],
        comparisons=[compare(costs, "webdataset", "cpu", goal=2.0)],
        rates=rates,
        notes=["The files are in the page cache: a disk gives 640 MB/s at 5,000 chunks/s, or it decides."],
    )


if __name__ == "__main__":
    main()
