"""Opting out: what is removed is nowhere, what is left is as it was, and it does not come back."""

import gzip
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mutagen.flac
import pytest
import soundfile
from audio_files import write_tone

from mousai.errors import UserError
from pipeline.chunks import ChunkPlan, read_chunks, update_chunks
from pipeline.encode_latents import Encoder, encode_latents, is_stale
from pipeline.ingest import ingest
from pipeline.manifest import read_facts, read_table
from pipeline.proof import Proof, by_folder
from pipeline.records import Rejected, Track
from pipeline.removal import (
    by_release,
    find_matches,
    fold,
    is_unfinished,
    make_rules,
    read_list,
    read_removed,
    require_finished,
)
from pipeline.remove import Places, Taken, find_removals, forget, remove, search_for, undo
from pipeline.shard import shard

PLAN = ChunkPlan(chunk_length=48_000, divisor=1_000, chunks_per_shard=4, validation_share=0.001)
MUSIC = {  # file -> seconds, title, artist, album
    "ann/1.flac": (2.0, "One", "Ánn", "Début"),
    "ann/2.flac": (2.0, "Two", "Ánn", "Début"),
    "bob/1.flac": (2.0, "Three (feat. Ann & Eve)", "Bob", "Hits"),
    "bob/2.flac": (2.0, "Four", "Bob", "Hits"),
    "cid/1.flac": (2.0, "Five", "Cid", "Hits"),
    "cid/2.flac": (2.0, "Six", "Cid", "Hits"),
    "cid/3.flac": (2.0, "Seven", "Cid", "Hits"),
    "dan/1.flac": (1.5, "Eight", "Dan", "Solo"),
}


def encode(audio: Any) -> Any:
    """A latent [B, 2, L] that tells its audio: the first of each 1,000 samples."""
    return audio[..., ::1_000]


ENCODER = Encoder(encode=encode, id="0123456789abcdef", hop=1_000, divisor=1_000)


class Space:
    """A library and what the stages have made of it."""

    def __init__(self, root: Path) -> None:
        self.library = root / "music"
        self.places = Places(
            manifests=root / "space" / "manifests", shards=root / "space" / "shards",
            latents=root / "space" / "latents", runs=root / "space" / "runs",
            exports=root / "space" / "exports",
        )  # fmt: skip

    def add(self, name: str, seconds: float, title: str, artist: str, album: str, frequency: float) -> None:
        path = self.library / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tone(path, seconds, frequency=frequency)
        retag(path, title=title, artist=artist, album=album, albumartist=artist)

    def ingest(self) -> dict[str, Track]:
        ingest([self.library], self.places.manifests, workers=1)
        return self.tracks()

    def make(self) -> tuple[int, int]:
        """Plan, shard and encode; how many audio and latent shards had to be made."""
        update_chunks(self.places.manifests, PLAN)
        audio = shard(self.places.manifests, self.places.shards, workers=1)
        latents = encode_latents(self.places.shards, self.places.latents, ENCODER, batch_size=2, workers=1)
        return audio.num_made + audio.num_removed, latents.num_made + latents.num_removed

    def tracks(self) -> dict[str, Track]:
        """By path below the library."""
        rows = read_table(self.places.manifests / "tracks.parquet", Track)
        return {os.path.relpath(track.path, self.library): track for track in rows}

    def rejected(self) -> dict[str, str]:
        rows = read_table(self.places.manifests / "rejected.parquet", Rejected)
        return {os.path.relpath(row.path, self.library): row.detail for row in rows if row.reason == "removed"}

    def remove(self, **named: list[str]) -> tuple[Taken, Proof]:
        rules = make_rules(named)
        find_removals(self.places.manifests, rules, all_must_match=True)
        return remove(self.places, rules, "flac")

    def files(self) -> dict[str, bytes]:
        root = self.places.manifests.parent
        return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}

    def inodes(self) -> dict[str, int]:
        root = self.places.manifests.parent
        return {str(path.relative_to(root)): path.stat().st_ino for path in root.rglob("*mousai-*")}


def retag(path: Path, **tags: str) -> None:
    file = mutagen.flac.FLAC(path)
    file.update(tags)
    file.save()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    space = Space(tmp_path_factory.mktemp("made"))
    for number, (name, about) in enumerate(MUSIC.items()):
        space.add(name, *about, frequency=200.0 + 50 * number)
    space.ingest()
    assert space.make() == (5, 5)
    return space.library.parent


