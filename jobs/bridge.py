"""Between a job's row and the engine: what to transfer, who watches, how it ended."""

from __future__ import annotations

import logging
import os
import socket
import time
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.template.defaultfilters import filesizeformat
from django.utils import timezone

import engine
from jobs.errors import Orphaned
from jobs.models import EventLevel, Job
from jobs.services import attempt_record, cancel_requested, job_move
from jobs.states import Status
from jobs.text import storable
from jobs.trail import Note
from portals.endpoints import endpoint_for
from portals.errors import PortalError

logger = logging.getLogger(__name__)

#: Seconds between two looks at the row while a transfer runs.
LOOK_EVERY = 1.0
#: The part of the lease for which an unreachable database is put up with. What
#: is left is for the engine to stop before somebody else may start.
PATIENCE = 0.8
#: As many failures are named in the last event; the total is always given.
FAILURES_NAMED = 100


def worker_name() -> str:
    """The name under which this process claims jobs."""
    return os.environ.get("RQ_WORKER_ID") or f"{socket.gethostname()}.{os.getpid()}"


def request_for(job: Job) -> engine.Request:
    """The transfer a job asks for, with the secrets it needs."""
    limit = min(job.source_portal.max_streams, job.target_portal.max_streams)
    return engine.Request(
        source=endpoint_for(job.source_portal, job.source_path),
        target=endpoint_for(job.target_portal, job.target_path),
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
        resume=True,
    )


@dataclass(frozen=True)
class End:
    """How a transfer ended, in the words of `job_move`."""

    status: Status
    code: str
    message: str
    level: str = EventLevel.INFO
    data: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)


def transfer(job: Job) -> End:
    """Run the engine for a claimed job and say how it ended.

    Raises `engine.Replaced` when the job is no longer ours to end, and
    whatever a bug raises.
    """
    observer = JobObserver(job)
    try:
        if job.cancel_requested_at:
            return _clear_away(job)
        end = end_of(engine.run(request_for(job), observer))
    except engine.Replaced:
        raise
    except engine.Cancelled as stop:
        end = End(Status.CANCELLED, "CANCELLED", str(stop))
    except (engine.EngineError, PortalError) as error:
        end = failure(error.code, str(error))
        if getattr(error, "kept", False):
            _discard_kept(job, end)
    observer.save()
    return end


def _discard_kept(job: Job, end: End) -> None:
    """Remove what a failed job has left at the target to go on from: it will not go on."""
    try:
        engine.discard(request_for(job))
    except (engine.EngineError, PortalError) as error:
        end.data["left"] = f"What had arrived stays in a hidden folder at the target: {error}"


def _clear_away(job: Job) -> End:
    """End a job that was cancelled after an attempt had died, leaving nothing of it."""
    try:
        engine.discard(request_for(job))
    except engine.Replaced:
        raise
    except (engine.EngineError, PortalError) as error:
        message = f"Cancelled, but what an earlier attempt left at the target stays: {error}"
        return End(Status.CANCELLED, "STAGING_LEFT", message, EventLevel.WARNING)
    return End(Status.CANCELLED, "CANCELLED", "The job was cancelled after its worker was lost.")


def finish(job: Job, end: End) -> None:
    """Record how a job ended; an absent database gets as much time as the lease leaves."""
    started = time.monotonic()
    while True:
        try:
            job_move(
                job,
                end.status,
                code=end.code,
                message=end.message,
                level=end.level,
                data=end.data,
                **end.columns,
            )
            return
        except (OperationalError, InterfaceError) as error:
            put_up_with(error, job, since=started)
            time.sleep(LOOK_EVERY)


def put_up_with(error: Exception, job: Job, *, since: float) -> None:
    """Let a database error pass, unless it has lasted so long that the lease may be over."""
    connection.close()
    away = time.monotonic() - since
    logger.warning("Job %s: the database has been away for %.1f s: %s", job.pk, away, error)
    if away > settings.KETTER_LEASE_SECONDS * PATIENCE:
        raise engine.Replaced("The database was away for as long as the lease.") from error


def failure(code: str, message: str) -> End:
    """The end of a job that failed."""
    columns = {"error_code": code, "error_message": message}
    return End(Status.FAILED, code, message, EventLevel.ERROR, columns=columns)


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
        "files_failed": report.failures_total,
    }
    if report.status == "done":
        return End(Status.DONE, "DONE", message, data=data, columns=columns)
    named = report.failures[:FAILURES_NAMED]
    data["failures_total"] = report.failures_total
    data["failures"] = [{"path": f.path, "code": f.code, "message": f.message} for f in named]
    why = f"{report.failures_total} entries could not be delivered"
    if named:
        why += f"; the first is {named[0].path}: {named[0].message}"
    columns |= {"error_code": "PARTIAL", "error_message": why}
    message = f"{message} {why}"
    return End(Status.PARTIAL, "PARTIAL", message, EventLevel.WARNING, data, columns)


class JobObserver:
    """Watches over a transfer for its job: keeps the lease, carries cancellation, writes news.

    News is kept until it is written, so that a database that is away for a
    moment costs nothing. Away for longer than the lease, it ends the
    transfer: by then another worker may have the job.
    """

    wants_manifests = True

    def __init__(self, job: Job) -> None:
        self._job = job
        self._parent = os.getppid()
        self._progress = engine.Progress()
        self._phase = ""
        self._notes: list[Note] = []
        self._parcels: dict[int, engine.ParcelReport] = {}
        self._columns: dict[str, Any] = {}
        self._renewed = time.monotonic()
        self._looked = 0.0

    def checkpoint(self) -> None:
        """Renew the lease about once a second; stop when told to, or when nobody watches us."""
        if os.getppid() != self._parent:
            raise Orphaned("The worker's parent process is gone.")
        if time.monotonic() - self._looked >= LOOK_EVERY:
            self.save()
            if self._asked_to_stop():
                raise engine.Cancelled("The job was cancelled while it ran.")

    def phase(self, phase: engine.Phase) -> None:
        """Show the phase at once."""
        self._phase = phase
        self.save()

    def progress(self, progress: engine.Progress) -> None:
        """Keep the counters for the next look."""
        self._progress = progress

    def parcel(self, parcel: engine.ParcelReport) -> None:
        """Keep a parcel's news for the next look; a manifest once seen is not forgotten."""
        before = self._parcels.get(parcel.number)
        if before and before.manifest is not None and parcel.manifest is None:
            parcel = parcel._replace(manifest=before.manifest, digest=before.digest)
        self._parcels[parcel.number] = parcel

    def planned(self, plan: dict[str, Any]) -> None:
        """Record the plan at once."""
        self._columns["plan"] = storable(plan)
        self.save()

    def event(self, level: str, code: str, message: str, data: dict[str, Any]) -> None:
        """Record an event at once."""
        self._notes.append(Note(code, message, level, data, timezone.now(), self._phase))
        self.save()

    def save(self) -> None:
        """Write what is new and renew the lease; put up with an absent database for a while."""
        started = self._looked = time.monotonic()
        try:
            attempt_record(
                self._job,
                progress=self._progress,
                phase=self._phase,
                notes=self._notes,
                parcels=self._parcels.values(),
                **self._columns,
            )
        except (OperationalError, InterfaceError) as error:
            put_up_with(error, self._job, since=self._renewed)
            return
        self._renewed = started
        self._notes, self._parcels, self._columns = [], {}, {}

    def _asked_to_stop(self) -> bool:
        try:
            return cancel_requested(self._job)
        except (OperationalError, InterfaceError) as error:
            put_up_with(error, self._job, since=self._renewed)
            return False
