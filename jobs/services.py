"""Every write to a job, its events and its parcels.

`job_move` alone writes `Job.status`. A write by a running attempt says
`WHERE attempt = mine`, so an attempt that was replaced can change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from engine.errors import Replaced
from engine.types import ParcelReport, Phase, Progress
from jobs.errors import (
    IdempotencyKeyReused,
    IllegalMove,
    InvalidJob,
    JobHasEnded,
    JobNotEnded,
    StaleJob,
)
from jobs.models import EventLevel, Job, JobParcel
from jobs.orders import ORDER_FIELDS, problems_of, tidy_order
from jobs.queue import ring
from jobs.states import LIVE, TRANSITIONS, Status
from jobs.trail import Note, append, lock
from portals.models import Portal

#: How often a job may lose its worker before it is taken for the cause.
MAX_ATTEMPTS = 20


# --- Launching -------------------------------------------------------------


def job_create(
    *,
    by: User,
    source_portal: Portal,
    target_portal: Portal,
    source_path: str = "",
    target_path: str = "",
    mode: str = "copy",
    strategy: str = "auto",
    verify: str = "",
    on_conflict: str = "fail",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    streams: int = 0,
    idempotency_key: str = "",
) -> Job:
    """Record a transfer and ring for a worker once it is committed.

    A repeated idempotency key of the same user returns the job it made the
    first time. Raises `InvalidJob` or `IdempotencyKeyReused`.
    """
    order = Job(
        requested_by=by,
        source_portal=source_portal,
        source_path=source_path,
        target_portal=target_portal,
        target_path=target_path,
        mode=mode,
        strategy=strategy,
        verify=verify,
        on_conflict=on_conflict,
        include=list(include),
        exclude=list(exclude),
        streams=streams,
        idempotency_key=idempotency_key,
    )
    return _launch(order)


def job_relaunch(job: Job, *, by: User) -> Job:
    """Launch the transfer of an ended job anew, as a new job linked to the old one."""
    if job.status in LIVE:
        raise JobNotEnded
    asked = {name: getattr(job, name) for name in ORDER_FIELDS}
    return _launch(Job(requested_by=by, relaunched_from=job, **asked))


def _launch(order: Job) -> Job:
    tidy_order(order)
    problems = problems_of(order)
    if "idempotency_key" not in problems and (earlier := _same_key(order)):
        return earlier
    if problems:
        raise InvalidJob(problems)
    try:
        with transaction.atomic():
            return _record(order)
    except IntegrityError:
        # Two requests with one key at once: the other was first.
        if earlier := _same_key(order):
            return earlier
        raise


def _record(order: Job) -> Job:
    order.queued_at = Now()
    order.save(force_insert=True)
    order.refresh_from_db(fields=["queued_at"])
    message = f"{order.requested_by.get_username()} launched this job."
    data = {}
    if order.relaunched_from_id:
        message = f"{order.requested_by.get_username()} relaunched job {order.relaunched_from_id}."
        data = {"relaunched_from": str(order.relaunched_from_id)}
    append(order, Note("CREATED", message, data=data))
    _ring_on_commit(order)
    return order


def _same_key(order: Job) -> Job | None:
    """The job this user's idempotency key made before, if any."""
    if not order.idempotency_key:
        return None
    earlier = Job.objects.filter(
        requested_by=order.requested_by, idempotency_key=order.idempotency_key
    ).first()
    if earlier and any(getattr(earlier, f) != getattr(order, f) for f in ORDER_FIELDS):
        raise IdempotencyKeyReused
    return earlier


def _ring_on_commit(job: Job) -> None:
    # Robust: with Redis down the job is recorded all the same (Django logs the
    # error), and the reaper rings once Redis is back.
    transaction.on_commit(lambda: ring(job.pk), robust=True)


# --- Moving ----------------------------------------------------------------


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
    if not believed.update(**columns):
        raise StaleJob(job.pk)
    job.refresh_from_db(fields=list(columns))
    append(job, Note(code, message, level, data or {}, phase=job.phase))
    if to is Status.QUEUED:
        _ring_on_commit(job)
    return job


def _columns_of(to: Status) -> dict[str, Any]:
    """What else changes with a state, by the database's clock."""
    if to is Status.QUEUED:
        return {"queued_at": Now(), "lease_until": None, "worker": "", "phase": ""}
    if to is Status.RUNNING:
        return {
            "attempt": F("attempt") + 1,
            "started_at": Now(),
            "heartbeat_at": Now(),
            "lease_until": _lease(),
            "phase": "",
            **Progress()._asdict(),
        }
    return {"finished_at": Now(), "lease_until": None}


def _lease() -> Combinable:
    return Now() + timedelta(seconds=settings.KETTER_LEASE_SECONDS)