@pytest.fixture
def space(made: Path, tmp_path: Path) -> Space:
    """Its tables name the library in `made`, which no test changes; `moved` has one of its own."""
    shutil.copytree(made / "space", tmp_path / "space")
    space = Space(tmp_path)
    space.library = made / "music"
    return space


@pytest.fixture
def moved(space: Space, tmp_path: Path, made: Path) -> Space:
    """The space with a library that may be changed, ingested from its own place."""
    shutil.copytree(made / "music", tmp_path / "music")
    forget(space.places, make_rules({"path": [str(made)]}), "flac")
    space.library = tmp_path / "music"
    space.ingest()
    space.make()
    return space


# Taken out


def test_only_the_shards_that_held_it_are_rewritten(space: Space):
    before, inodes, ids = space.files(), space.inodes(), {track.id for track in space.tracks().values()}
    gone = {space.tracks()[name].id for name in ("bob/1.flac", "bob/2.flac")}
    held = {(chunk.split, chunk.shard) for chunk in read_chunks(space.places.manifests) if chunk.track_id in gone}
    taken, proof = space.remove(artist=["bob"])
    assert (taken.num_tracks, taken.num_chunks) == (2, 4)
    assert proof.holds and proof.num_ids == 2 < len(ids)
    tars = {path.relative_to(space.places.manifests.parent) for path in (*taken.rewritten, *taken.deleted)}
    names = {f"{split}/mousai-{split}-{number:06}.tar" for split, number in held}
    assert {str(tar) for tar in tars} == {
        f"{folder}/{name}" for name in names for folder in ("shards", f"latents/{ENCODER.id}")
    }
    untouched = [name for name in inodes if not any(Path(tar).stem in name for tar in names)]
    assert len(untouched) >= 6
    assert all(space.files()[name] == before[name] and space.inodes()[name] == inodes[name] for name in untouched)


def test_what_is_left_is_current_and_is_what_the_stages_would_make(space: Space):
    taken, _ = space.remove(track=["Two"])
    assert len(taken.rewritten) == 2 and not taken.deleted
    assert not is_stale(space.places.shards, space.places.latents, ENCODER.id)
    assert space.make() == (0, 0)
    after = space.files()
    for tar in taken.rewritten:
        tar.unlink()
    assert space.make() == (1, 1)
    assert space.files() == after


def test_no_other_chunk_moves_and_no_group_is_called_by_who_has_gone(space: Space):
    before = {chunk.key: (chunk.split, chunk.shard) for chunk in read_chunks(space.places.manifests)}
    assert "artist ánn" in {chunk.group for chunk in read_chunks(space.places.manifests)}
    space.remove(artist=["Ann"])
    update_chunks(space.places.manifests, PLAN)
    left = read_chunks(space.places.manifests)
    assert {chunk.key: before[chunk.key] for chunk in left} == {chunk.key: (chunk.split, chunk.shard) for chunk in left}
    assert "artist ánn" not in {chunk.group for chunk in left}


def test_featured_artists_match_whatever_the_accents(space: Space):
    (match,) = find_removals(space.places.manifests, make_rules({"artist": ["ANN"]}), all_must_match=True)
    assert [Path(track.path).parent.name for track in match.tracks] == ["ann", "ann", "bob"]
    (eve,) = find_removals(space.places.manifests, make_rules({"artist": ["eve"]}), all_must_match=True)
    assert [track.title for track in eve.tracks] == ["Three (feat. Ann & Eve)"]


def test_kinds_narrow_and_values_add_up(space: Space):
    def titles(**named: list[str]) -> list[list[str | None]]:
        found = find_removals(space.places.manifests, make_rules(named), all_must_match=True)
        return [[track.title for track in match.tracks] for match in found]

    assert titles(album=["hits"], artist=["bob"]) == [["Three (feat. Ann & Eve)", "Four"]]
    assert titles(track=["five", "six"]) == [["Five"], ["Six"]]
    assert titles(path=[str(space.library / "dan")]) == [["Eight"]]
    assert titles(track=[str(space.tracks()["dan/1.flac"].id)]) == [["Eight"]]


def test_a_name_that_matches_nothing_brings_up_names_like_it(space: Space):
    with pytest.raises(UserError, match=r"artist Ana matches none of 8 tracks\. Names like it: .*Ánn"):
        space.remove(artist=["Ana"])
    with pytest.raises(UserError, match=r"Names like it: Three \(feat\. Ann & Eve\)"):
        space.remove(track=["three"])
    assert not read_removed(space.places.manifests)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Björk", "BJORK", True),
        ("Ёлка", "елка", True),
        ("  A  B ", "a b", True),
        ("が", "か", False),
        ("AC/DC", "AC", False),
    ],
)
def test_names_are_compared_without_case_accents_and_spacing(one: str, other: str, same: bool):
    assert (fold(one) == fold(other)) is same


