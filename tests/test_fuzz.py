"""A hundred hostile files: none hangs or kills a run, and each is in exactly one table."""

from pathlib import Path

from audio_files import tone

from benchmarks.fuzz import MUTATIONS, lost, mutate, transcode
from pipeline.chunks import ChunkPlan, update_chunks
from pipeline.ingest import ingest
from pipeline.limits import Limits
from pipeline.shard import shard

LIMITS = Limits(seconds=20, megabytes=1_000)


def test_no_mutated_file_is_lost_or_stops_the_chain(tmp_path: Path):
    originals = tmp_path / "originals"
    originals.mkdir()
    made = list(transcode(tone(0.5), 44_100, originals, "tone"))
    assert len(made) == 17
    files = mutate(made, tmp_path / "library", 100, seed=1)
    assert all(any(change.__name__ in path.name for path in files) for change in MUTATIONS)
    manifests = tmp_path / "manifests"
    done = ingest([tmp_path / "library"], manifests, workers=1, min_duration=0.1, limits=LIMITS)
    assert lost(files, manifests) == []
    assert done.num_tracks > 40 and done.num_rejected > 10
    update_chunks(manifests, ChunkPlan(chunk_length=2**14, divisor=2**10, chunks_per_shard=1_000))
    assert shard(manifests, tmp_path / "shards", workers=1, limits=LIMITS).num_failed == 0


def test_the_same_seed_gives_the_same_files(tmp_path: Path):
    (tmp_path / "a.mp3").write_bytes(bytes(range(256)) * 20)
    for folder in ("one", "two"):
        mutate([tmp_path / "a.mp3"], tmp_path / folder, 20, seed=0)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / each).rglob("*.mp3")} for each in ("one", "two"))
    assert one == two and len(set(one.values())) > 15
