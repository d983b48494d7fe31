"""Tags: what mutagen writes in any format comes back as the same fields, and hostile tags as harmless ones."""

import io
import struct
from pathlib import Path

import mutagen
import mutagen.apev2
import mutagen.id3
import mutagen.mp4
import pytest
from audio_files import write_tone

from pipeline.tags import Tags, read_tags

EXPECTED = {
    "title": "Ágætis byrjun",
    "artists": ["AC/DC", "Björk"],
    "album": "Back; in, Black",
    "album_artist": "Various / Artists",
    "genres": ["Hard Rock", "Trip-Hop"],
    "year": 1999,
}
ID3 = {"title": "TIT2", "artists": "TPE1", "album": "TALB", "album_artist": "TPE2", "genres": "TCON", "year": "TDRC"}
VORBIS = {key: key for key in ("title", "album")} | {
    "artists": "artist", "album_artist": "albumartist", "genres": "genre", "year": "date",
}  # fmt: skip
MP4 = {
    "title": "\xa9nam", "artists": "\xa9ART", "album": "\xa9alb", "album_artist": "aART", "genres": "\xa9gen",
    "year": "\xa9day",
}  # fmt: skip
APE = {
    "title": "Title", "artists": "Artist", "album": "Album", "album_artist": "Album Artist", "genres": "Genre",
    "year": "Year",
}  # fmt: skip
ASF = {
    "title": "Title", "artists": "Author", "album": "WM/AlbumTitle", "album_artist": "WM/AlbumArtist",
    "genres": "WM/Genre", "year": "WM/Year",
}  # fmt: skip


def make(folder: Path, suffix: str) -> Path:
    path = folder / f"tone{suffix}"
    write_tone(path, 0.2)
    return path


def tagged(path: Path, keys: dict[str, str], values: dict[str, object]) -> Tags:
    """Write `values` with mutagen under the format's `keys`, and read them back."""
    file = mutagen.File(path)
    if file.tags is None:
        file.add_tags()
    for name, value in values.items():
        texts = [str(part) for part in value] if isinstance(value, list) else [str(value)]
        if keys is ID3:
            file.tags.add(getattr(mutagen.id3, keys[name])(encoding=3, text=texts))
        else:
            file.tags[keys[name]] = texts
    file.save()
    return read(path)


def read(path: Path) -> Tags:
    with path.open("rb") as file:
        return read_tags(file)


def keys_of(tags: Tags) -> dict[str, list[str]]:
    return {key: values for texts in tags.raw.values() for key, values in texts.items()}


def fields(tags: Tags) -> dict[str, object]:
    return {name: getattr(tags, name) for name in EXPECTED}


@pytest.mark.parametrize(
    ("suffix", "keys"),
    [(".mp3", ID3), (".wav", ID3), (".tta", ID3), (".flac", VORBIS), (".ogg", VORBIS), (".opus", VORBIS), (".m4a", MP4),
     (".wv", APE), (".wma", ASF)],
)  # fmt: skip
def test_every_format_brings_all_fields_back(tmp_path, suffix, keys):
    tags = tagged(make(tmp_path, suffix), keys, EXPECTED)
    assert fields(tags) == EXPECTED
    assert all(isinstance(text, str) for texts in keys_of(tags).values() for text in texts)
    assert EXPECTED["artists"] in keys_of(tags).values()


def test_an_mp3_may_carry_apev2(tmp_path):
    path = make(tmp_path, ".mp3")
    ape = mutagen.apev2.APEv2()
    for name, key in APE.items():
        ape[key] = EXPECTED[name] if isinstance(EXPECTED[name], list) else str(EXPECTED[name])
    ape.save(path)
    assert fields(read(path)) == EXPECTED


@pytest.mark.parametrize("version", [3, 4])
def test_older_id3_versions_read_alike(tmp_path, version):
    path = make(tmp_path, ".mp3")
    tagged(path, ID3, EXPECTED)
    mutagen.id3.ID3(path).save(path, v2_version=version, v23_sep=None)
    assert fields(read(path)) == EXPECTED


def id3(version: int, **frames: str) -> io.BytesIO:
    """An ID3v2 tag of version 2, 3 or 4 with Latin-1 texts."""
    bodies = {name.encode(): b"\x00" + text.encode("latin-1") for name, text in frames.items()}
    content = b"".join(
        name + (struct.pack(">I", len(body))[1:] if version == 2 else struct.pack(">IH", len(body), 0)) + body
        for name, body in bodies.items()
    )
    return io.BytesIO(b"ID3" + bytes([version, 0, 0, 0, 0, 0, len(content)]) + content)


