"""Where the jobs of a stage run: on this machine's cores, as many processes as asked for.

Each worker does one job at a time and has a pipe of its own, so that a worker that dies (a decoder's segfault, a limit
of `pipeline.limits`, the kernel out of memory) tells at which job. Workers never outlive this process, however it ends.
"""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from mousai.errors import UserError

J = TypeVar("J")
R = TypeVar("R")
if TYPE_CHECKING:
    Pipe: TypeAlias = connection.Connection[Any, Any]  # jobs there, answers back

TIMERS = frozenset({-signal.SIGPROF, -signal.SIGALRM})  # exit codes: the job would take as long again
_THREADS = "OPENBLAS_NUM_THREADS"  # read when NumPy is loaded, so it must be there when a worker begins
_PATIENCE = 1.0  # s for a worker to end: one that hangs on a dead disk is left to the system


def default_workers() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    function: Callable[[J], R],
    jobs: Sequence[J],
    workers: int,
    on_crash: Callable[[J, int | None], R] | None = None,
    *,
    apart: bool = False,
    ahead: int = 1,
) -> Iterator[tuple[J, R]]:
    """(job, function(job)) for every job, in the order in which they finish.

    One worker is this process itself, unless the work is to be done `apart` from it. In a process of its own,
    `function` and the jobs are pickled, and a job whose worker dies is tried again after the others, alone; if that
    worker dies as well, `on_crash(job, its exit code)`, called in this process, stands in for the result; without
    `on_crash` that is a UserError. Death by a timer (`pipeline.limits`) is final the first time. A worker holds up to
    `ahead` jobs, so that small ones need not wait for it to be told of the next. An exception in `function`, Ctrl-C or
    a caller that turns away ends all workers at once.
    """
    if workers <= 1 and not apart:
        for job in jobs:
            yield job, function(job)
        return
    dead = yield from _run(function, jobs, max(1, workers), ahead)
    final: list[tuple[J, int | None]] = [(job, code) for job, code in dead if code in TIMERS]
    final += yield from _run(function, [job for job, code in dead if code not in TIMERS], 1, 1)
    for job, code in final:
        if on_crash is None:
            raise UserError("a worker process died, twice at the same job. Where memory is short, fewer help: -j 2")
        yield job, on_crash(job, code)


def _run(
    function: Callable[[J], R], jobs: Iterable[J], workers: int, ahead: int
) -> Generator[tuple[J, R], None, list[tuple[J, int | None]]]:
    """Yields as `run_jobs` does; returns the jobs at which a worker died, with its exit code if it is known."""
    waiting, dead = deque(jobs), []
    crew: dict[Pipe, BaseProcess] = {}
    held: dict[Pipe, deque[J]] = {}  # the jobs of each worker that has reported for work, the one it is at first
    try:
        while waiting or any(held.values()):
            while len(crew) < min(workers, len(waiting) + sum(map(bool, held.values()))):
                with _no_interrupt():
                    pipe, process = _start(function)
                    crew[pipe] = process
            for pipe in cast("list[Pipe]", connection.wait(list(crew))):
                answer = _receive(pipe)
                if answer is None:
                    if pipe not in held:
                        raise UserError(
                            "worker processes die before they begin to work. To do without them: -j 1, "
                            "and time_limit = 0 and memory_limit = 0 under [ingest] in mousai.toml"
                        )
                    lost = held.pop(pipe)
                    if lost:
                        crew[pipe].join(_PATIENCE)  # for its exit code
                        dead.append((lost.popleft(), crew[pipe].exitcode))
                        waiting.extendleft(reversed(lost))
                    _dismiss(pipe, crew)
                    continue
                finished = [held[pipe].popleft()] if answer else []
                mine = held.setdefault(pipe, deque())
                while waiting and len(mine) < max(1, min(ahead, len(waiting) // workers)):  # the last ones are shared
                    mine.append(waiting.popleft())
                    with suppress(OSError):  # it died in between: so the next answer will tell
                        pipe.send(mine[-1])
                if not mine:
                    del held[pipe]
                    _dismiss(pipe, crew)
                for job in finished:
                    yield job, _result(answer)
    finally:
        for process in crew.values():
            process.terminate()
        for process in crew.values():
            process.join(_PATIENCE)
    return dead


def _dismiss(pipe: "Pipe", crew: dict["Pipe", BaseProcess]) -> None:
    pipe.close()  # which ends the worker
    crew.pop(pipe).join(_PATIENCE)


def _start(function: Callable[[Any], Any]) -> tuple["Pipe", BaseProcess]:
    """A new worker, and the pipe to it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(function, there), daemon=True)
    with _one_thread():
        process.start()
    there.close()
    return here, process


@contextmanager
def _one_thread() -> Iterator[None]:
    """Workers begun in it calculate in one thread: NumPy's would be as many as cores in each, and spin while they wait.

    A number that the user has set stands.
    """
    given = os.environ.get(_THREADS)
    os.environ.setdefault(_THREADS, "1")
    try:
        yield
    finally:
        if given is None:
            del os.environ[_THREADS]


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl-C, which a terminal sends to every process, waits for the end of the block; workers begun in it are deaf.

    What it means is decided in one place, and half a start would make the worker complain.
    """
    resource_tracker.ensure_running()  # when it starts by itself it unblocks the signal
    received: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()  # the only one that signals interrupt
    usual = signal.signal(signal.SIGINT, lambda number, _: received.append(number)) if in_main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a new process inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main:
            signal.signal(signal.SIGINT, usual)
        if received:
            signal.raise_signal(signal.SIGINT)


def _receive(pipe: "Pipe") -> bytes | None:
    """What a worker has sent; None: it is dead."""
    try:
        return pipe.recv_bytes()
    except (EOFError, OSError):
        return None


def _result(answer: bytes) -> Any:
    succeeded, value = pickle.loads(answer)
    if not succeeded:
        raise value
    return value


def _work(function: Callable[[Any], Any], pipe: "Pipe") -> None:
    """The life of a worker: it reports for work, then answers each job."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):  # there are no more jobs, or nobody waits for answers
        pipe.send_bytes(b"")
        while True:
            pipe.send_bytes(_answer(function, pipe.recv()))


def _die_with_parent() -> None:
    """Else the worker of a killed run would go on to write the file that the next run is writing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _answer(function: Callable[[J], Any], job: J) -> bytes:
    """(True, result) or (False, exception), pickled; the traceback travels as a note."""
    try:
        return pickle.dumps((True, function(job)))
    except Exception as error:
        where = traceback.format_exc()
        error.add_note(where)
        try:
            answer = pickle.dumps((False, error))
            pickle.loads(answer)
            return answer
        except Exception:  # an exception that cannot travel
            return pickle.dumps((False, RuntimeError(where)))
