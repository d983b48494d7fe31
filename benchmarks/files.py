"""Many real files out of a few: links to whole tracks, and short pieces cut from them in several formats.

    python benchmarks/files.py links LIBRARY DIR --count 5000
    python benchmarks/files.py pieces LIBRARY DIR --count 20000

Links are hard links, so DIR must be on the disk of LIBRARY. Pieces last 1 to 2 s and carry the tags of their track, in
FLAC, WAV, MP3 and Vorbis; of each there are twenty copies under other titles, for encoding takes long. The same LIBRARY
gives the same pieces. DIR is the library that the benchmarks ingest.
"""

import argparse
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import mutagen
import numpy as np
import soundfile

from mousai.audio import SAMPLE_RATE, Waveform
from mousai.settings import IngestSettings
from pipeline.decode import AUDIO_SUFFIXES, stereo_blocks
from pipeline.limits import Limits

FORMATS = {".flac": 5, ".wav": 2, ".mp3": 2, ".ogg": 1}  # and how often each comes: encoding Vorbis takes longest
COPIES = 20
LIMITS = Limits(seconds=IngestSettings().time_limit, megabytes=IngestSettings().memory_limit)  # as the command has them
_PER_FOLDER = 100


def tracks_of(library: Path) -> list[Path]:
    """The audio files below `library`, sorted."""
    return sorted(path for path in library.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())


def link(tracks: list[Path], folder: Path, count: int) -> None:
    """`count` hard links to `tracks`, each as often as any other."""
    for number in range(count):
        track = tracks[number % len(tracks)]
        path = folder / f"album {number // _PER_FOLDER:04}" / f"{number:06}{track.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.link(track, path)


def cut(tracks: list[Path], folder: Path, count: int) -> None:
    """`count` files of 1 to 2 s, about as many from each of `tracks`."""
    numbers = iter(range(0, count, COPIES))
    share = -(-count // COPIES // len(tracks))
    for track in tracks:
        generator = random.Random(track.name)
        tags = {key: mutagen.File(track).get(key) for key in ("artist", "album", "genre", "date")}
        for piece, number in zip(_pieces(track, share, generator), numbers, strict=False):
            (suffix,) = generator.choices(list(FORMATS), list(FORMATS.values()))
            place = folder / f"album {number // _PER_FOLDER:04}"
            place.mkdir(parents=True, exist_ok=True)
            paths = [place / f"{number + copy:06}{suffix}" for copy in range(COPIES)]
            soundfile.write(paths[0], piece.T, SAMPLE_RATE, subtype="PCM_16" if suffix in (".flac", ".wav") else None)
            for path in paths[1:]:
                shutil.copyfile(paths[0], path)
            for path in paths if suffix != ".wav" else []:
                file = mutagen.File(path, easy=True)
                file.update({key: value for key, value in tags.items() if value} | {"title": [f"Piece {path.stem}"]})
                file.save()


def _pieces(track: Path, count: int, generator: random.Random) -> Iterator[Waveform]:
    """`count` pieces [2, T] from places all over a track."""
    with track.open("rb") as file:
        audio = np.concatenate(list(stereo_blocks(file)), axis=1)
    audio = audio / max(1.0, float(np.abs(audio).max()))
    for _ in range(count):
        length = generator.randrange(SAMPLE_RATE, 2 * SAMPLE_RATE)
        start = generator.randrange(max(1, audio.shape[1] - length))
        yield audio[:, start : start + length]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["links", "pieces"])
    parser.add_argument("library", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=5000)
    arguments = parser.parse_args()
    tracks = tracks_of(arguments.library)
    (link if arguments.kind == "links" else cut)(tracks, arguments.folder, arguments.count)


if __name__ == "__main__":
    main()
