"""Runs the engine for a claimed job, and records the end of the attempt."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from django.db import transaction
from django.db.models import Max
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _

import engine
from engine.errors import TRANSIENT
from jobs.choices import ParcelState
from jobs.errors import AWAY, HandedBack, Paused
from jobs.events import lock
from jobs.models import Job
from jobs.queueing.attempts import job_wait, stop_requested
from jobs.queueing.clearing import (
    clearing_begins,
    clearing_end,
    clearing_hand_back,
    clearing_renew,
)
from jobs.queueing.transitions import job_move
from jobs.running.attempt_writer import RENEW_EVERY, tolerate_outage
from jobs.running.observer import JobObserver
from jobs.running.outcome import (
    End,
    end_after_error,
    end_of,
    end_with,
    keeps_staging,
    with_leftovers,
)
from jobs.running.request import portals_of, request_for, transfer_id
from jobs.running.shutdown import shutdown_requested
from jobs.states import FINAL, LIVE, Status
from portals.endpoints import endpoint_for
from portals.errors import PortalError
from portals.services import portal_mark

logger = logging.getLogger(__name__)

#: Seconds between tries to remove a job's data at the target, over a line that breaks.
CLEARING_WAITS = (1.0, 2.0, 4.0)
#: Seconds after which no further try begins, if no person waits for the end.
PATIENT_SECONDS = 60.0
#: Seconds after which no try to remove a cancelled job's data begins any more, before its end.
CANCEL_SECONDS = 4.0
#: The same if the engine has tried: a host that hangs takes a try some seconds.
CANCEL_AGAIN_SECONDS = 2.0
#: Seconds that a try to remove its data has until then, at least.
SHORTEST_TRY = 0.5


def transfer(job: Job) -> End:
    """Run the engine for a claimed job and return the end of the attempt.

    Raises engine.Replaced if another worker has the job, HandedBack if this worker shuts down,
    and any exception of a bug.
    """
    observer = JobObserver(job)
    try:
        if job.cancel_requested_at:
            return _end_cancelled(job, observer)
        if earlier := finished_move(job):
            _discard(job, earlier, observer)
            return with_leftovers(earlier)
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
        if shutdown_requested() and error.retry == TRANSIENT:
            # A shutdown of the whole machine, or of a process group, ends the agents as well.
            observer.save()
            raise HandedBack(_("The worker shuts down, and its agents have ended.")) from error
        end = end_after_error(job, error, advanced=observer.advanced)
        if isinstance(error, engine.SourceMissing) and (earlier := finished_move(job, error)):
            _discard(job, earlier, observer)
            return with_leftovers(earlier)
        if getattr(error, "kept", False) and not keeps_staging(end):
            _discard(job, end, observer)
    if job.attempt > 1 or observer.staging_left:
        # It may have ended before the engine could remove the data of earlier attempts.
        if end.status is Status.FAILED:
            _discard(job, end, observer)
        elif end.status is Status.CANCELLED:
            _discard(job, end, observer, since=observer.cancelled_at or time.monotonic())
    observer.settle()
    return with_leftovers(end)


def finished_move(job: Job, error: engine.SourceMissing | None = None) -> End | None:
    """Return the end of a move that an earlier attempt finished, but was lost before it said so.

    None if no attempt did. The proof is a record of parcels whose sources are all removed. For a
    move of one file that is gone from the source (`error`), a record of its publication is
    enough: after that the earlier attempt could only remove the source.
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
    message = _("Moved %(files)d files, %(size)s: attempt %(number)d had finished the move.") % {
        "files": files,
        "size": filesizeformat(size),
        "number": last,
    }
    columns = {
        "files_done": files, "files_total": files, "bytes_done": size, "bytes_total": size
    }  # fmt: skip
    data = {"files": files, "bytes": size, "mode": job.mode}
    stays = job.events.filter(code="NOT_ALL_MOVED", attempt=last).order_by("seq").last()
    return end_with(message, data, columns, **(stays.data if stays else {}))


def _discard(job: Job, end: End, observer: JobObserver, *, since: float | None = None) -> None:
    """Remove the data that a job has staged at the target, since no attempt will go on from it.

    After a broken line it tries again; it does not wait for a host that does not answer. If a
    user waits for the end `since` then (monotonic clock), it begins no try after CANCEL_SECONDS.
    If the data stays, `end.data["left"]` says so.
    """
    trouble: Exception | str | None = observer.staging_left
    if since is None:
        trouble = _clear(job, observer.alive)
    elif not trouble or time.monotonic() < since + CANCEL_AGAIN_SECONDS:
        trouble = _clear(job, observer.alive, hasty=True, until=since + CANCEL_SECONDS)
    if trouble:
        left = _("Its data is still in a hidden folder at the target: %s")
        end.data["left"] = left % trouble


def _clear(
    job: Job, alive: Callable[[], None], *, hasty: bool = False, until: float = 0.0
) -> Exception | None:
    """Remove the data that a job has staged; return the error if it stays.

    It begins no further try after `until` (monotonic clock); by default PATIENT_SECONDS from now.
    Raises engine.Replaced if a later attempt is at work there, and what `alive` raises.
    """
    until = until or time.monotonic() + PATIENT_SECONDS
    hopeless = (engine.HostUnreachable, *((engine.Stalled,) if hasty else ()))
    for wait in (*CLEARING_WAITS, 0.0):
        try:
            # Of the time that is left of CANCEL_SECONDS, a moment at least.
            within = max(SHORTEST_TRY, until - time.monotonic())
            request, staged = _discard_request(job), job.files_total
            engine.discard(request, alive, hasty=hasty, staged=staged, within=within)
            return None
        except engine.Replaced:
            raise
        except (engine.EngineError, PortalError) as error:
            passes = error.retry == TRANSIENT and not isinstance(error, hopeless)
            late = time.monotonic() + wait > until
            if not (passes and wait) or late or shutdown_requested():
                return error
        alive()
        time.sleep(wait)
    return None


