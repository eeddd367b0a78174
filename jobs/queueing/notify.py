"""The doorbell: Redis tells a worker that a job waits. The truth stays in Postgres.

A ring is an rq job that carries the id of a job and nothing else. Ringing
twice is harmless, since a job that cannot be claimed is left alone; a ring
that got lost is made up for by the reaper.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from uuid import UUID

from django.conf import settings
from django_rq import get_queue
from rq import Worker
from rq.worker import WorkerStatus

QUEUE = "default"
#: By its path, so that services need not import tasks.
TASK = "jobs.tasks.run_job"
#: Seconds for which rq remembers a finished ring, and one that ended in a bug.
RESULT_TTL, FAILURE_TTL = 600, 7 * 24 * 3600


def ring(job_id: UUID) -> None:
    """Tell the workers that a job waits."""
    get_queue(QUEUE).enqueue_call(
        TASK,
        args=(str(job_id),),
        # Ids differ from ring to ring: rq keeps one record per id, and two
        # deliveries under one id would overwrite each other's.
        job_id=f"{job_id.hex}-{secrets.token_hex(4)}",
        timeout=-1,
        result_ttl=RESULT_TTL,
        failure_ttl=FAILURE_TTL,
    )


def is_silent() -> bool:
    """Whether no ring waits for a worker."""
    return bool(get_queue(QUEUE).is_empty())


def idle_workers() -> int:
    """How many workers wait for a ring, as far as Redis knows."""
    workers = Worker.all(queue=get_queue(QUEUE))
    return sum(worker.get_state() == WorkerStatus.IDLE for worker in workers)


def ring_again(job_ids: Iterable[UUID]) -> list[UUID]:
    """Ring for those jobs that have no ring waiting, and say which.

    Several reapers may ask at once: a job is rung again by one of them, and
    by nobody else before the next look is due.
    """
    waiting = _waiting()
    redis = get_queue(QUEUE).connection
    rung = []
    for job_id in job_ids:
        mark = f"ketter:rung-again:{job_id.hex}"
        if job_id.hex in waiting or not redis.set(mark, 1, nx=True, ex=_pause()):
            continue
        ring(job_id)
        rung.append(job_id)
    return rung


def _waiting() -> set[str]:
    """The hex ids of all jobs that have a ring no worker has taken yet."""
    return {rq_id.partition("-")[0] for rq_id in get_queue(QUEUE).get_job_ids()}


def _pause() -> int:
    return max(1, int(settings.KETTER_REAPER_SECONDS))
