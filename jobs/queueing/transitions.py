"""The one writer of `Job.status`: along the table of moves, with the event that says so."""

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
from jobs.models import EventLevel, Job, ParcelLease
from jobs.queue import is_silent, ring
from jobs.states import FINAL, TRANSITIONS, Status
from jobs.trail import Note, append
from jobs.turns import next_in_turn


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
    """Move a job to another state and write the event that says so.

    The UPDATE names the state and the attempt we believe in: of two racing
    processes one wins, the other gets `StaleJob`.
    """
    before = Status(job.status)
    if to not in TRANSITIONS.get(before, frozenset()):
        raise IllegalMove(before, to)
    columns = {"status": to, **_columns_of(to), **columns}
    believed = Job.objects.filter(pk=job.pk, status=before, attempt=job.attempt)
    phase = believed.values_list("phase", flat=True).first() or ""
    if not believed.update(**columns):
        raise StaleJob(job.pk)
    job.refresh_from_db(fields=list(columns))
    if before is Status.RUNNING:
        # Whoever helps learns of it from this, and ends.
        ParcelLease.objects.filter(job_id=job.pk).delete()
    append(job, Note(code, message, level, data or {}, phase=phase))
    if to is Status.QUEUED:
        ring_on_commit(job)
    elif to is not Status.RUNNING and job.attempt:
        # What it held is free, or nearly so: whoever waits for it need not wait for the reaper.
        transaction.on_commit(_ring_the_next, robust=True)
    return job


def ring_on_commit(job: Job) -> None:
    """Ring for a job once it is committed.

    Robust: with Redis down the job is recorded all the same (Django logs the
    error), and the reaper rings once Redis is back.
    """
    transaction.on_commit(lambda: ring(job.pk), robust=True)


def lease() -> Combinable:
    """The end of a lease that is taken now, by the database's clock."""
    return Now() + timedelta(seconds=settings.KETTER_LEASE_SECONDS)


def _ring_the_next() -> None:
    # Where rings wait, a worker will come and look whose turn it is anyway.
    if is_silent() and (job := next_in_turn()):
        ring(job.pk)


def _columns_of(to: Status) -> dict[str, Any]:
    """What else changes with a state, by the database's clock."""
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
    # What a worker did last can still be read; nobody does it now.
    return columns | {"worker": "", "phase": "", "pause_requested_at": None}
