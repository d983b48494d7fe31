"""What the texts of tags mean: encodings, placeholders, years, genres, licences; and which tag is believed."""

import pytest

from pipeline.licences import licence_name
from pipeline.tags import Tags, interpret, year_of
from pipeline.texts import clean


def meaning(**keys: str | list[str]) -> Tags:
    """The fields of a FLAC whose comment has these keys."""
    return interpret({"vorbis": {key: [value] if isinstance(value, str) else value for key, value in keys.items()}})


@pytest.mark.parametrize(
    "text",
    ["Sigur Rós", "Motörhead – “Überleben…”", "東京", "Кино", "ΜΟΥΣΙΚΗ", "Beyoncé’s", "Dvořák", "Łódź", "שלום", "ไทย"],
)  # fmt: skip
def test_utf8_that_was_read_in_a_western_encoding_is_read_again(text):
    once = text.encode("utf-8").decode("latin-1")
    assert clean(once) == text
    assert clean(once.encode("utf-8").decode("latin-1")) == text
    windows = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in text.encode("utf-8"))
    assert clean(windows) == text


@pytest.mark.parametrize(
    "text",
    ["Sigur Rós", "CAFÉ’S", "ÑANDÚ", "“JOSÉ”", "Ærø", "naïve Ã", "100 °C", "¿Qué?", "Кино", "«Ça»", "日本語"],
)
def test_texts_that_are_right_stay(text):
    assert clean(text) == text


@pytest.mark.parametrize("text", ["さくら", "東京タワー", "ラヴ・ソング 2", "あいのうた"])
def test_shift_jis_that_was_read_as_latin_1_is_read_again(text):
    assert clean(text.encode("cp932").decode("latin-1")) == text


def test_windows_punctuation_that_was_read_as_latin_1_comes_back():
    assert clean("Don\x92t \x93Stop\x94 \x96 Now") == "Don’t “Stop” – Now"


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "gbk", "euc-kr"])
def test_bytes_that_fit_several_encodings_are_not_guessed_at(encoding):
    text = {"gbk": "中国人", "euc-kr": "한국"}.get(encoding, "Кино")
    written = text.encode(encoding).decode("latin-1")
    assert clean(written) == written


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("title", "Track 14"), ("title", "track14"), ("title", "Audio Track 01"), ("title", "AudioTrack 01"),
        ("title", "No Title"), ("title", "Unknown"), ("title", "<unknown>"), ("title", "[unknown]"),
        ("title", "Piste 3"), ("title", "Дорожка 7"), ("title", "?????? ???"), ("title", "Unknown Title"),
        ("artist", "Unknown Artist"), ("artist", "<unknown>"), ("artist", "(None)"), ("artist", "unknown artist"),
        ("artist", "Unbekannter Interpret"), ("artist", "[no artist]"), ("artist", "N/A"),
        ("album", "Unknown Album"), ("album", "Unknown Album (12/3/2005 4:34:12 PM)"), ("album", "Album inconnu"),
        ("albumartist", "Unknown Artist"),
        ("genre", "Unknown"), ("genre", "Other"), ("genre", "<none>"), ("genre", "None"), ("genre", "genre"),
        ("genre", "12"), ("genre", "Misc"),
        ("license", "none"), ("date", "0000"),
    ],
)  # fmt: skip
def test_what_stands_for_nothing_is_nothing(field, text):
    assert meaning(**{field: text}) == Tags(raw={"vorbis": {field: [text]}})


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("title", "Song 2"), ("title", "Untitled"), ("title", "Unknown Pleasures"), ("title", "Track 14 (Live)"),
        ("title", "?"), ("title", "99"), ("artist", "None"), ("artist", "Unknown Mortal Orchestra"),
        ("artist", "The Unknown Artist"), ("album", "No Title Deeds"),
    ],
)  # fmt: skip
def test_names_that_only_look_like_nothing_stay(field, text):
    tags = meaning(**{field: text})
    assert text in (tags.title, tags.album, *tags.artists)


