"""Every way a request about a job can be refused, as one tree.

JobError                    code, status_code, extra
├── InvalidJob              the transfer cannot be launched as it is asked for
├── IdempotencyKeyReused    the same key came with another transfer
├── JobHasEnded             only a live job can be cancelled
├── JobNotEnded             only a job that has ended can be relaunched
├── JobIsGone               it was pruned meanwhile
├── JobNotPartial           only of a partial job what failed can be tried again
├── NotPausable             only a job that waits its turn or runs can be paused
├── NotStartable            only a job that waits for a person or a time can be started
├── IllegalMove             no such move in the table of states: a bug
└── StaleJob                somebody else moved the job first

How a running transfer fails is said by `engine.errors`, not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.utils.translation import gettext as _

from engine.errors import Interrupted, Replaced


class JobError(Exception):
    """A request about a job was refused; the message is one sentence for a person."""

    code = "JOB_ERROR"
    status_code = 409

    @property
    def extra(self) -> dict[str, Any]:
        """Details for the API's envelope."""
        return {}


@dataclass(frozen=True)
class Problem:
    """What is wrong with one field."""

    code: str
    message: str


class InvalidJob(JobError):
    """The transfer cannot be launched as it is asked for; says why, field by field."""

    status_code = 400

    def __init__(self, problems: dict[str, Problem]) -> None:
        first = next(iter(problems.values()))
        super().__init__(first.message)
        self.code = first.code
        self.problems = problems

    @property
    def extra(self) -> dict[str, Any]:
        """The messages by field."""
        return {"fields": {name: [found.message] for name, found in self.problems.items()}}


class IdempotencyKeyReused(JobError):
    """The same idempotency key came with another transfer."""

    code = "IDEMPOTENCY_KEY_REUSED"

    def __init__(self) -> None:
        super().__init__(_("This idempotency key was used before, for another transfer."))


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
    """The job was pruned meanwhile."""

    code = "JOB_IS_GONE"
    status_code = 404

    def __init__(self) -> None:
        super().__init__(_("This job is not on record any more: it was pruned."))


class JobNotPartial(JobError):
    """Only of a partial job what failed can be tried again."""

    code = "JOB_NOT_PARTIAL"

    def __init__(self) -> None:
        super().__init__(_("Only a partial job has entries that can be tried again."))


class NotPausable(JobError):
    """Only a job that waits its turn or runs can be paused."""

    code = "NOT_PAUSABLE"

    def __init__(self) -> None:
        super().__init__(_("Only a job that runs or waits for its turn can be paused."))


class NotStartable(JobError):
    """Only a job that waits for a person or a time can be started."""

    code = "NOT_STARTABLE"

    def __init__(self) -> None:
        super().__init__(_("This job does not wait for anybody to start it."))


class IllegalMove(JobError):
    """The table of states has no such move."""

    code = "ILLEGAL_MOVE"

    def __init__(self, before: str, after: str) -> None:
        super().__init__(f"A job cannot go from {before} to {after}.")


class StaleJob(JobError):
    """Somebody else moved the job since it was read."""

    code = "STALE_JOB"

    def __init__(self, job_id: UUID) -> None:
        super().__init__(_("Job %s was changed by somebody else; look again.") % job_id)


class Orphaned(Replaced):
    """The worker that started this run is gone, so nobody watches over it any more."""


class HandedBack(Interrupted):
    """The worker was told to end, so another one goes on with the job."""


class Paused(Interrupted):
    """Somebody paused the job while it ran."""
