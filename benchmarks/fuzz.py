"""Hostile files: real music in every container, mutated, through ingest, prompts, shard and verify.

    python benchmarks/fuzz.py MUSIC [--files 5000] [--seed 0] [--more FOLDER ...] [--json FILE]

MUSIC holds music, of which stretches of two seconds are transcoded; the files of each `--more` (fixtures of tag
libraries, say) are added as they are, and mutated as well. Fails unless every command ends well, without a traceback,
and every file is in exactly one table. Prints what became of the files.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import soundfile

from pipeline.decode import AUDIO_SUFFIXES
from pipeline.manifest import read_table
from pipeline.records import Rejected, Track

ROOT = Path(__file__).parents[1]
SECONDS = 2.0
TIME_LIMIT = 5.0  # s of computing a file: what these files honestly take is a hundredth of it
_FFMPEG = {  # suffix -> (container, codec, sample format)
    ".mp3": ("mp3", "libmp3lame", "s16p"), ".m4a": ("ipod", "aac", "fltp"), ".alac.m4a": ("ipod", "alac", "s16p"),
    ".opus": ("ogg", "libopus", "s16"), ".flac": ("flac", "flac", "s16"),
    ".wav": ("wav", "pcm_s16le", "s16"), ".aiff": ("aiff", "pcm_s16be", "s16"), ".wv": ("wv", "wavpack", "s16p"),
    ".wma": ("asf", "wmav2", "fltp"), ".tta": ("tta", "tta", "s16"), ".mka": ("matroska", "pcm_s16le", "s16"),
    ".ac3": ("ac3", "ac3", "fltp"), ".aac": ("adts", "aac", "fltp"), ".caf": ("caf", "pcm_s16be", "s16"),
    ".au": ("au", "pcm_s16be", "s16"), ".w64": ("w64", "pcm_s16le", "s16"),
}  # fmt: skip


def transcode(sound: np.ndarray, rate: int, folder: Path, stem: str) -> Iterator[Path]:
    """`sound` [2, T] at `rate` Hz in every container that can be written here; what cannot be is left out."""
    ogg = folder / f"{stem}.ogg"
    soundfile.write(ogg, sound.T, rate, format="OGG", subtype="VORBIS")
    yield ogg
    for suffix, (container, codec, layout) in _FFMPEG.items():
        path = folder / f"{stem}{suffix}"
        with av.open(path, "w", format=container) as file:
            coded_rate = 48_000 if suffix == ".opus" else rate
            stream = file.add_stream(codec, rate=coded_rate, layout="stereo", format=layout)
            stream.bit_rate = 128_000
            convert = av.AudioResampler(layout, "stereo", coded_rate, stream.frame_size)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), "fltp", "stereo")
            frame.sample_rate = rate
            for piece in [*convert.resample(frame), *convert.resample(None), None]:
                file.mux(stream.encode(piece))
        yield path


# A mutation makes other bytes of the bytes of a file, and of those of another one.
Mutation = Callable[[random.Random, bytes, bytes], bytes]


def flip_bits(rng: random.Random, content: bytes, _: bytes) -> bytes:
    changed = bytearray(content)
    for _n in range(rng.choice((1, 10, 100))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng: random.Random, content: bytes, _: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def spoil_header(rng: random.Random, content: bytes, _: bytes) -> bytes:
    changed = bytearray(content)
    for _n in range(rng.choice((1, 4, 16))):
        changed[rng.randrange(4, min(len(changed), 400))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(changed)


def spoil_length(rng: random.Random, content: bytes, _: bytes) -> bytes:
    """Four bytes, where many formats have their lengths, become huge, negative or zero."""
    position = rng.randrange(4, max(5, min(len(content) - 4, 2_000)))
    number = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f"))
    return content[:position] + number + content[position + 4 :]


def splice(rng: random.Random, content: bytes, other: bytes) -> bytes:
    return content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]


def repeat(rng: random.Random, content: bytes, _: bytes) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start : start + rng.randrange(1, 4_000)] * rng.randrange(2, 20) + content[start:]


def drop(rng: random.Random, content: bytes, _: bytes) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.randrange(1, 4_000) :]


def add_id3(rng: random.Random, content: bytes, _: bytes) -> bytes:
    """An ID3v2 tag of random frames, with random sizes, in front."""
    frames = b""
    for _n in range(rng.randrange(1, 12)):
        name = rng.choice((b"TIT2", b"TCON", b"TDRC", b"APIC", b"COMM", b"TXXX", b"USLT", b"RVA2", b"MCDI", b"CHAP"))
        body = rng.randbytes(rng.randrange(80))
        size = len(body) if rng.random() < 0.7 else rng.getrandbits(28)
        frames += name + size.to_bytes(4, "big") + rng.randbytes(2) + body
    size = len(frames) if rng.random() < 0.7 else rng.getrandbits(28)
    syncsafe = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return (
        b"ID3" + bytes((rng.choice((2, 3, 4)), 0, rng.choice((0, 0, 0x40, 0x80, 0xFF)))) + syncsafe + frames + content
    )


def add_ape(rng: random.Random, content: bytes, _: bytes) -> bytes:
    """An APEv2 tag of random items, with random sizes, behind."""
    items, count = b"", rng.randrange(1, 8)
    for _n in range(count):
        value = rng.randbytes(rng.randrange(60))
        size = len(value) if rng.random() < 0.7 else rng.getrandbits(32)
        key = rng.choice((b"Title", b"Artist", b"Year", b"Cover Art (Front)", rng.randbytes(5)))
        items += size.to_bytes(4, "little") + rng.randbytes(4) + key + b"\0" + value
    size = len(items) + 32 if rng.random() < 0.7 else rng.getrandbits(32)
    numbers = (2000, size, count if rng.random() < 0.7 else rng.getrandbits(32), rng.choice((0, 1 << 31)))
    return content + items + b"APETAGEX" + b"".join(n.to_bytes(4, "little") for n in numbers) + bytes(8)


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, truncate, spoil_header, spoil_length, splice, repeat, drop, add_id3, add_ape,
)  # fmt: skip


def mutate(originals: Sequence[Path], folder: Path, count: int, seed: int) -> list[Path]:
    """Write `count` mutated copies of `originals` to `folder`; the same seed gives the same files."""
    contents = [path.read_bytes() for path in originals]
    written = []
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        chosen = number % len(contents)
        content, how = contents[chosen], []
        for _ in range(rng.choice((1, 1, 2))):
            if len(content) < 8:
                break
            mutation = rng.choice(MUTATIONS)
            content = mutation(rng, content, rng.choice(contents))
            how.append(mutation.__name__)
        name = f"{number:05}-{'-'.join(how)}{''.join(originals[chosen].suffixes[-1:])}"
        written.append(folder / f"{number // 500:03}" / name)
        written[-1].parent.mkdir(parents=True, exist_ok=True)
        written[-1].write_bytes(content)
    return written


def lost(files: Sequence[Path], manifests: Path) -> list[Path]:
    """The files that are not in exactly one table."""
    rows = Counter(
        row.raw_path
        for name, record in (("tracks", Track), ("rejected", Rejected))
        for row in read_table(manifests / f"{name}.parquet", record)
    )
    return [path for path in files if rows[os.fsencode(path)] != 1]


def excerpts(music: Path, count: int) -> Iterator[tuple[np.ndarray, int]]:
    """[2, T] and rate of a stretch in the middle of `count` Ogg files."""
    paths = sorted(music.rglob("*.ogg"))
    for path in paths[:: max(1, len(paths) // count)][:count]:
        with soundfile.SoundFile(path) as file:
            file.seek(file.frames // 2)
            sound = file.read(round(SECONDS * file.samplerate), dtype="float32", always_2d=True).T
            rate = file.samplerate if file.samplerate in (44_100, 48_000) else 48_000
        yield np.repeat(sound[:1], 2, axis=0) if len(sound) == 1 else sound[:2], rate


def run(*words: str) -> str:
    """stderr of a mousai command; RuntimeError unless it ends well and without a traceback."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, ROOT / "cli.py", *words], capture_output=True, text=True, cwd=ROOT)
    if done.returncode or "Traceback" in done.stderr:
        raise RuntimeError(f"mousai {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    print(f"mousai {words[0]}: {time.perf_counter() - started:.0f} s. {done.stdout.splitlines()[0]}", flush=True)
    return done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music", type=Path)
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--more", type=Path, nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        originals = Path(scratch) / "originals"
        originals.mkdir()
        made = [
            path
            for number, (sound, rate) in enumerate(excerpts(arguments.music, 5))
            for path in transcode(sound, rate, originals, f"song{number}")
        ]
        fixtures = [
            path
            for folder in arguments.more
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix.lower() in AUDIO_SUFFIXES and 64 <= path.stat().st_size < 2_000_000
        ]
        files = mutate([*made, *fixtures], Path(scratch) / "library", arguments.files, arguments.seed)
        print(f"{len(made)} files made, {len(fixtures)} fixtures, {len(files)} mutated", flush=True)
        space = Path(scratch) / "space"
        run("init", str(space), "--preset", "tiny")
        toml = (space / "mousai.toml").read_text().replace("time_limit = 60.0", f"time_limit = {TIME_LIMIT}")
        (space / "mousai.toml").write_text(toml.replace("min_duration = 1.0", "min_duration = 0.1"))
        libraries = [str(Path(scratch) / "library"), *map(str, arguments.more)]
        run("ingest", *libraries, "-w", str(space), "--tags-only")
        run("ingest", *libraries, "-w", str(space))
        missing = lost([*files, *fixtures], space / "manifests")
        if missing:
            raise SystemExit(f"{len(missing)} files are not in exactly one table: {missing[:5]}")
        run("ingest", "-w", str(space))
        run("prompts", "-w", str(space), "--no-tokens")
        run("shard", "-w", str(space))
        run("verify", "-w", str(space))
        rejected = read_table(space / "manifests" / "rejected.parquet", Rejected)
        tracks = read_table(space / "manifests" / "tracks.parquet", Track)
    reasons = dict(sorted(Counter(row.reason for row in rejected).items()))
    result = {"files": len(files), "fixtures": len(fixtures), "seed": arguments.seed, "tracks": len(tracks), **reasons}
    print(json.dumps(result))
    for row in rejected:
        if row.reason in ("timeout", "out_of_memory", "crashed"):
            print(f"{Path(row.path).name}: {row.reason}: {row.detail}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
