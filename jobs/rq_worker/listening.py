"""Lets a worker take wake-ups from the queue, and commands from the queue's pages; nothing else."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import time
from typing import Any, cast

from redis.exceptions import RedisError, ResponseError
from rq.command import handle_command, parse_payload
from rq.exceptions import DequeueTimeout
from rq.queue import Queue
from rq.worker import WorkerStatus

from jobs.queueing.queue_records import ENTRY, WakeUp
from jobs.rq_worker.outage import TRY_EVERY
from jobs.rq_worker.presence import RegisteredWorker

logger = logging.getLogger(__name__)

#: The rq commands that a worker obeys: those of the queue's pages, which stop one run. A person
#: who ends a worker can signal its process; the right to write to Redis is not enough for that.
OBEYED = ("stop-execution", "stop-job", "kill-horse")


class ListeningWorker(RegisteredWorker):
    """An rq worker that runs wake-ups only, and obeys only commands that stop one run."""

    job_class = WakeUp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: The command that is being obeyed, and the one that stopped the present run; empty if
        #: there is none.
        self._command = self._stopped_by = ""
        kwargs["job_class"] = WakeUp
        super().__init__(*args, **kwargs)
        for queue in self.queues:  # rq's maintenance reads entries with the queue's class.
            queue.job_class = WakeUp

    # --- Wake-ups ----------------------------------------------------------------

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[WakeUp, Queue] | None:
        """Wait for a wake-up; None after `max_idle_time` seconds, or at once without a `timeout`.

        rq returns any entry that it can read, and raises at one that it cannot read or if Redis
        refuses. This removes each entry that is no wake-up. While Redis is away or refuses, it
        goes on waiting.
        """
        self.set_state(WorkerStatus.IDLE)
        self.procline("Listening on " + ",".join(self.queue_names()))
        idle_since = time.monotonic()
        while True:
            self.heartbeat()
            if self.should_run_maintenance_tasks:
                self.run_maintenance_tasks()
            idle = time.monotonic() - idle_since
            if max_idle_time is not None and idle >= max_idle_time:
                return None
            if timeout is not None and max_idle_time is not None:
                timeout = min(timeout, math.ceil(max_idle_time - idle))
            try:
                found = self._dequeue(timeout)
            except DequeueTimeout:
                self._redis_works()
            except RedisError as error:
                self._redis_fails("gets no wake-ups", error)
                self._pause(self._wait_for_redis)
            else:
                self._redis_works()
                if found is None or not found[0].refusal:
                    return self._accepted(found)
                self._remove(found[0], found[1])

    def _dequeue(self, timeout: int | None) -> tuple[WakeUp, Queue] | None:
        """Take the next entry; remove entries that rq cannot read, and take the one after."""
        while True:
            try:
                found: Any = self.queue_class.dequeue_any(
                    self._ordered_queues,
                    timeout,
                    connection=self.connection,
                    job_class=self.job_class,
                    serializer=self.serializer,
                    death_penalty_class=self.death_penalty_class,
                )
                return cast("tuple[WakeUp, Queue] | None", found)
            except (ValueError, ResponseError) as error:
                name = getattr(error, "job_id", "")  # rq sets it if the record is the trouble.
                if isinstance(error, ResponseError) and not name:
                    raise
                logger.warning("Worker %s: removed an entry of the queue: %s", self.name, error)
                if not self._remove_unreadable(name):
                    self._pause(self._wait_for_redis)

    def _accepted(self, found: tuple[WakeUp, Queue] | None) -> tuple[WakeUp, Queue] | None:
        """Do what rq does with an entry that it has taken."""
        if found is not None:
            wake_up, queue = found
            self.reorder_queues(reference_queue=queue)
            wake_up.redis_server_version = self.get_redis_server_version()
            self.log.info("Worker %s: %s: %s", self.name, queue.name, wake_up.description)
            self.heartbeat()
        return found

    def _remove(self, entry: WakeUp, queue: Queue) -> None:
        """Remove an entry that is no wake-up, and log it. Neither it nor its callbacks run."""
        logger.warning(
            "Worker %s: removed entry %s from the queue %s, which is no wake-up from Ketter: %s. "
            "Another program can write to this Redis: see REDIS_URL in deploy/env.example.",
            *(self.name, entry.id, queue.name, entry.refusal),
        )
        with self._redis_may_be_away("cannot remove it"), self.connection.pipeline() as pipeline:
            pipeline.lrem(queue.key, 0, entry.id)
            pipeline.lrem(queue.intermediate_queue_key, 0, entry.id)
            pipeline.delete(entry.key)
            pipeline.execute()

    def _remove_unreadable(self, name: str) -> int:
        """Remove what rq has taken but cannot read: its maintenance would fail there as well."""
        removed = 0
        connection: Any = self.connection
        for queue in self.queues:
            for entry in connection.lrange(queue.intermediate_queue_key, 0, -1):
                if not ENTRY.fullmatch(entry) or entry == name.encode():
                    removed += connection.lrem(queue.intermediate_queue_key, 0, entry)
        return removed

    # --- Commands ----------------------------------------------------------------

    def subscribe(self) -> None:
        """Listen for commands, in a thread.

        rq tries once and raises. This tries until Redis takes it.
        """
        self._retry("cannot listen for commands", super().subscribe)

    def unsubscribe(self) -> None:
        """Stop listening for commands.

        rq raises if Redis is away. This goes on.
        """
        with self._redis_may_be_away("shuts down"):
            super().unsubscribe()

    def handle_payload(self, message: Any) -> None:
        """Obey a command, in the thread that listens.

        rq obeys any command, `shutdown` among them, and its thread ends at one that is malformed.
        This obeys those that stop one run, and ignores all others.
        """
        try:
            payload = parse_payload(message)
            command = payload["command"]
            if command not in OBEYED:
                logger.warning("Worker %s: ignored the command %.100r", self.name, command)
                return
            self._command = command
            handle_command(self, payload)
        except (RedisError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            logger.warning("Worker %s: cannot obey a command: %s", self.name, error)
        finally:
            self._command = ""

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Kill the work-horse and its children.

        rq kills the process group of the work-horse. During a fork that is still the worker's
        own group: this kills the work-horse alone then.
        """
        pid = self.horse_pid
        if not pid:
            return
        self._stopped_by = self._command
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, sig)
            else:
                os.kill(pid, sig)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """Handle an exception in the thread that listens for commands.

        rq goes on only if it cannot connect. This goes on at any Redis error.
        """
        if not isinstance(exc, RedisError):
            raise exc
        self._redis_fails("gets no commands", exc)
        time.sleep(TRY_EVERY)
