"""Watches a transfer for its job: keeps the lease, writes reports, and stops it on request."""

from __future__ import annotations

import os
import time
from typing import Any

from django.utils.translation import gettext as _

import engine
from engine.loans import Lender
from engine.observer import Delivery, ProofRecord
from jobs.errors import HandedBack, Orphaned, Paused
from jobs.models import Job
from jobs.queueing.attempts import attempt_rooted, bandwidth_share, stop_requested
from jobs.running.attempt_writer import RENEW_EVERY, AttemptWriter
from jobs.running.lender import JobLender
from jobs.running.proof_record import JobRecord
from jobs.running.shutdown import shutdown_requested
from jobs.states import Status
from jobs.text import storable

#: Seconds between two queries whether a user wants the job to stop.
ASK_EVERY = 0.25


class JobObserver:
    """The engine's `Observer` for a job: its reports go to an `AttemptWriter`.

    A checkpoint raises an exception when the transfer has to stop: a user asked so, the worker
    shuts down, its parent process is gone, or another attempt has replaced this one.
    """

    wants_manifests = True
    delivery: Delivery | None = None

    def __init__(self, job: Job) -> None:
        self._job = job
        self._parent = os.getppid()
        self._writer = AttemptWriter(job)
        #: Why the engine could not remove the data that it had staged at the target; else empty.
        self.staging_left = ""
        #: When the user's request to cancel was seen, by the monotonic clock.
        self.cancelled_at: float | None = None
        #: When the database was last asked for a user's request, by the monotonic clock.
        self._asked = 0.0
        self._rate = bandwidth_share(job)
        #: Lends parcels to other workers; the engine calls it.
        self.lender: Lender | None = JobLender(job, self._writer.tolerant, self._writer.add_event)
        #: What earlier attempts have proven; the engine reads it.
        self.record: ProofRecord | None = JobRecord(job, self._writer.tolerant)
        #: Bytes that earlier attempts had brought when this one began, and when the one before
        #: this began; None and -1 while unknown.
        self._held: int | None = None
        self._held_before: int = (job.plan or {}).get("bytes_resumed", -1)

    @property
    def advanced(self) -> bool:
        """Whether this attempt brought data, and the data that the one before brought has stayed.

        So an attempt does not count as progress on a line that breaks each time before any data
        is durable.
        """
        held = self._held
        done = self._writer.progress.bytes_done
        return held is not None and held > self._held_before and done > held

    def checkpoint(self) -> None:
        """Renew the lease about once a second.

        Raises Orphaned, HandedBack, Paused, engine.Cancelled or engine.Replaced if the transfer
        has to stop.
        """
        if os.getppid() != self._parent:
            raise Orphaned(_("its parent process is gone"))
        if shutdown_requested():
            raise HandedBack(_("The worker shuts down."))
        if self._writer.is_due:
            self.save()
            with self._writer.tolerant():
                self._rate = bandwidth_share(self._job)
        if time.monotonic() - self._asked >= ASK_EVERY:
            self._stop_on_request()

    def alive(self) -> None:
        """Renew the lease about once a second, and ignore requests to stop."""
        if self._writer.is_due:
            self.save()

    def bandwidth(self, asked: int) -> int:
        """Return the bytes per second that this job may use, as of the latest checkpoint."""
        return self._rate

    def phase(self, phase: engine.Phase) -> None:
        """Keep the phase for the next save.

        Around REMOVE_SOURCE it saves at once, and waits for the database: the proofs are on
        record before a source is removed, and the removal before the target forgets it.
        """
        before, self._writer.phase = self._writer.phase, phase
        if engine.Phase.REMOVE_SOURCE in (before, phase):
            self.settle()
        elif self._writer.is_due:
            self.save()

    def progress(self, progress: engine.Progress) -> None:
        """Keep the counters for the next save."""
        if self._held is None and self._writer.phase == engine.Phase.SCAN:
            self._held = progress.bytes_done
        self._writer.progress = progress

    def parcel(self, parcel: engine.ParcelReport) -> None:
        """Keep a parcel's report for the next save."""
        self._writer.add_parcel(parcel)

    def rooted(self, source: str, target: str) -> None:
        """Write the real paths of both roots, before the engine reads or writes below them."""
        while True:
            with self._writer.tolerant():
                frozen = attempt_rooted(self._job, source=source, target=target)
                break
            time.sleep(RENEW_EVERY)
        if frozen:
            self._job.frozen = self._writer.columns["frozen"] = frozen
            self.settle()

    def planned(self, plan: dict[str, Any]) -> None:
        """Keep the plan for the next save; if it resumes more than the last, reset `losses`."""
        self._writer.columns["plan"] = storable(plan)
        if plan["bytes_resumed"] > max(self._held_before, 0):
            self._writer.columns["losses"] = 0

    def event(self, level: str, code: str, message: str, data: dict[str, Any]) -> None:
        """Keep an event for the next save."""
        if code == "STAGING_LEFT":
            # The worker tries again to remove the data; if it fails, the job's end says so.
            self.staging_left = str(data.get("reason") or message)
            return
        self._writer.add_event(level, code, message, data)

    def settle(self) -> None:
        """Write all reports; wait for an absent database as long as the lease allows."""
        while not self.save():
            time.sleep(RENEW_EVERY)

    def save(self) -> bool:
        """Write all reports and renew the lease; False if the database is away for now."""
        return self._writer.save()

    def _stop_on_request(self) -> None:
        """Raise Cancelled or Paused if a user has requested that."""
        self._asked, requested = time.monotonic(), None
        with self._writer.tolerant():
            requested = stop_requested(self._job)
        if requested is Status.CANCELLED:
            self.cancelled_at = time.monotonic()
            raise engine.Cancelled(_("A user cancelled the job while it ran."))
        if requested is Status.PAUSED:
            raise Paused(_("A user paused the job while it ran. Its data stays at the target."))