def test_id3v2_2_is_read():
    tags = read_tags(id3(2, TT2="Café", TP1="Someone", TYE="1987", TCO="(17)"))
    assert (tags.title, tags.artists, tags.year, tags.genres) == ("Café", ["Someone"], 1987, ["Rock"])


@pytest.mark.parametrize(("version", "frame"), [(2, "TYE"), (3, "TYER"), (4, "TDRC")])
@pytest.mark.parametrize("date", ["Oct 3, 1995", "03/10/1995", "1995-10-03 00:00:00", "1995"])
def test_a_date_that_is_not_as_id3_wants_it_has_its_year(version, frame, date):
    tags = read_tags(id3(version, **{frame: date}))
    assert tags.year == 1995
    assert [date] in keys_of(tags).values()


def test_an_id3_tag_behind_garbage_is_found():
    assert read_tags(io.BytesIO(b"junk ID3 junk" * 9 + id3(3, TIT2="Late").read())).title == "Late"


def test_of_a_cut_tag_the_whole_frames_count():
    whole = id3(3, TIT2="Whole", TALB="Album").read()
    tags = read_tags(io.BytesIO(whole[:-3]))
    assert (tags.title, tags.album) == ("Whole", None)


def test_the_info_list_of_a_wav_is_read_with_any_riff_size(tmp_path):
    path = make(tmp_path, ".wav")
    info = b"".join(
        name + struct.pack("<I", len(text)) + text + b"\0" * (len(text) % 2)
        for name, text in (
            (b"INAM", b"Title\0"),
            (b"IART", "Björk\0".encode()),
            (b"IPRD", b"Album"),
            (b"ICRD", b"1999"),
        )
    )
    content = path.read_bytes() + b"LIST" + struct.pack("<I", 4 + len(info)) + b"INFO" + info
    for size in (len(content) - 8, 0, 0xFFFFFFFF):  # as streamed files have it
        path.write_bytes(content[:4] + struct.pack("<I", size) + content[8:])
        tags = read(path)
        assert (tags.title, tags.artists, tags.album, tags.year) == ("Title", ["Björk"], "Album", 1999)


def test_flac_behind_an_id3_tag_has_the_tags_of_both(tmp_path):
    path = make(tmp_path, ".flac")
    tagged(path, VORBIS, {"title": "Vorbis"})
    path.write_bytes(id3(3, TIT2="ID3", TALB="Album").read() + path.read_bytes())
    tags = read(path)
    assert (tags.title, tags.album) == ("Vorbis", "Album")


def test_id3v1_fills_in_but_never_overrides(tmp_path):
    path = make(tmp_path, ".mp3")
    tagged(path, ID3, {"title": "A title of more than thirty characters, whole"})
    content = path.read_bytes()
    v1 = b"TAG" + b"A title of more than thirty ch" + b"Old artist".ljust(30, b"\0") + bytes(30) + b"1984"
    path.write_bytes(content + v1.ljust(128, b"\0"))
    tags = read(path)
    assert tags.title == "A title of more than thirty characters, whole"
    assert (tags.artists, tags.year) == (["Old artist"], 1984)


def test_apev2_goes_before_id3v1(tmp_path):
    path = make(tmp_path, ".mp3")
    path.write_bytes(path.read_bytes() + (b"TAG" + b"Cut at thirty").ljust(128, b"\0"))
    content, v1 = path.read_bytes()[:-128], path.read_bytes()[-128:]
    path.write_bytes(content)
    ape = mutagen.apev2.APEv2()
    ape["Title"] = "Cut at thirty, or not"
    ape.save(path)
    path.write_bytes(path.read_bytes() + v1)
    assert read(path).title == "Cut at thirty, or not"


@pytest.mark.parametrize(
    ("written", "genres"),
    [
        (["17"], ["Rock"]),
        (["(17)(31)Foo"], ["Rock", "Trance", "Foo"]),
        (["(17)Rock"], ["Rock"]),
        (["9", "Metal"], ["Metal"]),
        (["255"], []),
        (["Unknown"], []),
        (["Drum & Bass", "(Sm)oothy"], ["Drum & Bass", "(Sm)oothy"]),
        (["R&B/Soul"], ["R&B/Soul"]),
    ],
)
def test_genre_numbers_become_names(tmp_path, written, genres):
    assert tagged(make(tmp_path, ".mp3"), ID3, {"genres": written}).genres == genres


