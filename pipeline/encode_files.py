"""Tagged music files of the built-in library, in the four formats that people have; and two that are broken.

Shapes: [C, T], C channels (1 or 2), T samples.
"""

import base64
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import soundfile
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, TALB, TCON, TDRC, TIT2, TPE1, TPE2, TRCK
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4, MP4Cover
from mutagen.oggvorbis import OggVorbis

from mousai.audio import encode_pcm16
from mousai.storage import publish
from pipeline.instruments import Sound
from pipeline.songs import Song

_BLOCK = 1 << 16  # samples a call: libsndfile crashes on Vorbis of 2^21 samples in one
_BIT_RATE = 160_000  # bits a second of MP3 and AAC
_FAST = {"libmp3lame": {"compression_level": "7"}, "aac": {"aac_coder": "fast"}}  # 2 and 3 times as fast, SNR the same


def write_song(path: Path, song: Song, audio: Sound) -> None:
    """Publish `audio` [C, T] at the song's rate in the format of its suffix, with its tags."""
    with publish(path) as temporary:
        match song.suffix:
            case ".flac":
                _by_soundfile(temporary, song, audio, "FLAC", "PCM_16")
                _tag_xiph(FLAC(temporary), song)
            case ".ogg":
                _by_soundfile(temporary, song, audio, "OGG", "VORBIS")
                _tag_xiph(OggVorbis(temporary), song)
            case ".mp3":
                _by_ffmpeg(temporary, song, audio, "mp3", "libmp3lame")
                _tag_mp3(MP3(temporary), song)
            case ".m4a":
                _by_ffmpeg(temporary, song, audio, "ipod", "aac")
                _tag_mp4(MP4(temporary), song)
            case _:
                raise ValueError(f"no encoder for {song.suffix}")


def _by_soundfile(path: Path, song: Song, audio: Sound, container: str, subtype: str) -> None:
    with soundfile.SoundFile(path, "w", song.sample_rate, song.channels, subtype, format=container) as sound:
        for start in range(0, audio.shape[-1], _BLOCK):
            sound.write(audio[:, start : start + _BLOCK].T)


def _by_ffmpeg(path: Path, song: Song, audio: Sound, container: str, codec: str) -> None:
    layout = "mono" if song.channels == 1 else "stereo"
    with av.open(path, "w", format=container) as file:
        stream = file.add_stream(codec, rate=song.sample_rate, layout=layout, options=_FAST[codec])
        assert isinstance(stream, av.AudioStream)  # says the codec, but not to a type checker
        stream.bit_rate = _BIT_RATE
        for start in range(0, audio.shape[-1], _BLOCK):
            block = np.ascontiguousarray(audio[:, start : start + _BLOCK])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = song.sample_rate, start
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def _tag_xiph(file: FLAC | OggVorbis, song: Song) -> None:
    """Vorbis comments."""
    file["title"], file["album"], file["albumartist"] = song.title, song.album, song.album_artist
    file["artist"], file["genre"] = list(song.artists), list(song.genres)
    file["date"], file["tracknumber"] = str(song.year), str(song.track)
    if song.cover:
        picture = Picture()
        picture.type, picture.mime, picture.data = 3, "image/png", cover_art(song)  # 3: front cover
        if isinstance(file, FLAC):
            file.add_picture(picture)
        else:
            file["metadata_block_picture"] = base64.b64encode(picture.write()).decode()
    file.save()


def _tag_mp3(file: MP3, song: Song) -> None:
    """ID3v2.4."""
    if file.tags is None:
        file.add_tags()
    for frame, text in (
        (TIT2, song.title), (TALB, song.album), (TPE2, song.album_artist), (TPE1, list(song.artists)),
        (TCON, list(song.genres)), (TDRC, str(song.year)), (TRCK, str(song.track)),
    ):  # fmt: skip
        file.tags.add(frame(encoding=3, text=text))  # 3: UTF-8
    if song.cover:
        file.tags.add(APIC(encoding=3, mime="image/png", type=3, data=cover_art(song)))
    file.save(v2_version=4)


def _tag_mp4(file: MP4, song: Song) -> None:
    """The atoms that iTunes writes."""
    file["©nam"], file["©alb"], file["aART"] = song.title, song.album, song.album_artist
    file["©ART"], file["©gen"] = list(song.artists), list(song.genres)
    file["©day"], file["trkn"] = str(song.year), [(song.track, 0)]
    if song.cover:
        file["covr"] = [MP4Cover(cover_art(song), MP4Cover.FORMAT_PNG)]
    file.save()


def cover_art(song: Song, size: int = 96) -> bytes:
    """A PNG of stripes in two colours that are the song's own."""
    rng = np.random.default_rng(song.number)
    colours = rng.integers(0, 256, (2, 3), dtype=np.uint8)
    row, column = np.mgrid[:size, :size]
    pixels = colours[(row + column * rng.integers(1, 4)) // 12 % 2]
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)  # 0: no filter
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def write_broken_files(folder: Path) -> list[Path]:
    """Publish what every real library has: a web page saved as .mp3, and a FLAC cut off within its header."""
    page = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>No such song.</body></html>\n"
    silence = encode_pcm16(np.zeros((2, 4_800), np.float32))
    contents = {"free download.mp3": page, "interrupted copy.flac": silence[:30]}
    paths = [folder / "Unsorted" / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        if not path.exists():
            with publish(path) as temporary:
                temporary.write_bytes(content)
    return paths
