"""`mousai ingest --metadata` and `--title-from-filename`: what they add, what they override, and that it is kept."""

import json
from pathlib import Path

import mutagen.flac
import pytest
from audio_files import write_tone
from cli_runs import Outcome, mousai, write_workspace

from mousai.errors import UserError
from pipeline.ingest import IngestSummary, ingest
from pipeline.manifest import read_table
from pipeline.metadata import BesideTags, match, read_metadata, title_in
from pipeline.records import Track


@pytest.fixture
def library(tmp_path) -> Path:
    """Two tagged songs and one without tags."""
    folder = tmp_path / "library"
    folder.mkdir()
    for name, tags in {"a.flac": {"title": "A", "artist": "Ann", "date": "1990"}, "b.flac": {"title": "B"}}.items():
        write(folder / name, tags)
    write_tone(folder / "03 - Blue Hour.wav", 0.1)
    return folder


def write(path: Path, tags: dict[str, str]) -> None:
    write_tone(path, 0.1)
    file = mutagen.flac.FLAC(path)
    file.update(tags)
    file.save()


def scan(library: Path, **options) -> IngestSummary:
    return ingest([library], library.parent / "m", workers=1, tags_only=True, beside=BesideTags(**options))


def tracks(library: Path) -> dict[str, Track]:
    return {Path(row.path).name: row for row in read_table(library.parent / "m" / "tracks.parquet", Track)}


def said(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


CSV = "path,artists,genre,year,license,consent\na.flac,Ann; Bob,Drone,,CC BY 4.0,yes\n"
JSON_ROW = {"artists": ["Ann", "Bob"], "genres": "Drone", "year": None, "licence": "CC BY 4.0", "consent": True}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", CSV),
        ("m.csv", "\ufeff" + CSV.replace("; ", "|").replace(",", ";").replace("Ann|Bob", '"Ann; Bob"')),
        ("m.tsv", CSV.replace(",", "\t")),
        ("m.json", json.dumps([{"path": "a.flac", **JSON_ROW}])),
        ("m.json", json.dumps({"a.flac": JSON_ROW})),
        ("m.jsonl", json.dumps({"path": "a.flac", **JSON_ROW}) + "\n\n"),
    ],
)
def test_every_kind_of_file_says_the_same(tmp_path, name, text):
    assert read_metadata(said(tmp_path, name, text)) == {
        "a.flac": {"artists": ["Ann", "Bob"], "genres": ["Drone"], "licence": "CC-BY-4.0", "consent": "yes"}
    }


def test_a_row_adds_and_overrides_and_leaves_the_rest(tmp_path, library):
    summary = scan(library, metadata=said(tmp_path, "m.csv", CSV))
    track = tracks(library)["a.flac"]
    assert (track.title, track.artists, track.genres, track.year) == ("A", ["Ann", "Bob"], ["Drone"], 1990)
    assert (track.licence, track.consent) == ("CC-BY-4.0", "yes")
    assert json.loads(track.raw_tags)["vorbis"]["artist"] == ["Ann"]
    assert (summary.num_described, summary.unmatched) == (1, [])


def test_paths_are_absolute_or_relative_to_the_library(tmp_path, library):
    rows = {str(library / "a.flac"): {"title": "1"}, "./b.flac": {"title": "2"}, "c.flac": {"title": "3"}}
    summary = scan(library, metadata=said(tmp_path, "m.json", json.dumps(rows)))
    assert (tracks(library)["a.flac"].title, tracks(library)["b.flac"].title) == ("1", "2")
    assert summary.unmatched == ["c.flac"]


def test_composed_and_decomposed_names_are_one():
    found, missed = match({"e\u0301.mp3": {"title": "X"}}, [("/m/é.mp3", b"/m/\xc3\xa9.mp3")], [Path("/m")])
    assert (list(found), missed) == ([b"/m/\xc3\xa9.mp3"], [])


def test_a_later_scan_remembers(tmp_path, library):
    scan(library, metadata=said(tmp_path, "m.csv", CSV))
    before = (tmp_path / "m" / "tracks.parquet").read_bytes()
    assert not scan(library).changed
    assert (tmp_path / "m" / "tracks.parquet").read_bytes() == before
    write(library / "a.flac", {"title": "New", "artist": "Ann"})
    scan(library)
    track = tracks(library)["a.flac"]
    assert (track.title, track.artists, track.licence, track.year) == ("New", ["Ann", "Bob"], "CC-BY-4.0", None)


