"""What the quality figures cost, and how well they agree with FFmpeg's, on real music.

    python benchmarks/quality.py FOLDER [--every 1] [--seconds 120]

Decodes the first seconds of every n-th file, then measures the same blocks by turns with all figures of ours and with
FFmpeg's `ebur128=peak=true`, which gives loudness, loudness range and true peak alone. Times are CPU time of one
thread. Prints JSON.
"""

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from mousai.audio import SAMPLE_RATE, Waveform
from pipeline.decode import AUDIO_SUFFIXES, stereo_blocks
from pipeline.quality import Quality, QualityMeter


def ours(blocks: Sequence[Waveform]) -> Quality:
    meter = QualityMeter()
    for block in blocks:
        meter.update(block)
    return meter.finish(None)


def ffmpeg(blocks: Sequence[Waveform]) -> dict[str, float]:
    """The last metadata of the filter, by their names without the prefix."""
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=SAMPLE_RATE, format="fltp", layout="stereo")
    meter, sink = graph.add("ebur128", "metadata=1:peak=true"), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    found: dict[str, str] = {}

    def pull() -> None:
        while True:
            try:
                found.update(sink.pull().metadata)
            except (av.EOFError, av.BlockingIOError):
                return

    for block in blocks:
        frame = av.AudioFrame.from_ndarray(block, "fltp", "stereo")
        frame.sample_rate = SAMPLE_RATE
        source.push(frame)
        pull()
    source.push(None)
    pull()
    return {name.removeprefix("lavfi.r128."): float(value) for name, value in found.items()}


def timed(measure: Callable[[Sequence[Waveform]], Any], blocks: Sequence[Waveform]) -> tuple[Any, float]:
    start = time.thread_time()
    return measure(blocks), time.thread_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=120)
    args = parser.parse_args()
    files = sorted(path for path in args.folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)[:: args.every]
    seconds, spent = 0.0, {"ours": 0.0, "ffmpeg": 0.0}
    apart: dict[str, list[float]] = {"loudness (LU)": [], "loudness range (LU)": [], "true peak (dB)": []}
    for path in files:
        with path.open("rb") as file:
            blocks = list(itertools.islice(stereo_blocks(file), args.seconds))
        seconds += sum(block.shape[1] for block in blocks) / SAMPLE_RATE
        found, cost = timed(ours, blocks)
        spent["ours"] += cost
        theirs, cost = timed(ffmpeg, blocks)
        spent["ffmpeg"] += cost
        if found.loudness is not None and found.loudness_range is not None:
            apart["loudness (LU)"].append(found.loudness - theirs["I"])
            apart["loudness range (LU)"].append(found.loudness_range - theirs["LRA"])
            apart["true peak (dB)"].append(20 * math.log10(found.true_peak / theirs["true_peak"]))
    result = {
        "files": len(files),
        "seconds": round(seconds),
        "times real time": {name: round(seconds / cost) for name, cost in spent.items()},
        "largest difference": {name: round(float(np.abs(each).max()), 3) for name, each in apart.items()},
        "median difference": {name: round(float(np.median(np.abs(each))), 3) for name, each in apart.items()},
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
