"""The list of what is kept out, `removed.parquet`: who is on it, and whether a track is.

A rule names an artist, an album, a title, a file or folder, or a recording by its id; where it names several, a track
must have them all. Names are compared without case, accents and spacing.
"""

import csv
import difflib
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from itertools import product
from pathlib import Path

from mousai.errors import UserError
from pipeline.manifest import read_facts, read_table, write_table
from pipeline.records import Reason, Rejected, Removed, Track

FILE = "removed.parquet"
KINDS = ("artist", "album", "track", "path")  # what a request can name, and the columns of a list

Row = Track | Rejected
Fact = tuple[str, str | bytes]  # column of `Removed`, value

_FACTS = tuple(field.name for field in fields(Removed) if field.name != "request")
_TRACK_ID = re.compile(r"[0-9a-f]{32}")
_FEATURED = re.compile(r"[\s(\[]+(?:feat|ft|featuring)\b\.?\s*", re.IGNORECASE)
_SEVERAL = re.compile(r"\s*[,;&+/]\s*|\s+(?:and|x)\s+", re.IGNORECASE)
_SIMILAR = 5  # names shown at most


@dataclass(frozen=True, kw_only=True)
class Match:
    """What one request would take out."""

    rule: Removed
    tracks: tuple[Track, ...]  # sorted by path
    copies: tuple[Track, ...]  # the same recordings at other paths, which no name of the rule tells
    similar: tuple[str, ...]  # names like the one that was asked for, which it does not match


@dataclass(frozen=True, kw_only=True)
class State:
    """How far the removal of what is on the list has come."""

    unfinished: bool = False  # what is on the list may still be in the workspace
    left: Mapping[str, str] = field(default_factory=dict)  # once taken out: folder that holds some yet -> its cure
    cards: Mapping[str, str] = field(default_factory=dict)  # dataset card below exports/ that names some -> SHA-256


# The list


def read_removed(manifests: Path) -> list[Removed]:
    """All rows; none where nothing was ever removed."""
    path = manifests / FILE
    return read_table(path, Removed, "mousai remove") if path.exists() else []


def write_removed(manifests: Path, rows: Iterable[Removed], state: State) -> None:
    """Publish the list."""
    write_table(manifests / FILE, Removed, sorted(set(rows), key=_order), **asdict(state))


def read_state(manifests: Path) -> State:
    """As the list tells it; finished where there is none."""
    facts = read_facts(manifests / FILE)
    return State(**{each.name: facts[each.name] for each in fields(State) if each.name in facts})


def _order(row: Removed) -> tuple[str, str]:
    return row.request, f"{row.track_id or ''} {row.pcm_id or ''}"


def is_unfinished(manifests: Path) -> bool:
    """Whether a removal was begun and has not been brought to its end."""
    return read_state(manifests).unfinished


def require_finished(manifests: Path, *, but_for_exports: bool = False) -> None:
    """UserError while removed music may be here; for what makes exports anew, those alone are no hindrance."""
    state = read_state(manifests)
    if not state.unfinished:
        return
    if not state.left:
        raise UserError("a removal was cut off, and removed music may still be here. Finish it with: mousai remove")
    if not (but_for_exports and all(folder.startswith("exports/") for folder in state.left)):
        cures = " ".join(f"{folder}: {cure}." for folder, cure in state.left.items())
        raise UserError(
            f"some of what was removed is left in files that mousai leaves alone. {cures} Then: mousai remove"
        )


def recordings(rows: Iterable[Removed]) -> set[str]:
    """The ids on the list."""
    return {row.track_id for row in rows if row.track_id is not None}


def requests(rows: Iterable[Removed]) -> list[str]:
    """The requests on the list, sorted."""
    return sorted({row.request for row in rows})


# Requests


def make_rules(named: Mapping[str, Sequence[str]]) -> list[Removed]:
    """The rules for what was named, by kind of `KINDS`: values of one kind add up, those of different kinds narrow."""
    kinds = [kind for kind in KINDS if named.get(kind)]
    return [
        _rule(dict(zip(kinds, values, strict=True))) for values in product(*(named[kind] for kind in kinds)) if values
    ]


def read_list(path: Path) -> dict[int, Removed]:
    """Line -> rule, of a CSV file: its first line names columns of `KINDS`, each further line is a request."""
    rows = _read_csv(path)
    _, kinds = next(rows, (1, []))
    kinds = [kind.strip().lower() for kind in kinds]
    if not kinds or not set(kinds) <= set(KINDS):
        raise UserError(f"the first line of {path} must name its columns, of {', '.join(KINDS)}; it is {kinds}")
    rules = {}
    for number, row in rows:
        if len(row) > len(kinds):
            raise UserError(f"line {number} of {path} has {len(row)} values for {len(kinds)} columns: quote commas")
        values = {kind: value.strip() for kind, value in zip(kinds, row, strict=False) if value.strip()}
        if any("\n" in value for kind, value in values.items() if kind != "path"):
            raise UserError(f"line {number} of {path} begins a name that goes on in the next: is a quote left open?")
        if values:
            rules[number] = _rule(values)
    if not rules:
        raise UserError(f"{path} names nothing: there is no request below its first line")
    return rules


