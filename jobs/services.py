"""The writes that users and programs ask for: launch, cancel, pause, resume and relaunch jobs.

The writes of workers and of the reaper are in `jobs.queueing.attempts`. Only
`jobs.queueing.transitions.job_move` changes `Job.status`; a new row here gets its first one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Unpack

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import override

from jobs.choices import JobMode
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
from jobs.events import Note, append, lock
from jobs.models import Job
from jobs.options import JobOptions
from jobs.queueing.transitions import job_move, notify_on_commit
from jobs.states import LIVE, PAUSABLE, STARTABLE, Status
from jobs.validation import ORDER_FIELDS, busy_problem, problems_of, shorten_paths
from portals.models import Portal

# --- Launching -------------------------------------------------------------


def job_create(
    *,
    by: User,
    source_portal: Portal,
    target_portal: Portal,
    source_path: str = "",
    target_path: str = "",
    mode: str = JobMode.COPY,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    bandwidth_limit: int = 0,
    priority: int = 0,
    max_tries: int = 50,
    start_at: datetime | None = None,
    draft: bool = False,
    idempotency_key: str = "",
    **options: Unpack[JobOptions],
) -> Job:
    """Record a transfer, and notify a worker once it is committed.

    With `start_at` the job waits for that time; as a `draft` it first waits until a user starts
    it. A repeated idempotency key of the same user returns the job that its first request made.
    Raises InvalidJob or IdempotencyKeyReused.
    """
    job = Job(
        requested_by=by,
        source_portal=source_portal,
        source_path=source_path,
        target_portal=target_portal,
        target_path=target_path,
        mode=mode,
        include=list(include),
        exclude=list(exclude),
        bandwidth_limit=bandwidth_limit,
        priority=priority,
        max_tries=max_tries,
        next_run_at=start_at,
        idempotency_key=idempotency_key,
        **options,
    )
    job.status = Status.DRAFT if draft else Status.SCHEDULED if start_at else Status.QUEUED
    return _launch(job)


def job_relaunch(job: Job, *, by: User) -> Job:
    """Launch the transfer of an ended job again, as a new job that is linked to the old one."""
    if job.status in LIVE:
        raise JobNotEnded
    return _launch(_copy_of(job, by))


def job_retry_failed(job: Job, *, by: User) -> Job:
    """Launch a partial job's transfer again, as a new job, for the entries that failed.

    The entries that were delivered are identical at the target: that is success under
    every conflict policy, so the new job sends only the rest.
    """
    if job.status != Status.PARTIAL:
        raise JobNotPartial
    return _launch(_copy_of(job, by))


def _copy_of(job: Job, by: User) -> Job:
    columns = {name: getattr(job, name) for name in ORDER_FIELDS}
    return Job(requested_by=by, relaunched_from=job, **columns)


def _launch(job: Job) -> Job:
    shorten_paths(job)
    problems = problems_of(job)
    if "idempotency_key" not in problems and (earlier := _job_of_same_key(job)):
        return earlier
    if not problems and job.status != Status.DRAFT and (busy := busy_problem(job)):
        problems["target_path"] = busy
    if problems:
        raise InvalidJob(problems)
    try:
        with transaction.atomic():
            return _record(job)
    except IntegrityError:
        # Two requests with one key came at once, and the other one was first.
        if earlier := _job_of_same_key(job):
            return earlier
        raise


def _record(job: Job) -> Job:
    if job.relaunched_from is not None:
        _lock_origin(job.relaunched_from)
    queued = job.status == Status.QUEUED
    job.queued_at = Now() if queued else None
    job.options_version = job.needed_version()
    job.save(force_insert=True)
    job.refresh_from_db(fields=["queued_at"])
    data = {}
    if job.relaunched_from_id:
        data = {"relaunched_from": str(job.relaunched_from_id)}
    append(job, Note("CREATED", _launch_message(job), data=data))
    if queued:
        notify_on_commit(job)
    return job


def _launch_message(job: Job) -> str:
    user = job.requested_by
    if job.relaunched_from_id:
        origin = str(job.relaunched_from_id)
        return _message(_("%(user)s relaunched job %(job)s."), user, job=origin)
    if job.status == Status.DRAFT:
        return _message(
            _("%(user)s saved this job as a draft; it waits until a user starts it."), user
        )
    if job.next_run_at:
        time = f"{job.next_run_at:%Y-%m-%d %H:%M:%S %Z}"
        return _message(_("%(user)s scheduled this job for %(time)s."), user, time=time)
    return _message(_("%(user)s launched this job."), user)


def _message(sentence: Promise, user: User, **words: str) -> str:
    """Word an event about a user in the installation's language, whichever the user reads."""
    with override(settings.LANGUAGE_CODE):
        return str(sentence) % {"user": user.get_username(), **words}


