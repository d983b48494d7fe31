"""The text tags of any audio file as they stand in it, format by format, without the sound and the pictures.

mutagen parses each tag; where it stands in the file is found here, so that a file is opened once, little of it is
read, and a tag behind a damaged stream header still counts.
"""

import io
import os
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from mutagen._vorbis import VComment
from mutagen.apev2 import APENoHeaderError, APETextValue, APEv2
from mutagen.asf import ASF
from mutagen.dsdiff import DSDIFF
from mutagen.dsf import DSF
from mutagen.id3 import ID3, USLT, Frames, ID3NoHeaderError, ParseID3v1, TextFrame, TimeStampTextFrame, UrlFrame
from mutagen.mp4 import Atoms, MP4FreeForm, MP4Tags
from mutagen.ogg import OggPage

Texts = dict[str, list[str]]  # the format's own key -> its values
RawTags = dict[str, Texts]  # format -> texts; {"error": {...}} for what could not be read

FORMATS = ("vorbis", "mp4", "asf", "id3v2", "riff", "apev2", "id3v1")  # best first
_Reader = Callable[[BinaryIO, int], RawTags]

_HEAD_BYTES = 4096  # garbage before the tag of an MP3 is seldom longer
_ID3_HEADER = re.compile(rb"ID3[\x02-\x04]\x00[\x00-\xff][\x00-\x7f]{4}", re.DOTALL)
_ID3_CHUNKS = (b"id3 ", b"ID3 ")
_MP4_ATOMS = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
_PICTURES = {"metadata_block_picture", "coverart"}  # base64 in Vorbis comments
_LONGEST_COMMENT = 1 << 24  # bytes: the most that a FLAC block can hold
_MOST_CHUNKS = 10_000  # of a RIFF file, against files that are made to be slow
_BIG_TAG = 1 << 16  # bytes: smaller ones are read in one go
_BIG_FRAME = 1 << 14  # bytes: no text that we want is longer
_FRAME_NAME = re.compile(rb"[A-Z][A-Z0-9]{3}")
_FRAMES = Frames | {  # mutagen drops dates that are not as ID3 wants them; as plain texts they stay
    name: type(name, (TextFrame,), {}) for name, frame in Frames.items() if issubclass(frame, TimeStampTextFrame)
}
_OGG_COMMENTS = {  # how the first packet of a stream starts -> what precedes the comment in the second
    b"\x01vorbis": len(b"\x03vorbis"),
    b"OpusHead": len(b"OpusTags"),
    b"Speex   ": 0,
    b"\x80theora": len(b"\x81theora"),
    b"\x7fFLAC": 4,  # a FLAC block's header
}


def read_raw_tags(file: BinaryIO) -> RawTags:
    """Every text tag of an open file, never by its path: a `._` file beside it would be taken for it.

    Damage costs what it hits: it is reported under "error", and the other tags of the file are read all the same.
    """
    raw: RawTags = {}
    start = 0
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if head.startswith(b"ID3"):
        _add(raw, _id3v2, file, 0)
        start = id3_end(head)
        file.seek(start)
        head = file.read(_HEAD_BYTES)
    own = _own_reader(head)
    if own is None and start == 0 and (late := _ID3_HEADER.search(head)):
        _add(raw, _id3v2, file, late.start())
    if own is not None:
        _add(raw, own, file, start)
    if own is None or own is _flac:  # streams that end anywhere, so that tags may follow
        _add(raw, _tail, file, 0)
    return raw


def _own_reader(head: bytes) -> _Reader | None:
    """The reader of a container by its first bytes; None for a stream without a container."""
    if head[4:8] in _MP4_ATOMS:
        return _mp4
    if head.startswith((b"RIFF", b"RF64", b"BW64")):
        return _riff
    return next((read for magic, read in _READERS.items() if head.startswith(magic)), None)


def _add(raw: RawTags, read: _Reader, file: BinaryIO, start: int) -> None:
    """What `read` finds from byte `start`, or what went wrong."""
    try:
        for name, texts in read(file, start).items():
            raw[name] = texts | raw.get(name, {})
    except (ID3NoHeaderError, APENoHeaderError):
        pass
    except Exception as error:  # damaged tags raise struct.error, IndexError and more beside MutagenError
        raw.setdefault("error", {})[read.__name__.strip("_")] = [f"{type(error).__name__}: {error}"]


