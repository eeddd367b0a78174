"""Moves a job from state to state: the one writer of `Job.status`, with an event for each move."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from engine.types import Progress
from jobs.errors import IllegalMove, StaleJob
from jobs.events import Note, append
from jobs.models import EventLevel, Job, ParcelLease
from jobs.queueing.eligibility import next_eligible
from jobs.queueing.notify import notify, queue_is_empty
from jobs.states import FINAL, TRANSITIONS, Status


@transaction.atomic
def job_move(
    job: Job,
    to: Status,
    *,
    code: str,
    message: str,
    level: str = EventLevel.INFO,
    data: dict[str, Any] | None = None,
    **columns: Any,
) -> Job:
    """Move a job to another state and write the event about it.

    The UPDATE names the state and the attempt that the caller has read: of two processes that
    race one wins. Raises StaleJob in the other, and IllegalMove if `TRANSITIONS` has no such move.
    """
    before = Status(job.status)
    if to not in TRANSITIONS.get(before, frozenset()):
        raise IllegalMove(before, to)
    columns = {"status": to, **_columns_of(to), **columns}
    expected = Job.objects.filter(pk=job.pk, status=before, attempt=job.attempt)
    phase = expected.values_list("phase", flat=True).first() or ""
    if not expected.update(**columns):
        raise StaleJob(job.pk)
    job.refresh_from_db(fields=list(columns))
    if before is Status.RUNNING:
        # Its helpers see that their leases are gone, and stop.
        ParcelLease.objects.filter(job_id=job.pk).delete()
    append(job, Note(code, message, level, data or {}, phase=phase))
    if to is Status.QUEUED:
        notify_on_commit(job)
    elif to is not Status.RUNNING and job.attempt:
        # Its target or its place at a portal may be free: the job that waits for it need not
        # wait for the reaper.
        transaction.on_commit(_notify_next, robust=True)
    return job


def notify_on_commit(job: Job) -> None:
    """Send a wake-up for a job once the transaction is committed.

    If Redis is down, the job stays recorded all the same (Django logs the error), and the reaper
    sends the wake-up once Redis is back.
    """
    transaction.on_commit(lambda: notify(job.pk), robust=True)


def lease() -> Combinable:
    """Return the end of a lease that begins now, by the database's clock."""
    return Now() + timedelta(seconds=settings.KETTER_LEASE_SECONDS)


def _notify_next() -> None:
    # If a wake-up waits, the worker that takes it will claim the next eligible job anyway.
    if queue_is_empty() and (job := next_eligible()):
        notify(job.pk)


def _columns_of(to: Status) -> dict[str, Any]:
    """Return the columns that change with a new state; times by the database's clock."""
    columns: dict[str, Any] = {"lease_until": None, "next_run_at": None, "waits_for": ""}
    if to is Status.RUNNING:
        return columns | {
            "attempt": F("attempt") + 1,
            "started_at": Now(),
            "heartbeat_at": Now(),
            "lease_until": lease(),
            "phase": "",
            "error_code": "",
            "error_message": "",
            **Progress()._asdict(),
        }
    if to is Status.QUEUED:
        columns["queued_at"] = Now()
    if to in FINAL:
        return columns | {"finished_at": Now()}
    # Ended jobs keep their last worker and phase; no worker runs this job now.
    return columns | {"worker": "", "phase": "", "pause_requested_at": None}