def test_a_new_row_replaces_the_old_one_and_an_empty_one_takes_it_back(tmp_path, library):
    scan(library, metadata=said(tmp_path, "m.csv", CSV))
    scan(library, metadata=said(tmp_path, "m.csv", "path,title\nb.flac,Bee\n"))
    assert (tracks(library)["a.flac"].artists, tracks(library)["b.flac"].title) == (["Ann", "Bob"], "Bee")
    scan(library, metadata=said(tmp_path, "m.csv", "path,title\na.flac,\n"))
    track = tracks(library)["a.flac"]
    assert (track.artists, track.licence, tracks(library)["b.flac"].title) == (["Ann"], None, "Bee")


def test_values_survive_a_kill_before_the_tracks_are_written(tmp_path, library, monkeypatch):
    scan(library)

    def killed(*_args: object, **_facts: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pipeline.ingest._write_rows", killed)
        scan(library, metadata=said(tmp_path, "m.csv", CSV))
    scan(library)
    assert tracks(library)["a.flac"].consent == "yes"


def test_titles_come_from_names_only_on_request_until_it_is_taken_back(library):
    name = "03 - Blue Hour.wav"
    for option, title in ((None, None), (True, "Blue Hour"), (None, "Blue Hour"), (False, None), (None, None)):
        scan(library, title_from_filename=option)
        assert tracks(library)[name].title == title
        assert tracks(library)["a.flac"].title == "A"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("04 - Ann - Blue Hour.mp3", "Blue Hour"), ("1-04. Blue Hour.mp3", "Blue Hour"), ("07 Seven.ogg", "Seven"),
        ("blue_hour.flac", "blue hour"), ("99 Luftballons.mp3", "99 Luftballons"), ("24-7.mp3", "24-7"),
        ("04-blue_hour.flac", "blue hour"), ("Track 14.mp3", None), ("07.mp3", None), ("3.14 Pi.mp3", "3.14 Pi"),
    ],
)  # fmt: skip
def test_a_title_is_what_remains_of_the_name(name, title):
    assert title_in(f"/music/{name}", ["Ann"]) == title


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.csv", "path,titel\na,b\n", ["line 2", "'titel'", "album_artist"]),
        ("m.csv", "title\nb\n", ["line 2", "path"]),
        ("m.csv", "path,year\na,2001\nb,20x1\n", ["line 3", "'20x1'"]),
        ("m.csv", "path,title\na,b,c\n", ["line 2", "more cells"]),
        ("m.csv", "path,title\na,b\na,c\n", ["line 3", "line 2"]),
        ("m.json", '[{"path": "a", "title": ["b"]}]', ["entry 1", "title"]),
        ("m.json", '["a"]', ["entry 1"]),
        ("m.json", "{", ["cannot be read"]),
        ("m.jsonl", '{"path": "a"}\n{', ["cannot be read"]),
        ("m.txt", "", [".csv"]),
        ("m.csv", "", ["holds no rows"]),
        ("m.csv", "path,title\n", ["holds no rows"]),
        ("m.json", "[]", ["holds no rows"]),
    ],
)
def test_what_cannot_be_understood_is_named(tmp_path, name, text, words):
    with pytest.raises(UserError) as error:
        read_metadata(said(tmp_path, name, text))
    assert all(word in str(error.value) for word in (name, *words))


def test_a_file_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes("path,title\na,Bj\xf6rk\n".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        read_metadata(path)


def test_a_wrong_metadata_file_stops_the_scan_before_it_starts(tmp_path, library):
    with pytest.raises(UserError):
        scan(library, metadata=tmp_path / "missing.csv")
    assert not (tmp_path / "m").exists()


def run(space: Path, library: Path, *options: object) -> Outcome:
    return mousai("ingest", library, "--tags-only", "-j", 1, "-w", space, *options)


def test_the_command_counts_paths_that_fit_nothing(tmp_path, library):
    space = write_workspace(tmp_path / "space")
    done = run(space, library, "--metadata", said(tmp_path, "m.csv", CSV + "x.mp3,,,,,\n"), "--title-from-filename")
    assert done.code == 0
    assert "fit no file: 1" in done.err and "'x.mp3'" in done.err
    shown = json.loads(run(space, library, "--json").out)
    assert (shown["num_described"], shown["changed"]) == (1, False)
