"""Between a job's row and the engine: what to transfer, and what became of it."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Max
from django.template.defaultfilters import filesizeformat

import engine
from engine.errors import NEEDS_PERSON, TRANSIENT
from engine.watch import NAMED_FAILURES
from jobs.attempts import bandwidth_share, job_wait, stop_requested
from jobs.choices import ParcelState
from jobs.errors import HandedBack, Paused
from jobs.hints import hint_for
from jobs.life import job_move
from jobs.models import EventLevel, Job
from jobs.observer import LOOK_EVERY, JobObserver, is_told_to_end, put_up_with
from jobs.states import FINAL, LIVE, Status
from jobs.trail import lock
from portals.endpoints import endpoint_for, thawed
from portals.errors import PortalError
from portals.models import Portal
from portals.services import portal_mark

logger = logging.getLogger(__name__)

#: Seconds between tries to clear away what has arrived, over a line that breaks.
CLEARING_WAITS = (1.0, 2.0, 4.0)


def worker_name() -> str:
    """The name under which this process claims jobs."""
    return os.environ.get("RQ_WORKER_ID") or f"{socket.gethostname()}.{os.getpid()}"


def request_for(job: Job) -> engine.Request:
    """The transfer a job asks for, with the secrets it needs."""
    source, target = _portals_of(job)
    limit = min(source.max_streams, target.max_streams)
    return engine.Request(
        source=endpoint_for(source, job.source_path),
        target=endpoint_for(target, job.target_path),
        transfer_id=job.id.hex,
        attempt=job.attempt,
        mode=engine.Mode(job.mode),
        strategy=engine.Strategy(job.strategy),
        verify=engine.Verify(job.verify) if job.verify else None,
        on_conflict=engine.OnConflict(job.on_conflict),
        # The last rule that matches decides: what is excluded is never sent.
        filters=(
            *(("include", pattern) for pattern in job.include),
            *(("exclude", pattern) for pattern in job.exclude),
        ),
        streams=min(job.streams, limit),
        max_streams=limit,
        bwlimit=bandwidth_share(job),
        resume=True,
    )


def _portals_of(job: Job) -> tuple[Portal, Portal]:
    """Both portals, where they were when the job began."""
    if not job.frozen:
        return job.source_portal, job.target_portal
    return (
        thawed(job.source_portal, job.frozen["source"]),
        thawed(job.target_portal, job.frozen["target"]),
    )


@dataclass(frozen=True)
class End:
    """How an attempt ended, in the words of `job_move`.

    `advanced` says of one that is to be tried again whether anything arrived,
    `at` at which portal a person has something to do.
    """

    status: Status
    code: str
    message: str
    level: str = EventLevel.INFO
    data: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    advanced: bool = False
    at: Portal | None = None


def transfer(job: Job) -> End:
    """Run the engine for a claimed job and say how it ended.

    Raises `engine.Replaced` when the job is no longer ours to end, `HandedBack`
    when this worker was told to end, and whatever a bug raises.
    """
    observer = JobObserver(job)
    try:
        if job.cancel_requested_at:
            return _clear_away(job, observer)
        if earlier := moved_before(job):
            _discard(job, earlier, observer)
            return _with_what_is_left(earlier)
        end = end_of(engine.run(request_for(job), observer))
    except engine.Replaced:
        raise
    except HandedBack:
        observer.settle()
        raise
    except Paused as stop:
        end = End(Status.PAUSED, "PAUSED", str(stop))
    except engine.Cancelled as stop:
        end = End(Status.CANCELLED, "CANCELLED", str(stop))
    except (engine.EngineError, PortalError) as error:
        if is_told_to_end() and error.retry == TRANSIENT:
            # Whoever ends all processes at once ends the agents, too.
            observer.save()
            raise HandedBack("The worker was told to end, and its agents with it.") from error
        end = _end_after(job, error, observer)
        if isinstance(error, engine.SourceMissing) and (earlier := moved_before(job, error)):
            _discard(job, earlier, observer)
            return _with_what_is_left(earlier)
        if getattr(error, "kept", False) and not _goes_on(end):
            _discard(job, end, observer)
    if end.status in {Status.CANCELLED, Status.FAILED} and (job.attempt > 1 or observer.left):
        # It may have ended before it came to what earlier attempts left.
        _discard(job, end, observer)
    observer.settle()
    return _with_what_is_left(end)


def _end_after(job: Job, error: engine.EngineError | PortalError, observer: JobObserver) -> End:
    """What comes after an error: another try, a person, or the end."""
    if error.retry == TRANSIENT:
        return End(Status.RETRY_WAIT, error.code, str(error), advanced=observer.advanced)
    if error.retry == NEEDS_PERSON:
        message = f"{error} {hint_for(error.code)}"
        columns = {"error_code": error.code, "error_message": message}
        at = None
        if isinstance(error, engine.EngineError) and error.of_target is not None:
            at = job.target_portal if error.of_target else job.source_portal
        return End(
            Status.NEEDS_ATTENTION, error.code, message, EventLevel.ERROR, columns=columns, at=at
        )
    return failure(error.code, str(error))


def moved_before(job: Job, error: engine.SourceMissing | None = None) -> End | None:
    """The end of a move that an earlier attempt had done, and was lost before it could say so.

    The record says so of a source that is removed. Of one file that is not at the source any
    more (`error`) it is enough that it was published: nothing was left to do but to remove it.
    """
    if job.mode != engine.Mode.MOVE or job.attempt == 1:
        return None
    enough = {ParcelState.SOURCE_REMOVED}
    if error is not None:
        if not (error.folder_there and (job.plan or {}).get("one_file")):
            return None
        enough.add(ParcelState.PUBLISHED)
    last = job.parcels.exclude(manifest=None).aggregate(Max("attempt"))["attempt__max"]
    parcels = list(job.parcels.filter(attempt=last).values_list("state", "files", "bytes"))
    if not parcels or {row[0] for row in parcels} - enough:
        return None
    files, size = sum(row[1] for row in parcels), sum(row[2] for row in parcels)
    message = f"Moved {files} files, {filesizeformat(size)}: attempt {last} had done all of it."
    columns = {
        "files_done": files, "files_total": files, "bytes_done": size, "bytes_total": size
    }  # fmt: skip
    data = {"files": files, "bytes": size, "mode": job.mode}
    stays = job.events.filter(code="NOT_ALL_MOVED", attempt=last).order_by("seq").last()
    return _end_with(message, data, columns, **(stays.data if stays else {}))


def _goes_on(end: End) -> bool:
    """Whether what has arrived is of use to a later attempt."""
    if end.code == "NO_SPACE" and not settings.KETTER_KEEP_WHEN_FULL:
        return False
    return end.status in LIVE


def _discard(job: Job, end: End, observer: JobObserver | None = None) -> None:
    """Remove what a job has left at the target to go on from: it will not go on from that.

    A line that broke is tried again; a host that does not answer is not waited for.
    """
    alive = observer.alive if observer else lambda: None
    for wait in (*CLEARING_WAITS, 0.0):
        try:
            # Of the target alone: that the source cannot be used must not keep us from it.
            place = endpoint_for(_portals_of(job)[1], job.target_path)
            engine.discard(engine.Request(place, place, job.id.hex, job.attempt), alive)
            return
        except engine.Replaced:
            raise
        except (engine.EngineError, PortalError) as error:
            passes = error.retry == TRANSIENT and not isinstance(error, engine.HostUnreachable)
            if not (passes and wait) or is_told_to_end():
                left = f"What had arrived stays in a hidden folder at the target: {error}"
                end.data["left"] = left
                return
        alive()
        time.sleep(wait)


def _with_what_is_left(end: End) -> End:
    """An end that says so if something stays at the target."""
    if "left" not in end.data:
        return end
    end = replace(end, message=f"{end.message} {end.data['left']}")
    if end.status is Status.CANCELLED:
        end = replace(end, code="STAGING_LEFT", level=EventLevel.WARNING)
    return end


def _clear_away(job: Job, observer: JobObserver) -> End:
    """End a job that was cancelled between two attempts, leaving nothing of it."""
    end = End(Status.CANCELLED, "CANCELLED", "The job was cancelled; what had arrived is cleared.")
    _discard(job, end, observer)
    return _with_what_is_left(end)


def clear_after_end(job: Job) -> None:
    """Remove what a replaced attempt made at the target after a newer one had ended the job.

    A worker that was frozen begins where it stopped; until it hears that it was
    replaced, it may have made its staging folder again.
    """
    try:
        if Job.objects.filter(pk=job.pk, status__in=FINAL).exists():
            engine.discard(request_for(job))
    except (engine.EngineError, PortalError, OperationalError, InterfaceError) as error:
        logger.warning("Job %s: the replaced attempt may have left something: %s", job.pk, error)


def finish(job: Job, end: End) -> None:
    """Record how a job ended."""
    insist(job, partial(_record, job, end))


def insist(job: Job, write: Callable[[], object]) -> None:
    """Write what became of an attempt; an absent database gets as much time as the lease leaves.

    What the database rolled back must not stay in memory: each try begins from the same row.
    """
    started, believed = time.monotonic(), vars(job).copy()
    while True:
        try:
            write()
            return
        except (OperationalError, InterfaceError) as error:
            vars(job).update(believed)
            put_up_with(error, job, since=started)
            time.sleep(LOOK_EVERY)


@transaction.atomic
def _record(job: Job, end: End) -> None:
    lock(job)
    end = _as_asked(job, end)
    if end.status is Status.RETRY_WAIT:
        job_wait(job, code=end.code, message=end.message, advanced=end.advanced)
        return
    job_move(
        job,
        end.status,
        code=end.code,
        message=end.message,
        level=end.level,
        data=end.data,
        **end.columns,
    )
    if end.at:
        portal_mark(end.at, code=end.code, message=end.message)


def _as_asked(job: Job, end: End) -> End:
    """The end that also does what somebody asked for while the attempt was ending otherwise."""
    asked = stop_requested(job) if end.status in LIVE else None
    if asked is Status.CANCELLED:
        message = f"{end.message} It was cancelled: a worker will clear away what has arrived."
        return End(Status.QUEUED, end.code, message)
    if asked is Status.PAUSED and end.status is Status.RETRY_WAIT:
        return End(Status.PAUSED, "PAUSED", f"{end.message} The job was paused meanwhile.")
    return end


def failure(code: str, message: str) -> End:
    """The end of a job that failed."""
    columns = {"error_code": code, "error_message": message}
    return End(Status.FAILED, code, message, EventLevel.ERROR, columns=columns)


def end_of_outage(error: Exception) -> End:
    """The end of an attempt that could not begin, or end, because the database was away."""
    logger.warning("The database was away: %s", error)
    return End(Status.RETRY_WAIT, "DATABASE_AWAY", "The database was away for a moment.")


def end_of_bug(job: Job, bug: Exception) -> End:
    """What comes after one of our own mistakes: a person, and what has arrived stays.

    A job that was only to be cleared away ends: it would meet the same bug again and again.
    """
    message = f"A bug stopped this job ({type(bug).__name__}: {bug})."
    if job.cancel_requested_at:
        message = f"{message} What has arrived may be in a hidden folder at the target."
        return End(Status.CANCELLED, "STAGING_LEFT", message, EventLevel.ERROR)
    message = f"{message} {hint_for('INTERNAL')}"
    columns = {"error_code": "INTERNAL", "error_message": message}
    return End(Status.NEEDS_ATTENTION, "INTERNAL", message, EventLevel.ERROR, columns=columns)


def end_of(report: engine.Report) -> End:
    """How a job ended whose transfer came to its end."""
    verb = "Moved" if report.mode is engine.Mode.MOVE else "Copied"
    message = (
        f"{verb} {report.files} files, {filesizeformat(report.bytes)} in {report.seconds:.1f} s "
        f"({filesizeformat(report.rate)}/s), verified: {report.verify}."
    )
    data = {
        "files": report.files,
        "bytes": report.bytes,
        "rate": round(report.rate),
        "seconds": round(report.seconds, 3),
        "verify": report.verify,
        "mode": report.mode,
        "files_skipped": report.files_skipped,
        "files_removed": report.files_removed,
        "parcels": report.parcels,
    }
    columns: dict[str, Any] = {
        "files_done": report.files,
        "bytes_done": report.bytes,
        "files_skipped": report.files_skipped,
    }
    failures = [failure._asdict() for failure in report.failures[:NAMED_FAILURES]]
    return _end_with(message, data, columns, report.failures_total, failures)


def _end_with(
    message: str,
    data: dict[str, Any],
    columns: dict[str, Any],
    failures_total: int = 0,
    failures: Sequence[dict[str, str]] = (),
) -> End:
    """The end of a transfer that came to its end, with as many entries that were not delivered."""
    columns = {**columns, "files_failed": failures_total}
    if not failures_total:
        return End(Status.DONE, "DONE", message, data=data, columns=columns)
    data = {**data, "failures_total": failures_total, "failures": list(failures)}
    why = f"{failures_total} entries could not be delivered"
    if failures:
        why += f"; the first is {failures[0]['path']}: {failures[0]['message']}"
    columns |= {"error_code": "PARTIAL", "error_message": why}
    return End(Status.PARTIAL, "PARTIAL", f"{message} {why}", EventLevel.WARNING, data, columns)