def _read_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, values) of each row."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 ({error}). Save it in that encoding") from error
    reader = csv.reader(io.StringIO(text), strict=True)
    number = 1
    try:
        for row in reader:
            yield number, row
            number = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"line {number} of {path} is no line of CSV ({error}): is a quote left open?") from error


def _rule(values: Mapping[str, str]) -> Removed:
    facts: dict[str, str | bytes] = {}
    words = []
    for kind, value in values.items():
        field, fact = _fact(kind, value)
        if not fact:
            raise UserError(f"{value!r} is no {kind} that could be removed")
        facts[field] = fact
        words.append(f"{kind} {_shown(fact) if isinstance(fact, bytes) else ' '.join(value.split())}")
    return Removed(request=", ".join(words), **{name: facts.get(name) for name in _FACTS})  # type: ignore[arg-type]


def _fact(kind: str, value: str) -> Fact:
    if kind == "path":
        return "location", os.fsencode(os.path.normpath(Path(value).expanduser().absolute())) if value.strip() else b""
    if kind == "track":
        return ("track_id", value) if _TRACK_ID.fullmatch(value) else ("title", fold(value))
    return kind, fold(value)


def _shown(raw_path: bytes) -> str:
    """On one line, whatever is in it."""
    text = raw_path.decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


# Matching


@lru_cache(maxsize=1 << 16)
def fold(name: str) -> str:
    """A name without case, spacing and the accents of Latin, Greek and Cyrillic letters."""
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    bare = "".join(letter for letter in letters if not "\u0300" <= letter <= "\u036f")
    return " ".join(unicodedata.normalize("NFC", bare).split())


def artist_names(track: Track) -> Iterator[str]:
    """All who take part, as the tags spell them: artists, the album's artist, and whoever follows a "feat."."""
    for name in (*track.artists, track.album_artist or ""):
        yield name
        main, *featured = _FEATURED.split(name)
        yield main
        yield from _featured(featured)
    yield from _featured(_FEATURED.split(track.title or "")[1:])


