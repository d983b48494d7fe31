"""Tags of any audio file as one set of fields, mapped format by format; trouble with tags never costs a track."""

import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import mutagen
from mutagen._vorbis import VComment
from mutagen.aiff import AIFF
from mutagen.apev2 import APENoHeaderError, APETextValue, APEv2
from mutagen.asf import ASF, ASFTags
from mutagen.dsdiff import DSDIFF
from mutagen.dsf import DSF
from mutagen.flac import FLAC
from mutagen.id3 import ID3, TCON, USLT, ID3NoHeaderError, ParseID3v1, TextFrame
from mutagen.mp4 import MP4, MP4FreeForm, MP4Tags
from mutagen.oggflac import OggFLAC
from mutagen.oggopus import OggOpus
from mutagen.oggspeex import OggSpeex
from mutagen.oggtheora import OggTheora
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

Texts = dict[str, list[str]]

_CONTAINERS = (FLAC, OggVorbis, OggOpus, OggFLAC, OggSpeex, OggTheora, MP4, ASF, WAVE, AIFF, DSF, DSDIFF)
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200e\u200f\u2060\ufeff"))  # zero-width space, marks, joiner, BOM
_YEAR = re.compile(r"(?<![0-9])[1-9][0-9]{3}")  # "19870331" and "2009-09-04 00:00:00", but not "0000"
_LATEST_YEAR = 2100
_PICTURES = {"metadata_block_picture", "coverart"}  # base64 in Vorbis comments


@dataclass(frozen=True, kw_only=True)
class Tags:
    """What a file says about itself; absent fields are None or empty."""

    title: str | None = None
    artists: list[str] = field(default_factory=list)
    album: str | None = None
    album_artist: str | None = None
    genres: list[str] = field(default_factory=list)
    year: int | None = None
    raw: Texts = field(default_factory=dict)  # every text as it was read, by the format's own key; "error": what failed


@dataclass(frozen=True, kw_only=True)
class _Format:
    """One tag format: mutagen's class, how to get its texts, and the keys of each field, best first."""

    kind: type[Any]
    texts: Callable[[Any], Texts]
    title: tuple[str, ...]
    artists: tuple[str, ...]
    album: tuple[str, ...]
    album_artist: tuple[str, ...]
    genres: tuple[str, ...]
    year: tuple[str, ...]


def read_tags(file: BinaryIO) -> Tags:
    """The tags of an open audio file, never by its path: a `._` file beside it would be taken for it.

    A field comes from the best tag that has it: the container's own or ID3v2, then APEv2, then ID3v1, which cuts
    everything at 30 characters.
    """
    tags, errors = _all_tags(file)
    fields: dict[str, list[str]] = {}
    raw: Texts = {}
    for tag in tags:
        for form in _FORMATS:
            if isinstance(tag, form.kind):
                texts = form.texts(tag)
                raw = texts | raw
                for name in ("title", "artists", "album", "album_artist", "genres", "year"):
                    fields[name] = fields.get(name) or _first(texts, getattr(form, name))
    return Tags(
        title=_one(fields.get("title", [])),
        artists=fields.get("artists", []),
        album=_one(fields.get("album", [])),
        album_artist=_one(fields.get("album_artist", [])),
        genres=_genres(fields.get("genres", [])),
        year=_year(fields.get("year", [])),
        raw=raw | ({"error": errors} if errors else {}),
    )


def _all_tags(file: BinaryIO) -> tuple[list[Any], list[str]]:
    """mutagen's tag objects, best first, and what went wrong."""
    tags: list[Any] = []
    errors: list[str] = []
    for read in (_own, _id3v2, APEv2, _id3v1):
        file.seek(0)
        try:
            found = read(file)
            if found is not None and not any(type(tag) is type(found) is APEv2 for tag in tags):
                tags.append(found)
        except (ID3NoHeaderError, APENoHeaderError):
            pass
        except Exception as error:  # damaged tags raise struct.error, IndexError and more beside MutagenError
            errors.append(f"{type(error).__name__}: {error}")
    return tags, list(dict.fromkeys(errors))


def _own(file: BinaryIO) -> Any:
    """The tags that are part of the container; None for a format whose tags stand before or behind it."""
    return getattr(mutagen.File(file, options=_CONTAINERS), "tags", None)


def _id3v2(file: BinaryIO) -> Any:
    return ID3(file, load_v1=False)


