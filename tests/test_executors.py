"""Jobs in processes of their own: what they give, what their death costs, and that none outlives its run."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from audio_files import write_tone

from mousai.errors import UserError
from pipeline import ingest as ingest_stage
from pipeline import shard as shard_stage
from pipeline.chunks import ChunkPlan, update_chunks
from pipeline.decode import Unusable
from pipeline.executors import run_jobs
from pipeline.ingest import ingest
from pipeline.manifest import read_table
from pipeline.records import Reason, Rejected, Shard, ShardMember, Track
from pipeline.shard import ShardJob, shard
from pipeline.tars import read_members
from pipeline.walk import File

ROOT = Path(__file__).parents[1]
PROMPT = 3.0  # s in which a run must have ended: its own limit is 1 s, the rest is for a busy machine
LONG = 60.0  # s that no test waits for


def square(number: int) -> int:
    return number * number


def pid_of(_: int) -> int:
    return os.getpid()


def square_or_die(number: int) -> int:
    """Dies as a decoder may: 2 of a segfault, 4 without a word."""
    if number == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 4:
        os._exit(1)
    return square(number)


def die_once(mark: Path) -> str:
    """Dies of short memory while others are at work."""
    if mark.name == "hungry" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return mark.name


def fail(kind: str) -> None:
    if kind == "unusable":  # its arguments are not those that it was made with: it can be pickled, not unpickled
        raise Unusable(Reason.DRM, "encrypted")
    raise OSError(28, "No space left on device", "/full/disk")


def wait_for(fact: Callable[[], bool]) -> None:
    """Until `fact` holds, or the test has waited too long."""
    deadline = time.monotonic() + LONG
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", [1, 3])
def test_every_job_gets_its_result(workers):
    assert dict(run_jobs(square, range(10), workers)) == {number: number**2 for number in range(10)}
    assert list(run_jobs(square, [], workers)) == []


def test_one_worker_is_this_process():
    assert list(run_jobs(lambda _: os.getpid(), [0], 1)) == [(0, os.getpid())]


def test_a_job_that_kills_its_worker_costs_no_other_job():
    results = dict(run_jobs(square_or_die, range(6), 2, lambda number, code: (-number, code)))
    assert results == {0: 0, 1: 1, 2: (-2, -signal.SIGSEGV), 3: 9, 4: (-4, 1), 5: 25}


def test_a_worker_that_dies_at_one_of_several_jobs_gives_the_others_back():
    results = dict(run_jobs(square_or_die, range(12), 1, lambda number, code: -number, apart=True, ahead=5))
    assert results == {number: -number if number in (2, 4) else number**2 for number in range(12)}


def test_work_may_be_done_apart_by_one_worker_too():
    ((_, pid),) = run_jobs(pid_of, [0], 1, apart=True)
    assert pid != os.getpid()


def test_a_job_that_dies_once_is_given_a_second_chance(tmp_path):
    jobs = [tmp_path / "modest", tmp_path / "hungry", tmp_path / "late"]
    assert {name for _, name in run_jobs(die_once, jobs, 2)} == {"modest", "hungry", "late"}


def test_a_crash_that_nobody_handles_is_an_error_in_one_line():
    with pytest.raises(UserError, match="a worker process died"):
        list(run_jobs(square_or_die, [1, 2, 4], 2))
    assert not multiprocessing.active_children()


def test_an_exception_arrives_as_it_was_raised():
    with pytest.raises(OSError, match="No space left on device") as caught:
        list(run_jobs(fail, ["disk"] * 3, 2))
    assert caught.value.filename == "/full/disk"
    assert "in fail" in caught.value.__notes__[0]
    assert not multiprocessing.active_children()


def test_an_exception_that_cannot_travel_arrives_as_its_text():
    with pytest.raises(RuntimeError, match="Unusable: drm: encrypted"):
        list(run_jobs(fail, ["unusable"], 2))


def test_a_caller_that_turns_away_ends_what_is_under_way():
    jobs = run_jobs(time.sleep, [0.0, LONG, LONG], 2)
    next(jobs)
    began = time.monotonic()
    jobs.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < PROMPT
    assert not multiprocessing.active_children()


def test_workers_that_cannot_start_blame_no_job(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from pipeline.executors import run_jobs\nprint(list(run_jobs(abs, [1, 2], 2, lambda job, code: 'crashed')))\n"
    )
    done = subprocess.run([sys.executable, script], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "worker processes die before they begin to work" in done.stderr


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.skipif(not Path("/proc").exists(), reason="children are counted in /proc")
def test_workers_end_with_a_killed_run(tmp_path):
    script = tmp_path / "sleeper.py"
    script.write_text(
        "import time\nfrom pipeline.executors import run_jobs\nif __name__ == '__main__':\n"
        f"    for job in run_jobs(time.sleep, [0, {LONG}, {LONG}], 2):\n        print(job, flush=True)\n"
    )
    run = subprocess.Popen([sys.executable, script], cwd=ROOT, env=environment(), stdout=subprocess.PIPE)
    with run:
        assert run.stdout is not None
        run.stdout.readline()  # the first job is done, so both workers are there
        workers = children(run.pid)
        assert len(workers) >= 2
        run.kill()
    wait_for(lambda: not any(map(is_alive, workers)))


@pytest.mark.skipif(not Path("/proc").exists(), reason="children are counted in /proc")
@pytest.mark.parametrize("delay", [0.0, 1.0], ids=["as workers start", "as they work"])
def test_ctrl_c_ends_ingest_at_once_and_without_a_word(tmp_path, delay):
    library, space = tmp_path / "library", tmp_path / "space"
    library.mkdir()
    for number in range(12):
        write_endless_wav(library / f"{number}.wav", hours=2)
    subprocess.run([sys.executable, ROOT / "cli.py", "init", space, "--preset", "tiny"], check=True, env=environment())
    command = [sys.executable, ROOT / "cli.py", "ingest", library, "-w", space, "-j", "2"]
    run = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: len(children(run.pid)) >= 3)  # two workers, and Python's tracker of resources
    workers = children(run.pid)
    time.sleep(delay)
    began = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)  # as the terminal does: to all of them
    output, errors = run.communicate(timeout=LONG)
    assert time.monotonic() - began < PROMPT
    assert (run.returncode, output, errors) == (130, "", "")
    wait_for(lambda: not any(map(is_alive, workers)))
    assert not (space / "manifests" / "tracks.parquet").exists()


def write_endless_wav(path: Path, hours: float) -> None:
    """Silence that takes long to read and no space on disk."""
    num_bytes = round(hours * 3600) * 44_100 * 4
    sizes = [(36 + num_bytes).to_bytes(4, "little"), num_bytes.to_bytes(4, "little")]
    form = bytes.fromhex("666d7420 10000000 01000200 44ac0000 10b10200 04001000")  # PCM, 44.1 kHz, stereo, 16 bits
    with path.open("wb") as file:
        file.write(b"RIFF" + sizes[0] + b"WAVE" + form + b"data" + sizes[1])
        file.truncate(44 + num_bytes)


read_file, make_shard, encodes = ingest_stage._read_file, shard_stage.make_shard, shard_stage._encodes


def read_file_or_die(file: File, **how) -> ingest_stage._Read:
    if file.path.stem == "deadly":
        os.kill(os.getpid(), signal.SIGSEGV)
    return read_file(file, **how)


def make_shard_or_die(job: ShardJob) -> Shard:
    die_of_deadly_tracks(job)
    return make_shard(job)


def encodes_or_die(job: ShardJob) -> str:
    die_of_deadly_tracks(job)
    return encodes(job)


def die_of_deadly_tracks(job: ShardJob) -> None:
    if any(Path(track.path).stem == "deadly" and track.id not in job.given_up for track, _ in job.tracks):
        os.kill(os.getpid(), signal.SIGSEGV)


def make_shard_and_die(job: ShardJob) -> Shard:
    os._exit(1)


def write_library(folder: Path) -> Path:
    folder.mkdir()
    for number, name in enumerate(("deadly", "a", "b")):
        write_tone(folder / f"{name}.wav", 1.5, frequency=300 + 20 * number)
    return folder


def test_a_file_that_kills_the_decoder_is_rejected_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest_stage, "_read_file", read_file_or_die)
    library = write_library(tmp_path / "library")
    summary = ingest([library], tmp_path / "manifests", workers=2)
    assert (summary.num_tracks, summary.reasons) == (2, {"crashed": 1})
    (row,) = read_table(tmp_path / "manifests" / "rejected.parquet", Rejected)
    assert (Path(row.path).name, row.detail) == ("deadly.wav", "the decoder died of SIGSEGV")


@pytest.fixture
def manifests(tmp_path) -> Path:
    """A library of three tracks, read and planned: two to train, one to validate."""
    ingest([write_library(tmp_path / "library")], tmp_path / "manifests", workers=1)
    update_chunks(tmp_path / "manifests", ChunkPlan(chunk_length=2**16, divisor=2**10, chunks_per_shard=16))
    return tmp_path / "manifests"


def test_a_track_that_kills_the_decoder_fails_alone_in_its_shard(tmp_path, manifests, monkeypatch):
    monkeypatch.setattr(shard_stage, "make_shard", make_shard_or_die)
    monkeypatch.setattr(shard_stage, "_encodes", encodes_or_die)
    done = shard(manifests, tmp_path / "shards", workers=2)
    assert [(Path(path).name, error) for path, error in done.failures] == [
        ("deadly.wav", "crashed: the decoder died of SIGSEGV")
    ]
    assert (done.num_chunks, done.num_failed) == (2, 1)
    (deadly,) = (track.id for track in read_table(manifests / "tracks.parquet", Track) if "deadly" in track.path)
    rows = [
        row for tar in (tmp_path / "shards").glob("*/*.tar") for row in read_members(tar.parent, tar.stem, ShardMember)
    ]
    assert [row.track_id for row in rows if row.error] == [deadly]
    assert shard(manifests, tmp_path / "shards", workers=2).num_made == 0


def test_a_shard_that_dies_whatever_is_in_it_is_named(tmp_path, manifests, monkeypatch):
    monkeypatch.setattr(shard_stage, "make_shard", make_shard_and_die)
    job = shard_stage.plan_shards(manifests, tmp_path, "flac")[-1]
    job.folder.mkdir()
    with pytest.raises(UserError, match=r"mousai-val-000000.tar dies, though each of its tracks can be read"):
        shard_stage._make_without_culprits(job, -signal.SIGSEGV)


def test_workers_calculate_in_one_thread_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    assert list(run_jobs(os.getenv, ["OPENBLAS_NUM_THREADS"], 1, apart=True)) == [("OPENBLAS_NUM_THREADS", "1")]
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    assert list(run_jobs(os.getenv, ["OPENBLAS_NUM_THREADS"], 1, apart=True)) == [("OPENBLAS_NUM_THREADS", "3")]
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"
