"""The writes of workers and the reaper: taking a job, keeping it, handing it on.

A write by a running attempt says `WHERE attempt = mine`, so an attempt that
was replaced can change nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from engine.errors import Replaced
from engine.types import ParcelReport, Phase, Progress
from jobs.choices import LeaseState
from jobs.hints import hint_for
from jobs.life import job_move, lease
from jobs.models import EventLevel, Job, JobParcel
from jobs.states import TIMED, Status
from jobs.trail import Note, append, lock
from jobs.turns import in_turn
from portals.endpoints import freeze

#: How often in a row a job may lose its worker before it is taken for the cause.
MAX_LOSSES = 20
#: The advisory lock under which a worker looks whose turn it is: "KETTER" in ASCII.
_CLAIM_LOCK = 0x4B4554544552

# --- Taking a job ------------------------------------------------------------


@transaction.atomic
def job_claim(*, worker: str, cancelled_only: bool = False) -> Job | None:
    """Take the queued job whose turn it is for this worker; None if there is none.

    Or, with `cancelled_only`, one that is only to be cleared away. Workers look one after
    the other (an advisory lock of the database), so that neither two jobs with one target
    begin nor more than a portal allows. A job that has to wait says what for.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_CLAIM_LOCK])
    for job, why in in_turn():
        if cancelled_only and not job.cancel_requested_at:
            return None  # Those that are come first.
        _say(job, why)
        if not why and _lock_queued(job):
            return _begin(job, worker)
    return None


def jobs_free() -> list[UUID]:
    """The queued jobs that may begin, in their order; all others say what they wait for."""
    free = []
    for job, why in in_turn():
        _say(job, why)
        if not why:
            free.append(job.pk)
    return free


def _say(job: Job, why: str) -> None:
    if job.waits_for != why:
        Job.objects.filter(pk=job.pk, status=Status.QUEUED).update(waits_for=why)


def _lock_queued(job: Job) -> bool:
    """Hold the row; False if it is not queued any more, or somebody else holds it."""
    rows = Job.objects.select_for_update(no_key=True, skip_locked=True)
    return rows.filter(pk=job.pk, status=Status.QUEUED, attempt=job.attempt).exists()


def _begin(waiting: Job, worker: str) -> Job:
    job = Job.objects.select_related(
        "source_portal__credential", "target_portal__credential", "requested_by"
    ).get(pk=waiting.pk)
    frozen = job.frozen or {
        "source": freeze(job.source_portal),
        "target": freeze(job.target_portal),
    }
    message = f"Attempt {job.attempt + 1} started on worker {worker}."
    job_move(job, Status.RUNNING, code="STARTED", message=message, worker=worker, frozen=frozen)
    # What an earlier attempt planned is void; what it proved stays on record.
    job.parcels.filter(manifest=None).delete()
    return job


# --- Handing it on -----------------------------------------------------------


@transaction.atomic
def job_lost(job: Job, *, reason: str) -> Job:
    """Take a running job from a worker that is gone, and let another one have it.

    One that has lost so many in a row, without getting on, must be what kills them, and needs
    a person. A job that somebody cancelled meanwhile is queued, too: the next attempt clears
    away what this one left, and ends it.
    """
    lost = f"Worker {job.worker} was lost in attempt {job.attempt} ({reason})"
    data = {"worker": job.worker, "reason": reason}
    job.refresh_from_db(fields=["losses"])  # Its attempt may have got on, and counted anew.
    losses = job.losses + 1
    if losses >= MAX_LOSSES:
        return _given_up(job, f"{lost}, the {losses}th in a row.", data)
    lock(job)
    pauses = stop_requested(job) is Status.PAUSED
    return job_move(
        job,
        Status.PAUSED if pauses else Status.QUEUED,
        code="WORKER_LOST",
        message=f"{lost}; the job is {'paused, as asked' if pauses else 'queued again'}.",
        level=EventLevel.WARNING,
        data=data,
        losses=losses,
    )


def _given_up(job: Job, lost: str, data: dict[str, Any]) -> Job:
    """End the round of a job that kills its workers."""
    lock(job)
    if stop_requested(job) is Status.CANCELLED:
        message = f"{lost} The job is cancelled, and not cleared away: look at its target."
        to, code, columns = Status.CANCELLED, "STAGING_LEFT", {}
    else:
        message = f"{lost} {hint_for('WORKER_LOST')}"
        to, code = Status.NEEDS_ATTENTION, "WORKER_LOST"
        columns = {"error_code": code, "error_message": message}
    return job_move(
        job, to, code=code, message=message, level=EventLevel.ERROR, data=data, **columns
    )


