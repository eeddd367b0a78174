"""Every write that a person or a program asks for: launching jobs, stopping them, going on.

What workers and the reaper write is in `jobs.attempts`; `jobs.life.job_move`
alone writes `Job.status`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import timezone

from jobs.errors import (
    IdempotencyKeyReused,
    InvalidJob,
    JobHasEnded,
    JobIsGone,
    JobNotEnded,
    JobNotPartial,
    NotPausable,
    NotStartable,
)
from jobs.life import job_move, ring_on_commit
from jobs.models import Job
from jobs.orders import ORDER_FIELDS, busy_problem, problems_of, tidy_order
from jobs.states import LIVE, PAUSABLE, STARTABLE, Status
from jobs.trail import Note, append, lock
from portals.models import Portal

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
    bandwidth_limit: int = 0,
    priority: int = 0,
    max_tries: int = 50,
    start_at: datetime | None = None,
    draft: bool = False,
    idempotency_key: str = "",
) -> Job:
    """Record a transfer and ring for a worker once it is committed.

    With `start_at` it waits for that moment, as a `draft` first for somebody to
    start it. A repeated idempotency key of the same user returns the job it made the
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
        bandwidth_limit=bandwidth_limit,
        priority=priority,
        max_tries=max_tries,
        next_run_at=start_at,
        idempotency_key=idempotency_key,
    )
    order.status = Status.DRAFT if draft else Status.SCHEDULED if start_at else Status.QUEUED
    return _launch(order)


def job_relaunch(job: Job, *, by: User) -> Job:
    """Launch the transfer of an ended job anew, as a new job linked to the old one."""
    if job.status in LIVE:
        raise JobNotEnded
    return _launch(_copy_of(job, by))


def job_retry_failed(job: Job, *, by: User) -> Job:
    """Launch a partial job's transfer again, as a new job, for what was not delivered.

    What was delivered is there already, and identical: that is success under
    every conflict policy, so only the rest is sent.
    """
    if job.status != Status.PARTIAL:
        raise JobNotPartial
    return _launch(_copy_of(job, by))


def _copy_of(job: Job, by: User) -> Job:
    asked = {name: getattr(job, name) for name in ORDER_FIELDS}
    return Job(requested_by=by, relaunched_from=job, **asked)


def _launch(order: Job) -> Job:
    tidy_order(order)
    problems = problems_of(order)
    if "idempotency_key" not in problems and (earlier := _same_key(order)):
        return earlier
    if not problems and order.status != Status.DRAFT and (busy := busy_problem(order)):
        problems["target_path"] = busy
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
    if order.relaunched_from is not None:
        _hold(order.relaunched_from)
    queued = order.status == Status.QUEUED
    order.queued_at = Now() if queued else None
    order.save(force_insert=True)
    order.refresh_from_db(fields=["queued_at"])
    who, data = order.requested_by.get_username(), {}
    message = f"{who} launched this job."
    if order.relaunched_from_id:
        message = f"{who} relaunched job {order.relaunched_from_id}."
        data = {"relaunched_from": str(order.relaunched_from_id)}
    elif order.status == Status.DRAFT:
        message = f"{who} drafted this job; it waits to be started."
    elif order.next_run_at:
        message = f"{who} scheduled this job for {order.next_run_at:%Y-%m-%d %H:%M:%S %Z}."
    append(order, Note("CREATED", message, data=data))
    if queued:
        ring_on_commit(order)
    return order


def _hold(origin: Job) -> None:
    """Keep the job that is relaunched from being pruned meanwhile."""
    try:
        lock(origin)
    except Job.DoesNotExist:
        raise JobIsGone from None


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


# --- Stopping and going on ---------------------------------------------------


@transaction.atomic
def job_cancel(job: Job, *, by: User) -> Job:
    """Cancel a job that has not started at once; ask a worker to end one that has.

    A job that has begun may have left something at the target: an attempt
    clears that away and ends it. A transfer that finishes before its worker
    sees the request stays finished.
    """
    _lock_afresh(job)
    if job.status not in LIVE:
        raise JobHasEnded
    asked = f"{by.get_username()} cancelled this job"
    if not job.attempt:
        message = f"{asked} before it began."
        return job_move(job, Status.CANCELLED, code="CANCELLED", message=message)
    if job.cancel_requested_at is not None:
        return job
    if job.status in {Status.RUNNING, Status.QUEUED}:
        Job.objects.filter(pk=job.pk).update(cancel_requested_at=Now())
        job.refresh_from_db(fields=["cancel_requested_at"])
        append(job, Note("CANCEL_REQUESTED", f"{asked}; a worker will end it."))
        if job.status == Status.QUEUED:
            ring_on_commit(job)
        return job
    message = f"{asked}; a worker will clear away what has arrived."
    return job_move(
        job, Status.QUEUED, code="CANCEL_REQUESTED", message=message, cancel_requested_at=Now()
    )


@transaction.atomic
def job_pause(job: Job, *, by: User) -> Job:
    """Hold a waiting job at once; ask the worker of a running one to stop where it is.

    What has arrived stays at the target, to go on from.
    """
    _lock_afresh(job)
    if job.status not in PAUSABLE or job.cancel_requested_at:
        raise NotPausable
    asked = f"{by.get_username()} paused this job"
    if job.status != Status.RUNNING:
        return job_move(job, Status.PAUSED, code="PAUSED", message=f"{asked} while it waited.")
    if job.pause_requested_at is None:
        Job.objects.filter(pk=job.pk).update(pause_requested_at=Now())
        job.refresh_from_db(fields=["pause_requested_at"])
        append(job, Note("PAUSE_REQUESTED", f"{asked}; its worker will stop."))
    return job


@transaction.atomic
def job_resume(job: Job, *, by: User) -> Job:
    """Let a job begin, or go on from where it stopped, as soon as it is its turn.

    For one that was drafted, scheduled or paused, waits to try again, or needed
    a person. Failures are counted anew. A draft with a time still waits for it;
    where busy targets are refused, it is, too.
    """
    _lock_afresh(job)
    if job.status not in STARTABLE:
        raise NotStartable
    if job.status == Status.DRAFT and (busy := busy_problem(job)):
        raise InvalidJob({"target_path": busy})
    if job.status == Status.DRAFT and job.next_run_at and job.next_run_at > timezone.now():
        message = f"{by.get_username()} submitted this job; it waits for its time."
        when = job.next_run_at
        return job_move(job, Status.SCHEDULED, code="SUBMITTED", message=message, next_run_at=when)
    message = f"{by.get_username()} {'resumed' if job.attempt else 'started'} this job."
    return job_move(
        job,
        Status.QUEUED,
        code="RESUMED" if job.attempt else "SUBMITTED",
        message=message,
        tries=0,
        losses=0,
        error_code="",
        error_message="",
    )


def _lock_afresh(job: Job) -> None:
    lock(job)
    job.refresh_from_db()