def _tail(file: BinaryIO, start: int) -> RawTags:
    """The tags behind a stream; APEv2 also stands before it."""
    raw: RawTags = {}
    file.seek(max(0, file.seek(0, os.SEEK_END) - 160))
    tail = file.read(160)
    has_v1 = tail[-128:].startswith(b"TAG")
    file.seek(start)
    if b"APETAGEX" in tail or (has_v1 and b"LYRICS" in tail) or file.read(8) == b"APETAGEX":
        _add(raw, _apev2, file, 0)
    if has_v1:
        _add(raw, _id3v1, io.BytesIO(tail[-128:]), 0)
    return raw


# ID3


def id3_end(head: bytes) -> int:
    """Where the ID3v2 tag of a file that starts with `head` ends: its size is four groups of 7 bits."""
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def _id3v2(file: BinaryIO, start: int) -> RawTags:
    """The tag at byte `start`; where the file is cut, the frames that are whole."""
    header = _at(file, start, 10)
    frames = _id3_frames(file, start + 10, header)
    size = bytes(len(frames) >> shift & 0x7F for shift in (21, 14, 7, 0))
    known = None if header[3] == 2 else _FRAMES  # None: version 2.2's, which mutagen renames
    tag = io.BytesIO(header[:6] + size + frames)
    return {"id3v2": _id3_texts(ID3(tag, known_frames=known, translate=False, load_v1=False))}