def job_claim(job_id: UUID | str, *, worker: str) -> Job | None:
    """Take a queued job for this worker: one conditional UPDATE, one winner.

    None when there is nothing to take: delivered twice, cancelled, or gone.
    """
    queued = Job.objects.filter(pk=job_id, status=Status.QUEUED)
    job = queued.select_related(
        "source_portal__credential", "target_portal__credential", "requested_by"
    ).first()
    if job is None:
        return None
    message = f"Attempt {job.attempt + 1} started on worker {worker}."
    try:
        with transaction.atomic():
            job_move(job, Status.RUNNING, code="STARTED", message=message, worker=worker)
            # What an earlier attempt planned is void; what it proved stays on record.
            job.parcels.filter(manifest=None).delete()
    except StaleJob:
        return None
    return job


@transaction.atomic
def job_cancel(job: Job, *, by: User) -> Job:
    """Cancel a job that has not started at once; ask a worker to end one that has.

    A job that waits for its next attempt may have left something at the
    target: the attempt clears that away and ends it. A transfer that finishes
    before its worker sees the request stays finished.
    """
    lock(job)
    job.refresh_from_db()
    if job.status not in LIVE:
        raise JobHasEnded
    asked = f"{by.get_username()} cancelled this job"
    if job.status == Status.QUEUED and not job.attempt:
        message = f"{asked} while it waited."
        return job_move(job, Status.CANCELLED, code="CANCELLED", message=message)
    if job.cancel_requested_at is None:
        Job.objects.filter(pk=job.pk).update(cancel_requested_at=Now())
        job.refresh_from_db(fields=["cancel_requested_at"])
        append(job, Note("CANCEL_REQUESTED", f"{asked}; a worker will end it."))
    return job


def job_lost(job: Job, *, reason: str) -> Job:
    """Take a running job from a worker that is gone, and let another one have it.

    It ends here only if it has lost so many workers that it must be what
    kills them. A job that somebody cancelled meanwhile is queued, too: the
    next attempt clears away what this one left, and ends it.
    """
    lost = f"Worker {job.worker} was lost in attempt {job.attempt} ({reason})"
    data = {"worker": job.worker, "reason": reason}
    if job.attempt >= MAX_ATTEMPTS:
        message = f"{lost}; no further attempt after {job.attempt}."
        return job_move(
            job,
            Status.FAILED,
            code="WORKER_LOST",
            message=message,
            level=EventLevel.ERROR,
            data=data,
            error_code="WORKER_LOST",
            error_message=message,
        )
    return job_move(
        job,
        Status.QUEUED,
        code="WORKER_LOST",
        message=f"{lost}; the job is queued again.",
        level=EventLevel.WARNING,
        data=data,
    )


# --- Writes of a running attempt -------------------------------------------


def _mine(job: Job) -> QuerySet[Job]:
    return Job.objects.filter(pk=job.pk, attempt=job.attempt, status=Status.RUNNING)


def job_renew(job: Job, *, progress: Progress, phase: Phase | str = "", **columns: Any) -> None:
    """Renew the lease and write the counters, in one UPDATE.

    Raises `engine.Replaced` when this attempt does not run the job any more.
    """
    renewed = _mine(job).update(
        lease_until=_lease(),
        heartbeat_at=Now(),
        phase=phase,
        **progress._asdict(),
        **columns,
    )
    if not renewed:
        raise Replaced(f"Attempt {job.attempt} of job {job.pk} does not run it any more.")


def cancel_requested(job: Job) -> bool:
    """Whether somebody asked this running job to stop."""
    return Job.objects.filter(pk=job.pk, cancel_requested_at__isnull=False).exists()


@transaction.atomic
def attempt_record(
    job: Job,
    *,
    progress: Progress,
    phase: Phase | str,
    notes: Sequence[Note] = (),
    parcels: Iterable[ParcelReport] = (),
    **columns: Any,
) -> None:
    """Write all the news of a running attempt at once: lease, counters, events, parcels.

    Raises `engine.Replaced`, and writes nothing, when the attempt was replaced.
    """
    job_renew(job, progress=progress, phase=phase, **columns)
    append(job, *notes)
    _upsert(job, list(parcels))


def _upsert(job: Job, reports: list[ParcelReport]) -> None:
    """Record how far parcels have come; one statement for all with a manifest, one for the rest."""
    for with_manifest in (True, False):
        rows = [
            JobParcel(
                job=job,
                number=report.number,
                kind=report.kind,
                files=report.files,
                bytes=report.bytes,
                state=report.state,
                digest=report.digest,
                manifest=report.manifest,
                attempt=job.attempt,
            )
            for report in reports
            if (report.manifest is not None) == with_manifest
        ]
        known = ["kind", "files", "bytes", "state"]
        JobParcel.objects.bulk_create(
            rows,
            batch_size=1000,
            update_conflicts=True,
            unique_fields=["job", "attempt", "number"],
            update_fields=[*known, "digest", "manifest"] if with_manifest else known,
        )
