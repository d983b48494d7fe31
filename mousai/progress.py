"""Progress of long work on stderr: a bar with rate and time left on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

_LINE_EVERY = 10.0  # seconds between lines where stderr is not a terminal

Advance = Callable[[float, str], None]  # (units done since the last call, a note to show)


class _Rate(ProgressColumn):
    """Units per second since the start."""

    def render(self, task: Task) -> Text:
        return Text(_rate(task.completed, task.elapsed or 0.0, task.fields["unit"]))


def _rate(completed: float, elapsed: float, unit: str) -> str:
    """ "3.2 files/s"; nothing where the work is measured in seconds."""
    return f"{completed / elapsed:.1f} {unit}/s" if elapsed and unit != "s" else ""


def clock(seconds: float) -> str:
    """Seconds as H:MM:SS, or M:SS below an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def say_size(num_bytes: float) -> str:
    """Bytes for people, powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.2f} TB"


@contextmanager
def progress(description: str, total: float, unit: str) -> Iterator[Advance]:
    """Yields `advance(done, note)`; shows `total` `unit` of work until the block ends."""
    console = Console(stderr=True)
    if console.is_terminal:
        shown = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False), console=console, transient=True,
        )  # fmt: skip
        with shown:
            task = shown.add_task(description, total=total, unit=unit, note="")
            yield lambda done, note: shown.update(task, advance=done, note=note)
        return
    started = last = time.monotonic()
    completed = 0.0

    def advance(done: float, note: str) -> None:
        nonlocal completed, last
        completed += done
        now = time.monotonic()
        if now - last >= _LINE_EVERY:
            last = now
            left = clock(max(0, total - completed) * (now - started) / completed) + " left" if completed else ""
            rate = _rate(completed, now - started, unit)
            line = " · ".join(filter(None, [f"{description} {completed:.4g}/{total:.4g} {unit}", rate, left, note]))
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    yield advance
