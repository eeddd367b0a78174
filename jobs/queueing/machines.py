"""On which machine a job can run: a portal of the kind *this machine* is on one machine alone."""

from __future__ import annotations

from collections.abc import Collection

from django.conf import settings
from django.utils.translation import gettext as _

from jobs.errors import Problem
from jobs.models import Job
from portals.endpoints import thawed
from portals.kinds import KINDS
from portals.machines import why_not
from portals.models import Portal


def portal_of(job: Job, side: str) -> Portal:
    """Return the portal of a side as it was when the job started, if it has."""
    portal: Portal = getattr(job, f"{side}_portal")
    return thawed(portal, job.frozen[side]) if job.frozen else portal


def local_ends(job: Job) -> list[Portal]:
    """Return the portals that bind a job to a machine; a cancelled job only needs its target."""
    sides = ("target",) if job.cancel_requested_at else ("source", "target")
    return [portal for side in sides if KINDS[(portal := portal_of(job, side)).kind].is_here]


def machine_of(job: Job) -> str:
    """Return the machine whose workers alone can run a job; empty if all workers can."""
    return next((portal.machine for portal in local_ends(job)), "")


def is_here(job: Job) -> bool:
    """Whether workers of this machine may run a job, or help with it."""
    return all(portal.machine == settings.KETTER_MACHINE for portal in local_ends(job))


def machine_obstacle(job: Job, alive: Collection[str]) -> str:
    """Return why no worker of the machines that are alive may run a job; empty if one may."""
    ends = local_ends(job)
    if two := _two_machines(ends):
        return two
    now = {portal.pk: portal for portal in (job.source_portal, job.target_portal)}
    return next(filter(None, (why_not(end, alive, now=now[end.pk]) for end in ends)), "")


def machines_problem(job: Job) -> Problem | None:
    """Return why no worker has both ends of a job; None if one can have them."""
    two = _two_machines(local_ends(job))
    return Problem("TWO_MACHINES", two) if two else None


def _two_machines(ends: list[Portal]) -> str:
    named = [portal for portal in ends if portal.machine]
    if len({portal.machine for portal in named}) < 2:
        return ""
    source, target = named
    words = {
        "source": source.name,
        "from": source.machine,
        "target": target.name,
        "to": target.machine,
    }
    return (
        _(
            "Portal “%(source)s” is on machine “%(from)s” and portal “%(target)s” on machine "
            "“%(to)s”, so no worker has both folders: reach one of them by a portal behind SSH."
        )
        % words
    )
