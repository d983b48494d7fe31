"""What reading one file may cost, held by the system: it ends the process at work on the file, whatever that is doing.

For processes of their own only (`pipeline.executors`), which tell by their exit code what ended them.
"""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.executors import TIMERS
from pipeline.records import Reason

_SIZE = 4e6  # bytes of a file that may take as long again: 10 minutes of Opus at 48 kbit/s, 20 s of CD
_STALL = 60  # times the time limit, waiting included: a disk that no longer answers, but no busy machine
_MEMORY = Path("/proc/self/statm")  # Linux only
_OUT_OF_MEMORY = 86  # exit code of a process that ended itself


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file may take before it is given up; 0: as much as it likes."""

    seconds: float  # of computing, and as many again for each 4 MB of the file; of waiting, sixty times as many
    megabytes: int  # of memory, beyond what the process held before (Linux only)

    def allowed(self, size: int) -> float:
        """Seconds of computing for a file of `size` bytes."""
        return self.seconds * (1 + size / _SIZE)


def verdict(exit_code: int | None, limits: Limits | None) -> tuple[Reason, str]:
    """Why a file is given up, from the exit code of the process that died of it: reason and detail."""
    if limits is not None and exit_code in TIMERS:
        return Reason.TIMEOUT, f"it takes {_over(Reason.TIMEOUT, limits)}"
    if limits is not None and exit_code == _OUT_OF_MEMORY:
        return Reason.OUT_OF_MEMORY, f"it takes {_over(Reason.OUT_OF_MEMORY, limits)}"
    if exit_code == -signal.SIGKILL:
        return Reason.CRASHED, "its process was killed, as the system does where memory is short"
    died_of = signal.Signals(-exit_code).name if exit_code is not None and exit_code < 0 else f"exit code {exit_code}"
    return Reason.CRASHED, f"the decoder died of {died_of}"


def given_up_under_others(reason: str, detail: str, limits: Limits | None) -> bool:
    """Whether a file was given up under other limits than these, so that it may pass now."""
    if reason not in (Reason.TIMEOUT, Reason.OUT_OF_MEMORY):
        return False
    return limits is None or not detail.endswith(_over(Reason(reason), limits))


def _over(reason: Reason, limits: Limits) -> str:
    if reason == Reason.TIMEOUT:
        return f"more than time_limit = {limits.seconds:g}"
    return f"more than memory_limit = {limits.megabytes}"


@contextmanager
def limited(limits: Limits | None, size: int) -> Iterator[None]:
    """Ends this process if the block, which reads a file of `size` bytes, takes more than it may.

    The timers' signals have no handler: the kernel ends the process even where C code holds the interpreter.
    """
    if limits is None:
        yield
        return
    seconds, memory = limits.allowed(size), resource.getrlimit(resource.RLIMIT_DATA)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * _STALL)
    if limits.megabytes and _MEMORY.exists():
        resource.setrlimit(resource.RLIMIT_DATA, (_held_bytes() + (limits.megabytes << 20), memory[1]))
    try:
        yield
    except MemoryError:  # a fresh process may get through: the heap of this one is in pieces
        os._exit(_OUT_OF_MEMORY)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_DATA, memory)


def _held_bytes() -> int:
    """What this process has by the system's count, which holds it to its limit."""
    return int(_MEMORY.read_text().split()[5]) * resource.getpagesize()  # pages of data and stack
