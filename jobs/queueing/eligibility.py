"""Finds the queued job that may start next, and the obstacle of each that has to wait.

A job that has started holds its target until it has ended, also while it is paused or waits
to try again: so two jobs never mix their files. A portal whose `max_jobs` jobs run lets no
further job start. A job waits while the machine of its portals has no worker (see `machines`);
an obstacle is the same for workers of all machines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from django.conf import settings
from django.db.models import F, Q, QuerySet
from django.utils.translation import gettext as _

from engine.types import OPTIONS_VERSION
from jobs.choices import CHOICES
from jobs.models import Job
from jobs.paths import Place, overlaps, place_of
from jobs.queueing.machines import is_here, machine_obstacle, portal_of
from jobs.states import LIVE, Status
from portals.machines import machines_alive

#: Queued jobs read from the database at once; most often one of the first few may start.
_CHUNK = 20


class Usage(NamedTuple):
    """The targets that started jobs hold, the running jobs by portal, the machines with workers.

    The machine of this process is among the last: a worker of it asks.
    """

    held: list[tuple[Job, Place]]
    running: Counter[int]
    machines: set[str]


def queued_in_order() -> QuerySet[Job]:
    """Queued jobs in start order; cancelled ones first, since they only clean up."""
    queued = Job.objects.filter(status=Status.QUEUED)
    first = F("cancel_requested_at").asc(nulls_last=True)
    return queued.order_by(first, "-priority", "created_at", "pk").select_related(
        "source_portal", "target_portal"
    )


def usage() -> Usage:
    """Return the targets, portals and machines in use at this moment."""
    started = Job.objects.filter(Q(attempt__gt=0) | Q(status=Status.RUNNING), status__in=LIVE)
    held, running = [], Counter[int]()
    for job in started.select_related("source_portal", "target_portal"):
        held.append((job, target_of(job)))
        if job.status == Status.RUNNING:
            running.update({job.source_portal_id, job.target_portal_id})
    return Usage(held, running, machines_alive() | {settings.KETTER_MACHINE})


def obstacle(job: Job, now: Usage) -> str:
    """Return the obstacle of a queued job, as a sentence; empty if it may start."""
    if why := machine_obstacle(job, now.machines):
        return why
    if job.cancel_requested_at:
        return ""  # A worker only removes the data that it left.
    if not is_known(job):
        return _unknown_to_this_worker(job)
    target = target_of(job)
    for other, place in now.held:
        if other.pk != job.pk and overlaps(target, place):
            return _("Waits for job %s, which writes to the same place.") % other
    for portal in {job.source_portal, job.target_portal}:
        if portal.max_jobs and now.running[portal.pk] >= portal.max_jobs:
            words = {"portal": portal.name, "n": portal.max_jobs}
            sentence = _("Waits for a free place at portal %(portal)s: it allows %(n)d at once.")
            return sentence % words
    return ""


def is_known(job: Job) -> bool:
    """Whether this worker knows all options of a job: it may neither run nor help one if not."""
    return job.options_version <= OPTIONS_VERSION and not _unknown_choices(job)


def _unknown_choices(job: Job) -> list[str]:
    """Return the columns whose value no choice of this version has."""
    return [name for name, values in CHOICES.items() if getattr(job, name) not in values.values]


def _unknown_to_this_worker(job: Job) -> str:
    if job.options_version > OPTIONS_VERSION:
        return _("Waits for a worker of a newer version: this one does not know its options.")
    column = _unknown_choices(job)[0]
    return _("Waits for a worker of a newer version: this one does not know %(what)s.") % {
        "what": f"{column} {getattr(job, column)}"
    }


def queued_with_obstacles() -> Iterator[tuple[Job, str]]:
    """Yield every queued job in start order, with its obstacle."""
    now = usage()
    for job in queued_in_order().iterator(_CHUNK):
        yield job, obstacle(job, now)


def next_eligible() -> Job | None:
    """Return the first queued job that may start on some machine; None if there is none."""
    return next((job for job, why in queued_with_obstacles() if not why), None)


def next_here() -> Job | None:
    """Return the first queued job that a worker of this machine may start; None if none is."""
    found = queued_with_obstacles()
    return next((job for job, why in found if not why and is_here(job)), None)


def holder_of(target: Place) -> Job | None:
    """Return a live job, drafts excepted, whose target overlaps a place; None if there is none."""
    live = Job.objects.filter(status__in=LIVE).exclude(status=Status.DRAFT)
    for job in live.select_related("target_portal").iterator(_CHUNK):
        if overlaps(target, target_of(job)):
            return job
    return None


def target_of(job: Job) -> Place:
    """Return the place a job writes to: by its portal as it was when the job started, if it has."""
    return place_of(portal_of(job, "target"), job.target_path)