def test_a_removal_of_all_leaves_an_empty_workspace(space: Space):
    _, proof = space.remove(path=[str(space.library)])
    assert proof.holds and proof.num_ids == 8
    assert not space.tracks() and not space.rejected() and not read_chunks(space.places.manifests)
    assert not list(space.places.shards.rglob("*.tar")) and not list(space.places.latents.rglob("*.tar"))
    assert read_facts(space.places.manifests / "tracks.parquet")["libraries"] == []


def test_a_damaged_shard_is_not_copied_from(space: Space):
    tar = space.places.shards / "train" / "mousai-train-000000.tar"
    content = bytearray(tar.read_bytes())
    content[1_000] ^= 1
    tar.write_bytes(content)
    first = [
        chunk.track_id for chunk in read_chunks(space.places.manifests) if (chunk.split, chunk.shard) == ("train", 0)
    ]
    taken, _ = space.remove(track=[first[0]])
    assert tar in taken.deleted and not tar.exists()
    assert space.make()[0] == 1


# Proof


def test_the_search_finds_what_is_there(space: Space):
    track = space.tracks()["bob/1.flac"]
    found = search_for(space.places, {str(track.id)}).found
    suffixes = sorted(Path(path).name.split(".")[-1] for path in found)
    assert suffixes == ["parquet"] * 5 + ["tar"] * 2  # tracks, fingerprints, chunks; two shards and their tables
    space.remove(artist=["Bob"])
    (space.places.runs / "old").mkdir(parents=True)
    note = space.places.runs / "old" / "notes.txt"
    note.write_text(f"x{track.id}x {track.id}")
    (space.places.shards / "copy.tar").write_bytes(b"torn")
    copied = space.places.exports / "audiocraft" / f"{track.id}_0001.wav"
    copied.parent.mkdir(parents=True)
    copied.touch()
    with gzip.open(copied.with_name("data.jsonl.gz"), "wt") as listed:
        listed.write(f'{{"path": "{copied.name}"}}')
    proof = search_for(space.places, {str(track.id)})
    assert set(proof.found) == {str(note), str(copied), str(copied.with_name("data.jsonl.gz"))}
    assert proof.unreadable == (str(space.places.shards / "copy.tar"),)


def test_a_removal_whose_proof_fails_stays_unfinished(space: Space):
    note = space.places.runs / "notes.txt"
    note.parent.mkdir()
    note.write_text(str(space.tracks()["bob/1.flac"].id))
    _, proof = space.remove(artist=["Bob"])
    assert not proof.holds
    with pytest.raises(UserError, match=r"runs: delete notes\.txt\. Then: mousai remove"):
        require_finished(space.places.manifests, but_for_exports=True)
    note.unlink()
    taken, proof = remove(space.places, [], "flac")
    assert proof.holds and not taken.changed and not is_unfinished(space.places.manifests)


def test_previews_of_removed_tracks_go(space: Space):
    folder = space.places.runs / "dmae" / "previews" / "step-00000002"
    folder.mkdir(parents=True)
    ids = [space.tracks()[name].id for name in ("bob/1.flac", "cid/1.flac")]
    (folder / "tracks.json").write_text(f'["{ids[0]}", "{ids[1]}"]')
    for name in ("0-true.wav", "0.png", "1-true.wav", "1.png"):
        (folder / name).touch()
    taken, proof = space.remove(artist=["Bob"])
    assert taken.num_previews == 1 and proof.holds
    assert sorted(path.name for path in folder.iterdir()) == ["1-true.wav", "1.png", "tracks.json"]


# Kept out


