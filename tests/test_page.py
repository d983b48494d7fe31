"""A page is one file: it escapes what it is told, closes what it opens and loads nothing."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import tone

from mousai.audio import encode_pcm16, read_span, write_audio
from mousai.page import details, facts, grid, heading, paragraph, picture, player, table, verdict, write_page

NASTY = "<script>alert(\"1\" & '2')</script>"
VOID = {"meta", "img"}  # elements of HTML that are never closed
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Reader(HTMLParser):
    """Collects text and attributes, and asserts that every tag is closed in turn."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "poster", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)  # <path/> within <svg>

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A picture and a sound."""
    image, wav = tmp_path / "one.png", tmp_path / "tone.wav"
    image.write_bytes(PNG)
    write_audio(wav, tone(0.5, sample_rate=48_000))
    return image, wav


def every_block(image: Path, wav: Path, text: str) -> list[str]:
    return [
        heading(text),
        paragraph(text),
        facts([(text, text), ("tracks", 28)]),
        table([text, "dB"], [[text, 10.5], ["nothing", None]]),
        picture(image, text, text),
        player(wav, text, text),
        details(text, paragraph(text)),
        grid(paragraph(text), player(wav, text)),
        verdict(True, text),
        verdict(False, text),
    ]


def page_of(tmp_path: Path, files: tuple[Path, Path], text: str) -> str:
    write_page(tmp_path / "page.html", text, text, every_block(*files, text))
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def sound_in(block: str) -> bytes:
    found = re.search(r'src="data:audio/flac;base64,([^"]+)"', block)
    assert found is not None
    return base64.b64decode(found[1])


@pytest.mark.parametrize("number", range(10))
def test_a_block_shows_text_as_it_is_and_runs_none_of_it(files: tuple[Path, Path], number: int):
    block = every_block(*files, NASTY)[number]
    assert "<script" not in block
    assert "script" not in Reader(block).tags
    assert NASTY in Reader(block).text


def test_a_page_closes_what_it_opens(tmp_path: Path, files: tuple[Path, Path]):
    read = Reader(page_of(tmp_path, files, NASTY))
    assert "script" not in read.tags
    assert read.tags.count("main") == 1
    assert read.tags.count("h1") == 1


def test_the_reader_of_these_tests_sees_a_tag_left_open():
    with pytest.raises(AssertionError):
        Reader("<p><b>bold</p>")
    with pytest.raises(AssertionError):
        Reader("<div>")


def test_a_page_asks_nothing_of_network_or_disk(tmp_path: Path, files: tuple[Path, Path]):
    page = page_of(tmp_path, files, "plain")
    sources = Reader(page).sources
    assert len(sources) == 3  # a picture and two players
    assert all(source.startswith("data:") for source in sources)
    assert not re.search(r"https?://|//[a-z]|url\(|@import|<link|<script|<iframe", page)


def test_a_page_forbids_the_browser_to_load_or_run_anything(tmp_path: Path, files: tuple[Path, Path]):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page_of(tmp_path, files, "plain"))
    assert policy is not None
    assert policy[1].startswith("default-src 'none'")
    assert "script" not in policy[1] and "http" not in policy[1]


def test_the_sound_in_a_page_is_the_sound_of_the_file(files: tuple[Path, Path]):
    _, wav = files
    before, rate = soundfile.read(wav, dtype="int16")
    after, rate_after = soundfile.read(io.BytesIO(sound_in(player(wav, "a tone"))), dtype="int16")
    assert rate == rate_after == 48_000
    assert np.array_equal(before, after)


def test_the_lowest_value_of_16_bits_survives(tmp_path: Path):
    extremes = np.array([[-32768, 32767], [0, -1]], dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", extremes, 48_000)
    assert np.array_equal(
        soundfile.read(io.BytesIO(sound_in(player(tmp_path / "a.wav", "a"))), dtype="int16")[0], extremes
    )


def test_a_wav_is_embedded_in_less_than_its_size(files: tuple[Path, Path]):
    assert len(sound_in(player(files[1], "a tone"))) < 0.6 * files[1].stat().st_size


def test_flac_is_embedded_as_it_is(tmp_path: Path):
    flac = encode_pcm16(tone(0.2, sample_rate=48_000))
    (tmp_path / "tone.flac").write_bytes(flac)
    assert sound_in(player(tmp_path / "tone.flac", "a tone")) == flac
    assert read_span(io.BytesIO(flac)).shape == (2, 9600)


def test_audio_that_is_not_of_16_bits_is_refused(tmp_path: Path):
    soundfile.write(tmp_path / "float.wav", tone(0.1).T, 48_000, subtype="FLOAT")
    with pytest.raises(ValueError, match="FLOAT, not 16-bit"):
        player(tmp_path / "float.wav", "a tone")


def test_a_player_says_how_long_the_sound_is(tmp_path: Path):
    write_audio(tmp_path / "tone.wav", tone(2.0, sample_rate=48_000))
    assert "0:02" in Reader(player(tmp_path / "tone.wav", "a tone")).text


def test_a_picture_is_the_file_itself(files: tuple[Path, Path]):
    found = re.search(r'src="data:image/png;base64,([^"]+)"', picture(files[0], "a dot"))
    assert found is not None and base64.b64decode(found[1]) == PNG


def test_numbers_stand_on_the_right():
    block = table(["genre", "year", "dB"], [["house", 2026, 1.5]], numeric_from=2)
    assert "<td>house</td><td>2026</td>" in block
    assert '<td class="number">1.5</td>' in block and '<th class="number">dB</th>' in block


def test_a_passed_check_looks_and_sounds_unlike_a_failed_one():
    passed, failed = verdict(True, "it holds"), verdict(False, "it holds")
    assert 'aria-label="pass"' in passed and 'aria-label="fail"' in failed
    assert re.findall(' d="[^"]+"', passed) != re.findall(' d="[^"]+"', failed)


def test_the_same_blocks_give_the_same_page(tmp_path: Path, files: tuple[Path, Path]):
    assert page_of(tmp_path, files, "one") == page_of(tmp_path, files, "one")
    assert not list(tmp_path.glob(".*"))  # nothing temporary is left