def _discard_request(job: Job) -> engine.Request:
    """Return a request that has the target alone: it works even if the source cannot be used."""
    place = endpoint_for(portals_of(job)[1], job.target_path)
    return engine.Request(place, place, transfer_id(job), job.attempt, on_record=True)


def _end_cancelled(job: Job, observer: JobObserver) -> End:
    """Remove the data of a job that was cancelled between two attempts; return its end."""
    end = End(Status.CANCELLED, "CANCELLED", _("A user had cancelled this job."))
    _discard(job, end, observer, since=time.monotonic())
    if "left" not in end.data:
        message = _("A user had cancelled this job; its data at the target is removed.")
        end = replace(end, message=message)
    return with_leftovers(end)


def clear_after_end(job: Job) -> None:
    """Remove the staging folder that a replaced attempt made after the job's end.

    A frozen worker goes on where it stopped. Until it sees that another attempt has replaced it,
    it may make its staging folder again.
    """
    try:
        if Job.objects.filter(pk=job.pk, status__in=FINAL).exists():
            engine.discard(_discard_request(job))
    except (engine.EngineError, PortalError, *AWAY) as error:
        logger.warning(
            "Job %s: the replaced attempt may have left data at the target: %s", job.pk, error
        )


def clear_after_cancel(job: Job) -> None:
    """Remove what a cancelled job has left at the target, with more patience than before its end.

    It ends if this worker has to; another one takes the clean-up up then. If the data stays, the
    event of the job's end says so.
    """
    if job.clearing_until is None:
        return
    try:
        trouble = _clear(job, _Clearing(job).alive)
        if trouble:
            logger.warning("Job %s: its data is still at the target: %s", job.pk, trouble)
            if shutdown_requested():
                raise HandedBack(_("The worker shuts down."))
        clearing_end(job, cleared=not trouble)
    except HandedBack as stop:
        logger.warning("Job %s: another worker goes on clearing away: %s", job.pk, stop)
        with contextlib.suppress(*AWAY):  # Its lease runs out, too.
            clearing_hand_back(job)
    except (engine.Replaced, Job.DoesNotExist, *AWAY) as error:
        logger.warning("Job %s: its data may still be at the target: %s", job.pk, error)


class _Clearing:
    """Keeps the lease of a clean-up while it goes on."""

    def __init__(self, job: Job) -> None:
        self._job, self._parent = job, os.getppid()
        self._renewed = self._tried = time.monotonic()

    def alive(self) -> None:
        """Renew the lease about once a second; wait out an absent database as long as it lasts.

        Raises HandedBack if this worker has to end, engine.Replaced if another has the clean-up.
        """
        if shutdown_requested() or os.getppid() != self._parent:
            raise HandedBack(_("The worker shuts down."))
        now = time.monotonic()
        if now < self._tried + RENEW_EVERY:
            return
        self._tried = now
        try:
            clearing_renew(self._job)
            self._renewed = now
        except AWAY as error:
            tolerate_outage(error, self._job, since=self._renewed)


def finish(job: Job, end: End) -> None:
    """Record the end of an attempt."""
    write_end(job, partial(_record, job, end))


def write_end(job: Job, write: Callable[[], object]) -> None:
    """Write the end of an attempt; wait for an absent database as long as the lease allows.

    It restores the instance's fields before each retry: the database has rolled back the row.
    """
    started, fields = time.monotonic(), vars(job).copy()
    while True:
        try:
            write()
            return
        except AWAY as error:
            vars(job).update(fields)
            tolerate_outage(error, job, since=started)
            time.sleep(RENEW_EVERY)


@transaction.atomic
def _record(job: Job, end: End) -> None:
    lock(job)
    end = _with_requests(job, end)
    if end.status is Status.RETRY_WAIT:
        job_wait(job, code=end.code, message=end.message, advanced=end.advanced)
        return
    # What is left is cleared away after the end: by this worker, or the one that takes it up.
    late = clearing_begins() if end.status is Status.CANCELLED and "left" in end.data else {}
    job_move(
        job,
        end.status,
        code=end.code,
        message=end.message,
        level=end.level,
        data=end.data,
        **end.columns,
        **late,
    )
    if end.at:
        portal_mark(end.at, code=end.code, message=end.message)


def _with_requests(job: Job, end: End) -> End:
    """Return the end that also follows a user's request that came while the attempt ended."""
    requested = stop_requested(job) if end.status in LIVE else None
    if requested is Status.CANCELLED:
        then = _("A user has cancelled the job: a worker will remove its data at the target.")
        return End(Status.QUEUED, end.code, f"{end.message} {then}")
    if requested is Status.PAUSED and end.status is Status.RETRY_WAIT:
        then = _("A user has paused the job meanwhile.")
        return End(Status.PAUSED, "PAUSED", f"{end.message} {then}")
    return end
