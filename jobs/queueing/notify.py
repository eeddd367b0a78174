"""Wake-ups: Redis tells a worker that a job waits. The jobs themselves are in Postgres.

A wake-up is an rq job that carries the id of a job and nothing else. A second wake-up for
one job does no harm, since a worker leaves a job alone that it cannot claim. If Redis loses
a wake-up, the reaper sends another one.
"""

from __future__ import annotations

import re
import secrets
import socket
from collections import Counter
from collections.abc import Iterable
from typing import cast
from uuid import UUID

from django.conf import settings
from django_rq import get_queue
from rq.worker import BaseWorker, WorkerStatus

from jobs.queueing.queue_keys import brake_count, brake_set, keys_mend, known_workers

QUEUE = "default"
#: The function that a worker runs, named by its path: services need not import tasks.
TASK = "jobs.tasks.run_job"
#: Seconds for which rq keeps the record of a finished wake-up, and of one that ended in a bug.
RESULT_TTL, FAILURE_TTL = 600, 7 * 24 * 3600
#: rq's value for a job without a time limit: the engine has its own limits.
NO_LIMIT = -1
#: The key that keeps reapers from waking workers for one job again and again. It stands in Redis:
#: workers of an earlier version use the same one.
_NOTIFIED_AGAIN = "ketter:rung-again:{}"
#: The key that counts how often a job's wake-up was passed on within the reaper's interval.
_PASSED_ON = "ketter:passed-on:{}"
_NAME = re.compile(r"(?P<machine>.+)[.][0-9]+[.][0-9a-f]{6}")


def notify(job_id: UUID) -> None:
    """Tell the workers that a job waits."""
    get_queue(QUEUE).enqueue_call(
        TASK,
        args=(str(job_id),),
        # rq keeps one record per id: two wake-ups with one id would overwrite each other's.
        job_id=f"{job_id.hex}-{secrets.token_hex(4)}",
        timeout=NO_LIMIT,
        result_ttl=RESULT_TTL,
        failure_ttl=FAILURE_TTL,
    )


def queue_is_empty() -> bool:
    """Whether no wake-up waits for a worker."""
    return bool(get_queue(QUEUE).is_empty())


def idle_workers(machine: str = "") -> int:
    """Return the number of workers that wait for a wake-up, as far as Redis knows.

    With a `machine`, its workers alone count.
    """
    idle = idle_by_machine()
    return idle[machine] if machine else idle.total()


def idle_by_machine() -> Counter[str]:
    """Return how many workers of each machine wait for a wake-up, as far as Redis knows.

    A machine whose workers are all busy counts 0. Of an older version's worker it is the host.
    """
    idle = Counter[str]()
    for worker in _workers():
        idle[_machine_of(worker)] += worker.get_state() == WorkerStatus.IDLE
    return idle


def workers() -> list[BaseWorker]:
    """Return the workers that have an entry in Redis and serve the queue of jobs."""
    return _workers()


def _workers() -> list[BaseWorker]:
    return known_workers(get_queue(QUEUE))


def _machine_of(worker: BaseWorker) -> str:
    """Return a worker's machine: it stands in the name that `jobs.worker` makes.

    A worker with a name that a person gave it is of this machine if it is of this host.
    """
    if made := _NAME.fullmatch(worker.name):
        return made["machine"]
    here = worker.hostname == socket.gethostname()
    return settings.KETTER_MACHINE if here else str(worker.hostname)


def pass_on(job_id: UUID, *, waiting: int) -> bool:
    """Send a wake-up for a job of another machine again; say if so. `waiting` workers are idle.

    Redis gives a wake-up to the worker that has waited longest. So it finds its machine after as
    many steps as workers wait; they are counted, since the entry of a dead worker may stay idle.
    """
    steps = brake_count(get_queue(QUEUE), _PASSED_ON.format(job_id.hex), _interval())
    if steps > waiting + 1:
        return False
    notify(job_id)
    return True


def notify_again(job_ids: Iterable[UUID]) -> list[UUID]:
    """Send a wake-up for each of these jobs that has none waiting; return those jobs.

    Several reapers may call this at once: one of them sends the wake-up for a job, and the
    others send none for it until their next interval is over.
    """
    queue = get_queue(QUEUE)
    keys_mend(queue)
    notified = _jobs_with_wake_up()
    again = []
    for job_id in job_ids:
        mark = _NOTIFIED_AGAIN.format(job_id.hex)
        if job_id.hex in notified or not brake_set(queue, mark, _interval()):
            continue
        notify(job_id)
        again.append(job_id)
    return again


def _jobs_with_wake_up() -> set[str]:
    """Return the hex ids of all jobs with a wake-up that no worker has taken yet."""
    queue = get_queue(QUEUE)
    entries = cast("list[bytes]", queue.connection.lrange(queue.key, 0, -1))
    # As bytes: a foreign entry need not be text.
    return {entry.partition(b"-")[0].decode("ascii", "replace") for entry in entries}


def _interval() -> int:
    """Return the reaper's interval in whole seconds, at least one."""
    return max(1, int(settings.KETTER_REAPER_SECONDS))
