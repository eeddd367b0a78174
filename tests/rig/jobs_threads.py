"""The same work in several threads at the same moment, each on a connection of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Barrier, Thread
from typing import TypeVar

from django.db import connection

Result = TypeVar("Result")


def in_threads(count: int, work: Callable[[], Result]) -> list[Result]:
    """Do the same in several threads that start together; returns what each has returned."""
    return all_at_once([work] * count)


def all_at_once(works: Sequence[Callable[[], Result]]) -> list[Result]:
    """Do each of these in a thread, all from the same moment on; returns their results."""
    together, results = Barrier(len(works)), list[Result]()

    def run(work: Callable[[], Result]) -> None:
        together.wait()
        try:
            results.append(work())
        finally:
            connection.close()

    threads = [Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
