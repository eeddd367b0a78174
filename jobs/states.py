"""The life of a job: its states and the one table of allowed moves.

Only `jobs.services.job_move` writes `Job.status`, and only along this table.
"""

from __future__ import annotations

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Status(TextChoices):
    """What a job is."""

    QUEUED = "queued", _("queued")
    RUNNING = "running", _("running")
    DONE = "done", _("done")
    PARTIAL = "partial", _("partial")
    FAILED = "failed", _("failed")
    CANCELLED = "cancelled", _("cancelled")


#: A state that is not a key is final: a relaunch is a new job.
#: RUNNING -> QUEUED is the reaper's: the worker was lost, the job is not.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.CANCELLED}),
    Status.RUNNING: frozenset(
        {Status.QUEUED, Status.DONE, Status.PARTIAL, Status.FAILED, Status.CANCELLED}
    ),
}

LIVE: frozenset[Status] = frozenset(TRANSITIONS)
FINAL: frozenset[Status] = frozenset(Status) - LIVE
