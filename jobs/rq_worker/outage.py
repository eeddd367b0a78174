"""Keeps an rq worker alive while Redis is away, full or read-only.

rq waits for Redis in one place, and only while it cannot connect. In all other places, and
whenever Redis answers with an error, its worker ends. Ketter's worker logs the trouble once,
waits, and goes on. Its reaper works meanwhile, since all jobs are in Postgres.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from redis.exceptions import RedisError
from rq import Worker
from rq.exceptions import StopRequested

logger = logging.getLogger(__name__)

#: Seconds between two tries to use a Redis that is away or refuses, at most.
TRY_EVERY = 5.0


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Give a list to which each SIGINT is added, before Python raises KeyboardInterrupt.

    It stays empty where SIGINT has another handler than Python's own.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield came
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class OutageTolerantWorker(Worker):
    """An rq worker with tools to go on without Redis, and waits that a signal ends."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: The class name of the latest Redis error; empty while Redis works.
        self._trouble = ""
        #: While this process waits, Python writes a byte into this pipe at each signal.
        self._signal_reader, self._signal_writer = os.pipe()
        os.set_blocking(self._signal_writer, False)
        super().__init__(*args, **kwargs)

    # --- Redis -------------------------------------------------------------------

    def _redis_fails(self, what: str, error: Exception) -> None:
        """Log that Redis is away or refuses: once for each kind of error, not at each try.

        `what` says what the worker cannot do meanwhile.
        """
        kind = type(error).__name__
        if kind != self._trouble:
            self._trouble = kind
            logger.warning(
                "Worker %s: %s, Redis is away or refuses (%s: %s). It tries again every %g s; "
                "its reaper works meanwhile.",
                *(self.name, what, kind, str(error)[:300], self._wait_for_redis),
            )

    def _redis_works(self) -> None:
        """Log that Redis works again, if it did not before."""
        if self._trouble:
            self._trouble = ""
            logger.warning("Worker %s: Redis takes orders again", self.name)

    @contextlib.contextmanager
    def _redis_may_be_away(self, what: str) -> Iterator[None]:
        """Log a Redis error of the block, and go on without Redis."""
        try:
            yield
        except RedisError as error:
            self._redis_fails(what, error)

    def _redis_answers(self) -> bool:
        try:
            return bool(self.connection.ping())
        except RedisError:
            return False

    @property
    def _wait_for_redis(self) -> float:
        """Seconds until the next try."""
        return min(TRY_EVERY, self.dequeue_timeout)

    def _retry(self, what: str, call: Callable[[], object]) -> None:
        """Call until Redis takes it; run the reaper between two tries.

        Raises StopRequested if the worker has to shut down, and KeyboardInterrupt for a Ctrl-C
        before rq has its signal handlers: both are raised in the handler, too, where they can get
        lost, for example while an object is destroyed.
        """
        with _interrupts() as came:
            while True:
                try:
                    call()
                    return
                except RedisError as error:
                    self._redis_fails(what, error)
                if self._stop_requested:
                    raise StopRequested
                self._reap_if_due()
                if not came:
                    self._pause(self._wait_for_redis)
                if came:
                    raise KeyboardInterrupt

    def _reap_if_due(self) -> None:
        """Run the reaper, which needs no Redis; `ReapingWorker` has one."""

    # --- Waiting -----------------------------------------------------------------

    def _pause(self, seconds: float) -> None:
        """Wait for some seconds, or until a signal comes."""
        with self._woken_by_signals():
            self._wait_for_signal(seconds)

    @contextlib.contextmanager
    def _woken_by_signals(self) -> Iterator[None]:
        """Make `_wait_for_signal` end when a signal comes to any thread, or a child ends."""
        before = signal.set_wakeup_fd(self._signal_writer, warn_on_full_buffer=False)
        # Python writes to the pipe only for signals that have a handler.
        of_children = signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
        try:
            yield
        finally:
            signal.signal(signal.SIGCHLD, of_children)
            signal.set_wakeup_fd(before)

    def _wait_for_signal(self, seconds: float) -> None:
        """Wait for some seconds, or until a signal; one that came just before counts as well."""
        if select.select([self._signal_reader], [], [], seconds)[0]:
            os.read(self._signal_reader, 1024)
