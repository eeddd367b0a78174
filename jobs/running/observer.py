"""Watching over a transfer for its job: the lease, the counters, and who wants it to stop."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

import engine
from engine.errand import Lender
from jobs.attempts import attempt_record, bandwidth_share, stop_requested
from jobs.errors import HandedBack, Orphaned, Paused
from jobs.lender import JobLender
from jobs.models import Job
from jobs.states import Status
from jobs.text import storable
from jobs.trail import Note

logger = logging.getLogger(__name__)

#: Seconds between two writes of what is new while a transfer runs.
LOOK_EVERY = 1.0
#: Seconds between two looks whether somebody wants it to stop.
ASK_EVERY = 0.25
#: The part of the lease for which an unreachable database is put up with. What
#: is left is for the engine to stop before somebody else may start.
PATIENCE = 0.8

#: Set in this process, once, when it was told to end.
_told_to_end = False


def ask_to_hand_back(_signal: int, _frame: Any) -> None:
    """Have the run in this process give its job back at its next checkpoint; a signal handler."""
    global _told_to_end
    _told_to_end = True


def is_told_to_end() -> bool:
    """Whether this process is to give back what it works at."""
    return _told_to_end


def put_up_with(error: Exception, job: Job, *, since: float) -> None:
    """Let a database error pass, unless it has lasted so long that the lease may be over."""
    connection.close()
    away = time.monotonic() - since
    logger.warning("Job %s: the database has been away for %.1f s: %s", job.pk, away, error)
    if away > settings.KETTER_LEASE_SECONDS * PATIENCE:
        raise engine.Replaced("The database was away for as long as the lease.") from error


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
        #: Whether the engine could not clear away what has arrived.
        self.left = False
        self._renewed = time.monotonic()
        self._looked = self._asked = 0.0
        self._rate = bandwidth_share(job)
        #: Who lends parcels to other workers, and how; the engine asks it.
        self.lender: Lender | None = JobLender(job, self._patience, self._tell)
        #: Bytes that were there when the transfer began, and when the attempt before this did.
        self._held: int | None = None
        self._held_before: int = (job.plan or {}).get("bytes_resumed", -1)

    @property
    def advanced(self) -> bool:
        """Whether this attempt brought anything, and what the one before brought has stayed.

        On a line that always breaks before anything is durable, nothing counts.
        """
        held = self._held
        return held is not None and held > self._held_before and self._progress.bytes_done > held

    def checkpoint(self) -> None:
        """Renew the lease about once a second; stop when told to, or when nobody watches us."""
        if os.getppid() != self._parent:
            raise Orphaned("The worker's parent process is gone.")
        if _told_to_end:
            raise HandedBack("The worker was told to end.")
        if self._is_due:
            self.save()
            self._share()
        if time.monotonic() - self._asked >= ASK_EVERY:
            self._ask()

    def alive(self) -> None:
        """Renew the lease about once a second, whatever somebody wants."""
        if self._is_due:
            self.save()

    def bandwidth(self, asked: int) -> int:
        """What this job may use at the moment, as of the last look."""
        return self._rate

    def phase(self, phase: engine.Phase) -> None:
        """Show the phase at the next look; have on record what was proven before a source goes.

        And that it has gone before what the target knows of it goes, too.
        """
        before, self._phase = self._phase, phase
        if engine.Phase.REMOVE_SOURCE in (before, phase):
            self.settle()
        elif self._is_due:
            self.save()

    def progress(self, progress: engine.Progress) -> None:
        """Keep the counters for the next look."""
        if self._held is None and self._phase == engine.Phase.SCAN:
            self._held = progress.bytes_done
        self._progress = progress

    def parcel(self, parcel: engine.ParcelReport) -> None:
        """Keep a parcel's news for the next look; a manifest once seen is not forgotten."""
        before = self._parcels.get(parcel.number)
        if before and before.manifest is not None and parcel.manifest is None:
            parcel = parcel._replace(manifest=before.manifest, digest=before.digest)
        self._parcels[parcel.number] = parcel

    def planned(self, plan: dict[str, Any]) -> None:
        """Keep the plan for the next look; where it builds on more, losses are counted anew."""
        self._columns["plan"] = storable(plan)
        if plan["bytes_resumed"] > max(self._held_before, 0):
            self._columns["losses"] = 0

    def event(self, level: str, code: str, message: str, data: dict[str, Any]) -> None:
        """Keep an event for the next look."""
        if code == "STAGING_LEFT":
            self.left = True  # It is tried again, and said with the end if that fails, too.
            return
        self._notes.append(Note(code, message, level, data, timezone.now(), self._phase))

    def _tell(self, level: str, code: str, message: str) -> None:
        self.event(level, code, message, {})

    def settle(self) -> None:
        """Write what is new, and wait for an absent database as long as the lease allows."""
        while not self.save():
            time.sleep(LOOK_EVERY)

    def save(self) -> bool:
        """Write what is new and renew the lease; False if the database is away for now."""
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
            return False
        self._renewed = started
        self._notes, self._parcels, self._columns = [], {}, {}
        return True

    @property
    def _is_due(self) -> bool:
        return time.monotonic() - self._looked >= LOOK_EVERY

    def _share(self) -> None:
        """See how fast the transfer may be now."""
        with self._patience():
            self._rate = bandwidth_share(self._job)

    def _ask(self) -> None:
        """See whether somebody wants the transfer to stop."""
        self._asked, asked = time.monotonic(), None
        with self._patience():
            asked = stop_requested(self._job)
        if asked is Status.CANCELLED:
            raise engine.Cancelled("The job was cancelled while it ran.")
        if asked is Status.PAUSED:
            raise Paused("The job was paused while it ran; what has arrived stays, to go on from.")

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Put up with an absent database for a while."""
        try:
            yield
        except (OperationalError, InterfaceError) as error:
            put_up_with(error, self._job, since=self._renewed)