def test_the_numeric_genre_of_mp4_is_read(tmp_path):
    path = make(tmp_path, ".m4a")
    tagged(path, MP4, {"genres": "XX"})
    atom = struct.pack(">I4sI4sII", 26, b"\xa9gen", 18, b"data", 0, 0) + b"XX"
    number = struct.pack(">I4sI4sII", 26, b"gnre", 18, b"data", 0, 0) + struct.pack(">H", 18)  # from 1
    atom = atom.replace(struct.pack(">II", 0, 0), struct.pack(">II", 1, 0))
    assert atom in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(atom, number))
    assert read(path).genres == ["Rock"]


@pytest.mark.parametrize(
    ("date", "year"),
    [
        ("2009-09-04 00:00:00", 2009),
        ("19870331", 1987),
        ("04/09/2009", 2009),
        ("0000", None),
        ("0000-00-00", None),
        ("99", None),
        ("9999", None),
        ("soon", None),
    ],
)
def test_a_year_is_found_in_any_date(tmp_path, date, year):
    assert tagged(make(tmp_path, ".flac"), VORBIS, {"year": date}).year == year


@pytest.mark.parametrize(
    ("written", "clean"),
    [
        ("\ufeffOne\u200b Two ", "One Two"),
        ("One\r\nTwo\tThree", "One Two Three"),
        ("One\x00Two\x00\x00", "One Two"),
        (" \n\u200b", None),
        ("e\u0301", "é"),
        ("BjÃ¶rk", "Björk"),  # UTF-8 read as Latin-1
        ("donâ€™t", "don’t"),  # UTF-8 read as Windows-1252
        ("Sigur Rós", "Sigur Rós"),
        ("東京", "東京"),
    ],
)
def test_titles_are_cleaned(tmp_path, written, clean):
    assert tagged(make(tmp_path, ".flac"), VORBIS, {"title": written}).title == clean


def test_raw_tags_are_kept_as_they_were_read(tmp_path):
    tags = tagged(make(tmp_path, ".flac"), VORBIS, {"title": "BjÃ¶rk", "genres": ["17"]})
    assert tags.raw == {"vorbis": {"title": ["BjÃ¶rk"], "genre": ["17"]}}


def test_empty_and_repeated_values_are_dropped(tmp_path):
    tags = tagged(make(tmp_path, ".flac"), VORBIS, {"artists": ["", "A", " A", "B"]})
    assert tags.artists == ["A", "B"]


def test_pictures_stay_out_of_raw_tags(tmp_path):
    path = make(tmp_path, ".m4a")
    file = mutagen.File(path)
    file.tags["covr"] = [mutagen.mp4.MP4Cover(b"\x89PNG" + bytes(100))]
    file.tags["----:com.apple.iTunes:MOOD"] = [b"calm"]
    file.save()
    raw = read(path).raw["mp4"]
    assert "covr" not in raw
    assert raw["----:com.apple.iTunes:MOOD"] == ["calm"]


class Watched(io.BytesIO):
    """A file that counts the bytes read."""

    num_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.num_read += len(content)
        return content


@pytest.mark.parametrize("version", [3, 4])
def test_a_big_picture_in_id3_is_not_read(version):
    def sevens(size: int) -> bytes:
        return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))

    bodies = {b"APIC": bytes(3_000_000), b"TIT2": b"\x00" + b"Behind" * 50, b"TALB": b"\x00B"}
    frames = b"".join(
        name + (sevens(len(body)) if version == 4 else struct.pack(">I", len(body))) + b"\0\0" + body
        for name, body in bodies.items()
    )
    file = Watched(b"ID3" + bytes([version, 0, 0]) + sevens(len(frames) + 500) + frames + bytes(500))
    found = read_tags(file)
    assert (found.title, found.album) == ("Behind" * 50, "B")
    assert file.num_read < 50_000


def test_a_file_without_tags_has_empty_ones(tmp_path):
    assert read(make(tmp_path, ".wav")) == Tags()


@pytest.mark.parametrize("content", [b"", b"fLaC\x00", b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + b"TIT2" * 9, b"OggS" * 50])
def test_damaged_tags_are_empty_and_never_raise(content):
    tags = read_tags(io.BytesIO(content))
    assert fields(tags) == fields(Tags())


def test_what_went_wrong_is_kept():
    (error,) = read_tags(io.BytesIO(b"fLaC\x84\0\0\4" + b"\xff" * 4)).raw["error"]["flac"]
    assert error


def test_a_name_that_is_not_utf8_is_no_obstacle(tmp_path):
    path = make(tmp_path, ".mp3")
    tagged(path, ID3, EXPECTED)
    odd = bytes(tmp_path) + b"/\xff\n.mp3"
    path.rename(odd.decode("utf-8", "surrogateescape"))
    with open(odd, "rb") as file:  # noqa: PTH123 - a name in bytes
        assert fields(read_tags(file)) == EXPECTED
