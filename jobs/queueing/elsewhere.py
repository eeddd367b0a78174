"""Wake-ups among several machines: Redis gives each to any worker, also one of another machine."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from uuid import UUID

from django.conf import settings
from redis.exceptions import RedisError

from jobs.models import Job, ParcelLease
from jobs.queueing.eligibility import queued_with_obstacles
from jobs.queueing.machines import is_here, machine_of
from jobs.queueing.notify import idle_by_machine, pass_on
from jobs.states import Status

logger = logging.getLogger(__name__)


def pass_on_elsewhere(woken_for: str) -> None:
    """Send a wake-up that this worker cannot use on to a worker of the job's machine.

    It sends none if no worker waits there: one that ends a job looks for the next itself. While
    Redis is away or refuses it sends none either: the reaper sends another one later.
    """
    try:
        idle = idle_by_machine()
        if set(+idle) <= {settings.KETTER_MACHINE}:
            return
        waiting = idle.total()
        for job in _for_others(woken_for):
            # One job for each machine: whatever the wake-up carries, a worker there looks itself.
            if idle.pop(machine_of(job), 0) and pass_on(job.pk, waiting=waiting):
                return
    except RedisError as error:
        logger.warning("Job %s: the wake-up is not passed on: %s", woken_for, error)


def worth_waking(jobs: Iterable[Job]) -> list[UUID]:
    """Return the jobs for which the reaper sends a wake-up again.

    Of those that one machine alone can start, these are as many as workers wait there: workers of
    other machines would take the other wake-ups, in each of the reaper's intervals.
    """
    idle = idle_by_machine()
    chosen = []
    for job in jobs:
        machine = machine_of(job)
        if machine and set(idle) - {machine}:
            if not idle[machine]:
                continue
            idle[machine] -= 1
        chosen.append(job.pk)
    return chosen


def _for_others(woken_for: str) -> Iterator[Job]:
    """Yield the jobs that workers of other machines alone can help with, or may start."""
    if job := _lending(woken_for):
        yield job
    for job, why in queued_with_obstacles():
        if not why and not is_here(job):
            yield job


def _lending(woken_for: str) -> Job | None:
    """Return the job of a wake-up if workers of another machine can help with it."""
    jobs = Job.objects.select_related("source_portal", "target_portal")
    job = jobs.filter(pk=UUID(woken_for), status=Status.RUNNING).first()
    if job is None or is_here(job) or not ParcelLease.objects.filter(job=job).exists():
        return None
    return job