def _id3v1(file: BinaryIO) -> Any:
    file.seek(max(0, file.seek(0, os.SEEK_END) - 128))
    frames = ParseID3v1(file.read(128))
    if frames is None:
        return None
    tags = ID3()
    for frame in frames.values():
        tags.add(frame)
    return tags


def _id3_texts(tags: Any) -> Texts:
    texts: Texts = {}
    for frame in tags.values():
        if isinstance(frame, TextFrame):
            texts[frame.HashKey] = [str(text) for text in frame.text]
        elif isinstance(frame, USLT):
            texts[frame.HashKey] = [frame.text]
    return texts


def _vorbis_texts(tags: Any) -> Texts:
    return {key: values for key, values in tags.as_dict().items() if key not in _PICTURES}


def _mp4_texts(tags: Any) -> Texts:
    texts: Texts = {}
    for key, values in tags.items():
        for value in values if isinstance(values, list) else []:
            if isinstance(value, MP4FreeForm):
                texts.setdefault(key, []).append(bytes(value).decode("utf-8", "replace"))
            elif isinstance(value, str):
                texts.setdefault(key, []).append(value)
    return texts


def _ape_texts(tags: Any) -> Texts:
    return {key.lower(): list(value) for key, value in tags.items() if isinstance(value, APETextValue)}


def _asf_texts(tags: Any) -> Texts:
    texts: Texts = {}
    for key, value in tags:
        plain = getattr(value, "value", value)
        if isinstance(plain, (str, int)):
            texts.setdefault(key, []).append(str(plain))
    return texts


_FORMATS = (
    _Format(
        kind=ID3,
        texts=_id3_texts,
        title=("TIT2",),
        artists=("TPE1",),
        album=("TALB",),
        album_artist=("TPE2",),
        genres=("TCON",),
        year=("TDRC", "TDRL", "TDOR"),  # mutagen turns the frames of ID3v2.2 and 2.3 into these
    ),
    _Format(
        kind=VComment,
        texts=_vorbis_texts,
        title=("title",),
        artists=("artist",),
        album=("album",),
        album_artist=("albumartist", "album artist", "album_artist"),
        genres=("genre",),
        year=("date", "year", "originaldate"),
    ),
    _Format(
        kind=MP4Tags,
        texts=_mp4_texts,
        title=("\xa9nam",),
        artists=("\xa9ART",),
        album=("\xa9alb",),
        album_artist=("aART",),
        genres=("\xa9gen",),  # mutagen turns gnre into it
        year=("\xa9day",),
    ),
    _Format(
        kind=APEv2,
        texts=_ape_texts,
        title=("title",),
        artists=("artist",),
        album=("album",),
        album_artist=("album artist", "albumartist"),
        genres=("genre",),
        year=("year", "date"),
    ),
    _Format(
        kind=ASFTags,
        texts=_asf_texts,
        title=("Title",),
        artists=("Author",),
        album=("WM/AlbumTitle",),
        album_artist=("WM/AlbumArtist",),
        genres=("WM/Genre",),
        year=("WM/Year",),
    ),
)


def _first(texts: Texts, keys: tuple[str, ...]) -> list[str]:
    """The cleaned values under the first of `keys` that has any, each once."""
    for key in keys:
        values = [clean for value in texts.get(key, []) if (clean := _clean(value))]
        if values:
            return list(dict.fromkeys(values))
    return []


def _clean(value: str) -> str:
    """One line of visible, composed text; UTF-8 that was read as Latin-1 or Windows-1252 is read again."""
    for wrong in ("latin-1", "cp1252"):
        try:
            value = value.encode(wrong).decode("utf-8")
            break
        except UnicodeError:  # the usual case: it was right
            continue
    value = value.encode("utf-8", "ignore").decode("utf-8")  # no lone surrogates
    value = value.translate(_INVISIBLE)
    value = "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in value)
    return unicodedata.normalize("NFC", " ".join(value.split()))


def _one(values: list[str]) -> str | None:
    return values[0] if values else None


def _genres(values: list[str]) -> list[str]:
    """Names for ID3v1's numbers, also inside "(17)(31)Foo"; a genre that says "Unknown" says nothing."""
    names = TCON(encoding=3, text=values).genres
    return [name for name in dict.fromkeys(names) if name.lower() != "unknown"]


def _year(values: list[str]) -> int | None:
    years = (int(found.group()) for value in values if (found := _YEAR.search(value)))
    return next((year for year in years if year <= _LATEST_YEAR), None)
