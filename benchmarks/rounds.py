"""Contestants that stay alive between their rounds (see benchmarks/contestants.py)."""

import functools
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from results import ROOT, Cost


@contextmanager
def started(
    kinds: Mapping[str, str], folder: Path, python: str, batch_size: int, batches: int
) -> Iterator[dict[str, Callable[[], Cost]]]:
    """Name -> a function that lets a contestant of that kind do one round."""
    with ExitStack() as stack:
        running = {}
        for name, kind in kinds.items():
            command = [python, "benchmarks/contestants.py", kind, str(folder)]
            command += ["--batch-size", str(batch_size), "--batches", str(batches)]
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            if not process.stdout.readline():
                raise SystemExit(f"{name} did not start")
            running[name] = functools.partial(_round, process)
        yield running


def _round(process: "subprocess.Popen[str]") -> Cost:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return Cost(**json.loads(process.stdout.readline()))
