"""Runs the reaper in the parent process of a worker, while it waits and while it works."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import connections
from redis.exceptions import RedisError
from rq.exceptions import StopRequested

import engine
from jobs.errors import AWAY
from jobs.queueing import reaper
from jobs.rq_worker.listening import ListeningWorker

logger = logging.getLogger(__name__)


class ReapingWorker(ListeningWorker):
    """An rq worker that runs the reaper every KETTER_REAPER_SECONDS.

    It runs the reaper between two waits, with no thread and no database connection left open
    after it, so that forking stays safe.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: When the reaper last ran, by the monotonic clock.
        self._reaped = 0.0
        super().__init__(*args, **kwargs)

    @property
    def _interval(self) -> int:
        """Seconds between two runs of the reaper."""
        return max(1, int(settings.KETTER_REAPER_SECONDS))

    @property
    def _reaper_is_due(self) -> bool:
        return time.monotonic() - self._reaped >= self._interval

    @property
    def dequeue_timeout(self) -> int:
        """Seconds that rq waits for a wake-up at once: here at most the reaper's interval."""
        return min(super().dequeue_timeout, self._interval)

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Whether to run maintenance before the next wait: also if the reaper is due."""
        return self._reaper_is_due or super().should_run_maintenance_tasks

    def run_maintenance_tasks(self) -> None:
        """Run the reaper, and rq's own maintenance if that is due.

        rq's maintenance removes records of dead workers and old entries from Redis. Raises
        StopRequested if the worker has to shut down: rq raises that in the signal handler,
        where it can get lost, for example while a log line is written.
        """
        self._reap()
        if super().should_run_maintenance_tasks:
            self._run_rq_maintenance()
        if self._stop_requested:
            raise StopRequested

    def _run_rq_maintenance(self) -> None:
        """Run rq's maintenance; log an error, which must not end the worker."""
        try:
            with self._redis_may_be_away("no maintenance"):
                super().run_maintenance_tasks()
        except StopRequested:
            raise
        except Exception:
            logger.exception("Worker %s: rq's maintenance of Redis failed", self.name)
            # Try again at the next regular time, not at once.
            self.last_cleaned_at = datetime.now(UTC)  # type: ignore[assignment]

    def _reap_if_due(self) -> None:
        if self._reaper_is_due:
            self._reap()

    def _reap(self) -> None:
        """Run the reaper, renew this worker's entry, and sweep its temporary folder."""
        self._reaped = time.monotonic()
        self._guarded(reaper.tick)
        self._register_again()
        # A killed run could not remove the keys that its ssh needed.
        try:
            engine.sweep()
        except OSError as error:  # A run that is ending may still write there: try again later.
            logger.warning("Worker %s: could not sweep its temporary folder: %s", self.name, error)

    def _guarded(self, work: Callable[[], object]) -> object:
        """Do some work of the reaper; log an error and return None: it is done again later."""
        try:
            return work()
        except StopRequested:
            raise
        except RedisError as error:  # The reaper sends wake-ups last: its writes are done.
            self._redis_fails("the reaper cannot send wake-ups", error)
            return None
        except AWAY as error:
            why = " ".join(str(error).split())[:300]
            logger.warning(
                "Worker %s: the reaper could not work, the database is away or refuses: %s",
                *(self.name, why),
            )
            return None
        except Exception:
            logger.warning("Worker %s: the reaper could not work", self.name, exc_info=True)
            return None
        finally:
            connections.close_all()
