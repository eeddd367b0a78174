"""Ctrl-C while a worker cannot announce itself: Python raises it anywhere, and may lose it."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisIsAway
from rq.exceptions import StopRequested

from jobs.rq_worker.outage import OutageTolerantWorker


class Dropping:
    """An object whose destructor is interrupted: Python reports that, and drops the exception."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass


@pytest.fixture
def worker() -> Any:
    """A worker without Redis, which never waits longer than a moment."""
    worker = OutageTolerantWorker.__new__(OutageTolerantWorker)
    worker._trouble, worker.name, worker._stop_requested = "", "test", False
    worker.worker_ttl = 60
    worker._signal_reader, worker._signal_writer = os.pipe()
    os.set_blocking(worker._signal_writer, False)
    # What a shell starts in the background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield worker
    signal.signal(signal.SIGINT, before)
    os.close(worker._signal_reader)
    os.close(worker._signal_writer)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_a_destructor_drops_ends_the_worker_all_the_same(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OutageTolerantWorker, "_wait_for_redis", 0.01)
    calls = []

    def away() -> None:
        calls.append(1)
        assert len(calls) < 3, "the interrupt was lost"
        dropping = Dropping()
        del dropping
        raise RedisIsAway("away")

    with pytest.raises(KeyboardInterrupt):
        worker._retry("cannot announce itself", away)

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_rq_has_its_handlers_they_stay(worker: Any) -> None:
    def stop(_signal: int, _frame: Any) -> None:
        worker._stop_requested = True

    def away() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise RedisIsAway("away")

    before = signal.signal(signal.SIGINT, stop)
    try:
        with pytest.raises(StopRequested):
            worker._retry("cannot announce itself", away)
        assert signal.getsignal(signal.SIGINT) is stop
    finally:
        signal.signal(signal.SIGINT, before)
