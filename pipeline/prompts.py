"""What a track says: its metadata as a text prompt (section 5.1), drawn afresh at each step, and its keywords.

A prompt lists title, author, album, genre, year and "i of n", the chunk's place in the track.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.records import Track

DROP = 0.1  # probability that a prompt lacks an element (section 5.1)
SPACES = 0.5  # probability that elements are joined by spaces and not by commas (section 5.1)

_PARENTHESISED = re.compile(r"\([^()]+\)|\[[^\[\]]+\]")
_WORD = re.compile(r"[^\W\d_]{3,}")  # three letters or more, of any script
_PLAIN_WORDS = {"and", "das", "der", "des", "die", "for", "from", "les", "not", "the", "und", "with", "you", "your"}


def tracks_by_id(tracks: Iterable[Track]) -> dict[str, Track]:
    """Id -> the track that speaks for it: the first path where one recording has several. Undecoded ones are absent."""
    by_id: dict[str, Track] = {}
    for track in tracks:
        if track.id is not None and track.length:
            by_id.setdefault(track.id, track)
    return by_id


def elements(track: Track, index: int, count: int) -> list[str]:
    """Title, author, album, genre, year and "index of count"; what the tags lack is absent, nothing is invented."""
    year = str(track.year) if track.year is not None else None
    tags = [track.title, ", ".join(track.artists), track.album, ", ".join(track.genres), year]
    return [tag for tag in tags if tag] + [f"{index} of {count}"]


def plain_prompt(track: Track, index: int, count: int) -> str:
    """All elements in the paper's order, joined by commas."""
    return ", ".join(elements(track, index, count))


def describe_chunk(track: Track, index: int, count: int) -> dict[str, Any]:
    """What a reader that has no tables is told of a chunk: its prompt as `text`, and each tag.

    Every tag is a string, empty where the file says nothing, several values joined as in the prompt: readers that infer
    types from the first chunks (Hugging Face `datasets` looks at five) stumble over a null or an empty list there.
    """
    return {
        "text": plain_prompt(track, index, count),
        "title": track.title or "",
        "artists": ", ".join(track.artists),
        "album": track.album or "",
        "album_artist": track.album_artist or "",
        "genres": ", ".join(track.genres),
        "year": "" if track.year is None else str(track.year),
        "index": index,
        "count": count,
    }


def draw_prompt(track: Track, index: int, count: int, *, seed: int, step: int) -> str:
    """The prompt of a chunk at training step `step`: shuffled, thinned and joined as in section 5.1; may be empty.

    The same arguments give the same prompt on every machine: Python promises that `Random(str).random()` stays as it
    is, and promises nothing about `shuffle`, so the order comes from sorting by random numbers.
    """
    generator = random.Random(f"{seed}/{step}/{track.id}/{index}")
    shuffled = sorted(elements(track, index, count), key=lambda _: generator.random())
    kept = [element for element in shuffled if generator.random() >= DROP]
    return (" " if generator.random() < SPACES else ", ").join(kept)


def top_keywords(tracks: Iterable[Track], limit: int) -> list[tuple[str, int]]:
    """The library's most frequent keywords and in how many tracks each occurs, most frequent first (section 6.4).

    Genres, artists and years count whole, titles by their words, titles and albums by their phrases in parentheses,
    such as "(Deluxe Edition)". Upper and lower case are one; the most common spelling is shown.
    """
    spellings: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for track in tracks:
        for folded, spelling in {keyword.casefold(): keyword for keyword in _keywords(track)}.items():
            spellings[folded][spelling] += 1
    counts = {folded: counter.total() for folded, counter in spellings.items()}
    ranked = sorted(counts, key=lambda folded: (-counts[folded], folded))[:limit]
    return [(spellings[folded].most_common(1)[0][0], counts[folded]) for folded in ranked]


def _keywords(track: Track) -> Iterator[str]:
    yield from track.genres
    yield from track.artists
    if track.year is not None:
        yield str(track.year)
    yield from _PARENTHESISED.findall(f"{track.title or ''} {track.album or ''}")
    yield from (word for word in _WORD.findall(track.title or "") if word.casefold() not in _PLAIN_WORDS)
