"""Where the jobs of a stage run: on this machine's cores, as many processes as asked for."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TypeVar

J = TypeVar("J")
R = TypeVar("R")


def default_workers() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(function: Callable[[J], R], jobs: Sequence[J], workers: int) -> Iterator[tuple[J, R]]:
    """(job, function(job)) for every job, in the order in which they finish; at most 4 a worker are under way.

    `function` and the jobs are pickled when `workers` > 1. An exception in `function` ends the iteration.
    """
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield job, function(job)
        return
    waiting = iter(jobs)
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=multiprocessing.get_context("spawn"))
    try:
        running: dict[Future[R], J] = {}
        for job in waiting:
            running[pool.submit(function, job)] = job
            if len(running) >= 4 * workers:
                break
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job = running.pop(future)
                yield job, future.result()
                following = next(waiting, None)
                if following is not None:
                    running[pool.submit(function, following)] = following
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