def _at(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def _id3_frames(file: BinaryIO, start: int, header: bytes) -> bytes:
    """The frames from byte `start`; of a big tag without pictures, which are not even read."""
    size = id3_end(header) - 10
    can_walk = header[3] in (3, 4) and not header[5]  # flags: frames do not stand as they are
    if size > _BIG_TAG and can_walk:
        frames, whole = _walk_id3(file, start, start + size, header[3])
        if whole:
            return frames
    frames = _at(file, start, size)
    if len(frames) < size and can_walk:
        return _walk_id3(io.BytesIO(frames), 0, len(frames), header[3])[0]
    return frames


def _walk_id3(file: BinaryIO, start: int, end: int, version: int) -> tuple[bytes, bool]:
    """The frames between two bytes that are whole and not big, and whether all were as they should be."""
    small = b""
    while start + 10 <= end:
        head = _at(file, start, 10)
        if head[:1] == b"\0":  # padding
            break
        size = int.from_bytes(head[4:8], "big")
        if version == 4 and size > 0x7F:  # iTunes writes version 3's sizes here; mutagen tells them apart
            size = -1 if any(byte & 0x80 for byte in head[4:8]) else id3_end(b"ID3..." + head[4:8]) - 10
        if not _FRAME_NAME.fullmatch(head[:4]) or not 0 < size <= end - start - 10:
            return small, False
        if size <= _BIG_FRAME:
            frame = file.read(size)
            if len(frame) < size:
                return small, False
            small += head + frame
        start += 10 + size
    return small, True


def _id3v1(file: BinaryIO, start: int) -> RawTags:
    tags = ID3()
    for frame in (ParseID3v1(_at(file, start, 128)) or {}).values():
        tags.add(frame)
    return {"id3v1": _id3_texts(tags)}


def _id3_texts(tags: Any) -> Texts:
    texts: Texts = {}
    for frame in tags.values() if tags is not None else []:
        if isinstance(frame, TextFrame):
            texts[frame.HashKey] = [str(text) for text in frame.text]
        elif isinstance(frame, USLT):
            texts[frame.HashKey] = [frame.text]
        elif isinstance(frame, UrlFrame):
            texts.setdefault(frame.FrameID, []).append(frame.url)
    return texts


# Vorbis comments


def _flac(file: BinaryIO, start: int) -> RawTags:
    """The comment block; the others, pictures among them, are passed over."""
    position = start + 4
    while True:
        file.seek(position)
        header = file.read(4)
        if len(header) < 4 or header[0] == 0xFF:  # sound
            return {}
        size = int.from_bytes(header[1:], "big")
        if header[0] & 0x7F == 4:
            return {"vorbis": _flac_comment(file, size)}
        if header[0] & 0x80:  # the last block
            return {}
        position += 4 + size


def _flac_comment(file: BinaryIO, size: int) -> Texts:
    """The comment at the file's position, whose block header says `size` bytes; some encoders wrote too few."""
    position = file.tell()
    try:
        return _vorbis_texts(file.read(size))
    except Exception:  # again, by the lengths in the comment itself, which say what is wrong if they are as well
        file.seek(position)
        return _vorbis_texts(file.read(_LONGEST_COMMENT))


def _ogg(file: BinaryIO, start: int) -> RawTags:
    """The comment packet of the first stream of a known codec."""
    file.seek(start)
    skips: dict[int, int] = {}  # serial number of a stream -> bytes before its comment
    pages: list[Any] = []
    size = 0
    while size <= _LONGEST_COMMENT:
        page = OggPage(file)
        size += page.size
        if page.first:
            for magic, skip in _OGG_COMMENTS.items():
                if page.packets[0].startswith(magic):
                    skips[page.serial] = skip
        elif not skips:
            return {}
        elif page.serial == (pages[0].serial if pages else next(iter(skips))):
            pages.append(page)
            if page.complete or len(page.packets) > 1:
                break
    packet = OggPage.to_packets(pages)[0]
    return {"vorbis": _vorbis_texts(packet[skips[pages[0].serial] :])}


def _vorbis_texts(comment: bytes) -> Texts:
    texts: Texts = {}
    for key, value in VComment(comment, framing=False):
        if key.lower() not in _PICTURES:
            texts.setdefault(key.lower(), []).append(value)
    return texts


# Chunks: RIFF and AIFF


def _chunks(file: BinaryIO, start: int, end: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and size of each chunk between two positions, as far as they make sense."""
    for _ in range(_MOST_CHUNKS):
        if start + 8 > end:
            return
        file.seek(start)
        name, size = struct.unpack(f"{order}4sI", file.read(8))
        size = min(size, end - start - 8)  # streamed files say 0xFFFFFFFF
        yield name, start + 8, size
        start += 8 + size + size % 2


def _riff(file: BinaryIO, start: int) -> RawTags:
    """The ID3 chunk and the INFO list of a WAV file."""
    raw: RawTags = {}
    for name, first, size in _chunks(file, start + 12, file.seek(0, os.SEEK_END), "<"):
        file.seek(first)
        if name in _ID3_CHUNKS:
            _add(raw, _id3v2, io.BytesIO(file.read(size)), 0)
        elif name == b"LIST" and file.read(4) == b"INFO":
            info = raw.setdefault("riff", {})
            for key, at, length in _chunks(file, first + 4, first + size, "<"):
                file.seek(at)
                value = file.read(length).split(b"\0")[0]
                info.setdefault(key.decode("latin-1"), []).append(_utf8_or_latin_1(value))
    return raw


def _aiff(file: BinaryIO, start: int) -> RawTags:
    for name, first, size in _chunks(file, start + 12, file.seek(0, os.SEEK_END), ">"):
        if name in _ID3_CHUNKS:
            file.seek(first)
            return _id3v2(io.BytesIO(file.read(size)), 0)
    return {}


def _utf8_or_latin_1(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


# The others


def _mp4(file: BinaryIO, start: int) -> RawTags:
    file.seek(start)
    atoms = Atoms(file)
    if not MP4Tags._can_load(atoms):
        return {}
    items = atoms.path(b"moov", b"udta", b"meta", b"ilst")[-1]
    items.children = [child for child in items.children if child.name != b"covr"]  # pictures
    texts: Texts = {}
    for key, values in MP4Tags(atoms, file).items():
        for value in values if isinstance(values, list) else []:
            if isinstance(value, MP4FreeForm):
                texts.setdefault(key, []).append(bytes(value).decode("utf-8", "replace"))
            elif isinstance(value, str):
                texts.setdefault(key, []).append(value)
    return {"mp4": texts}


def _apev2(file: BinaryIO, start: int) -> RawTags:
    file.seek(start)
    tags = APEv2(file)
    return {"apev2": {key.lower(): list(value) for key, value in tags.items() if isinstance(value, APETextValue)}}


def _asf(file: BinaryIO, start: int) -> RawTags:
    file.seek(start)
    texts: Texts = {}
    for key, value in ASF(file).tags:
        plain = getattr(value, "value", value)
        if isinstance(plain, (str, int)):
            texts.setdefault(key, []).append(str(plain))
    return {"asf": texts}


def _dsf(file: BinaryIO, start: int) -> RawTags:
    file.seek(start)
    return {"id3v2": _id3_texts(DSF(file).tags)}


def _dsdiff(file: BinaryIO, start: int) -> RawTags:
    file.seek(start)
    return {"id3v2": _id3_texts(DSDIFF(file).tags)}


_READERS: dict[bytes, _Reader] = {
    b"fLaC": _flac,
    b"OggS": _ogg,
    b"\x30\x26\xb2\x75": _asf,
    b"FORM": _aiff,
    b"DSD ": _dsf,
    b"FRM8": _dsdiff,
}
