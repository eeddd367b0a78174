"""The writes of workers and the reaper: claim a job, keep its lease, hand it on.

Each write of a running attempt has `WHERE attempt = …` with its own number, so an attempt that
was replaced can change nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from engine.errors import RootMoved
from engine.types import ParcelReport, Phase, Progress
from jobs.choices import LeaseState
from jobs.errors import replaced
from jobs.events import Note, append, lock
from jobs.models import EventLevel, Job, JobParcel
from jobs.queueing.eligibility import queued_with_obstacles
from jobs.queueing.machines import is_here
from jobs.queueing.transitions import job_move, lease
from jobs.remedies import remedy_for
from jobs.states import TIMED, Status
from portals.endpoints import freeze
from portals.machines import machine_stamp
from portals.roots import kept, shown, stamp
from portals.services import portal_record_root

#: After this many lost workers in a row, without progress, the job counts as the cause.
MAX_LOSSES = 20
#: The advisory lock that a worker holds while it claims a job: "KETTER" in ASCII.
_CLAIM_LOCK = 0x4B4554544552

# --- Claiming a job ----------------------------------------------------------


@transaction.atomic
def job_claim(*, worker: str, cancelled_only: bool = False) -> Job | None:
    """Claim the first queued job that may start, for this worker; None if there is none.

    With `cancelled_only` it claims only a cancelled job, whose data at the target is to be
    removed. An advisory lock of the database lets one worker after the other claim, so that two
    jobs never start with one target, nor more jobs than a portal allows. A job that must wait
    gets its obstacle written into `waits_for`. A job of another machine is left to its workers.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_CLAIM_LOCK])
    for job, why in queued_with_obstacles():
        if cancelled_only and not job.cancel_requested_at:
            return None  # Cancelled jobs come first.
        _record_obstacle(job, why)
        if not why and is_here(job) and _lock_queued(job):
            return _start(job, worker)
    return None


def jobs_eligible() -> list[Job]:
    """Return the queued jobs that may start, in order; write the obstacle of each of the others."""
    free = []
    for job, why in queued_with_obstacles():
        _record_obstacle(job, why)
        if not why:
            free.append(job)
    return free


def _record_obstacle(job: Job, why: str) -> None:
    if job.waits_for != why:
        Job.objects.filter(pk=job.pk, status=Status.QUEUED).update(waits_for=why)


def _lock_queued(job: Job) -> bool:
    """Lock the row; False if the job is not queued any more, or another transaction locks it."""
    rows = Job.objects.select_for_update(no_key=True, skip_locked=True)
    return rows.filter(pk=job.pk, status=Status.QUEUED, attempt=job.attempt).exists()


def _start(queued: Job, worker: str) -> Job:
    job = Job.objects.select_related(
        "source_portal__credential", "target_portal__credential", "requested_by"
    ).get(pk=queued.pk)
    frozen = {
        side: {**machine_stamp(portal), **(job.frozen or {}).get(side, freeze(portal))}
        for side, portal in (("source", job.source_portal), ("target", job.target_portal))
    }
    words = {"number": job.attempt + 1, "worker": worker}
    message = _("Attempt %(number)d started on worker %(worker)s.") % words
    job_move(job, Status.RUNNING, code="STARTED", message=message, worker=worker, frozen=frozen)
    # Parcels without a manifest are plans of an earlier attempt; those it proved stay on record.
    job.parcels.filter(manifest=None).delete()
    return job


# --- Handing it on -----------------------------------------------------------


@transaction.atomic
def job_lost(job: Job, *, reason: str) -> Job:
    """Take a running job back from a dead worker and queue it, or pause it if a user asked so.

    After MAX_LOSSES dead workers in a row without progress, the job itself probably kills them,
    and it needs a person. A job that a user cancelled meanwhile is queued as well: the next
    attempt removes its data at the target and ends it.
    """
    job.refresh_from_db(fields=["losses"])  # The attempt may have made progress: they are 0 then.
    losses = job.losses + 1
    data = {"worker": job.worker, "reason": reason}
    words = {**data, "number": job.attempt, "losses": losses}
    if losses >= MAX_LOSSES:
        lost = _(
            "Worker %(worker)s was lost in attempt %(number)d (%(reason)s), "
            "the %(losses)dth in a row."
        )
        return _give_up(job, lost % words, data)
    lock(job)
    pauses = stop_requested(job) is Status.PAUSED
    if pauses:
        lost = _(
            "Worker %(worker)s was lost in attempt %(number)d (%(reason)s); "
            "the job is paused, as requested."
        )
    else:
        lost = _(
            "Worker %(worker)s was lost in attempt %(number)d (%(reason)s); "
            "the job is queued again."
        )
    return job_move(
        job,
        Status.PAUSED if pauses else Status.QUEUED,
        code="WORKER_LOST",
        message=lost % words,
        level=EventLevel.WARNING,
        data=data,
        losses=losses,
    )


def _give_up(job: Job, lost: str, data: dict[str, Any]) -> Job:
    """Stop a job that kills its workers: it needs a person, or is cancelled if a user asked so."""
    lock(job)
    if stop_requested(job) is Status.CANCELLED:
        left = _("The job is cancelled. Its data may still be at the target: remove it by hand.")
        message = f"{lost} {left}"
        to, code, columns = Status.CANCELLED, "STAGING_LEFT", {}
    else:
        message = f"{lost} {remedy_for('WORKER_LOST')}"
        to, code = Status.NEEDS_ATTENTION, "WORKER_LOST"
        columns = {"error_code": code, "error_message": message}
    return job_move(
        job, to, code=code, message=message, level=EventLevel.ERROR, data=data, **columns
    )


