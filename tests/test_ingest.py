"""Ingest: what is in a folder is in the tables, a re-scan reads what changed, and a killed run goes on."""

import os
import sys
from pathlib import Path

import mutagen.flac
import pyarrow.parquet as pq
import pytest
from audio_files import write_tone
from unprivileged import permissions_hold

import pipeline.ingest as ingest_module
from mousai.errors import UserError
from mousai.settings import SelectSettings
from pipeline.ingest import IngestSummary, ingest
from pipeline.manifest import read_facts, read_table
from pipeline.records import Rejected, Track

APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(200)


@pytest.fixture
def library(tmp_path) -> Path:
    """Three tracks in two folders: a.flac, album/b.wav, album/c.mp3, and a text."""
    folder = tmp_path / "music"
    (folder / "album").mkdir(parents=True)
    write_tone(folder / "a.flac", 2.0)
    write_tone(folder / "album" / "b.wav", 1.5, channels=1)
    write_tone(folder / "album" / "c.mp3", 2.0)
    (folder / "cover.txt").write_text("no music")
    return folder


@pytest.fixture
def manifests(tmp_path) -> Path:
    return tmp_path / "manifests"


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The names of the files that are opened for reading, as they are."""
    names: list[str] = []
    content = ingest_module._read_content

    def noted(file, *how):
        names.append(file.path.name)
        return content(file, *how)

    monkeypatch.setattr(ingest_module, "_read_content", noted)
    return names


def scan(library: Path, manifests: Path, **how) -> IngestSummary:
    return ingest([library], manifests, workers=1, **how)


def tracks(manifests: Path) -> dict[str, Track]:
    return {Path(track.path).name: track for track in read_table(manifests / "tracks.parquet", Track)}


def rejected(manifests: Path) -> dict[str, str]:
    return {Path(row.path).name: row.reason for row in read_table(manifests / "rejected.parquet", Rejected)}


def test_tracks_are_found_and_measured(library, manifests):
    summary = scan(library, manifests)
    assert (summary.num_tracks, summary.num_new, summary.num_other, summary.num_rejected) == (3, 3, 1, 0)
    assert summary.duration == pytest.approx(5.5, abs=0.1)
    found = tracks(manifests)
    assert list(found) == ["a.flac", "b.wav", "c.mp3"]
    assert (found["b.wav"].length, found["b.wav"].mix, found["b.wav"].channels) == (72_000, "doubled", 1)
    assert found["a.flac"].peak == pytest.approx(0.5, abs=0.001)
    assert found["a.flac"].size == (library / "a.flac").stat().st_size
    assert read_facts(manifests / "tracks.parquet") == {"libraries": [str(library)]}


def test_a_second_scan_reads_and_writes_nothing(library, manifests, read):
    scan(library, manifests)
    read.clear()
    before = (manifests / "tracks.parquet").stat().st_mtime_ns
    summary = ingest([], manifests, workers=1)
    assert (summary.num_new, summary.num_unchanged, summary.num_gone) == (0, 3, 0)
    assert not read
    assert (manifests / "tracks.parquet").stat().st_mtime_ns == before


def test_a_re_scan_reads_only_what_is_new_or_changed(library, manifests, read):
    (library / "bad.mp3").write_text("<html>")
    scan(library, manifests)
    read.clear()
    identifier = tracks(manifests)["a.flac"].id
    file = mutagen.flac.FLAC(library / "a.flac")
    file["title"] = "New title"
    file.save()
    write_tone(library / "d.ogg", 2.0)
    (library / "album" / "b.wav").unlink()
    summary = scan(library, manifests)
    assert sorted(read) == ["a.flac", "d.ogg"]
    assert (summary.num_tracks, summary.num_new, summary.num_unchanged, summary.num_gone) == (3, 2, 1, 1)
    assert (tracks(manifests)["a.flac"].title, tracks(manifests)["a.flac"].id) == ("New title", identifier)
    assert rejected(manifests) == {"bad.mp3": "not_audio"}


def test_a_repaired_file_leaves_the_rejects(library, manifests):
    (library / "d.flac").write_bytes(b"fLaC")
    assert scan(library, manifests).reasons == {"decode_failed": 1}
    write_tone(library / "d.flac", 2.0)
    summary = scan(library, manifests)
    assert (summary.num_tracks, summary.num_rejected, summary.num_new) == (4, 0, 1)


def test_each_kind_of_bad_file_has_its_reason(library, manifests):
    (library / "page.mp3").write_text("<!DOCTYPE html><html>404</html>")
    (library / "empty.flac").write_bytes(b"")
    (library / "double.mp3").write_bytes(APPLE_DOUBLE)
    (library / "cut.m4a").write_bytes(b"\x00\x00\x00\x18ftypM4A " + bytes(2000))
    write_tone(library / "short.wav", 0.5)
    summary = scan(library, manifests)
    assert rejected(manifests) == {
        "page.mp3": "not_audio", "empty.flac": "empty", "double.mp3": "not_audio", "cut.m4a": "decode_failed",
        "short.wav": "too_short",
    }  # fmt: skip
    assert summary.reasons == {"decode_failed": 1, "empty": 1, "not_audio": 2, "too_short": 1}
    assert summary.num_tracks == 3


def test_what_macos_leaves_beside_a_song_is_not_worth_a_row(library, manifests):
    (library / "._a.flac").write_bytes(APPLE_DOUBLE)
    (library / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
    summary = scan(library, manifests)
    assert (summary.num_tracks, summary.num_rejected, summary.num_other) == (3, 0, 3)


def test_content_counts_where_the_name_lies(library, manifests):
    (library / "a.flac").rename(library / "a.mp3")
    (library / "album" / "b.wav").rename(library / "album" / "b")
    scan(library, manifests)
    assert {name: track.codec for name, track in tracks(manifests).items()} == {
        "a.mp3": "flac", "b": "pcm_s16le", "c.mp3": "mp3",
    }  # fmt: skip


def test_names_that_are_not_utf8_keep_their_bytes(library, manifests):
    raw = os.fsencode(library) + b"/\xff\nsong.flac"
    (library / "a.flac").rename(os.fsdecode(raw))
    scan(library, manifests)
    first = read_table(manifests / "tracks.parquet", Track)[0]
    assert first.raw_path == raw
    assert first.path == f"{library}/\\xff\nsong.flac"
    assert scan(library, manifests).num_new == 0


def test_links_to_files_count_and_links_to_folders_and_nowhere_do_not(library, manifests):
    (library / "album" / "up").symlink_to(library)
    (library / "nowhere.mp3").symlink_to(library / "missing.mp3")
    (library / "loop.mp3").symlink_to(library / "loop.mp3")
    (library / "e.flac").symlink_to(library / "a.flac")
    (library / "folder.mp3").mkdir()
    os.mkfifo(library / "pipe.mp3")
    summary = scan(library, manifests)
    assert (summary.num_tracks, summary.num_rejected) == (4, 0)
    assert tracks(manifests)["e.flac"].id == tracks(manifests)["a.flac"].id


def test_a_folder_that_cannot_be_read_is_reported(library, manifests, monkeypatch):
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("album"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert scan(library, manifests).reasons == {"unreadable": 1}
    assert rejected(manifests) == {"album": "unreadable"}
    monkeypatch.undo()
    assert scan(library, manifests).num_tracks == 3


@pytest.mark.skipif(sys.platform != "linux", reason="permissions are switched on for root by Linux's capabilities")
def test_what_may_not_be_read_is_reported_and_read_once_it_may(library, manifests):
    (library / "a.flac").chmod(0)
    (library / "album").chmod(0)
    (library / "b.wav").write_bytes((library / "album" / "b.wav").read_bytes())
    with permissions_hold():
        assert scan(library, manifests).num_tracks == 1
        rows = read_table(manifests / "rejected.parquet", Rejected)
        assert {(Path(row.path).name, row.reason, row.detail) for row in rows} == {
            ("a.flac", "unreadable", "Permission denied"), ("album", "unreadable", "Permission denied"),
        }  # fmt: skip
        (library / "a.flac").chmod(0o644)
        (library / "album").chmod(0o755)
        assert scan(library, manifests).num_tracks == 4
    assert rejected(manifests) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="permissions are switched on for root by Linux's capabilities")
def test_tracks_in_a_folder_that_cannot_be_looked_into_are_not_gone(library, manifests):
    scan(library, manifests)
    before = tracks(manifests)
    (library / "album").chmod(0)
    with permissions_hold():
        summary = scan(library, manifests)
        assert (summary.num_tracks, summary.num_gone, summary.reasons) == (3, 0, {"unreadable": 1})
        (library / "album").chmod(0o755)
        assert scan(library, manifests).num_rejected == 0
    assert tracks(manifests) == before


def test_a_file_that_could_not_be_read_is_tried_again(library, manifests, monkeypatch):
    def broken(file):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(ingest_module, "probe", broken)
        assert scan(library, manifests).reasons == {"unreadable": 3}
    assert scan(library, manifests).num_tracks == 3


def test_a_file_that_changes_while_it_is_read_waits_for_the_next_scan(library, manifests, monkeypatch):
    probe = ingest_module.probe

    def slow(file):
        found = probe(file)
        if file.name.endswith("a.flac"):
            os.utime(file.name, ns=(1, 1))
        if file.name.endswith("b.wav"):
            Path(file.name).unlink()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(ingest_module, "probe", slow)
        scan(library, manifests)
    assert rejected(manifests) == {"a.flac": "changed", "b.wav": "changed"}
    scan(library, manifests)
    assert (list(tracks(manifests)), rejected(manifests)) == (["a.flac", "c.mp3"], {})


def test_a_decoder_that_fails_in_a_new_way_costs_one_file(library, manifests, monkeypatch):
    probe = ingest_module.probe

    def fragile(file):
        if file.name.endswith("a.flac"):
            raise IndexError("surprise")
        return probe(file)

    monkeypatch.setattr(ingest_module, "probe", fragile)
    scan(library, manifests)
    (row,) = read_table(manifests / "rejected.parquet", Rejected)
    assert (row.reason, row.detail) == ("decode_failed", "IndexError: surprise")


def test_a_vanished_library_changes_nothing(library, manifests):
    scan(library, manifests)
    before = (manifests / "tracks.parquet").read_bytes()
    library.rename(library.with_name("elsewhere"))
    with pytest.raises(UserError, match="music: No such file"):
        ingest([], manifests, workers=1)
    library.mkdir()  # the mount point of a disk that is not there
    with pytest.raises(UserError, match=r"held 3 tracks .* [Mm]ount"):
        ingest([], manifests, workers=1)
    assert (manifests / "tracks.parquet").read_bytes() == before


def test_an_empty_library_is_an_error(tmp_path, manifests):
    (tmp_path / "text.txt").write_text("no music")
    with pytest.raises(UserError, match="holds no audio"):
        scan(tmp_path, manifests)
    with pytest.raises(UserError, match="No library is known"):
        ingest([], manifests, workers=1)
    assert not manifests.exists()


def test_other_libraries_stay(library, manifests, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write_tone(other / "x.wav", 1.0)
    scan(library, manifests)
    assert scan(other, manifests).num_tracks == 4
    (other / "x.wav").rename(other / "y.wav")
    summary = ingest([], manifests, workers=1)
    assert (summary.num_tracks, summary.num_gone, summary.num_new) == (4, 1, 1)
    assert read_facts(manifests / "tracks.parquet") == {"libraries": [str(library), str(other)]}


def test_nested_libraries_give_each_path_once(library, manifests, read):
    ingest([library / "album", library, library / "album" / "b.wav"], manifests, workers=1)
    assert sorted(read) == ["a.flac", "b.wav", "c.mp3"]
    assert ingest([library / "album"], manifests, workers=1).num_tracks == 3
    assert {track.library for track in tracks(manifests).values()} == {str(library)}


def test_a_wider_library_takes_over_a_narrower_one(library, manifests, read):
    scan(library / "album", manifests)
    read.clear()
    assert scan(library, manifests).num_tracks == 3
    assert read == ["a.flac"]
    assert read_facts(manifests / "tracks.parquet") == {"libraries": [str(library)]}


def test_a_library_may_be_one_file(library, manifests):
    assert scan(library / "a.flac", manifests).num_tracks == 1
    assert ingest([], manifests, workers=1).num_unchanged == 1


def test_the_number_of_workers_changes_no_byte(library, tmp_path):
    for number in range(10):
        write_tone(library / f"more-{number}.wav", 1.0, frequency=100 * (number + 1))
    (library / "bad.mp3").write_text("<html>")
    tables = []
    for workers in (1, 2):
        folder = tmp_path / f"manifests-{workers}"
        ingest([library], folder, workers=workers)
        tables.append([(folder / name).read_bytes() for name in ("tracks.parquet", "rejected.parquet")])
    assert tables[0] == tables[1]


def test_a_killed_run_goes_on_where_it_was(library, manifests, monkeypatch, read, tmp_path):
    monkeypatch.setattr(ingest_module, "_SAVE_EVERY", 0.0)
    (library / "aa.mp3").write_text("<html>")
    probe = ingest_module.probe

    def killed(file):
        if file.name.endswith("c.mp3"):
            assert len(list((manifests / ".ingest").glob("*-tracks.parquet"))) == 3  # saved before the kill
            raise KeyboardInterrupt
        return probe(file)

    with monkeypatch.context() as patch:
        patch.setattr(ingest_module, "probe", killed)
        with pytest.raises(KeyboardInterrupt):
            scan(library, manifests)
    assert not (manifests / "tracks.parquet").exists()
    read.clear()
    summary = scan(library, manifests)
    assert read == ["c.mp3"]
    assert (summary.num_tracks, summary.num_new, summary.num_rejected) == (3, 3, 1)
    assert not (manifests / ".ingest").exists()
    scan(library, tmp_path / "at-once")
    for name in ("tracks.parquet", "rejected.parquet"):
        assert (manifests / name).read_bytes() == (tmp_path / "at-once" / name).read_bytes()


def test_tags_first_and_the_rest_later(library, manifests, read):
    summary = scan(library, manifests, tags_only=True)
    assert (summary.num_tracks, summary.duration, summary.tags_only) == (3, 0, True)
    assert tracks(manifests)["a.flac"].id is None
    assert scan(library, manifests, tags_only=True).num_new == 0
    read.clear()
    assert scan(library, manifests).duration > 5
    assert sorted(read) == ["a.flac", "b.wav", "c.mp3"]
    write_tone(library / "d.flac", 2.0)
    scan(library, manifests, tags_only=True)  # what is measured stays so
    assert {name: track.id is None for name, track in tracks(manifests).items()} == {
        "a.flac": False, "b.wav": False, "c.mp3": False, "d.flac": True,
    }  # fmt: skip
    read.clear()
    scan(library, manifests)
    assert read == ["d.flac"]


def test_another_minimum_is_applied_to_known_files_too(library, manifests, read):
    assert scan(library, manifests, min_duration=1.8).reasons == {"too_short": 1}
    assert scan(library, manifests, min_duration=1.8).num_unchanged == 2
    read.clear()
    assert scan(library, manifests, min_duration=1.0).num_tracks == 3
    assert scan(library, manifests, min_duration=5.0).reasons == {"too_short": 3}


def test_a_dry_run_reads_and_writes_nothing_and_says_what_is_left_out(library, manifests, read):
    summary = scan(library, manifests, dry_run=True)
    assert (summary.num_tracks, summary.num_unread) == (0, 3)
    assert not read and not manifests.exists()
    scan(library, manifests)
    read.clear()
    before = (manifests / "tracks.parquet").stat().st_mtime_ns
    write_tone(library / "d.flac", 2.0)
    (library / "a.flac").unlink()
    summary = scan(library, manifests, dry_run=True, select=SelectSettings(max_errors_per_minute=0.0))
    assert (summary.num_tracks, summary.num_unread, summary.num_gone) == (2, 1, 1)
    assert (summary.selection.num_tracks, summary.selection.left_out) == (2, {})
    assert not read and (manifests / "tracks.parquet").stat().st_mtime_ns == before


def test_tables_of_another_version_are_read_again_with_all_their_libraries(library, manifests, tmp_path, read):
    other = tmp_path / "other"
    other.mkdir()
    write_tone(other / "x.wav", 1.0)
    ingest([library, other], manifests, workers=1)
    whole = (manifests / "tracks.parquet").read_bytes()
    table = pq.read_table(manifests / "tracks.parquet").drop_columns(["peak"])
    pq.write_table(table, manifests / "tracks.parquet")
    read.clear()
    assert ingest_module.is_outdated(manifests)
    assert scan(library, manifests).num_tracks == 4
    assert sorted(read) == ["a.flac", "b.wav", "c.mp3", "x.wav"]
    assert (manifests / "tracks.parquet").read_bytes() == whole
    assert not ingest_module.is_outdated(manifests)
