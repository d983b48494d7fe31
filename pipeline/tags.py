"""Tags of any audio file as one set of fields; trouble with tags never costs a track, and nothing is invented.

`pipeline/raw_tags.py` reads the texts; what they mean is decided here, from those texts alone.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from mutagen.id3 import TCON

from pipeline.licences import licence_in, licence_name
from pipeline.raw_tags import FORMATS, RawTags, Texts, read_raw_tags
from pipeline.texts import clean

FIELDS = ("title", "artists", "album", "album_artist", "genres", "year", "licence", "consent")
LATEST_YEAR = 2100

_KEYS: dict[str, dict[str, tuple[str, ...]]] = {  # format -> field -> its keys in lower case, best first
    "vorbis": {
        "title": ("title",),
        "artists": ("artist",),
        "album": ("album",),
        "album_artist": ("albumartist", "album artist", "album_artist"),
        "genres": ("genre",),
        "year": ("date", "year", "originaldate", "originalyear"),
        "licence": ("license", "licence"),
        "consent": ("consent",),
        "copyright": ("copyright",),
    },
    "mp4": {
        "title": ("\xa9nam",),
        "artists": ("\xa9art",),
        "album": ("\xa9alb",),
        "album_artist": ("aart",),
        "genres": ("\xa9gen",),  # mutagen turns gnre into it
        "year": ("\xa9day",),
        "licence": ("----:com.apple.itunes:license", "----:com.apple.itunes:licence"),
        "consent": ("----:com.apple.itunes:consent",),
        "copyright": ("cprt",),
    },
    "asf": {
        "title": ("title",),
        "artists": ("author",),
        "album": ("wm/albumtitle",),
        "album_artist": ("wm/albumartist",),
        "genres": ("wm/genre",),
        "year": ("wm/year", "wm/originalreleaseyear"),
        "licence": ("license", "licence"),
        "consent": ("consent",),
        "copyright": ("copyright",),
    },
    "id3v2": {
        "title": ("tit2",),
        "artists": ("tpe1",),
        "album": ("talb",),
        "album_artist": ("tpe2",),
        "genres": ("tcon",),
        "year": ("tdrc", "tyer", "tdrl", "tdor", "tory"),
        "licence": ("txxx:license", "txxx:licence", "wcop"),
        "consent": ("txxx:consent",),
        "copyright": ("tcop",),
    },
    "riff": {
        "title": ("inam",),
        "artists": ("iart",),
        "album": ("iprd",),
        "album_artist": (),
        "genres": ("ignr",),
        "year": ("icrd",),
        "licence": (),
        "consent": (),
        "copyright": ("icop",),
    },
    "apev2": {
        "title": ("title",),
        "artists": ("artist",),
        "album": ("album",),
        "album_artist": ("album artist", "albumartist"),
        "genres": ("genre",),
        "year": ("year", "date"),
        "licence": ("license", "licence"),
        "consent": ("consent",),
        "copyright": ("copyright",),
    },
}
_KEYS["id3v1"] = _KEYS["id3v2"]

# What programs write where nobody wrote anything. "Untitled" and "Song 2" are titles, "None" and "Null" are bands.
_NOTHING = r"[<(\[]?unknown[>)\]]?|[<(\[]none[>)\]]|n/a|undefined|\?[? ]+|--+"
_PLACEHOLDERS = {
    "title": (
        r"(?:audio ?)?(?:track|piste|titel|pista|traccia|faixa|spår|дорожка|トラック)[ _-]*\d+",
        r"[<(\[]?(?:unknown|no) (?:title|track|song)[>)\]]?|titre inconnu|unbekannter titel|título desconocido",
    ),
    "artists": (
        r"[<(\[]?(?:unknown|no) (?:artist|author|performer)[>)\]]?|artiste inconnu|unbekannter? (?:interpret|künstler)",
        r"artista (?:desconocid[oa]|desconhecido|sconosciuto)|неизвестный исполнитель|未知艺术家|不明なアーティスト",
    ),
    "album": (
        r"[<(\[]?(?:unknown|no) (?:album|title|disc)[>)\]]?(?: \([\d/.:, -]+(?:[ap]m)?\))?",  # and when it was ripped
        r"album (?:inconnu|sconosciuto)|unbekanntes album",
        r"álbum (?:desconocido|desconhecido)|неизвестный альбом|未知专辑",
    ),
    "genres": (
        r"none|other|genre|default|(?:unknown|no) genre|unclassifi(?:able|ed)|misc(?:\.|ellaneous)?",
        r"genre inconnu|unbekannt(?:es genre)?|género desconocido",
    ),
    "licence": (r"none",),
}
_PLACEHOLDERS["album_artist"] = _PLACEHOLDERS["artists"]
_IS_PLACEHOLDER = {
    name: re.compile("|".join((_NOTHING, *patterns)), re.IGNORECASE) for name, patterns in _PLACEHOLDERS.items()
}

_DIGITS = re.compile(r"[0-9]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tags:
    """What a file says about itself; absent fields are None or empty."""

    title: str | None = None
    artists: list[str] = field(default_factory=list)
    album: str | None = None
    album_artist: str | None = None
    genres: list[str] = field(default_factory=list)
    year: int | None = None
    licence: str | None = None  # SPDX for Creative Commons, else as written
    consent: str | None = None  # as written
    raw: RawTags = field(default_factory=dict)


def read_tags(file: BinaryIO) -> Tags:
    """The tags of an open audio file."""
    return interpret(read_raw_tags(file))


def interpret(raw: RawTags) -> Tags:
    """What the texts of a file mean: each field by the best format that says anything about it.

    The container's own tags or ID3v2 go before a WAV's INFO list, that before APEv2, and last comes ID3v1, which cuts
    everything at 30 characters.
    """
    texts = [
        ({key.lower(): values for key, values in raw[name].items()}, _KEYS[name]) for name in FORMATS if name in raw
    ]
    licence = _one(_values(texts, "licence"))
    notices = (licence_in(notice) for notice in _values(texts, "copyright"))
    return Tags(
        title=_one(_values(texts, "title")),
        artists=_values(texts, "artists"),
        album=_one(_values(texts, "album")),
        album_artist=_one(_values(texts, "album_artist")),
        genres=_genres(_values(texts, "genres")),
        year=next(_years(_values(texts, "year")), None),
        licence=licence_name(licence) if licence else next((name for name in notices if name), None),
        consent=_one(_values(texts, "consent")),
        raw=raw,
    )


def is_placeholder(name: str, text: str) -> bool:
    """Whether `text` stands in the field `name` only because a program had to write something there."""
    pattern = _IS_PLACEHOLDER.get(name)
    return pattern is not None and pattern.fullmatch(text) is not None


def year_of(text: str) -> int | None:
    """The year in a date as people write it; None where there is none between 1000 and 2100.

    "2009-09-04 00:00:00", "19870331", "198703", "04/09/2009" and "31031987" have one, "0000", "99" and "soon" have not.
    """
    for found in _DIGITS.finditer(text):
        digits = found.group()
        if len(digits) == 8 and not "00" <= digits[4:6] <= "12":  # day, month, year
            digits = digits[4:]
        if len(digits) in (4, 6, 8, 12, 14) and 1000 <= int(digits[:4]) <= LATEST_YEAR:
            return int(digits[:4])
    return None


def _values(texts: Iterable[tuple[Texts, dict[str, tuple[str, ...]]]], name: str) -> list[str]:
    """The cleaned values of a field from the first key that has any, each once, without placeholders."""
    for found, keys in texts:
        for key in keys[name]:
            if key in found:
                values = [cleaned for value in found[key] if (cleaned := clean(value))]
                values = [value for value in dict.fromkeys(values) if not is_placeholder(name, value)]
                if values and (name != "year" or any(_years(values))):
                    return values
    return []


def _one(values: list[str]) -> str | None:
    return values[0] if values else None


def _years(values: Iterable[str]) -> Iterator[int]:
    return (year for value in values if (year := year_of(value)))


def _genres(values: list[str]) -> list[str]:
    """Names for ID3v1's numbers, also inside "(17)(31)Foo"; several in one value are told by ";", never by "/"."""
    names = [part for value in values for each in value.split(";") if (part := each.strip())]
    if any(name.startswith("(") or name.isdecimal() or name in ("RX", "CR") for name in names):
        names = TCON(encoding=3, text=names).genres
    return [name for name in dict.fromkeys(names) if not is_placeholder("genres", name)]
