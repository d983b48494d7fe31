"""Random crops for the DMAE: our loader beside those of others, on a core, in turn.

    python benchmarks/crops.py SHARDS --python PEERS/loaders/bin/python [--rounds 5]

SHARDS is a workspace's folder of audio shards, with chunks of 2^21 samples; benchmarks/peers.sh makes the environment
of the peers. Everybody reads the same chunks: from the tars, or as files that are unpacked from them.
"""

import argparse
import statistics
import tarfile
import tempfile
from pathlib import Path

from results import OURS, compare, rates_of, take_turns, write_result
from rounds import started

PEERS = ["webdataset", "stable-audio-tools", "audio-data-pytorch"]
BATCH_SIZE, BATCHES = 8, 12
SECONDS = BATCH_SIZE * BATCHES * 2**18 / 48_000  # of audio in a round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--python", required=True, help="the interpreter of the peers' environment")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.shards) as scratch:
        folder = Path(scratch)
        (folder / "train").symlink_to((arguments.shards / "train").resolve())
        for tar in sorted((folder / "train").glob("*.tar")):
            with tarfile.open(tar) as file:
                file.extractall(folder / "files", [each for each in file if each.name.endswith(".flac")], filter="data")
        kinds = {name: f"{name} crops" for name in [OURS, *PEERS]}
        with started(kinds, folder, arguments.python, BATCH_SIZE, BATCHES) as contestants:
            costs = take_turns(contestants, arguments.rounds)
    rates = rates_of(costs, SECONDS, "times real time, one process, one thread")
    write_result(
        "crops",
        title="random crops of 2^18 samples",
        work=f"{BATCH_SIZE * BATCHES} random crops of 2^18 samples (5.5 s, stereo, 48 kHz) out of FLAC chunks of 2^21.",
        command="python benchmarks/crops.py SHARDS --python PEERS/loaders/bin/python",
        goals=[{"name": "times real time a core", "goal": 300, "value": round(statistics.median(rates[0]["cpu"]))}],
        comparisons=[compare(costs, peer, "cpu", goal=3.0) for peer in PEERS],
        rates=rates,
        notes=[
            "webdataset and stable-audio-tools decode a whole chunk to keep an eighth of it. audio-data-pytorch seeks",
            "in files, as mousai does in tars: both wait for the same decoder, libFLAC, most of what mousai takes.",
            "With torchaudio 2.9 or later audio-data-pytorch never ends: it takes the missing `torchaudio.info` for",
            "bad files. Here it has what it wants, as torchaudio's soundfile backend was until 2.8.",
        ],
    )


if __name__ == "__main__":
    main()
