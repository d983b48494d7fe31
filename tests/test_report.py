"""The report counts what is in the tables: known libraries give known figures, at every stage, on one closed page."""

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from audio_files import write_tone
from cli_runs import mousai, write_library, write_workspace
from test_page import Reader

from mousai.charts import bars, histogram, key
from mousai.errors import UserError
from pipeline import figures
from pipeline.card import write_card
from pipeline.chunks import ChunkPlan, update_chunks
from pipeline.ingest import ingest
from pipeline.manifest import write_table
from pipeline.records import Reason, Rejected, Track
from pipeline.report import Report, read_report
from pipeline.report_page import write_report
from pipeline.spectrogram import BANDS, COLUMNS, HIGHEST, LOWEST, spectrogram

HOUR = 3600 * 48_000  # samples
CHUNK = 2**19
NASTY = "<script>alert('1')</script>"


def blank(record: type[Any]) -> dict[str, Any]:
    """A value for every column: null where that is allowed."""
    empty: dict[Any, Any] = {str: "", int: 0, float: 0.0, bytes: b""}
    hints = typing.get_type_hints(record)
    return {
        name: [] if typing.get_origin(hint) is list else empty.get(hint)
        for name, hint in ((field.name, hints[field.name]) for field in dataclasses.fields(record))
    }


def track(name: str, **known: Any) -> Track:
    """A decoded track of one hour, unless `known` says otherwise."""
    usual = {
        "path": f"/music/{name}", "raw_path": f"/music/{name}".encode(), "library": "/music", "size": 1000, "id": name,
        "codec": "mp3", "sample_rate": 48_000, "channels": 2, "length": HOUR, "decoded_length": HOUR,
        "header_duration": 3600.0, "peak": 0.5, "decode_errors": 0, "loudness": -14.0, "raw_tags": "{}",
    }  # fmt: skip
    return Track(**(blank(Track) | usual | known))


def write_tables(manifests: Path, tracks: list[Track], rejected: list[Rejected] | None = None) -> None:
    write_table(manifests / "tracks.parquet", Track, tracks, libraries=["/music"])
    write_table(manifests / "rejected.parquet", Rejected, rejected or [])


def plan(manifests: Path) -> Any:
    return update_chunks(manifests, ChunkPlan(chunk_length=CHUNK, divisor=1024, chunks_per_shard=64))