def test_a_placeholder_gives_way_to_a_worse_tag_that_knows():
    raw = {"id3v2": {"TIT2": ["Track 01"], "TDRC": ["0000"]}, "id3v1": {"TIT2": ["Gloria"], "TDRC": ["1964"]}}
    assert (interpret(raw).title, interpret(raw).year) == ("Gloria", 1964)


@pytest.mark.parametrize(
    ("date", "year"),
    [
        ("2009-09-04 00:00:00", 2009), ("19870331", 1987), ("198703", 1987), ("04/09/2009", 2009), ("31031987", 1987),
        ("20090904T120000Z", 2009), ("2009", 2009), ("c. 1987", 1987), ("1987/1988", 1987), ("℗ 1999 Label", 1999),
        ("5.12.98, 1999", 1999), ("0000", None), ("0000-00-00", None), ("99", None), ("9999", None), ("soon", None),
        ("12345", None), ("0999", None), ("", None),
    ],
)  # fmt: skip
def test_a_year_is_found_in_any_date(date, year):
    assert year_of(date) == year


@pytest.mark.parametrize(
    ("written", "genres"),
    [
        ("Rock; Pop;Rock", ["Rock", "Pop"]),
        ("R&B/Soul", ["R&B/Soul"]),
        ("(17)(31)Foo", ["Rock", "Trance", "Foo"]),
        ("17", ["Rock"]),
        ("255", []),
        ("Unknown; Jazz", ["Jazz"]),
        ("(RX)", ["Remix"]),
    ],
)
def test_genres_become_a_list_of_names(written, genres):
    assert meaning(genre=written).genres == genres


@pytest.mark.parametrize("name", ["AC/DC", "Emerson, Lake & Palmer", "Simon & Garfunkel", "Earth; Wind", "A feat. B"])
def test_an_artist_is_never_split(name):
    assert meaning(artist=name).artists == [name]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("http://creativecommons.org/licenses/by-sa/3.0/", "CC-BY-SA-3.0"),
        ("https://creativecommons.org/licenses/by-nc-nd/4.0/deed.de", "CC-BY-NC-ND-4.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("CC BY-SA 3.0", "CC-BY-SA-3.0"),
        ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
        ("CC BY 4.0", "CC-BY-4.0"),
        ("CC-BY", "CC-BY"),
        ("Creative Commons Attribution-ShareAlike 3.0 Unported", "CC-BY-SA-3.0"),
        ("Creative Commons Attribution-NonCommercial-NoDerivs 2.5", "CC-BY-NC-ND-2.5"),
        ("CC BY-SA-NC 3.0", "CC-BY-NC-SA-3.0"),
        ("CC0", "CC0-1.0"),
        ("All rights reserved", "All rights reserved"),
        ("CC Records, by permission", "CC Records, by permission"),
    ],
)
def test_a_licence_has_one_name(written, name):
    assert licence_name(written) == name


def test_licence_and_consent_come_from_the_tags_of_every_format():
    link = "http://creativecommons.org/licenses/by/2.0/"
    for raw in (
        {"vorbis": {"license": [link], "consent": ["yes"]}},
        {"id3v2": {"WCOP": [link], "TXXX:Consent": ["yes"]}},
        {"id3v2": {"TXXX:LICENSE": [link], "WCOP": ["http://example.org"], "TXXX:CONSENT": ["yes"]}},
        {"mp4": {"----:com.apple.iTunes:LICENSE": [link], "----:com.apple.iTunes:CONSENT": ["yes"]}},
        {"apev2": {"license": [link], "consent": ["yes"]}},
        {"asf": {"LICENSE": [link], "Consent": ["yes"]}},
    ):
        assert (interpret(raw).licence, interpret(raw).consent) == ("CC-BY-2.0", "yes")


def test_a_copyright_notice_is_a_licence_only_where_it_links_to_one():
    notice = "2004 X. Licensed to the public under http://creativecommons.org/licenses/by-nc/2.0/"
    assert meaning(copyright=notice).licence == "CC-BY-NC-2.0"
    assert meaning(copyright="2004 X. All rights reserved").licence is None
