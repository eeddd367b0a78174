"""The late clean-up: which worker clears away what a cancelled job has left at its target.

A job whose data could not be removed in the seconds that a person waits ends as CANCELLED all the
same, and its worker goes on clearing away. From the end on it has a lease for that: if it dies,
another worker takes the clean-up up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from jobs.errors import replaced
from jobs.events import Note, append
from jobs.models import Job
from jobs.queueing.attempts import MAX_LOSSES
from jobs.queueing.machines import is_here
from jobs.queueing.transitions import lease

logger = logging.getLogger(__name__)


def clearing_begins() -> dict[str, Any]:
    """Return the columns of a job that ends while its worker goes on clearing away."""
    return {"clearing_until": lease(), "clearings": 0}


def clearing_renew(job: Job) -> None:
    """Renew the lease of a clean-up. Raises engine.Replaced if another worker has it by now."""
    if not _mine(job).update(clearing_until=lease()):
        raise replaced(job.pk, job.attempt)


def clearing_hand_back(job: Job) -> None:
    """Let another worker take the clean-up up at once: this one shuts down."""
    _mine(job).update(clearing_until=Now())


@transaction.atomic
def clearing_end(job: Job, *, cleared: bool) -> None:
    """Record the end of a clean-up; if all is removed, with an event.

    Raises engine.Replaced if another worker has it by now.
    """
    if not _mine(job).update(clearing_until=None):
        raise replaced(job.pk, job.attempt)
    if cleared:
        message = _("The data that the job had left at the target is removed.")
        append(job, Note("STAGING_CLEARED", message))


def clearing_lost(*, worker: str) -> None:
    """Let the clean-ups of a work-horse that is known to be dead be taken up at once."""
    of_worker = Job.objects.filter(worker=worker, clearings=0, clearing_until__isnull=False)
    of_worker.update(clearing_until=Now())


def clearing_waits() -> bool:
    """Whether a clean-up has lost its worker, and a worker of this machine can take it up."""
    return next(_lost_here(Job.objects.all()), None) is not None


@transaction.atomic
def clearing_take() -> Job | None:
    """Take a clean-up up that has lost its worker; None if there is none for this machine.

    After MAX_LOSSES lost workers the clean-up itself probably kills them: no worker takes it up
    any more, and the event of the job's end says what is left.
    """
    free = Job.objects.select_for_update(skip_locked=True, no_key=True, of=("self",))
    for job in _lost_here(free):
        if job.clearings >= MAX_LOSSES:
            logger.error(
                "Job %s: %d workers were lost while they cleared away what it has left at the "
                "target: remove it by hand",
                *(job.pk, job.clearings),
            )
            Job.objects.filter(pk=job.pk).update(clearing_until=None)
            continue
        taken = {"clearings": F("clearings") + 1, "clearing_until": lease()}
        Job.objects.filter(pk=job.pk).update(**taken)
        job.refresh_from_db(fields=list(taken))
        return job
    return None


def _lost_here(jobs: QuerySet[Job]) -> Iterator[Job]:
    """Yield the jobs, longest lost first, whose clean-up this machine can take up."""
    lost = jobs.filter(clearing_until__lt=Now()).order_by("clearing_until")
    return filter(is_here, lost.select_related("source_portal", "target_portal"))


def _mine(job: Job) -> QuerySet[Job]:
    """The job's row, if this worker still has the clean-up."""
    return Job.objects.filter(pk=job.pk, clearings=job.clearings, clearing_until__isnull=False)