@transaction.atomic
def job_hand_back(job: Job) -> Job:
    """Queue a running job again because its worker was told to end; or pause it, if asked to."""
    lock(job)
    pauses = stop_requested(job) is Status.PAUSED
    to = Status.PAUSED if pauses else Status.QUEUED
    then = "it is paused, as asked" if pauses else "the job goes on with the next one"
    message = f"Worker {job.worker} was told to end; {then}."
    return job_move(job, to, code="HANDED_BACK", message=message, losses=0)


def job_wait(job: Job, *, code: str, message: str, advanced: bool) -> Job:
    """Let a running job try again later, after an error that may pass by itself.

    The wait doubles with each failure in a row; a job that got on meanwhile
    (`advanced`) begins to count anew. After `max_tries` it needs a person.
    """
    tries = 1 if advanced else job.tries + 1
    columns: dict[str, Any] = {"error_code": code, "tries": tries, "losses": 0}
    if tries >= job.max_tries:
        message = f"{message} It failed {tries} times in a row: look into it, then resume the job."
        return job_move(
            job,
            Status.NEEDS_ATTENTION,
            code=code,
            message=message,
            level=EventLevel.ERROR,
            error_message=message,
            **columns,
        )
    wait = retry_seconds(tries)
    return job_move(
        job,
        Status.RETRY_WAIT,
        code=code,
        message=f"{message} Failure {tries} of {job.max_tries}; next try in {wait:.0f} s.",
        level=EventLevel.WARNING,
        data={"tries": tries, "wait_seconds": round(wait, 1)},
        next_run_at=Now() + timedelta(seconds=wait),
        error_message=message,
        **columns,
    )


def retry_seconds(tries: int) -> float:
    """How long to wait after so many failures in a row: doubling, bounded, with jitter."""
    longest: float = settings.KETTER_RETRY_MAX_SECONDS
    wait = min(longest, settings.KETTER_RETRY_SECONDS * 2.0 ** min(tries - 1, 32))
    return wait * random.uniform(0.5, 1.0)  # noqa: S311 - to spread load, not to keep a secret


@transaction.atomic
def job_wake_one() -> Job | None:
    """Queue one job whose time has come, scheduled or to be tried again; None if there is none."""
    due = Job.objects.filter(status__in=TIMED, next_run_at__lte=Now())
    job = due.select_for_update(skip_locked=True, no_key=True).order_by("next_run_at").first()
    if job is None:
        return None
    again = job.status == Status.RETRY_WAIT
    message = "It is time to try again." if again else "The time it was scheduled for has come."
    return job_move(job, Status.QUEUED, code="RETRIED" if again else "DUE", message=message)


# --- Writes of a running attempt ---------------------------------------------


def _mine(job: Job) -> QuerySet[Job]:
    return Job.objects.filter(pk=job.pk, attempt=job.attempt, status=Status.RUNNING)


def job_renew(job: Job, *, progress: Progress, phase: Phase | str = "", **columns: Any) -> None:
    """Renew the lease and write the counters, in one UPDATE.

    Raises `engine.Replaced` when this attempt does not run the job any more.
    """
    renewed = _mine(job).update(
        lease_until=lease(),
        heartbeat_at=Now(),
        phase=phase,
        **progress._asdict(),
        **columns,
    )
    if not renewed:
        raise Replaced(f"Attempt {job.attempt} of job {job.pk} does not run it any more.")


def stop_requested(job: Job) -> Status | None:
    """What somebody asked this running job to become: CANCELLED, PAUSED, or nothing."""
    asked = Job.objects.values_list("cancel_requested_at", "pause_requested_at").get(pk=job.pk)
    return Status.CANCELLED if asked[0] else Status.PAUSED if asked[1] else None


def bandwidth_share(job: Job) -> int:
    """The bytes per second this running job may use now, 0 for no limit.

    A portal's limit is shared evenly by the jobs that run there at the moment, and what a
    job may use by the workers that carry its parcels.
    """
    limits = [job.bandwidth_limit] if job.bandwidth_limit else []
    for portal in {job.source_portal, job.target_portal}:
        if portal.bandwidth_limit:
            running = Job.objects.at_portal(portal).filter(status=Status.RUNNING).count()
            limits.append(portal.bandwidth_limit // max(1, running))
    if not limits:
        return 0
    helpers = job.leases.filter(attempt=job.attempt, state=LeaseState.TAKEN).count()
    return max(1, min(limits) // (1 + helpers))


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
