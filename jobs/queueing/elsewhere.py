"""Passes a wake-up on that a worker has taken for a job of another machine."""

from __future__ import annotations

import logging
from uuid import UUID

from redis.exceptions import RedisError

from jobs.models import Job, ParcelLease
from jobs.queueing.eligibility import queued_with_obstacles
from jobs.queueing.machines import is_here, machine_of
from jobs.queueing.notify import pass_on
from jobs.states import Status

logger = logging.getLogger(__name__)


def pass_on_elsewhere(woken_for: str) -> None:
    """Send a wake-up that this worker cannot use on to a worker of the job's machine.

    While Redis is away or refuses it sends none: the reaper sends another one later.
    """
    try:
        if (job := _lending(woken_for)) and pass_on(job.pk, machine_of(job)):
            return
        for job, why in queued_with_obstacles():
            if not why and not is_here(job) and pass_on(job.pk, machine_of(job)):
                return
    except RedisError as error:
        logger.warning("Job %s: the wake-up is not passed on: %s", woken_for, error)


def _lending(woken_for: str) -> Job | None:
    """Return the job of a wake-up if workers of another machine can help with it."""
    jobs = Job.objects.select_related("source_portal", "target_portal")
    job = jobs.filter(pk=UUID(woken_for), status=Status.RUNNING).first()
    if job is None or is_here(job) or not ParcelLease.objects.filter(job=job).exists():
        return None
    return job
