"""The reaper: no job stays lost because a process or Redis died.

Every worker runs it every few seconds. It touches only jobs whose lease ran
out by the database's own clock, and rings for queued ones nobody was told of.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now
from django_rq import get_connection

from jobs.attempts import job_lost, job_wake_one, jobs_free
from jobs.leases import jobs_that_lend, leases_give_back
from jobs.models import Job
from jobs.queue import QUEUE, ring_again
from jobs.states import Status

logger = logging.getLogger(__name__)

#: As many jobs are looked after in one tick; the next tick takes the rest.
BATCH = 500
LAST_TICK = "ketter:reaper:last-tick"


@dataclass(frozen=True)
class Tick:
    """What one look of the reaper did."""

    taken_back: list[UUID]
    woken: list[UUID]
    rung: list[UUID]


def tick() -> Tick:
    """Take jobs back from workers that are gone, wake those whose time has come, ring for all."""
    taken_back: list[UUID] = []
    while len(taken_back) < BATCH and (job_id := _take_back_one()):
        taken_back.append(job_id)
    woken: list[UUID] = []
    while len(woken) < BATCH and (job := job_wake_one()):
        woken.append(job.pk)
    rung = ring_again([*_overlooked(), *jobs_that_lend()])
    get_connection(QUEUE).set(LAST_TICK, int(time.time()))
    for job_id in rung:
        logger.info("Job %s waited with no ring; rung again", job_id)
    return Tick(taken_back, woken, rung)


def give_back(*, worker: str, reason: str) -> None:
    """Take back what a worker is known to have lost, not waiting for the lease."""
    leases_give_back(worker=worker)
    for job in Job.objects.filter(status=Status.RUNNING, worker=worker):
        job_lost(job, reason=reason)


def somebody_waits_to_be_cleared() -> bool:
    """Whether a job that was cancelled waits for somebody to clear away what it left."""
    return Job.objects.filter(status=Status.QUEUED, cancel_requested_at__isnull=False).exists()


def last_tick() -> int | None:
    """When a reaper last looked, in seconds since 1970; None if it never did."""
    stamp = get_connection(QUEUE).get(LAST_TICK)
    return int(stamp) if stamp else None


@transaction.atomic
def _take_back_one() -> UUID | None:
    """Take back one job whose lease ran out, and say which.

    The row stays locked meanwhile: a renewal that comes at the same moment
    either was first, and the lease stands, or finds the job taken. Rows that
    another reaper holds are passed over.
    """
    expired = Job.objects.filter(status=Status.RUNNING, lease_until__lt=Now())
    job = expired.select_for_update(skip_locked=True, no_key=True).order_by("lease_until").first()
    if job is None:
        return None
    logger.warning("Job %s: the lease of worker %s ran out", job.pk, job.worker)
    job_lost(job, reason=f"no sign of life since {job.heartbeat_at:%Y-%m-%d %H:%M:%S} UTC")
    return job.pk


def _overlooked() -> list[UUID]:
    """Jobs that have been queued for a while though they may begin, in their order."""
    before = Job.objects.filter(
        status=Status.QUEUED,
        queued_at__lt=Now() - timedelta(seconds=settings.KETTER_REAPER_SECONDS),
    )
    late = set(before.values_list("pk", flat=True))
    return [job_id for job_id in jobs_free() if job_id in late][:BATCH]