def _featured(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        names = re.split(r"[)\]]", text)[0]
        yield names
        yield from _SEVERAL.split(names)


def facts_of(track: Track) -> set[Fact]:
    """All that a rule can name of a track."""
    facts: set[Fact] = {("artist", fold(name)) for name in artist_names(track)}
    facts |= {("album", fold(track.album or "")), ("title", fold(track.title or ""))}
    facts |= {("track_id", track.id or ""), ("pcm_id", track.pcm_id or "")}
    return {fact for fact in facts if fact[1]} | _places(track.raw_path)


def _places(raw_path: bytes) -> set[Fact]:
    """The path itself and every folder above it."""
    ends = [match.start() for match in re.finditer(b"/", raw_path) if match.start()]
    return {("location", raw_path[:end]) for end in (*ends, len(raw_path))} | {("location", b"/")}


@dataclass(frozen=True)
class KeptOut:
    """The list, ready to be asked: first fact of a rule -> the rules that begin with it."""

    rules: Mapping[Fact, Sequence[tuple[frozenset[Fact], Removed]]]

    def rules_for(self, facts: set[Fact]) -> list[Removed]:
        """All rules whose facts are all among these, sorted."""
        met = {rule for fact in facts for needed, rule in self.rules.get(fact, ()) if needed <= facts}
        return sorted(met, key=_order)


def kept_out(rows: Iterable[Removed]) -> KeptOut:
    """The rows of a list as a `KeptOut`."""
    rules: dict[Fact, list[tuple[frozenset[Fact], Removed]]] = {}
    for row in rows:
        facts = [(name, value) for name in _FACTS if (value := getattr(row, name)) is not None]
        rules.setdefault(facts[0], []).append((frozenset(facts), row))
    return KeptOut(rules)


def request_for_path(out: KeptOut, raw_path: bytes) -> str | None:
    """The request that names a file or a folder above it and nothing else; None where there is none."""
    rules = out.rules_for(_places(raw_path))
    return rules[0].request if rules else None


def reject_removed(rows: Iterable[Row], removed: Sequence[Removed]) -> tuple[list[Row], list[Removed]]:
    """The rows with every track that is on the list rejected, and the list's further rows for recordings met anew."""
    left, listed = list(rows), set(removed)
    met: set[Removed] = set()
    while removed:  # until what was met tells of no further copy
        left, found = _reject(left, [*removed, *met])
        if found <= listed | met:
            break
        met |= found - listed
    return left, sorted(met, key=_order)


def _reject(rows: Iterable[Row], removed: Iterable[Removed]) -> tuple[list[Row], set[Removed]]:
    out = kept_out(removed)
    left: list[Row] = []
    met: set[Removed] = set()
    clusters: dict[str, str] = {}  # of what is rejected -> the request
    for row in rows:
        rules = out.rules_for(facts_of(row) if isinstance(row, Track) else _places(row.raw_path))
        if not rules or (isinstance(row, Rejected) and row.reason == Reason.REMOVED):
            left.append(row)
            continue
        left.append(rejected_for(row, rules[0].request))
        if isinstance(row, Track):
            met.update(each for rule in rules for each in _recording(rule.request, row))
            if row.cluster is not None:
                clusters.setdefault(row.cluster, rules[0].request)
    copies = [row for row in left if isinstance(row, Track) and row.cluster in clusters]
    met.update(each for copy in copies for each in _recording(clusters[copy.cluster or ""], copy))
    return left, met


def rejected_for(row: Row, request: str) -> Rejected:
    """The row of a file that a request keeps out."""
    shared = {field.name: getattr(row, field.name) for field in fields(Rejected) if hasattr(row, field.name)}
    return Rejected(**{**shared, "reason": Reason.REMOVED.value, "detail": request})


def _recording(request: str, track: Track) -> list[Removed]:
    """The rows for a recording that a request has met: one by its packets, one by its samples."""
    rule = Removed(request=request, **dict.fromkeys(_FACTS))
    by_packets = [replace(rule, track_id=track.id)] if track.id is not None else []
    return by_packets + ([replace(rule, pcm_id=track.pcm_id)] if track.pcm_id is not None else [])


# What a request would take out


def find_matches(tracks: Sequence[Track], rules: Sequence[Removed]) -> list[Match]:
    """For each rule, in order, the tracks that it matches, their copies, and names that are like its own."""
    out = kept_out(rules)
    found: dict[Removed, list[Track]] = {rule: [] for rule in rules}
    copies_of: dict[str | None, list[Track]] = {}
    for track in tracks:
        copies_of.setdefault(track.cluster or track.id, []).append(track)
        for rule in out.rules_for(facts_of(track)):
            found[rule].append(track)
    spellings = {kind: _spellings(tracks, kind) for kind in ("artist", "album", "title")}
    matches = []
    for rule, matched in found.items():
        paths = {track.raw_path for track in matched}
        recordings = dict.fromkeys(track.cluster or track.id for track in matched if track.id is not None)
        copies = [track for each in recordings for track in copies_of[each] if track.raw_path not in paths]
        similar = _similar(spellings, rule, matched)
        matches.append(Match(rule=rule, tracks=tuple(matched), copies=tuple(copies), similar=similar))
    return matches


def by_release(tracks: Iterable[Track]) -> list[tuple[str, list[Track]]]:
    """The tracks by first artist and album, or folder where they are untagged; the largest first."""
    releases: dict[str, list[Track]] = {}
    for track in tracks:
        names = [*track.artists[:1], *([track.album] if track.album else [])]
        releases.setdefault(" – ".join(names) or _shown(track.raw_path.rpartition(b"/")[0]), []).append(track)
    return sorted(releases.items(), key=lambda release: (-len(release[1]), release[0]))


@dataclass(frozen=True)
class _Spellings:
    """Of every artist, album or title, by folded name."""

    known: Mapping[str, str]  # -> a spelling
    num_tracks: Mapping[str, int]


def _spellings(tracks: Iterable[Track], kind: str) -> _Spellings:
    known: dict[str, str] = {}
    num_tracks: Counter[str] = Counter()
    for track in tracks:
        names = {fold(name): name for name in _names(track, kind)}
        names.pop("", None)
        num_tracks.update(names.keys())
        for folded, name in names.items():
            known.setdefault(folded, name)
    return _Spellings(known, num_tracks)


def _names(track: Track, kind: str) -> Iterable[str]:
    if kind == "artist":
        return artist_names(track)
    return [(track.album if kind == "album" else track.title) or ""]


def _similar(spellings: Mapping[str, _Spellings], rule: Removed, matched: Sequence[Track]) -> tuple[str, ...]:
    """Names of tracks that do not match: with the rule's as a word in them, or nearly the same where none matches."""
    similar: list[str] = []
    for kind, every in spellings.items():
        wanted = getattr(rule, kind)
        if wanted is not None:
            of_matched = _spellings(matched, kind).num_tracks
            names = [name for name, count in every.num_tracks.items() if count > of_matched.get(name, 0)]
            near = [] if matched else difflib.get_close_matches(wanted, names, n=_SIMILAR, cutoff=0.6)
            word = re.compile(rf"\b{re.escape(wanted)}\b")
            holding = sorted(name for name in names if wanted in name and word.search(name))
            similar += [every.known[name] for name in dict.fromkeys([*near, *holding]) if name != wanted]
    return tuple(similar[:_SIMILAR])


def with_known_wording(rules: Iterable[Removed], listed: Iterable[Removed]) -> list[Removed]:
    """The rules under the words of the list where it has them: a request is one, however it is spelled."""
    words = {replace(row, request=""): row.request for row in listed}
    return [replace(rule, request=words.get(replace(rule, request=""), rule.request)) for rule in rules]
