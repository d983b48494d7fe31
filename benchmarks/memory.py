"""Peak memory of the stages that read music, for a library and for one four times as large.

    python benchmarks/memory.py LIBRARY [--every 32]

Every 32nd track of LIBRARY, then every eighth. Each stage runs in a process of its own with two workers; its peak
and that of its largest worker are reported. The encoder of encode-latents is a stand-in: the model's own memory is not
the stage's.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
from files import LIMITS, link, tracks_of
from results import write_result

from mousai.presets import PAPER
from pipeline.chunks import ChunkPlan, update_chunks
from pipeline.encode_latents import Encoder, encode_latents
from pipeline.ingest import ingest
from pipeline.shard import shard

WORKERS = 2
PLAN = ChunkPlan(chunk_length=PAPER.chunk_length, divisor=PAPER.dmae.divisor, chunks_per_shard=16)


def find(space: Path) -> None:
    ingest([space / "music"], space / "manifests", workers=WORKERS, limits=LIMITS)


def pack(space: Path) -> None:
    update_chunks(space / "manifests", PLAN)
    shard(space / "manifests", space / "shards", workers=WORKERS, limits=LIMITS)


def encode(space: Path) -> None:
    hop = PAPER.dmae.hop
    encoder = Encoder(
        encode=lambda audio: np.zeros((len(audio), 32, audio.shape[2] // hop), np.float32),
        id="stand-in", hop=hop, divisor=PAPER.dmae.divisor,
    )  # fmt: skip
    encode_latents(space / "shards", space / "latents", encoder, batch_size=4, workers=WORKERS)


def load(space: Path) -> None:
    from pipeline.load import audio_batches  # brings torch, which the workers of the other stages do without

    batches = audio_batches(space / "shards", length=2**18, batch_size=8, seed=0, workers=WORKERS)(0)
    for _ in islice(batches, 20):
        pass


STAGES: dict[str, Callable[[Path], None]] = {
    "ingest": find, "shard": pack, "encode-latents": encode, "20 batches of 8 crops": load,
}  # fmt: skip


def peaks_of(stage: str, space: Path) -> dict[str, int]:
    """MB at most: of a process that runs the stage, and of its largest worker."""
    command = [sys.executable, __file__, str(space), "--stage", stage]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("--every", type=int, default=32)
    parser.add_argument("--stage", help="run one stage in the workspace LIBRARY, in this process")
    arguments = parser.parse_args()
    if arguments.stage:
        STAGES[arguments.stage](arguments.library)
        for child in multiprocessing.active_children():  # what a worker used is known once it has ended
            child.join()
        usages = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        print(json.dumps({"itself": round(usages[0] / 1024), "largest worker": round(usages[1] / 1024)}))
        return
    rows = []
    for every in (arguments.every, arguments.every // 4):
        tracks = tracks_of(arguments.library)[::every]
        with tempfile.TemporaryDirectory(dir=arguments.library.parent) as scratch:
            link(tracks, Path(scratch) / "music", len(tracks))
            for stage in STAGES:
                peaks = {f"{name}, MB": peak for name, peak in peaks_of(stage, Path(scratch)).items()}
                rows.append({"stage": stage, "tracks": len(tracks), **peaks})
                print(rows[-1], flush=True)
    rows.sort(key=lambda row: list(STAGES).index(str(row["stage"])))
    write_result(
        "memory",
        title="peak memory of the stages",
        work="The same stages for some tracks of the benchmark library and for four times as many, with two workers.",
        command="python benchmarks/memory.py LIBRARY",
        rows=rows,
        notes=[
            "A worker of shard keeps up to 64 MB of one track and a chunk: longer tracks take more, up to that bound."
        ],
    )


if __name__ == "__main__":
    main()