def test_copies_and_new_files_stay_out(moved: Space):
    moved.remove(artist=["Ann"])
    renamed = moved.library / "other.flac"
    shutil.copy(moved.library / "ann" / "1.flac", renamed)
    retag(renamed, title="X", artist="Y", album="Z", albumartist="Y")
    moved.add("new.flac", 2.0, "New", "Ann", "Later", 900.0)
    moved.add("zoe.flac", 2.0, "Duet ft. ÁNN", "Zoe", "Later", 950.0)
    assert set(moved.ingest()) == {name for name in MUSIC if not name.startswith(("ann", "bob/1"))}
    out = {"ann/1.flac", "ann/2.flac", "bob/1.flac", "new.flac", "other.flac", "zoe.flac"}
    assert moved.rejected() == dict.fromkeys(out, "artist Ann")
    retag(moved.library / "new.flac", artist="Nobody", albumartist="Nobody")  # met once, it is known by its sound
    os.utime(moved.library / "new.flac", (1, 1))
    moved.ingest()
    assert set(moved.rejected()) == out
    before = moved.files()
    moved.ingest()
    taken, proof = remove(moved.places, [], "flac")
    assert proof.holds and not taken.changed and moved.files() == before


def test_copies_in_other_lossless_formats_go_and_stay_out(moved: Space):
    def convert(name: str, to: str) -> None:
        samples, sample_rate = soundfile.read(moved.library / name, dtype="int16")
        soundfile.write(moved.library / to, samples, sample_rate)

    convert("dan/1.flac", "copy.wav")
    moved.ingest()
    (match,) = find_removals(moved.places.manifests, make_rules({"artist": ["Dan"]}), all_must_match=True)
    assert [Path(track.path).name for track in match.copies] == ["copy.wav"]
    moved.remove(artist=["Dan"])
    convert("dan/1.flac", "again.aiff")
    moved.ingest()
    assert moved.rejected() == dict.fromkeys(["dan/1.flac", "copy.wav", "again.aiff"], "artist Dan")


def test_a_list_may_come_before_the_music(tmp_path: Path):
    space = Space(tmp_path)
    (tmp_path / "list.csv").write_text("artist,album\nCid,\nBob,Hits\n\n", encoding="utf-8-sig")
    rules = read_list(tmp_path / "list.csv")
    assert [rule.request for rule in rules.values()] == ["artist Cid", "artist Bob, album Hits"]
    find_removals(space.places.manifests, [*rules.values()], all_must_match=False)
    remove(space.places, [*rules.values()], "flac")
    space.add("cid.flac", 1.5, "A", "CID", "B", 300.0)
    space.add("bob.flac", 1.5, "A", "Bob", "Other", 400.0)
    assert set(space.ingest()) == {"bob.flac"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the first line of .* must name its columns"),
        ("name\nBob\n", "the first line of .* must name its columns"),
        ("artist\nBob,Hits\n", "line 2 of .* has 2 values for 1 columns"),
        ("artist\n\u0301\n", "could be removed"),
        ("artist\n\n \n", "names nothing"),
        ('artist\nCid\n"Bob\nDan\n', "line 3 of .* quote left open"),
        ('artist\n"Bob\nDan"\n', "line 2 of .* quote left open"),
        ("artist\nBj\xf6rk\n", "is no text in UTF-8"),
        (None, "list.csv cannot be read: No such file or directory"),
    ],
)
def test_a_list_that_cannot_be_read_says_why(tmp_path: Path, text: str | None, why: str):
    if text is not None:
        (tmp_path / "list.csv").write_text(text, encoding="latin-1" if "\xf6" in text else "utf-8")
    with pytest.raises(UserError, match=why):
        read_list(tmp_path / "list.csv")


def test_an_empty_path_is_no_folder():
    with pytest.raises(UserError, match="'' is no path that could be removed"):
        make_rules({"path": [""]})


def test_what_matches_is_not_shown_as_merely_like_it(space: Space):
    def similar(artist: str) -> tuple[str, ...]:
        rules = make_rules({"artist": [artist]})
        (match,) = find_matches([track("Abba feat. Ann"), track("Ann Trio"), track("Ann"), track("Bob")], rules)
        return match.similar

    def track(artist: str) -> Track:
        return replace(some, raw_path=artist.encode(), artists=[artist], album_artist=None)

    some = space.tracks()["dan/1.flac"]
    assert similar("ANN") == ("Ann Trio",)
    assert similar("Bub") == ("Bob",)


def test_a_folder_is_shown_on_one_line(space: Space):
    track = replace(space.tracks()["dan/1.flac"], raw_path="/m/a\nb/Björk.flac".encode(), artists=[], album=None)
    assert [release for release, _ in by_release([track])] == ["/m/a\\nb"]
    assert make_rules({"path": ["/m/a\nb"]})[0].request == "path /m/a\\nb"


