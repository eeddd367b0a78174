"""The states of a job and the table of allowed transitions between them.

Only `jobs.queueing.transitions.job_move` writes `Job.status`, and only along this table.
"""

from __future__ import annotations

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Status(TextChoices):
    """The state of a job."""

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


#: A state without an entry is final: a relaunch makes a new job.
#: RUNNING -> QUEUED: the worker died or gave the job back; another worker goes on with it.
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
#: In TIMED states a job waits for `next_run_at`. A user may start or resume a job in a STARTABLE
#: state, and pause one in a PAUSABLE state.
TIMED: frozenset[Status] = frozenset({Status.SCHEDULED, Status.RETRY_WAIT})
STARTABLE: frozenset[Status] = TIMED | {Status.DRAFT, Status.PAUSED, Status.NEEDS_ATTENTION}
PAUSABLE: frozenset[Status] = frozenset({Status.QUEUED, Status.RUNNING, Status.RETRY_WAIT})
