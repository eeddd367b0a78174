"""Whose turn it is: waiting jobs in order, and what each of them has to wait for.

A job that has begun holds its target until it has ended, also while it is
paused or waits to try again: what two jobs write never interleaves. A portal
that has as many jobs running as it may have lets no further one begin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from django.db.models import F, Q, QuerySet
from django.utils.translation import gettext as _

from jobs.models import CHOICES, Job
from jobs.places import Place, overlaps, place_of
from jobs.states import LIVE, Status
from portals.endpoints import thawed

#: Waiting jobs that are read at once; most often one of the first few may begin.
_CHUNK = 20


class Busy(NamedTuple):
    """Who is at work: the targets that are held, and the running jobs of each portal."""

    held: list[tuple[Job, Place]]
    running: Counter[int]


def waiting() -> QuerySet[Job]:
    """The queued jobs, those to begin first at the top; what is cancelled is soon done with."""
    queued = Job.objects.filter(status=Status.QUEUED)
    first = F("cancel_requested_at").asc(nulls_last=True)
    return queued.order_by(first, "-priority", "created_at", "pk").select_related(
        "source_portal", "target_portal"
    )


def busy() -> Busy:
    """Who is at work at this moment."""
    begun = Job.objects.filter(Q(attempt__gt=0) | Q(status=Status.RUNNING), status__in=LIVE)
    held, running = [], Counter[int]()
    for job in begun.select_related("source_portal", "target_portal"):
        held.append((job, target_of(job)))
        if job.status == Status.RUNNING:
            running.update({job.source_portal_id, job.target_portal_id})
    return Busy(held, running)


def obstacle(job: Job, now: Busy) -> str:
    """What a queued job has to wait for, as a sentence; empty if it may begin."""
    if job.cancel_requested_at:
        return ""  # It only clears away what it left.
    for column, values in CHOICES.items():
        if getattr(job, column) not in values.values:
            return _("Waits for a worker of a newer version: this one does not know %(what)s.") % {
                "what": f"{column} {getattr(job, column)}"
            }
    mine = target_of(job)
    for other, place in now.held:
        if other.pk != job.pk and overlaps(mine, place):
            return _("Waits for job %s, which writes to the same place.") % other
    for portal in {job.source_portal, job.target_portal}:
        if portal.max_jobs and now.running[portal.pk] >= portal.max_jobs:
            return _("Waits for a free place at portal %(portal)s (%(n)d at once).") % {
                "portal": portal.name,
                "n": portal.max_jobs,
            }
    return ""


def in_turn() -> Iterator[tuple[Job, str]]:
    """Every queued job in order, with its obstacle."""
    now = busy()
    for job in waiting().iterator(_CHUNK):
        yield job, obstacle(job, now)


def next_in_turn() -> Job | None:
    """The job that may begin first, if any."""
    return next((job for job, why in in_turn() if not why), None)


def holder_of(target: Place) -> Job | None:
    """A live job that writes, or will write, to that place or a place above or below it."""
    live = Job.objects.filter(status__in=LIVE).exclude(status=Status.DRAFT)
    for job in live.select_related("target_portal").iterator(_CHUNK):
        if overlaps(target, target_of(job)):
            return job
    return None


def target_of(job: Job) -> Place:
    """Where a job writes: by the portal as it was when the job began, if it has."""
    portal = thawed(job.target_portal, job.frozen["target"]) if job.frozen else job.target_portal
    return place_of(portal, job.target_path)