def test_exports_are_left_by_folder_with_their_cards_until_those_are_anew(space: Space):
    ids = [track.id for name, track in space.tracks().items() if name.startswith("bob")]
    folder = space.places.exports / "hf"
    (folder / "train").mkdir(parents=True)
    (folder / "export.json").write_text('{"format": "hf"}')
    (folder / "README.md").write_text("| Bob | 2 |")
    for track_id in ids:
        (folder / "train" / f"{track_id}.flac").touch()
    _, proof = space.remove(artist=["Bob"])
    (left,) = by_folder(proof, space.places.manifests.parent)
    assert (left.folder, len(left.files)) == ("exports/hf", 3)
    with pytest.raises(UserError, match=r"exports/hf: make it anew with mousai export --format hf, or delete"):
        require_finished(space.places.manifests)
    require_finished(space.places.manifests, but_for_exports=True)
    shutil.rmtree(folder / "train")
    assert remove(space.places, [], "flac")[1].left == (str(folder / "README.md"),)
    (folder / "README.md").write_text("| Cid | 3 |")
    assert remove(space.places, [], "flac")[1].holds and not is_unfinished(space.places.manifests)


def test_what_is_undone_comes_back(space: Space):
    ids = {name: track.id for name, track in space.tracks().items()}
    space.remove(artist=["Ann"])
    space.remove(artist=["BOB"])
    space.ingest()
    with pytest.raises(UserError, match=r"artist Cid is not on the list .* On it: artist Ann; artist BOB"):
        undo(space.places.manifests, make_rules({"artist": ["Cid"]}))
    with pytest.raises(UserError, match=r"name what is to be taken off .* On it: artist Ann; artist BOB"):
        undo(space.places.manifests, [])
    before = space.files()
    assert undo(space.places.manifests, make_rules({"artist": ["bob"]}), dry_run=True) == {"artist BOB": 1}
    assert space.files() == before
    assert undo(space.places.manifests, make_rules({"artist": ["bob"]})) == {"artist BOB": 1}
    assert set(space.ingest()) == {name for name in MUSIC if not name.startswith(("ann", "bob/1"))}  # Ann is on it
    assert undo(space.places.manifests, make_rules({"artist": ["ann"]})) == {"artist Ann": 3}
    assert {name: track.id for name, track in space.ingest().items()} == ids
    assert read_removed(space.places.manifests) == []


def test_a_library_that_is_gone_for_good_is_forgotten_and_may_return_elsewhere(
    space: Space, tmp_path: Path, made: Path
):
    music = tmp_path / "disk"
    shutil.copytree(made / "music", music)
    gone = Space(tmp_path / "gone")
    gone.library = music
    gone.ingest()
    shutil.rmtree(music)
    music.mkdir()
    with pytest.raises(UserError, match=f"mousai remove --forget --path {music}"):
        ingest([], gone.places.manifests, workers=1)
    taken, proof = forget(gone.places, make_rules({"path": [str(music)]}), "flac")
    assert taken.num_tracks == 8 and proof.holds
    with pytest.raises(UserError, match="No library is known yet"):
        ingest([], gone.places.manifests, workers=1)
    gone.library = made / "music"
    assert len(gone.ingest()) == 8


# Killed


class Killed(BaseException):
    pass


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the process die at the n-th file that is renamed or deleted: nothing is done to any file from then on."""
    left = step

    def dying(act: Callable[..., Any]) -> Callable[..., Any]:
        def acting(*values: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0:
                raise Killed
            return act(*values, **options)

        return acting

    for name in ("replace", "unlink", "rename"):
        monkeypatch.setattr(Path, name, dying(getattr(Path, name)))
    monkeypatch.setattr(shutil, "rmtree", dying(shutil.rmtree))


def test_a_removal_that_was_killed_anywhere_is_finished_by_the_next(made: Path, tmp_path: Path):
    def run(folder: Path, step: int) -> tuple[dict[str, bytes], bool]:
        shutil.copytree(made / "space", folder / "space")
        space = Space(folder)
        killed = False
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, step)
            try:
                space.remove(artist=["Ann"])
            except Killed:
                killed = True
        if killed:
            if is_unfinished(space.places.manifests):
                remove(space.places, [], "flac")
            else:
                space.remove(artist=["Ann"])
        return space.files(), killed

    whole, killed = run(tmp_path / "whole", 10_000)
    assert not killed
    step, num_killed = 1, 0
    while killed or step == 1:
        files, killed = run(tmp_path / str(step), step)
        assert files == whole, step
        num_killed += killed
        step += 11
    assert num_killed >= 5
