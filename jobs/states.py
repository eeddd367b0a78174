"""The life of a job: its states and the one table of allowed moves.

Only `jobs.life.job_move` writes `Job.status`, and only along this table.
"""

from __future__ import annotations

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Status(TextChoices):
    """What a job is."""

    DRAFT = "draft", _("draft")
    SCHEDULED = "scheduled", _("scheduled")
    QUEUED = "queued", _("queued")
    RUNNING = "running", _("running")
    RETRY_WAIT = "retry_wait", _("waits to try again")
    PAUSED = "paused", _("paused")
    NEEDS_ATTENTION = "needs_attention", _("needs attention")
    DONE = "done", _("done")
    PARTIAL = "partial", _("partial")
    FAILED = "failed", _("failed")
    CANCELLED = "cancelled", _("cancelled")


#: A state that is not a key is final: a relaunch is a new job.
#: RUNNING -> QUEUED: the worker was lost, or gave the job back; the job is not lost.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.DRAFT: frozenset({Status.SCHEDULED, Status.QUEUED, Status.CANCELLED}),
    Status.SCHEDULED: frozenset({Status.QUEUED, Status.CANCELLED}),
    Status.QUEUED: frozenset({Status.RUNNING, Status.PAUSED, Status.CANCELLED}),
    Status.RUNNING: frozenset(
        {
            Status.QUEUED,
            Status.RETRY_WAIT,
            Status.PAUSED,
            Status.NEEDS_ATTENTION,
            Status.DONE,
            Status.PARTIAL,
            Status.FAILED,
            Status.CANCELLED,
        }
    ),
    Status.RETRY_WAIT: frozenset({Status.QUEUED, Status.PAUSED, Status.CANCELLED}),
    Status.PAUSED: frozenset({Status.QUEUED, Status.CANCELLED}),
    Status.NEEDS_ATTENTION: frozenset({Status.QUEUED, Status.CANCELLED}),
}

LIVE: frozenset[Status] = frozenset(TRANSITIONS)
FINAL: frozenset[Status] = frozenset(Status) - LIVE
#: In these a job waits for a moment (`next_run_at`), in those for a person.
TIMED: frozenset[Status] = frozenset({Status.SCHEDULED, Status.RETRY_WAIT})
STARTABLE: frozenset[Status] = TIMED | {Status.DRAFT, Status.PAUSED, Status.NEEDS_ATTENTION}
PAUSABLE: frozenset[Status] = frozenset({Status.QUEUED, Status.RUNNING, Status.RETRY_WAIT})
