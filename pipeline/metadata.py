"""What a metadata file says about tracks: it adds to their tags or overrides them, and is remembered.

The file is CSV, JSON or JSON lines, a row a track. Its values are copied into `manifests/metadata.parquet`, so that a
later scan knows them without the file.
"""

import csv
import io
import json
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mousai.errors import UserError
from pipeline.licences import licence_name
from pipeline.manifest import read_table, write_table
from pipeline.records import Override, Rejected, Track
from pipeline.tags import FIELDS, interpret, is_placeholder, year_of
from pipeline.texts import clean

TABLE = "metadata.parquet"
Said = dict[str, Any]  # the fields that a row sets
_OTHER_NAMES = {"artist": "artists", "genre": "genres", "license": "licence", "albumartist": "album_artist"}
_LISTS = ("artists", "genres")
_NUMBER = re.compile(  # "04 - ", "1-04. ", "07 ", "07-", but not "99 " or "24-7"
    r"(?:\d-)?\d{1,3}(?:[.)]?\s+[-–]\s+|[.)]\s+|-\s+)|(?:\d-)?0\d[\s-]+"
)


@dataclass(frozen=True, kw_only=True)
class BesideTags:
    """What else says what a track is called."""

    metadata: Path | None = None  # a file for `read_metadata`
    title_from_filename: bool | None = None  # None: as in the last scan


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How tracks are named in this scan."""

    said: dict[str, Said]  # of the metadata file
    titled: bool  # whether titles come from names where there is no other
    switched: bool  # whether that was otherwise before


@dataclass(frozen=True, kw_only=True)
class Described:
    """Rows with what is known beside their tags."""

    rows: list[Track | Rejected]
    overrides: dict[bytes, Override]  # by raw path
    unmatched: list[str]  # paths in the metadata file that fit no row


def naming(beside: BesideTags, facts: Mapping[str, Any]) -> Naming:
    """What `beside` asks for, after a scan that left `facts`; UserError as for `read_metadata`."""
    before = bool(facts.get("title_from_filename", False))
    titled = before if beside.title_from_filename is None else beside.title_from_filename
    said = {} if beside.metadata is None else read_metadata(beside.metadata)
    return Naming(said=said, titled=titled, switched=titled != before)


# The file


def read_metadata(file: Path) -> dict[str, Said]:
    """Path as written -> what is said about it; UserError, naming the row, for what cannot be understood."""
    rows: dict[str, Said] = {}
    places: dict[str, str] = {}
    for place, row in _rows(file):
        unknown = [str(name) for name in row if _OTHER_NAMES.get(name, name) not in ("path", *FIELDS)]
        if unknown:
            raise UserError(
                f"{place} has the unknown column {', '.join(map(repr, unknown))}. Known: path, {', '.join(FIELDS)}"
            )
        path = row.get("path")
        if not path or not isinstance(path, str):
            raise UserError(f"{place} names no path. Every row needs one, absolute or relative to the library")
        if path in rows:
            raise UserError(f"{place} speaks of {path} again, as {places[path]} does. Keep one of the two")
        rows[path] = dict(_said(row, place))
        places[path] = place
    if not rows:
        raise UserError(f"{file} holds no rows. Give it one a track, with its path and what is to be said of it")
    return rows


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row stands, and the row."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() in (".csv", ".tsv"):
            yield from _csv_rows(text, file)
        elif file.suffix.lower() in (".jsonl", ".ndjson"):
            for number, line in enumerate(text.split("\n"), 1):
                if line.strip():
                    yield _object(json.loads(line), f"{file}, line {number},")
        elif file.suffix.lower() == ".json":
            values = json.loads(text)
            if isinstance(values, dict):  # path -> fields
                values = [{**_object(said, f"{file}, {path},")[1], "path": path} for path, said in values.items()]
            for number, value in enumerate(values, 1):
                yield _object(value, f"{file}, entry {number},")
        else:
            raise UserError(f"{file} is no metadata file by its name. Name it .csv, .tsv, .json or .jsonl")
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist. Name a CSV, JSON or JSON lines file with a column path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8") from error
    except (json.JSONDecodeError, csv.Error) as error:
        raise UserError(f"{file} cannot be read: {error}") from error


def _csv_rows(text: str, file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)  # spreadsheets of some countries write semicolons
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or []]
    for row in reader:
        place = f"{file}, line {reader.line_num},"
        if None in row:
            raise UserError(f"{place} has more cells than the header has columns. Quote cells that hold {delimiter!r}")
        yield place, row


def _object(value: Any, place: str) -> tuple[str, dict[str, Any]]:
    if not isinstance(value, dict):
        raise UserError(f'{place} is no object such as {{"path": "a.mp3", "title": "A"}}')
    return place, value


def _said(row: Mapping[str, Any], place: str) -> Iterator[tuple[str, Any]]:
    """The fields that a row sets: empty cells and null set none."""
    for written, value in row.items():
        name = _OTHER_NAMES.get(written, written)
        if name == "path" or value is None or value == "" or value == []:
            continue
        if name == "year":
            yield name, _year(value, place)
        elif name in _LISTS:
            parts = value if isinstance(value, list) else _text(value, name, place).split(";")
            if values := [part for each in parts if (part := clean(_text(each, name, place)))]:
                yield name, values
        elif text := clean(_text(value, name, place)):
            yield name, licence_name(text) if name == "licence" else text


def _text(value: Any, name: str, place: str) -> str:
    if isinstance(value, bool) and name == "consent":
        return "yes" if value else "no"
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise UserError(f"{place} has {value!r} as {name}, and text should stand there")
    return str(value)


def _year(value: Any, place: str) -> int:
    whole = int(value) if isinstance(value, float) and value.is_integer() else value  # 1999.0 of a spreadsheet
    year = year_of(str(whole))
    if year is None:
        raise UserError(f"{place} has the year {value!r}. A year lies between 1000 and 2100, or the cell is empty")
    return year


# What is remembered


def remembered(manifests: Path) -> dict[bytes, Override]:
    """What earlier scans were told, by raw path."""
    path = manifests / TABLE
    rows = read_table(path, Override, "mousai ingest --metadata FILE") if path.exists() else []
    return {row.raw_path: row for row in rows}


def remember(manifests: Path, overrides: Mapping[bytes, Override]) -> None:
    """Write the table, if it says anything new.

    A row that says nothing stays in it, so that what it took back is taken back after a kill as well.
    """
    if overrides == remembered(manifests):
        return
    rows = sorted(overrides.values(), key=lambda row: (row.path, row.raw_path))
    write_table(manifests / TABLE, Override, rows)


def drop_said(manifests: Path, gone: Collection[bytes]) -> None:
    """Forget what was said about some files, by raw path."""
    remember(manifests, {raw_path: row for raw_path, row in remembered(manifests).items() if raw_path not in gone})


def match(
    metadata: Mapping[str, Said], known: Iterable[tuple[str, bytes]], libraries: Sequence[Path]
) -> tuple[dict[bytes, Override], list[str]]:
    """Raw path -> what is said about it, for the `known` files (shown path, raw path); and the paths that fit none.

    A path is absolute, as in `tracks.parquet`, or relative to one of `libraries`. Composed and decomposed accents are
    one: file systems and editors differ in them.
    """
    files = {unicodedata.normalize("NFC", shown): (shown, raw) for shown, raw in known}
    found: dict[bytes, Override] = {}
    missed: list[str] = []
    for path, said in metadata.items():
        absolute = (os.path.normpath(library / Path(path).expanduser()) for library in (Path("/"), *libraries))
        hit = next((files[name] for each in absolute if (name := unicodedata.normalize("NFC", each)) in files), None)
        if hit is None:
            missed.append(path)
        else:
            blank: Said = dict.fromkeys(FIELDS) | {name: [] for name in _LISTS}
            found[hit[1]] = Override(path=hit[0], raw_path=hit[1], **(blank | said))
    return found, missed


# What a track is called


def describe_all(
    rows: Sequence[Track | Rejected], manifests: Path, libraries: Sequence[Path], naming: Naming
) -> Described:
    """`describe` each track that needs it, with what is said now and what is remembered in `manifests`."""
    found, unmatched = match(naming.said, ((row.path, row.raw_path) for row in rows), libraries)
    overrides = remembered(manifests) | found
    described: list[Track | Rejected] = []
    for row in rows:
        override = overrides.get(row.raw_path)
        if isinstance(row, Track) and (override or naming.switched or (naming.titled and row.title is None)):
            described.append(describe(row, override, title_from_filename=naming.titled))
        else:
            described.append(row)
    return Described(rows=described, overrides=overrides, unmatched=unmatched)


def describe(track: Track, override: Override | None, *, title_from_filename: bool) -> Track:
    """The track with the fields of its tags, those that `override` sets, and maybe a title by its file's name."""
    tags = interpret(json.loads(track.raw_tags))
    fields = {name: getattr(tags, name) for name in FIELDS}
    if override is not None:
        said = asdict(override)
        fields |= {name: said[name] for name in FIELDS if said[name]}
    if fields["title"] is None and title_from_filename:
        fields["title"] = title_in(track.path, fields["artists"])
    return replace(track, **fields)


def title_in(path: str, artists: Sequence[str]) -> str | None:
    """The title in a file's name: without its number, and without the artist before a dash; None where none is left."""
    stem = Path(path).stem
    title = clean(stem if " " in stem else stem.replace("_", " "))
    title = _NUMBER.sub("", title, count=1) if _NUMBER.match(title) else title
    for artist in artists:
        if title.casefold().startswith(f"{artist} - ".casefold()):
            title = title[len(artist) + 3 :]
    return None if title.isdecimal() or not title or is_placeholder("title", title) else title