@transaction.atomic
def job_hand_back(job: Job) -> Job:
    """Queue a running job again because its worker shuts down; pause it if a user asked so."""
    lock(job)
    if stop_requested(job) is Status.PAUSED:
        to, message = Status.PAUSED, _("Worker %s shuts down; the job is paused, as requested.")
    else:
        to, message = Status.QUEUED, _("Worker %s shuts down; another worker goes on with the job.")
    return job_move(job, to, code="HANDED_BACK", message=message % job.worker, losses=0)


def job_wait(job: Job, *, code: str, message: str, advanced: bool) -> Job:
    """Let a running job try again later, after an error that may pass by itself.

    The wait doubles with each failure in a row. If the attempt made progress (`advanced`),
    this failure counts as the first one. After `max_tries` failures the job needs a person.
    """
    tries = 1 if advanced else job.tries + 1
    columns: dict[str, Any] = {"error_code": code, "tries": tries, "losses": 0}
    words: dict[str, Any] = {"error": message, "tries": tries, "most": job.max_tries}
    if tries >= job.max_tries:
        message = (
            _("%(error)s It failed %(tries)d times in a row: mend the cause, then resume the job.")
            % words
        )
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
    words["wait"] = wait
    sentence = _("%(error)s Failure %(tries)d of %(most)d; next try in %(wait).0f s.")
    return job_move(
        job,
        Status.RETRY_WAIT,
        code=code,
        message=sentence % words,
        level=EventLevel.WARNING,
        data={"tries": tries, "wait_seconds": round(wait, 1)},
        next_run_at=Now() + timedelta(seconds=wait),
        error_message=message,
        **columns,
    )


def retry_seconds(tries: int) -> float:
    """Return the wait after failures in a row, in seconds: doubling, bounded, randomized."""
    longest: float = settings.KETTER_RETRY_MAX_SECONDS
    wait = min(longest, settings.KETTER_RETRY_SECONDS * 2.0 ** min(tries - 1, 32))
    return wait * random.uniform(0.5, 1.0)  # noqa: S311 - to spread load, not to keep a secret


@transaction.atomic
def job_queue_due() -> Job | None:
    """Queue one job that is due, scheduled or waiting to try again; None if there is none."""
    due = Job.objects.filter(status__in=TIMED, next_run_at__lte=Now())
    job = due.select_for_update(skip_locked=True, no_key=True).order_by("next_run_at").first()
    if job is None:
        return None
    if job.status == Status.RETRY_WAIT:
        code, message = "RETRIED", _("The wait is over: the job is queued to try again.")
    else:
        code, message = "DUE", _("The scheduled start time has come: the job is queued.")
    return job_move(job, Status.QUEUED, code=code, message=message)


# --- Writes of a running attempt ---------------------------------------------


def _attempt_row(job: Job) -> QuerySet[Job]:
    """The job's row, if this attempt still runs it."""
    return Job.objects.filter(pk=job.pk, attempt=job.attempt, status=Status.RUNNING)


def job_renew(job: Job, *, progress: Progress, phase: Phase | str = "", **columns: Any) -> None:
    """Renew the lease and write the counters, in one UPDATE.

    Raises engine.Replaced if this attempt does not run the job any more.
    """
    renewed = _attempt_row(job).update(
        lease_until=lease(),
        heartbeat_at=Now(),
        phase=phase,
        **progress._asdict(),
        **columns,
    )
    if not renewed:
        raise replaced(job.pk, job.attempt)


def stop_requested(job: Job) -> Status | None:
    """Return the state a user requested for this running job: CANCELLED, PAUSED or None."""
    asked = Job.objects.values_list("cancel_requested_at", "pause_requested_at").get(pk=job.pk)
    return Status.CANCELLED if asked[0] else Status.PAUSED if asked[1] else None


def bandwidth_share(job: Job) -> int:
    """Return the bytes per second that one worker may use for this job now; 0 means no limit.

    The jobs that run at a portal share its limit evenly, and the workers that carry parcels of
    a job share the job's part.
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
    """Write the reports of a running attempt at once: lease, counters, events, parcels.

    Raises engine.Replaced, and writes nothing, if the attempt was replaced.
    """
    job_renew(job, progress=progress, phase=phase, **columns)
    append(job, *notes)
    _upsert(job, list(parcels))


def attempt_rooted(job: Job, *, source: str, target: str) -> dict[str, Any] | None:
    """Record the real paths of both portals' root folders, unless they are on record already.

    Returns the new value of `Job.frozen`; None if it stays the same. Raises RootMoved if
    another job has recorded another folder for a portal at the same moment.
    """
    frozen = {**(job.frozen or {})}
    for side, real in (("source", source), ("target", target)):
        root = kept(real)
        if not real or frozen[side].get("real_root") == root:
            continue
        portal = getattr(job, f"{side}_portal")
        recorded = portal_record_root(portal, real_root=root, root=frozen[side])
        if recorded not in ("", root):
            error = RootMoved(
                f"the root {portal.root_path} leads to {shown(root)}; "
                f"another job has just recorded {shown(recorded)}"
            )
            error.of_target = side == "target"
            raise error
        now = {"real_root": root, "root_confirmed": stamp(portal)}
        frozen[side] = {**frozen[side], **now}
    return frozen if frozen != job.frozen else None


def _upsert(job: Job, reports: list[ParcelReport]) -> None:
    """Write the state of parcels: one statement for all with a manifest, one for the others."""
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