def _lock_origin(origin: Job) -> None:
    """Lock the job that is relaunched, so that `prune` cannot remove it meanwhile."""
    try:
        lock(origin)
    except Job.DoesNotExist:
        raise JobIsGone from None


def _job_of_same_key(job: Job) -> Job | None:
    """Return the job that this user's idempotency key made before; None if there is none.

    Raises IdempotencyKeyReused if that job is another transfer.
    """
    if not job.idempotency_key:
        return None
    earlier = Job.objects.filter(
        requested_by=job.requested_by, idempotency_key=job.idempotency_key
    ).first()
    if earlier and any(getattr(earlier, f) != getattr(job, f) for f in ORDER_FIELDS):
        raise IdempotencyKeyReused
    return earlier


# --- Stopping and going on ---------------------------------------------------


@transaction.atomic
def job_cancel(job: Job, *, by: User) -> Job:
    """Cancel a job that never started at once; ask a worker to end one that has started.

    A job that has started may have left data at the target: a worker removes it and ends the
    job. A transfer that finishes before its worker sees the request stays finished.
    Raises JobHasEnded.
    """
    _lock_and_refresh(job)
    if job.status not in LIVE:
        raise JobHasEnded
    if not job.attempt:
        message = _message(_("%(user)s cancelled this job before it started."), by)
        return job_move(job, Status.CANCELLED, code="CANCELLED", message=message)
    if job.cancel_requested_at is not None:
        return job
    if job.status in {Status.RUNNING, Status.QUEUED}:
        Job.objects.filter(pk=job.pk).update(cancel_requested_at=Now())
        job.refresh_from_db(fields=["cancel_requested_at"])
        message = _message(_("%(user)s cancelled this job; a worker will end it."), by)
        append(job, Note("CANCEL_REQUESTED", message))
        if job.status == Status.QUEUED:
            notify_on_commit(job)
        return job
    message = _message(
        _("%(user)s cancelled this job; a worker will remove its data at the target."), by
    )
    return job_move(
        job, Status.QUEUED, code="CANCEL_REQUESTED", message=message, cancel_requested_at=Now()
    )


@transaction.atomic
def job_pause(job: Job, *, by: User) -> Job:
    """Pause a waiting job at once; ask the worker of a running one to stop where it is.

    The data that has arrived stays at the target; a resumed job goes on from it.
    Raises NotPausable.
    """
    _lock_and_refresh(job)
    if job.status not in PAUSABLE or job.cancel_requested_at:
        raise NotPausable
    if job.status != Status.RUNNING:
        message = _message(_("%(user)s paused this job while it waited."), by)
        return job_move(job, Status.PAUSED, code="PAUSED", message=message)
    if job.pause_requested_at is None:
        Job.objects.filter(pk=job.pk).update(pause_requested_at=Now())
        job.refresh_from_db(fields=["pause_requested_at"])
        message = _message(_("%(user)s paused this job; its worker will stop."), by)
        append(job, Note("PAUSE_REQUESTED", message))
    return job


@transaction.atomic
def job_resume(job: Job, *, by: User) -> Job:
    """Queue a job that waits for a user or a time; it starts, or goes on from where it stopped.

    Such a job is a draft, scheduled, paused, waits to try again, or needs attention. Failures
    count from zero again. A draft with a time still waits for that time; a draft to a busy
    target is refused if KETTER_BUSY_TARGET says so. Raises NotStartable or InvalidJob.
    """
    _lock_and_refresh(job)
    if job.status not in STARTABLE:
        raise NotStartable
    if job.status == Status.DRAFT and (busy := busy_problem(job)):
        raise InvalidJob({"target_path": busy})
    if job.status == Status.DRAFT and job.next_run_at and job.next_run_at > timezone.now():
        message = _message(_("%(user)s submitted this job; it waits for its start time."), by)
        when = job.next_run_at
        return job_move(job, Status.SCHEDULED, code="SUBMITTED", message=message, next_run_at=when)
    started = _("%(user)s resumed this job.") if job.attempt else _("%(user)s started this job.")
    return job_move(
        job,
        Status.QUEUED,
        code="RESUMED" if job.attempt else "SUBMITTED",
        message=_message(started, by),
        tries=0,
        losses=0,
        error_code="",
        error_message="",
    )


def _lock_and_refresh(job: Job) -> None:
    lock(job)
    job.refresh_from_db()
