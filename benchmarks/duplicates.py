"""How well copies are told from other music, and what it costs in a large library.

    python benchmarks/duplicates.py copies FOLDER [--tracks 40] [--seconds 60]
    python benchmarks/duplicates.py others MANIFESTS
    python benchmarks/duplicates.py scale [--tracks 1000000] [--copies 50000]

`copies` takes the first seconds of real tracks, makes lossy, quieter, trimmed and mono copies of them, and counts what
`compare` and the index find, and how many pairs of different tracks are called the same. `others` prints the pairs
that ingest has found in a real library, to be listened to. `scale` plants worn copies among random fingerprints.
"""

import argparse
import io
import itertools
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import av
import numpy as np
import soundfile

from mousai.audio import SAMPLE_RATE, Waveform
from pipeline.decode import stereo_blocks
from pipeline.duplicates import FILE, find_alike, from_record, is_same, to_record
from pipeline.fingerprint import VERSION, Landmarks, Listener, compare
from pipeline.manifest import iter_table, read_table, write_table
from pipeline.records import Fingerprint, Track

Prints = dict[str, Landmarks]  # by kind of copy


def lossy(
    audio: Waveform, codec: str, container: str, kbits: int, rate: int = SAMPLE_RATE, mono: bool = False
) -> Waveform:
    """[2, T] through an encoder of FFmpeg's and back."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.bit_rate = kbits * 1000
        stream.layout = "mono" if mono else "stereo"
        resampler = av.AudioResampler(stream.format, stream.layout, rate, stream.frame_size)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio), "fltp", "stereo")
        frame.sample_rate = SAMPLE_RATE
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            file.mux(stream.encode(piece))
    buffer.seek(0)
    return np.concatenate(list(stereo_blocks(buffer)), axis=1)


def vorbis(audio: Waveform, quality: float) -> Waveform:
    buffer = io.BytesIO()
    settings = {"format": "OGG", "subtype": "VORBIS", "compression_level": 1 - quality}
    with soundfile.SoundFile(buffer, "w", SAMPLE_RATE, 2, **settings) as file:
        for start in range(0, audio.shape[1], SAMPLE_RATE):  # libsndfile crashes at long blocks
            file.write(audio[:, start : start + SAMPLE_RATE].T)
    buffer.seek(0)
    return np.concatenate(list(stereo_blocks(buffer)), axis=1)


def trimmed(audio: Waveform, seconds: float) -> Waveform:
    return audio[:, round(seconds * SAMPLE_RATE) :]


COPIES: dict[str, Callable[[Waveform], Waveform]] = {
    "MP3 320 kbit/s": lambda a: lossy(a, "libmp3lame", "mp3", 320),
    "MP3 64 kbit/s": lambda a: lossy(a, "libmp3lame", "mp3", 64),
    "MP3 128 kbit/s, -9 dB, 3.03 s cut at the head": lambda a: lossy(trimmed(a * 0.35, 3.03), "libmp3lame", "mp3", 128),
    "MP3 48 kbit/s mono at 22.05 kHz, -3 dB, 5.42 s cut": lambda a: lossy(
        trimmed(a * 0.7, 5.42), "libmp3lame", "mp3", 48, 22_050, mono=True
    ),
    "AAC 96 kbit/s, 1.02 s cut": lambda a: lossy(trimmed(a, 1.02), "aac", "adts", 96),
    "Opus 48 kbit/s": lambda a: lossy(a, "libopus", "ogg", 48),
    "Vorbis, quality 1": lambda a: vorbis(a, 0.1),
}


def listen(audio: Waveform) -> Landmarks:
    listener = Listener()
    for start in range(0, audio.shape[1], SAMPLE_RATE):
        listener.hear(audio[:, start : start + SAMPLE_RATE])
    return listener.landmarks()


def prints_of(path: Path, seconds: float) -> Prints:
    """The fingerprints of the first `seconds` of a file and of its copies."""
    blocks: list[Waveform] = []
    with path.open("rb") as file:
        for block in itertools.islice(stereo_blocks(file), round(seconds)):
            blocks.append(block)
    audio = np.concatenate(blocks, axis=1)
    audio = audio * min(1.0, 0.9 / float(np.abs(audio).max(initial=1e-9)))
    return {"original": listen(audio)} | {kind: listen(copy(audio)) for kind, copy in COPIES.items()}


def copies(folder: Path, num_tracks: int, seconds: float) -> None:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".ogg", ".mp3", ".flac", ".wav"))
    chosen = random.Random(0).sample(files, min(num_tracks, len(files)))
    with ProcessPoolExecutor(2) as pool:
        tracks = list(pool.map(prints_of, chosen, itertools.repeat(seconds)))
    print(f"{len(tracks)} tracks of {folder.name}, the first {seconds:g} s of each")
    print("| copy | same, of those | found by the index | share of landmarks: least, 5%, median |\n|---|---|---|---|")
    for kind in COPIES:
        pairs = [(track["original"], track[kind]) for track in tracks]
        likenesses = [compare(*pair) for pair in pairs]
        same = [found is not None and is_same(*pair, found) for pair, found in zip(pairs, likenesses, strict=True)]
        shares = [found.share if found else 0.0 for found in likenesses]
        indexed = sum(is_found(*pair) for pair in pairs)
        spread = " ".join(f"{quantile:.2f}" for quantile in np.quantile(shares, [0, 0.05, 0.5]))
        print(f"| {kind} | {sum(same)} of {len(same)} | {indexed} | {spread} |")
    count_errors(tracks, chosen)


def is_found(first: Landmarks, second: Landmarks) -> bool:
    """Whether the index leads from the one to the other and they are called the same."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / FILE
        write_table(path, Fingerprint, [to_record("a", first), to_record("b", second)], version=VERSION)
        return [same for *_, same in find_alike(path)] == [True]