def report_of(folder: Path) -> Report:
    return read_report(folder / "manifests", folder / "shards", None)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Five hours and a half under six paths, by three artists and nobody; two paths hold the same audio."""
    tracks = [
        track("a", title="One (Remix)", artists=["Ann"], genres=["House", " house"], year=1999, album="A"),
        track(
            "b", title="Two", artists=["ann", "Cat"], genres=["HOUSE"], year=2001, album="A", peak=2.0, loudness=-5.0
        ),
        track(
            "c", title="Three", artists=["Bob"], genres=["Drone", "House"], length=HOUR // 2, codec="flac", family="c"
        ),
        track(
            "d",
            artists=["Cat"],
            year=2001,
            peak=0.001,
            loudness=-40.0,
            sample_rate=22_050,
            decoded_length=HOUR * 147 // 320,
        ),
        track("e", artists=["Cat"], year=2001, size=5000, header_duration=7200.0, cluster="e", family="c"),
        track("f", id="e", artists=["Cat"], year=2001, size=5000, cluster="e", family="c"),
    ]
    reject = blank(Rejected) | {"path": "/music/x.mp3", "reason": Reason.EMPTY.value, "detail": "0 bytes", "size": 0}
    long = blank(Rejected) | {"path": "/music/y.mp3", "reason": Reason.NOT_AUDIO.value, "detail": NASTY, "size": 7}
    also = long | {"path": "/music/z.mp3"}
    write_tables(tmp_path / "manifests", sorted(tracks, key=lambda each: each.path),
                 [Rejected(**row) for row in (reject, long, also)])  # fmt: skip
    return tmp_path


def test_hours_bytes_and_tags_are_counted(library: Path):
    totals = report_of(library).library
    assert (totals.tracks, totals.decoded, totals.duration, totals.bytes) == (6, 6, 5.5 * 3600, 14_000)
    assert totals.tagged == {"title": 3, "artists": 6, "album": 2, "genres": 3, "year": 5}


def test_names_that_differ_in_case_and_space_are_one_and_a_track_counts_once(library: Path):
    genres = report_of(library).library.genres
    assert [(each.name, each.tracks, each.duration) for each in genres.rows] == [
        ("House", 3, 2.5 * 3600), ("Drone", 1, 1800.0),
    ]  # fmt: skip
    assert genres.untagged == figures.Share(name="", tracks=3, duration=3 * 3600.0)
    artists = report_of(library).library.artists
    assert {each.name: each.tracks for each in artists.rows} == {"Ann": 2, "Bob": 1, "Cat": 3}


def test_the_names_beyond_the_top_are_counted_together():
    names = pa.array([*"aaabbc", None])
    found = figures.breakdown(names, pa.array([1.0] * 7), 1)
    assert [each.name for each in found.rows] == ["a"]
    assert found.num_names == 3
    assert found.rest == figures.Share(name="", tracks=3, duration=3.0)
    assert found.untagged == figures.Share(name="", tracks=1, duration=1.0)


def test_years_and_formats(library: Path):
    report = report_of(library)
    assert {each.name: each.tracks for each in report.library.years.rows} == {"1999": 1, "2001": 4}
    assert [(each.codec, each.sample_rate, each.tracks, each.duration) for each in report.library.formats] == [
        ("mp3", 48_000, 4, 4 * 3600.0), ("mp3", 22_050, 1, 3600.0), ("flac", 48_000, 1, 1800.0),
    ]  # fmt: skip


def test_what_is_odd_is_named_with_its_hours(library: Path):
    assert {each.name: (each.tracks, each.duration) for each in report_of(library).library.findings} == {
        "the header is wrong by more than a second": (1, 3600.0),
        "louder than full scale: turned down as a whole": (1, 3600.0),
        "sampled below 44.1 kHz": (1, 3600.0),
    }


def test_quality_figures_are_shown_where_they_are_known(tmp_path: Path):
    write_tables(tmp_path / "manifests", [
        track("a", true_peak=1.0, silence_head=36.0, silence_tail=0.0, silence_within=36.0, clipped_runs=120,
              cutoff_hz=15_000.0, cutoff_drop_db=40.0, channels=2, side_db=-90.0),
        track("b", cutoff_hz=9_000.0, cutoff_drop_db=10.0),
    ])  # fmt: skip
    report = report_of(tmp_path)
    medians = {each.name: (each.median, each.num_missing) for each in report.quality}
    assert medians["loudness"] == (-14.0, 0)
    assert medians["true peak"] == (0.0, 1)  # dB of full scale
    assert medians["silence"] == (2.0, 1)  # 72 s of an hour, %
    assert medians["clipped runs"] == (2.0, 1)  # a minute
    assert medians["where the spectrum ends, if it does"] == (15.0, 1)  # kHz; the other falls gently
    assert medians["steepest drop of the spectrum"] == (25.0, 0)
    assert "correlation of left and right" not in medians
    assert {each.name: each.tracks for each in report.library.findings} == {
        "several channels, all the same": 1, "the spectrum ends below 16 kHz": 1,
    }  # fmt: skip


def test_a_histogram_counts_what_lies_outside_in_its_outer_bins_and_says_what_is_missing():
    found = figures.histogram("x", "s", pa.array([-5.0, 0.5, 1.5, 1.6, 99.0, None]), [0, 1, 2])
    assert found is not None
    assert found.counts == (2, 3) and found.num_missing == 1 and found.median == 1.5
    assert figures.histogram("x", "s", pa.array([None], pa.float64()), [0, 1]) is None


def test_copies_and_families_are_counted_in_tracks_and_hours(library: Path):
    report = report_of(library)
    assert (report.copies.groups, report.copies.tracks, report.copies.surplus) == (1, 2, 3600.0)
    assert report.copies.largest == (("/music/e", "/music/f"),)
    assert (report.families.groups, report.families.tracks, report.families.duration) == (1, 3, 2.5 * 3600)
    write_report(library / "page.html", report, {})
    assert "2 files: e, f" in Reader((library / "page.html").read_text()).text


def test_rejected_files_are_grouped_with_examples_the_largest_group_first(library: Path):
    found = report_of(library).rejected
    assert [(each.reason, each.files, each.bytes) for each in found] == [("not_audio", 2, 14), ("empty", 1, 0)]
    assert found[1].examples == (("/music/x.mp3", "0 bytes"),)


def test_loudest_and_quietest(library: Path):
    report = report_of(library)
    assert (report.loudest[0].path, report.loudest[0].artist) == ("/music/b", "ann")
    assert report.loudest[0].loudness == -5.0
    assert report.quietest[0].path == "/music/d"
    assert not {each.id for each in report.loudest} & {each.id for each in report.quietest}


def test_what_is_left_out_of_training_is_counted_by_code(library: Path):
    found = report_of(library).selection
    assert [(each.code, each.tracks, each.examples) for each in found.groups] == [("duplicate", 1, ("/music/f",))]
    damaged = [track(name, decode_errors=10**6) for name in ("x", "y")]
    write_tables(library / "manifests", [track("a", artists=["Ann"]), track("b", artists=["Bob"]), *damaged])
    plan(library / "manifests")
    report = report_of(library)
    found = report.selection
    assert (found.tracks, found.duration, found.left_out, found.left_out_duration) == (2, 7200.0, 2, 7200.0)
    (group,) = found.groups
    assert (group.code, group.tracks, group.examples) == ("decode_errors", 2, ("/music/x", "/music/y"))
    assert report.split is not None and (report.split.unplanned, report.split.gone) == (0, 0)
    write_report(library / "page.html", report, {})
    assert "max_errors_per_minute" in Reader((library / "page.html").read_text()).text


def test_the_split_is_the_plans_own_summary(library: Path):
    assert report_of(library).split is None
    summary = plan(library / "manifests")
    split = report_of(library).split
    assert split is not None
    assert split.train.duration == pytest.approx(summary.train_duration)
    assert split.val.duration == pytest.approx(summary.val_duration)
    assert split.skipped == pytest.approx(summary.skipped_duration)
    assert split.overlapped == pytest.approx(summary.overlapped_duration)
    assert split.train.chunks + split.val.chunks == summary.num_chunks
    assert split.train.tracks + split.val.tracks == summary.num_tracks == 5
    assert split.train.shards + split.val.shards == summary.num_shards
    assert split.train.groups + split.val.groups == summary.num_groups
    assert split.crossing_artists == summary.num_crossing_artists
    assert (split.unplanned, split.gone) == (0, 0)


def test_genres_are_compared_between_the_splits_in_one_spelling(tmp_path: Path):
    tracks = [track(f"a{i}", artists=["Ann"], genres=["House"]) for i in range(3)]
    tracks += [track("a4", artists=["Ann"], genres=["Drone"]), track("b", artists=["Bob"], genres=["HOUSE"])]
    write_tables(tmp_path / "manifests", tracks)
    plan(tmp_path / "manifests")
    split = report_of(tmp_path).split
    assert split is not None
    assert [(each.name, each.train, each.val) for each in split.genres] == [("House", 0.75, 1.0), ("Drone", 0.25, 0.0)]


def test_a_featured_artist_on_both_sides_is_counted(tmp_path: Path):
    tracks = [
        track("a", artists=["Ann"]),
        track("b", artists=["Bob", " CAT"]),
        track("c", artists=["Cat"], length=HOUR // 2),
    ]
    write_tables(tmp_path / "manifests", [*tracks, *(track(f"d{i}", artists=["Dan"]) for i in range(9))])
    summary = plan(tmp_path / "manifests")
    split = report_of(tmp_path).split
    assert split is not None and split.crossing_artists == summary.num_crossing_artists == 1


def test_a_plan_that_the_library_has_left_behind_is_called_stale(library: Path):
    plan(library / "manifests")
    write_tables(library / "manifests", [track("a", artists=["Ann"]), track("new", artists=["Eve"])])
    report = report_of(library)
    assert report.split is not None and (report.split.unplanned, report.split.gone) == (1, 4)
    assert any("no longer in the library" in each and "mousai shard" in each for each in report.missing)


def test_prompts_and_keywords(library: Path):
    plan(library / "manifests")
    report = report_of(library)
    assert len(report.prompts) == 8
    assert dict(report.keywords)["Cat"] == 4 and dict(report.keywords)["(Remix)"] == 1


def test_a_library_of_tags_alone_has_counts_and_no_hours(tmp_path: Path):
    measured = ("id", "length", "decoded_length", "peak", "loudness", "codec", "sample_rate", "channels",
                "header_duration", "decode_errors")  # fmt: skip
    undecoded = dict.fromkeys(measured)
    rows = [track(name, genres=[genre], **undecoded) for name, genre in zip("abc", "xxy", strict=True)]
    write_tables(tmp_path / "manifests", rows)
    report = report_of(tmp_path)
    assert report.library.duration is None
    assert [(each.name, each.tracks, each.duration) for each in report.library.genres.rows] == [
        ("x", 2, None),
        ("y", 1, None),
    ]
    assert any("mousai ingest" in each for each in report.missing)
    write_report(tmp_path / "page.html", report, {})
    assert "2 tracks" in Reader((tmp_path / "page.html").read_text()).text


@pytest.mark.parametrize("number", [0, 1])
def test_a_library_of_hardly_anything_has_a_page(tmp_path: Path, number: int):
    write_tables(tmp_path / "manifests", [track("a")][:number])
    if number:
        plan(tmp_path / "manifests")
    write_report(tmp_path / "page.html", report_of(tmp_path), {})
    Reader((tmp_path / "page.html").read_text())


def test_shards_whose_stats_are_damaged_are_named_and_cost_no_report(library: Path):
    (library / "shards" / "train").mkdir(parents=True)
    (library / "shards" / "train" / "mousai-train-000000_stats.json").write_text("{}")
    report = report_of(library)
    assert report.shards is not None and (report.shards.shards, report.shards.damaged) == (0, 1)
    assert any("1 shards cannot be read" in each and "mousai shard" in each for each in report.missing)


def test_without_a_library_the_command_that_makes_one_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="mousai ingest"):
        report_of(tmp_path)


def test_the_page_shows_what_tags_say_as_text_and_loads_nothing(tmp_path: Path):
    write_tables(tmp_path / "manifests", [track("a", title=NASTY, artists=[NASTY], genres=[NASTY], album=NASTY)])
    plan(tmp_path / "manifests")
    write_report(tmp_path / "page.html", report_of(tmp_path), {})
    page = Reader((tmp_path / "page.html").read_text())
    assert "script" not in page.tags
    assert NASTY in page.text
    assert all(source.startswith(("data:", "#")) for source in page.sources)


def test_every_link_of_the_contents_has_its_section(library: Path):
    plan(library / "manifests")
    write_report(library / "page.html", report_of(library), {})
    text = (library / "page.html").read_text()
    links = [source for source in Reader(text).sources if source.startswith("#")]
    assert len(links) > 8
    assert [link for link in links if f'<h2 id="{link[1:]}">' not in text] == []


def card_of(folder: Path) -> str:
    write_card(folder / "README.md", report_of(folder), "1.2.3")
    return (folder / "README.md").read_text(encoding="utf-8")


def test_the_card_has_front_matter_that_yaml_reads_and_names_the_splits(library: Path):
    assert "configs" not in yaml.safe_load(card_of(library).split("---")[1])
    plan(library / "manifests")
    about = yaml.safe_load(card_of(library).split("---")[1])
    assert about["pretty_name"] == "4.5 h of music: House, Drone"  # the copy is not trained on
    assert about["configs"][0]["data_files"] == [
        {"split": "train", "path": "train/*.tar"}, {"split": "validation", "path": "val/*.tar"},
    ]  # fmt: skip
    assert about["size_categories"] == ["1K<n<10K"]


def test_the_card_says_what_is_in_the_music_and_not_where_it_lay(library: Path):
    plan(library / "manifests")
    card = card_of(library)
    assert "| House | 3 | 2.5 h |" in card and "mousai 1.2.3" in card and "chunks of 10.9 s" in card
    assert "- 1 files: the file has no bytes." in card
    assert "/music" not in card and ".mp3" not in card


def test_licences_are_counted_and_one_that_covers_all_is_the_datasets(tmp_path: Path):
    free = [track(name, licence="CC-BY-SA-3.0", artists=["Ann"]) for name in "ab"]
    write_tables(tmp_path / "manifests", free)
    card = card_of(tmp_path)
    assert "license: cc-by-sa-3.0\n" in card and "| CC-BY-SA-3.0 | 2 | 2.0 h |" in card
    write_tables(tmp_path / "manifests", [*free, track("c", consent="mail of 3 May")])
    report, card = report_of(tmp_path), card_of(tmp_path)
    assert "license: other" in card and "| mail of 3 May | 1 | 1.0 h |" in card
    assert report.library.licences.untagged == figures.Share(name="", tracks=1, duration=3600.0)
    write_report(tmp_path / "page.html", report, {})
    assert "Without a licence: 1.0 h · 1 track." in Reader((tmp_path / "page.html").read_text()).text


def test_names_cannot_break_the_tables_of_the_card(tmp_path: Path):
    write_tables(tmp_path / "manifests", [track("a", genres=["a|b\nc <i>"], artists=["*x*"])])
    card = card_of(tmp_path)
    assert "| a\\|b c &lt;i> | 1 | 1.0 h |" in card and "| \\*x\\* | 1 | 1.0 h |" in card


def test_the_card_of_tags_alone_is_whole(tmp_path: Path):
    write_tables(tmp_path / "manifests", [track("a", id=None, length=None, codec=None)])
    assert "Not planned yet." in card_of(tmp_path)


def test_bars_are_as_long_as_their_values():
    block = bars([("one", [1.0, 4.0], "1 h"), ("none", [0.0], "0 h")])
    assert [part.split("%")[0] for part in block.split("width:")[1:]] == ["25.00", "100.00", "0.00"]
    Reader(block + key("one", "two"))


def test_an_empty_chart_is_drawn_without_dividing_by_zero():
    Reader(bars([]) + bars([("a", [0.0], "0")]) + histogram("nothing", "", [0, 0], ["a", "b"], ["0", "1"]))


def test_a_tone_is_a_line_at_its_pitch_and_level():
    times = np.arange(48_000 * 2) / 48_000
    wave = (0.1 * np.sin(2 * np.pi * 1000 * times)).astype(np.float32)
    image = spectrogram(np.stack([wave, wave]))
    assert image.shape == (BANDS, COLUMNS)
    band = int(BANDS * np.log(1000 / LOWEST) / np.log(HIGHEST / LOWEST))
    assert np.all(image.argmax(axis=0) == band)
    assert image[band].mean() == pytest.approx(-20, abs=1.5)  # a tenth of full scale; the window's scallop
    assert spectrogram(np.zeros((2, 10), np.float32)).max() == -120


def test_pictures_come_from_the_shards_and_without_them_from_the_files(tmp_path: Path):
    music, space = write_library(tmp_path / "library"), write_workspace(tmp_path / "space")
    write_tone(music / "9.flac", 1.0, amplitude=0.01)
    assert mousai("ingest", music, "-w", space, "-j", "1").code == 0
    assert mousai("report", "-w", space).code == 0
    before = (space / "report" / "index.html").read_text()
    assert mousai("shard", "-w", space, "-j", "1").code == 0
    done = mousai("report", "-w", space, "--json")
    assert done.code == 0 and json.loads(done.out)["shards"]["failed"] == 0
    for path in music.iterdir():
        path.unlink()
    assert mousai("report", "-w", space, "--no-pictures").code == 0
    page = (space / "report" / "index.html").read_text()
    assert "data:image/png" not in page and "spectrogram" not in page and "cannot be read" not in page
    assert mousai("report", "-w", space).code == 0
    after = (space / "report" / "index.html").read_text()
    assert before.count("data:image/png") == after.count("data:image/png") == 4


def test_a_picture_whose_chunk_is_damaged_comes_from_the_file(tmp_path: Path):
    music, space = write_library(tmp_path / "library"), write_workspace(tmp_path / "space")
    assert mousai("ingest", music, "-w", space, "-j", "1").code == 0
    assert mousai("shard", "-w", space, "-j", "1").code == 0
    sound = mousai("report", "-w", space)
    pictures = (space / "report" / "index.html").read_text().count("data:image/png")
    for tar in space.rglob("*.tar"):
        tar.write_bytes(tar.read_bytes().replace(b"fLaC", b"gone"))
    done = mousai("report", "-w", space)
    assert (sound.code, done.code) == (0, 0) and "damaged" not in sound.err
    assert (space / "report" / "index.html").read_text().count("data:image/png") == pictures > 0
    assert "is damaged (Error opening" in done.err and f"mousai verify -w {space}" in done.err


def test_the_same_library_gives_the_same_page(tmp_path: Path):
    (tmp_path / "library").mkdir()
    for number in (1, 2):
        write_tone(tmp_path / "library" / f"{number}.flac", 2.0, frequency=220.0 * number)
    ingest([tmp_path / "library"], tmp_path / "manifests", workers=1)
    pages = []
    for name in ("one", "two"):
        write_report(tmp_path / f"{name}.html", report_of(tmp_path), {})
        pages.append((tmp_path / f"{name}.html").read_bytes())
    assert pages[0] == pages[1]
