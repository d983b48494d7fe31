"""Shards as others read them, and exports: loadable, current, finished after a kill, and never in anybody's way."""

import errno
import gzip
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
import webdataset
from audio_files import write_tone
from cli_runs import Outcome, mousai, write_library, write_workspace
from torch.utils.data import DataLoader
from webdataset.tariterators import group_by_keys, tar_file_expander

from mousai import storage
from pipeline.chunks import read_chunks
from pipeline.export import FORMATS
from pipeline.manifest import read_table, write_table
from pipeline.records import Track

# What audiocraft's MusicDataset insists on in the JSON beside a file
MUSIC_INFO = {"title", "artist", "key", "bpm", "genre", "moods", "description", "name", "instrument"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sharded workspace: three tagged tracks and one without a tag; nothing is exported yet."""
    root = tmp_path_factory.mktemp("export")
    library = write_library(root / "library")
    (library / "untagged").mkdir()
    write_tone(library / "untagged" / "mono.wav", 1.5, frequency=100, channels=1)
    space = write_workspace(root / "Ann's space")  # a quote and a blank, for the shell that lhotse calls
    for words in (("ingest", library), ("shard",)):
        done = mousai(*words, "-w", space, "-j", 1)
        assert done.code == 0, done.err
    return space


@pytest.fixture
def space(made: Path, tmp_path: Path) -> Path:
    """A copy that may be harmed."""
    return Path(shutil.copytree(made, tmp_path / made.name))


def export(space: Path, *words: Any) -> Outcome:
    done = mousai("export", "-w", space, "--format", *words)
    assert done.code == 0, done.err
    return done


def summary(space: Path, *words: Any) -> dict[str, Any]:
    return dict(json.loads(export(space, *words, "--json").out))


def tars(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.tar"))


def samples(folder: Path) -> Iterator[dict[str, Any]]:
    for tar in tars(folder):
        with tar.open("rb") as stream:  # `WebDataset` would leave it to the garbage collector
            yield from group_by_keys(tar_file_expander([{"url": str(tar), "stream": stream}]))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def retag(space: Path) -> None:
    path = space / "manifests" / "tracks.parquet"
    tracks = [replace(track, title="Renamed", year=1999) for track in read_table(path, Track)]
    write_table(path, Track, tracks)


# The tars as they are


def test_two_workers_of_plain_webdataset_read_every_chunk_once(made: Path):
    dataset = webdataset.WebDataset([str(tar) for tar in tars(made / "shards")], shardshuffle=False)
    keys = [sample["__key__"] for sample in DataLoader(dataset, batch_size=None, num_workers=2)]
    assert sorted(keys) == sorted(chunk.key for chunk in read_chunks(made / "manifests"))


def test_every_sample_has_sound_and_text(made: Path):
    read = list(samples(made / "shards"))
    assert len(read) == len(read_chunks(made / "manifests"))
    for sample in read:
        assert {name for name in sample if name[0] != "_"} == {"flac", "json"}
        assert re.search(r"\b\d of \d$", json.loads(sample["json"])["text"])


def test_keys_are_unique_and_without_dots_and_members_of_a_chunk_are_neighbours(made: Path):
    keys = []
    for tar in tars(made / "shards"):
        with tarfile.open(tar) as file:
            names = file.getnames()
        assert [name.partition(".")[2] for name in names] == ["flac", "json"] * (len(names) // 2)
        assert [name.partition(".")[0] for name in names[::2]] == [name.partition(".")[0] for name in names[1::2]]
        keys += [name.partition(".")[0] for name in names[::2]]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[0-9a-z_]+", key) for key in keys)


def test_what_is_told_has_the_same_types_with_and_without_tags(made: Path):  # datasets infers them from five chunks
    told = [json.loads(sample["json"]) for sample in samples(made / "shards")]
    assert {len(about["title"]) > 0 for about in told} == {True, False}
    assert len({tuple((key, type(value)) for key, value in about.items()) for about in told}) == 1
    assert {type(value) for about in told for value in about.values()} == {str, int, float}


# hf


def test_the_folder_for_hf_is_the_shards_and_a_card_that_names_the_splits(space: Path):
    assert summary(space, "hf")["done"] == {"card": 1, "linked": 2}
    folder = space / "exports" / "hf"
    assert [tar.stat().st_ino for tar in tars(folder)] == [tar.stat().st_ino for tar in tars(space / "shards")]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "  - split: train\n    path: train/*.tar\n  - split: validation\n    path: val/*.tar\n---" in card


def test_tars_are_copied_where_links_cannot_be(space: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert summary(space, "hf")["done"] == {"card": 1, "copied": 2}
    originals = tars(space / "shards")
    assert [tar.read_bytes() for tar in tars(space / "exports" / "hf")] == [tar.read_bytes() for tar in originals]


def test_a_library_retagged_after_sharding_is_exported_with_its_new_tags(space: Path):
    export(space, "hf")
    before = {sample["__key__"]: sample["flac"] for sample in samples(space / "shards")}
    retag(space)
    assert summary(space, "hf")["done"] == {"card": 1, "retagged": 2}  # the card counts years
    after = list(samples(space / "exports" / "hf"))
    assert {sample["__key__"]: sample["flac"] for sample in after} == before
    for sample in after:
        about = json.loads(sample["json"])
        assert (about["title"], about["year"], about["text"][:9]) == ("Renamed", "1999", "Renamed, ")
    assert "Nothing to do" in export(space, "hf").out


def test_an_edited_card_is_left_alone_and_another_one_is_kept_up_to_date(space: Path):
    export(space, "hf", "--split", "train")
    card = space / "exports" / "hf" / "README.md"
    assert "split: validation" not in card.read_text(encoding="utf-8")
    export(space, "hf")
    assert "split: validation" in card.read_text(encoding="utf-8")
    card.write_text("# Mine\n", encoding="utf-8")
    export(space, "hf", "--split", "train")
    assert card.read_text(encoding="utf-8") == "# Mine\n"


# audiocraft


def test_audiocraft_gets_files_with_what_its_music_dataset_reads_beside_them(space: Path):
    export(space, "audiocraft")
    chunks = {chunk.key: chunk for chunk in read_chunks(space / "manifests")}
    stored = {sample["__key__"]: sample["flac"] for sample in samples(space / "shards")}
    for split, name in (("train", "train"), ("val", "valid")):
        manifest = lines(space / "exports" / "audiocraft" / "egs" / name / "data.jsonl.gz")
        assert {Path(line["path"]).stem for line in manifest} == {k for k, c in chunks.items() if c.split == split}
        for line in manifest:
            path = Path(line["path"])
            assert path.is_absolute() and path.read_bytes() == stored[path.stem]
            assert (line["duration"], line["sample_rate"]) == (soundfile.info(path).duration, 48_000)
            about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            assert about.keys() == MUSIC_INFO
            assert about["description"].endswith(f"{chunks[path.stem].index} of {chunks[path.stem].count}")


def test_a_file_that_was_damaged_is_extracted_again(space: Path):
    export(space, "audiocraft")
    folder = space / "exports" / "audiocraft"
    before = state(folder)
    victim = next(folder.rglob("*.flac"))
    os.truncate(victim, 100)
    assert summary(space, "audiocraft")["done"] == {"extracted": 1, "kept": 1}
    assert state(folder) == before


def test_retagging_renews_what_audiocraft_reads(space: Path):
    export(space, "audiocraft")
    retag(space)
    assert summary(space, "audiocraft")["done"] == {"extracted": 2}
    abouts = [
        json.loads(path.read_text(encoding="utf-8")) for path in space.glob("exports/audiocraft/audio/**/*_*.json")
    ]
    assert {about["title"] for about in abouts} == {"Renamed"}


# lhotse


def test_lhotse_finds_each_chunk_inside_its_tar(space: Path):
    export(space, "lhotse")
    stored = {sample["__key__"]: sample["flac"] for sample in samples(space / "shards")}
    chunks = {chunk.key: chunk for chunk in read_chunks(space / "manifests")}
    found = {}
    for split in ("train", "val"):
        recordings, supervisions, cuts = (
            lines(space / "exports" / "lhotse" / f"mousai_{kind}_{split}.jsonl.gz")
            for kind in ("recordings", "supervisions", "cuts")
        )
        assert [cut["recording"] for cut in cuts] == recordings
        assert [cut["supervisions"] for cut in cuts] == [[supervision] for supervision in supervisions]
        for recording in recordings:
            (source,) = recording["sources"]
            found[recording["id"]] = subprocess.run(source["source"], shell=True, capture_output=True).stdout
            assert recording["num_samples"] == chunks[recording["id"]].valid_length
            assert chunks[recording["id"]].split == split
    assert found == stored


# All of them


@pytest.mark.parametrize("name", FORMATS)
def test_a_second_run_changes_nothing_and_says_so(space: Path, name: str):
    export(space, name)
    written = {path: path.stat().st_mtime_ns for path in (space / "exports").rglob("*")}
    assert export(space, name).out.startswith("Nothing to do: ")
    assert {path: path.stat().st_mtime_ns for path in (space / "exports").rglob("*")} == written


@pytest.mark.parametrize("name", FORMATS)
def test_one_split_leaves_nothing_of_the_other(space: Path, name: str):
    export(space, name)
    done = summary(space, name, "--split", "val")
    assert done["num_chunks"] == sum(chunk.split == "val" for chunk in read_chunks(space / "manifests"))
    assert [path for path in (space / "exports" / name).rglob("*train*") if path.is_file()] == []


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_that_was_cut_off_anywhere_is_finished_by_the_next_one(
    space: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    retag(space)  # so that hf writes as well
    export(space, name)
    folder = space / "exports" / name
    whole = state(folder)
    for survived in (1, 4, 9):  # files and folders written to the disk
        shutil.rmtree(folder)
        with monkeypatch.context() as patch, pytest.raises(RuntimeError):
            patch.setattr(storage, "_fsync", dies_after(survived))
            mousai("export", "-w", space, "--format", name)
        assert state(folder) != whole
        export(space, name)
        assert state(folder) == whole


def dies_after(calls: int) -> Callable[[Path], None]:
    left = iter(range(calls))

    def fsync(_: Path) -> None:
        if next(left, None) is None:
            raise RuntimeError("killed")

    return fsync


def test_music_that_leaves_the_plan_leaves_the_exports(space: Path):
    for name in FORMATS:
        export(space, name)
    path = space / "manifests" / "tracks.parquet"
    gone = next(track for track in read_table(path, Track) if track.title == "Tone 2")
    write_table(path, Track, [track for track in read_table(path, Track) if track.id != gone.id])
    refused = mousai("export", "-w", space, "--format", "hf")
    assert refused.code == 1 and "mousai shard" in refused.err
    assert mousai("shard", "-w", space, "-j", 1).code == 0
    for name in FORMATS:
        export(space, name)
    traces = [path for path, content in state(space / "exports").items() if (gone.id or "?") in path]
    assert traces == []
    for manifest in (space / "exports").rglob("*.jsonl.gz"):
        assert (gone.id or "?").encode() not in gzip.decompress(manifest.read_bytes())
    assert not any(sample["__key__"].startswith(gone.id or "?") for sample in samples(space / "exports" / "hf"))


# What is refused


def test_an_unknown_format_is_refused_with_the_known_ones(space: Path):
    done = mousai("export", "-w", space, "--format", "tfds")
    assert done.code == 2 and all(name in done.err for name in FORMATS)


def test_without_shards_the_cure_is_named(tmp_path: Path):
    space = write_workspace(tmp_path / "space")
    assert "mousai ingest" in mousai("export", "-w", space, "--format", "hf").err
    assert mousai("ingest", write_library(tmp_path / "library"), "-w", space, "-j", 1).code == 0
    done = mousai("export", "-w", space, "--format", "hf")
    assert done.code == 1 and "Bring it up to date: mousai shard -w " in done.err
    assert not (space / "exports").exists()


@pytest.mark.parametrize("there", ["notes.txt", "export.json"])
def test_a_folder_with_other_files_is_left_alone(space: Path, tmp_path: Path, there: str):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / there).write_text('{"format": "lhotse"}', encoding="utf-8")
    done = mousai("export", "-w", space, "--format", "hf", "--out", tmp_path / "out")
    assert done.code == 1 and "--out DIR" in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [there]


def test_the_shards_themselves_are_no_place_for_an_export(space: Path):
    before = state(space / "shards")
    assert mousai("export", "-w", space, "--format", "hf", "--out", space / "shards").code == 1
    assert state(space / "shards") == before


def test_a_disk_without_room_is_noticed_first(space: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    done = mousai("export", "-w", space, "--format", "audiocraft")
    assert done.code == 1 and "free" in done.err
    assert list((space / "exports" / "audiocraft").rglob("*.flac")) == []
    assert mousai("export", "-w", space, "--format", "lhotse").code == 0  # which copies nothing
