"""Which weights were trained on a track: every checkpoint says so, and `remove` lists them."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cli_runs import Chain, mousai, state_of

from mousai.checkpoint import list_checkpoints
from mousai.lineage import read_tracks, trained_with
from mousai.pretrained import WEIGHTS

# WebDataset closes no file it opened
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def copy(chain: Chain, tmp_path: Path) -> Chain:
    shutil.copytree(chain.workspace, tmp_path / "copy")
    return Chain(workspace=tmp_path / "copy", library=chain.library, outcomes={})


def training_ids(workspace: Path) -> set[str]:
    tables = (workspace / "shards" / "train").glob("*.parquet")
    return {track_id for table in tables for track_id in pq.read_table(table)["track_id"].to_pylist()}


def tracks_by_artist(workspace: Path) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = {}
    for row in pq.read_table(workspace / "manifests" / "tracks.parquet").to_pylist():
        ids.setdefault(row["artists"][0], []).append(row["id"])
    return ids


@pytest.mark.parametrize("stage", ["dmae", "generator"])
def test_a_checkpoint_says_what_it_was_trained_on(chain: Chain, stage: str):
    (checkpoint,) = list_checkpoints(chain.workspace / "runs" / stage)
    assert read_tracks(checkpoint) == training_ids(chain.workspace)


def test_a_frozen_dmae_says_what_it_was_trained_on(chain: Chain):
    (frozen,) = chain.workspace.glob("latents/*/dmae")
    assert read_tracks(frozen) == training_ids(chain.workspace)


def test_the_weights_that_come_with_mousai_say_what_they_were_trained_on():
    assert [len(read_tracks(path.parent) or ()) for path in WEIGHTS.glob("*/checkpoint.json")] == [
        160
    ]  # as on the card


def test_a_run_that_goes_on_remembers_what_earlier_sittings_saw(copy: Chain):
    (checkpoint,) = list_checkpoints(copy.workspace / "runs" / "dmae")
    (checkpoint / "tracks.txt").write_text("0" * 32 + "\n")
    go_on = ["train", "dmae", "--device", "cpu", "-w", copy.workspace]
    assert mousai(*go_on, "--steps", "3").code == 0
    assert read_tracks(list_checkpoints(checkpoint.parents[1])[-1]) == training_ids(copy.workspace) | {"0" * 32}
    (list_checkpoints(checkpoint.parents[1])[-1] / "tracks.txt").unlink()
    assert mousai(*go_on, "--steps", "4").code == 0
    assert read_tracks(list_checkpoints(checkpoint.parents[1])[-1]) is None  # what is not known stays so


def test_a_generator_rests_on_its_dmae(copy: Chain):
    (generator,) = list_checkpoints(copy.workspace / "runs" / "generator")
    places = (copy.workspace / "runs", copy.workspace / "latents", [])
    (generator / "tracks.txt").write_text("")
    asked = sorted(training_ids(copy.workspace))[:1]
    found = {Path(each.path).parent.name: each for each in trained_with(asked, *places) if each.is_concerned}
    assert len(found) == 2 and {each.num_tracks for each in found.values()} == {0, 1}


# The command


def test_remove_shows_asks_takes_out_proves_and_lists(copy: Chain):
    ((artist, ids),) = [
        pair for pair in tracks_by_artist(copy.workspace).items() if set(pair[1]) <= training_ids(copy.workspace)
    ]
    before = state_of(copy.workspace)
    dry = mousai("remove", "--artist", artist.upper(), "--dry-run", "-w", copy.workspace)
    assert dry.code == 0 and f"artist {artist.upper()}: {len(ids)} tracks" in dry.out
    asked = mousai("remove", "--artist", artist.upper(), "-w", copy.workspace)
    assert (asked.code, asked.err.count("\n")) == (1, 1) and "--yes" in asked.err
    assert state_of(copy.workspace) == before
    done = mousai("remove", "--artist", artist.upper(), "--yes", "--json", "-w", copy.workspace)
    told = json.loads(done.out)
    assert done.code == 0
    assert told["taken"]["num_tracks"] == len(ids) and told["proof"]["found"] == {}
    listed = {Path(each["path"]).name: each["num_tracks"] for each in told["trained_with"]}
    assert listed == {"step-00000002": len(ids), "dmae": len(ids)}
    assert len(told["trained_with"]) == 3 and told["cannot_say"] == []


def test_remove_without_options_does_nothing_where_all_is_done(copy: Chain):
    assert mousai("remove", "--artist", "Ann", "--yes", "-w", copy.workspace).code == 0
    before = state_of(copy.workspace)
    again = mousai("remove", "-w", copy.workspace)
    assert again.code == 0 and "Nothing to do" in again.out and "Kept out of later scans: artist Ann." in again.out
    assert state_of(copy.workspace) == before


def test_a_removal_that_was_cut_off_stops_the_stages_that_read_what_it_left(copy: Chain, monkeypatch):
    monkeypatch.setattr("pipeline.remove.take_out", lambda *places: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mousai("remove", "--artist", "Ann", "--yes", "-w", copy.workspace)
    for name in ("shard", "train dmae", "encode-latents", "train generator"):
        done = copy.run(name)
        assert done.code == 1 and "Finish it with: mousai remove -w " in done.err
    monkeypatch.undo()
    assert "1 files and 1 chunks taken out" in mousai("remove", "-w", copy.workspace).out
    assert copy.run("shard").code == 0


def test_undo_says_what_would_come_back_and_touches_nothing_in_a_dry_run(copy: Chain):
    nothing = mousai("remove", "-w", copy.workspace)
    assert nothing.code == 0 and "no request is on the list" in nothing.out and "gone" not in nothing.out
    assert mousai("remove", "--artist", "Ann", "--yes", "-w", copy.workspace).code == 0
    before = state_of(copy.workspace)
    dry = mousai("remove", "--undo", "--artist", "ann", "--dry-run", "-w", copy.workspace)
    assert (dry.code, dry.out) == (0, "artist Ann would be kept out no longer: 1 files can come back.\n")
    assert state_of(copy.workspace) == before
    assert "is kept out no longer" in mousai("remove", "--undo", "--artist", "ann", "-w", copy.workspace).out


def test_lines_of_a_list_that_match_nothing_are_named(copy: Chain, tmp_path: Path):
    (tmp_path / "list.csv").write_text("artist\nAnn\n\nAnnn\n")
    done = mousai("remove", "--list", tmp_path / "list.csv", "--yes", "-w", copy.workspace)
    assert done.code == 0
    assert f"mousai: line 4 of {tmp_path / 'list.csv'} (artist Annn) matches no track" in done.err
    assert "line 2" not in done.err


def test_an_export_is_made_anew_and_then_a_removal_is_finished(copy: Chain):
    exported = ["export", "--format", "hf", "-w", copy.workspace]
    assert mousai(*exported).code == 0
    left = mousai("remove", "--artist", "Ann", "--yes", "-w", copy.workspace)
    assert left.code == 1 and left.err.count("mousai: exports/hf: ") == 1 and "export --format hf" in left.err
    again = mousai("remove", "-w", copy.workspace)
    assert again.code == 1 and "gone" not in again.out
    refused = copy.run("encode-latents")
    assert refused.code == 1 and "cut off" not in refused.err and " --format hf" in refused.err
    assert copy.run("shard").code == 0
    assert mousai(*exported).code == 0
    assert mousai("remove", "-w", copy.workspace).code == 0
    assert "Ann" not in (copy.workspace / "exports" / "hf" / "README.md").read_text()
