"""The reaper: takes jobs back from dead workers, queues those that are due, sends lost wake-ups.

The parent process of every worker runs it every KETTER_REAPER_SECONDS. It takes back only jobs
whose lease has expired by the database's clock.
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
from django.utils.translation import gettext as _
from django_rq import get_connection
from redis.exceptions import ResponseError

from jobs.models import Job
from jobs.queueing.attempts import job_lost, job_queue_due, jobs_eligible
from jobs.queueing.clearing import clearing_lost, clearing_waits
from jobs.queueing.elsewhere import worth_waking
from jobs.queueing.notify import QUEUE, idle_by_machine, notify_again
from jobs.queueing.parcel_leases import jobs_that_lend, leases_give_back
from jobs.states import Status
from portals.machines import local_portals, machine_seen, machines_alive, portals_adopt

logger = logging.getLogger(__name__)

#: Jobs of one kind handled in one tick, at most; the next tick takes the rest.
BATCH = 500
#: The Redis key with the time of the last tick of any worker, in seconds since 1970.
LAST_TICK = "ketter:reaper:last-tick"


@dataclass(frozen=True)
class Tick:
    """The jobs that one run of the reaper took back, queued and sent wake-ups for."""

    taken_back: list[UUID]
    queued: list[UUID]
    notified: list[UUID]


def tick() -> Tick:
    """Take jobs back from dead workers, queue the jobs that are due, send lost wake-ups.

    Before that it notes that this machine has a worker.
    """
    machine_seen(name=settings.KETTER_MACHINE)
    taken_back: list[UUID] = []
    while len(taken_back) < BATCH and (job_id := _take_back_one()):
        taken_back.append(job_id)
    queued: list[UUID] = []
    while len(queued) < BATCH and (job := job_queue_due()):
        queued.append(job.pk)
    _adopt_portals()
    notified = notify_again([*_overlooked(), *jobs_that_lend()])
    get_connection(QUEUE).set(LAST_TICK, int(time.time()))
    for job_id in notified:
        logger.info("Job %s waited without a wake-up: sent one again", job_id)
    return Tick(taken_back, queued, notified)


def _adopt_portals() -> None:
    """Note this machine at portals that name none, if no other one has workers.

    Workers of an earlier version note nothing in the database; Redis knows them.
    """
    here = {settings.KETTER_MACHINE}
    if not local_portals().filter(machine="").exists() or machines_alive() != here:
        return
    if set(idle_by_machine()) <= here:
        portals_adopt(machine=settings.KETTER_MACHINE)


def give_back(*, worker: str, reason: str) -> None:
    """Take back all jobs and parcels of a worker whose run is known to be dead, leases or not."""
    leases_give_back(worker=worker)
    clearing_lost(worker=worker)
    for job in Job.objects.filter(status=Status.RUNNING, worker=worker):
        job_lost(job, reason=reason)


def cancelled_job_waits() -> bool:
    """Whether a cancelled job waits for a worker to remove its data, before its end or after."""
    cancelled = Job.objects.filter(status=Status.QUEUED, cancel_requested_at__isnull=False)
    return cancelled.exists() or clearing_waits()


def last_tick() -> int | None:
    """Return the time of the last tick in seconds since 1970; None if there was none.

    What another program has written there counts as none: the next tick writes over it.
    """
    try:
        stamp = get_connection(QUEUE).get(LAST_TICK)
        return int(stamp) if stamp else None
    except (ValueError, ResponseError) as error:
        logger.warning("The key %s in Redis is not readable: %s", LAST_TICK, error)
        return None


@transaction.atomic
def _take_back_one() -> UUID | None:
    """Take back one job whose lease has expired; return its id, None if there is none.

    The row stays locked meanwhile: a renewal at the same moment either comes first, and the
    lease stands, or finds that the job is taken back. Rows that another reaper has locked are
    skipped.
    """
    expired = Job.objects.filter(status=Status.RUNNING, lease_until__lt=Now())
    job = expired.select_for_update(skip_locked=True, no_key=True).order_by("lease_until").first()
    if job is None:
        return None
    logger.warning("Job %s: the lease of worker %s has expired", job.pk, job.worker)
    since = f"{job.heartbeat_at:%Y-%m-%d %H:%M:%S}"
    job_lost(job, reason=_("no heartbeat since %s UTC") % since)
    return job.pk


def _overlooked() -> list[UUID]:
    """Return the jobs, in start order, that have been queued for a while though they may start."""
    before = Job.objects.filter(
        status=Status.QUEUED,
        queued_at__lt=Now() - timedelta(seconds=settings.KETTER_REAPER_SECONDS),
    )
    late = set(before.values_list("pk", flat=True))
    return worth_waking(job for job in jobs_eligible() if job.pk in late)[:BATCH]
