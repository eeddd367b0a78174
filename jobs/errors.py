"""Every way a request about a job can be refused, as one tree.

JobError                    code, status_code, extra
├── InvalidJob              a field of the request is wrong, or two do not fit
├── IdempotencyKeyReused    an earlier request used the key for another transfer
├── JobHasEnded             only a live job can be cancelled
├── JobNotEnded             only a job that has ended can be relaunched
├── JobIsGone               `manage.py prune` has removed the job
├── JobNotPartial           only a partial job has failed entries to send again
├── NotPausable             only a queued, running or retrying job can be paused
├── NotStartable            only a job that waits for a user or a time can be started
├── IllegalMove             the table of states has no such transition: a bug
└── StaleJob                another process moved the job first

The errors of a running transfer are in `engine.errors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import InterfaceError, InternalError, OperationalError
from django.utils.translation import gettext as _

from engine.errors import Interrupted, Replaced

#: The errors of a Postgres that is down for a while, or read-only during a failover: not bugs.
AWAY = (OperationalError, InterfaceError, InternalError)


class JobError(Exception):
    """Ketter refuses a request about a job; the message is one sentence for a person."""

    code = "JOB_ERROR"
    status_code = 409

    @property
    def extra(self) -> dict[str, Any]:
        """More details for the API's error reply."""
        return {}


@dataclass(frozen=True)
class Problem:
    """The error of one field."""

    code: str
    message: str


class InvalidJob(JobError):
    """A request to launch a job has wrong fields; `problems` has the error of each."""

    status_code = 400

    def __init__(self, problems: dict[str, Problem]) -> None:
        first = next(iter(problems.values()))
        super().__init__(first.message)
        self.code = first.code
        self.problems = problems

    @property
    def extra(self) -> dict[str, Any]:
        """The messages, by field."""
        return {"fields": {name: [found.message] for name, found in self.problems.items()}}


class IdempotencyKeyReused(JobError):
    """An earlier request of the user had the same idempotency key and other fields."""

    code = "IDEMPOTENCY_KEY_REUSED"

    def __init__(self) -> None:
        super().__init__(
            _("An earlier request used this idempotency key for another transfer: use a new key.")
        )


class JobHasEnded(JobError):
    """Only a live job can be cancelled."""

    code = "JOB_HAS_ENDED"

    def __init__(self) -> None:
        super().__init__(_("This job has ended; there is nothing left to cancel."))


class JobNotEnded(JobError):
    """Only a job that has ended can be relaunched."""

    code = "JOB_NOT_ENDED"

    def __init__(self) -> None:
        super().__init__(_("This job has not ended yet; cancel it before relaunching it."))


class JobIsGone(JobError):
    """`manage.py prune` has removed the job."""

    code = "JOB_IS_GONE"
    status_code = 404

    def __init__(self) -> None:
        super().__init__(_("This job no longer exists: `manage.py prune` has removed it."))


class JobNotPartial(JobError):
    """Only a partial job has failed entries to send again."""

    code = "JOB_NOT_PARTIAL"

    def __init__(self) -> None:
        super().__init__(_("Only a job that ended partial has failed entries to send again."))


class NotPausable(JobError):
    """Only a queued, running or retrying job can be paused."""

    code = "NOT_PAUSABLE"

    def __init__(self) -> None:
        super().__init__(_("Only a job that is queued, runs or waits to try again can be paused."))


class NotStartable(JobError):
    """Only a job that waits for a user or a time can be started or resumed."""

    code = "NOT_STARTABLE"

    def __init__(self) -> None:
        super().__init__(
            _("This job cannot be started or resumed: it is queued, runs or has ended.")
        )


class IllegalMove(JobError):
    """The table of states has no such transition."""

    code = "ILLEGAL_MOVE"

    def __init__(self, before: str, after: str) -> None:
        words = {"before": before, "after": after}
        super().__init__(_("A job cannot go from %(before)s to %(after)s.") % words)


class StaleJob(JobError):
    """Another process moved the job after this one had read it."""

    code = "STALE_JOB"

    def __init__(self, job_id: UUID) -> None:
        super().__init__(_("Another user or worker has changed job %s: load it again.") % job_id)


class Orphaned(Replaced):
    """The worker's parent process is gone, so no process watches this run.

    The message is the reason in the event WORKER_LOST: a clause, not a sentence.
    """


def replaced(job_id: UUID, attempt: int) -> Replaced:
    """Return the error of an attempt that another attempt has replaced."""
    words = {"number": attempt, "job": job_id}
    return Replaced(_("Attempt %(number)d of job %(job)s does not run it any more.") % words)


class HandedBack(Interrupted):
    """The worker shuts down, so another one goes on with the job."""


class Paused(Interrupted):
    """A user paused the job while it ran."""
