"""Kills commands at random moments, runs them again, and compares all that they publish with an uninterrupted run.

    python benchmarks/kill.py MUSIC [--kills 20] [--seed 0] [--stages ingest prompts shard encode-latents]

MUSIC holds music; the workspace has the preset `tiny`, with the DMAE that comes with it. Moments are spread over the
time in which a stage holds its workspace, one at random in each of as many equal parts. Every second kill takes the
whole process group, workers included, the others the main process only. Fails unless every file, byte for byte, is
what it would have been, and nothing else is left.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mousai.storage import sha256_of_file

ROOT = Path(__file__).parents[1]
_POLL = 0.002  # s
_LONGEST = 600.0  # s that anything may take


@dataclass(frozen=True, kw_only=True)
class Kill:
    """When a command was killed, and how."""

    moment: float  # s after the stage had begun
    group: bool  # with its workers


def start(words: Sequence[str], space: Path) -> "subprocess.Popen[str]":
    """`mousai WORDS` in a process group of its own, once it holds its workspace: imports are behind it."""
    lock = space / ".lock"
    lock.unlink(missing_ok=True)
    command = [sys.executable, str(ROOT / "cli.py"), *words, "-w", str(space)]
    run = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + _LONGEST
    while not lock.exists() and run.poll() is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{words} does not begin")
        time.sleep(_POLL)
    return run


def finish(words: Sequence[str], space: Path) -> float:
    """Run a command to its end; the seconds for which it held the workspace, to which it may still say what it did."""
    run = start(words, space)
    began = time.monotonic()
    _, errors = run.communicate(timeout=_LONGEST)
    if run.returncode:
        raise RuntimeError(f"mousai {' '.join(words)} ended with {run.returncode}:\n{errors}")
    return time.monotonic() - began


def kill(words: Sequence[str], space: Path, how: Kill) -> bool:
    """Start a command and kill it; whether it was still at work."""
    run = start(words, space)
    time.sleep(how.moment)
    alive = run.poll() is None
    if alive:
        (os.killpg if how.group else os.kill)(run.pid, signal.SIGKILL)
    run.communicate(timeout=_LONGEST)  # ends when the last worker has closed its end
    return alive and run.returncode == -signal.SIGKILL


def published(space: Path) -> dict[str, str]:
    """Path -> SHA-256 of every file in a workspace, hidden ones too, the locks left out."""
    files = [path for path in sorted(space.rglob("*")) if path.is_file() and not path.name.endswith(".lock")]
    return {str(path.relative_to(space)): sha256_of_file(path) for path in files}


def moments(duration: float, count: int, seed: int) -> Iterator[Kill]:
    """One random moment in each of `count` equal parts of `duration`."""
    rng = random.Random(seed)
    for number in range(count):
        yield Kill(moment=(number + rng.random()) / count * duration, group=number % 2 == 0)


def survive(words: Sequence[str], before: Path, after: dict[str, str], space: Path, how: Kill) -> bool:
    """Kill a command in a copy of `before` and run it again: True; False where it had ended by then.

    RuntimeError where what is there in the end is not `after`.
    """
    shutil.rmtree(space, ignore_errors=True)
    shutil.copytree(before, space)
    alive = kill(words, space, how)
    if alive:
        finish(words, space)
        found = published(space)
        wrong = sorted({*found.items()} ^ {*after.items()})
        if wrong:
            raise RuntimeError(f"after {how} of mousai {' '.join(words)}: {wrong[:5]}")
    return alive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="*", default=["ingest", "prompts", "shard", "encode-latents"])
    arguments = parser.parse_args()
    commands = {
        "ingest": ["ingest", str(arguments.music.resolve()), "-j", "2"],
        "prompts": ["prompts", "--no-tokens"],
        "shard": ["shard", "-j", "2"],
        "encode-latents": ["encode-latents", "--device", "cpu"],
    }
    with tempfile.TemporaryDirectory() as scratch:
        space, before = Path(scratch) / "space", Path(scratch) / "before"
        subprocess.run(
            [sys.executable, ROOT / "cli.py", "init", space, "--preset", "tiny"], check=True, capture_output=True
        )
        toml = (space / "mousai.toml").read_text()
        (space / "mousai.toml").write_text(toml.replace("\n[paths]", "chunks_per_shard = 16\n\n[paths]"))
        for stage, words in commands.items():
            shutil.rmtree(before, ignore_errors=True)
            shutil.copytree(space, before)
            duration = finish(words, space)
            if stage not in arguments.stages:
                continue
            after, late, hit = published(space), 0, []
            for how in moments(duration, arguments.kills, arguments.seed):
                killed = how
                while not survive(words, before, after, Path(scratch) / "killed", killed):
                    late += 1
                    killed = Kill(moment=killed.moment * 0.8, group=how.group)
                hit.append(killed.moment)
            print(
                f"{stage}: {len(after)} files, {duration:.1f} s; killed {len(hit)} times between {min(hit):.2f} and "
                f"{max(hit):.2f} s ({late} times too late, so tried sooner): the same bytes each time",
                flush=True,
            )


if __name__ == "__main__":
    main()