def count_errors(tracks: list[Prints], files: list[Path]) -> None:
    """Pairs of different tracks, in all versions, that are called the same; and the closest of the others."""
    shares, wrong = [], set()
    for (here, first), (there, second) in itertools.combinations(enumerate(tracks), 2):
        for one, other in itertools.product(first.values(), second.values()):
            likeness = compare(one, other)
            if likeness is not None and is_same(one, other, likeness):
                wrong.add((files[here].name, files[there].name))
            elif likeness is not None and likeness.matched >= 3:
                shares.append(likeness.share)
    num_pairs = len(tracks) * (len(tracks) - 1) // 2 * (1 + len(COPIES)) ** 2
    print(f"{num_pairs} pairs of different tracks, the closest share {max(shares, default=0.0):.2f}; called the same:")
    for names in sorted(wrong):
        print("  ", *names)


def others(manifests: Path) -> None:
    """The pairs of a library that are alike, by name."""
    names: dict[str, list[str]] = {}
    for track in read_table(manifests / "tracks.parquet", Track):
        names.setdefault(track.id or "", []).append("/".join(Path(track.path).parts[-2:]))
    landmarks = {row.id: from_record(row) for row in iter_table(manifests / FILE, Fingerprint)}
    print(f"{sum(map(len, names.values()))} tracks")
    for ids in (each for each in names.values() if len(each) > 1):
        print("packets", *ids, sep=" | ")
    for first, second, same in find_alike(manifests / FILE):
        likeness = compare(landmarks[first], landmarks[second])
        assert likeness is not None
        kind = "same" if same else "family"
        measured = f"share {likeness.share:.2f}, {likeness.matched} landmarks, {likeness.overlap:.0f} s"
        print(kind, names[first][0], names[second][0], measured, sep=" | ")


def scale(num_tracks: int, num_copies: int) -> None:
    """Time and memory of finding `num_copies` worn copies among `num_tracks` random recordings of four minutes."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / FILE
        write_table(path, Fingerprint, crowd(generator, num_tracks, num_copies), version=VERSION)
        size = path.stat().st_size
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started, cpu = time.perf_counter(), time.process_time()
        found = [(first, second) for first, second, same in find_alike(path) if same]
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    wanted = {(f"{number:08}", f"{number:08}c") for number in range(num_copies)}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps({
            "tracks": num_tracks + num_copies, "copies": num_copies, "found": len(wanted & set(found)),
            "false": len(set(found) - wanted), "table_MB": round(size / 1e6), "seconds": round(wall),
            "cpu_seconds": round(cpu), "peak_MB": round(memory / 1e3), "peak_before_MB": round(before / 1e3),
        })
    )  # fmt: skip


def crowd(generator: np.random.Generator, num_tracks: int, num_copies: int) -> Iterator[Fingerprint]:
    """Random recordings of 170 landmarks with the entropy of real ones; the first ones have a copy each.

    A word of real music is guessed once in a million, as one of 20 random bits is: the other 12 repeat some of them.
    Of a copy's words a third are as they were, as at 64 kbit/s, and the others have two other bits.
    """
    for number in range(num_tracks):
        times = np.cumsum(generator.integers(15, 70, 170), dtype=np.uint32)
        bits = generator.integers(1 << 20, size=170, dtype=np.uint32)
        words = bits | (bits << np.uint32(20))
        yield to_record(f"{number:08}", Landmarks(times=times, words=words))
        if number < num_copies:
            flips = np.uint32(1) << generator.integers(32, size=(2, 170), dtype=np.uint32)
            worn = np.where(generator.random(170) < 0.35, words, words ^ flips[0] ^ flips[1])
            yield to_record(f"{number:08}c", Landmarks(times=times[2:], words=worn[2:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("copies")
    command.add_argument("folder", type=Path)
    command.add_argument("--tracks", type=int, default=40)
    command.add_argument("--seconds", type=float, default=60)
    command = commands.add_parser("others")
    command.add_argument("manifests", type=Path)
    command = commands.add_parser("scale")
    command.add_argument("--tracks", type=int, default=1_000_000)
    command.add_argument("--copies", type=int, default=50_000)
    given = parser.parse_args()
    if given.command == "copies":
        copies(given.folder, given.tracks, given.seconds)
    elif given.command == "others":
        others(given.manifests)
    else:
        scale(given.tracks, given.copies)


if __name__ == "__main__":
    main()
