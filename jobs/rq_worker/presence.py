"""Keeps a worker registered in Redis: its entry, state and heartbeat, with Redis away or not."""

from __future__ import annotations

import logging
from typing import Any

from redis.exceptions import RedisError
from rq import worker_registration
from rq.exceptions import StopRequested
from rq.worker import WorkerStatus

from jobs.rq_worker.outage import OutageTolerantWorker

logger = logging.getLogger(__name__)


class RegisteredWorker(OutageTolerantWorker):
    """An rq worker that keeps its entry in Redis, and outlives a Redis that refuses it."""

    def _set_ip_address(self, connection: Any) -> None:
        """Read this worker's address from Redis, for the queue's pages.

        rq raises if Redis is away, or if an address has a blank. This uses "unknown" then.
        """
        try:
            super()._set_ip_address(connection)
        except (RedisError, ValueError) as error:
            self.ip_address = "unknown"
            logger.info("Worker %s: its address is not known: %s", self.name, error)

    def register_birth(self) -> None:
        """Write this worker's entry into Redis.

        rq tries once and raises. This tries until Redis takes it.
        """
        self._retry("cannot announce itself", super().register_birth)

    def _register_again(self) -> None:
        """Write the entry once more: a full Redis may have evicted it."""
        if not self.birth_date or self.is_horse:
            return
        with (
            self._redis_may_be_away("cannot announce itself"),
            self.connection.pipeline() as pipeline,
        ):
            pipeline.hset(self.key, mapping=self.serialize())
            pipeline.expire(self.key, self.worker_ttl + 60)
            worker_registration.register(self, pipeline)
            pipeline.execute()

    def register_death(self) -> None:
        """Remove this worker's entry from Redis.

        rq raises if Redis is away. This leaves the entry: it expires by itself.
        """
        with self._redis_may_be_away("cannot remove its entry"):
            super().register_death()

    def set_state(self, state: str, pipeline: Any = None) -> None:
        """Write this worker's state (idle, busy, …) into Redis.

        rq raises if Redis is away. This goes on without it.
        """
        with self._redis_may_be_away(f"cannot say that it is {state}"):
            super().set_state(state, pipeline)

    def heartbeat(self, *args: Any, **kwargs: Any) -> None:
        """Renew this worker's entry in Redis.

        rq calls this before each wait for a wake-up, and raises if Redis is away. This goes on
        without Redis. Raises StopRequested if the worker is idle and has to shut down: rq raises
        that in the signal handler, where it can get lost.
        """
        if self._stop_requested and self.get_state() == WorkerStatus.IDLE:
            raise StopRequested
        with self._redis_may_be_away("no heartbeat"):
            super().heartbeat(*args, **kwargs)

    def check_for_suspension(self, burst: bool) -> None:
        """Wait as long as `rqsuspend` has suspended all workers.

        rq calls this between two wake-ups, and raises if Redis is away. This goes on.
        """
        with self._redis_may_be_away("does not know whether it is suspended"):
            super().check_for_suspension(burst)

    def _shutdown(self) -> None:
        """Mark the shutdown in Redis, or raise StopRequested if the worker is idle.

        rq calls this in the signal handler, and raises if Redis is away. This goes on.
        """
        with self._redis_may_be_away("shuts down"):
            super()._shutdown()
