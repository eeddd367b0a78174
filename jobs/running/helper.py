"""An idle worker as a helper: it carries parcels of jobs that other workers run."""

from __future__ import annotations

import logging
import os
import secrets
import time
from contextlib import closing

from django.db import connection
from django.utils.translation import gettext as _

import engine
from engine.loans import ParcelResult
from jobs.errors import AWAY, HandedBack, Orphaned
from jobs.models import ParcelLease
from jobs.queueing.attempts import bandwidth_share
from jobs.queueing.eligibility import next_here
from jobs.queueing.parcel_leases import (
    lease_deliver,
    lease_renew,
    lease_return,
    lease_take,
    loan_of,
)
from jobs.running.attempt_writer import RENEW_EVERY, tolerate_outage
from jobs.running.request import request_for
from jobs.running.shutdown import shutdown_requested
from portals.errors import PortalError

logger = logging.getLogger(__name__)

#: Seconds that a helper waits for a further parcel of the same job, and between two queries.
STAY, STAY_LOOK = 2.0, 0.25


def help_out(*, worker: str) -> None:
    """Carry parcels that running jobs lend, until none is left or a queued job may start.

    A parcel that this helper cannot carry goes back to the worker that runs the job. If the
    trouble is in the parcel, that worker meets it as well and reports it.
    """
    try:
        while (row := lease_take(worker=worker, label=secrets.token_hex(6))) is not None:
            logger.info("Job %s: this worker helps, it carries parcels", row.job_id)
            _assist(row, worker)
            if _job_waits():
                return
    except (engine.EngineError, PortalError, *AWAY) as error:
        logger.warning("This helper stops: %s", error)
        connection.close()


def _assist(row: ParcelLease, worker: str) -> None:
    """Carry this parcel, and others of the same job as long as there are any."""
    held: ParcelLease | None = row
    try:
        observer = HelperObserver(row)
        location, loan = loan_of(row)
        with closing(engine.Helper(request_for(row.job), location, row.label, observer)) as helper:
            while held is not None:
                _deliver(held, helper.carry(loan), observer)
                held = None
                observer.holds(None)
                if (further := _another(row, worker, observer)) is None:
                    return
                held, loan = further, loan_of(further)[1]
                observer.holds(held)
    finally:
        if held is not None:
            _give_back(held)


def _deliver(row: ParcelLease, result: ParcelResult, observer: HelperObserver) -> None:
    """Write the result of a parcel; wait for an absent database as long as the lease allows."""
    while True:
        try:
            lease_deliver(row, result=result)
            return
        except AWAY as error:
            tolerate_outage(error, row.job, since=observer.renewed)
            time.sleep(RENEW_EVERY)


def _give_back(row: ParcelLease) -> None:
    try:
        lease_return(row)
    except AWAY as error:
        connection.close()
        logger.warning(
            "Job %s: a parcel goes back only when its lease expires: %s", row.job_id, error
        )


def _another(before: ParcelLease, worker: str, observer: HelperObserver) -> ParcelLease | None:
    """Take a further parcel of the same job, for the same agents; None after STAY seconds."""
    until = time.monotonic() + STAY
    while time.monotonic() < until and not _job_waits():
        observer.checkpoint()
        row = lease_take(worker=worker, label=before.label, of=before.job)
        if row is not None:
            return row
        time.sleep(STAY_LOOK)
    return None


def _job_waits() -> bool:
    """Whether a queued job may start here: that comes before helping."""
    return next_here() is not None


class HelperObserver(engine.SilentObserver):
    """Watches a parcel of another worker's job: renews its lease, and stops when it has to."""

    def __init__(self, row: ParcelLease) -> None:
        #: The lease that this helper holds; None between two parcels.
        self.row: ParcelLease | None = row
        self._job = row.job
        self._parent = os.getppid()
        self._moved = 0
        #: When the lease was last renewed, and its row last queried, by the monotonic clock.
        self.renewed = self._tried = time.monotonic()
        self._rate = bandwidth_share(self._job)

    def holds(self, row: ParcelLease | None) -> None:
        """Watch another parcel from now on, or none."""
        self.row, self._moved = row, 0
        self.renewed = self._tried = time.monotonic()

    def checkpoint(self) -> None:
        """Renew the lease about once a second.

        Raises Orphaned, HandedBack or engine.Replaced if the helper has to stop.
        """
        if os.getppid() != self._parent:
            raise Orphaned(_("its parent process is gone"))
        if shutdown_requested():
            raise HandedBack(_("The worker shuts down."))
        if self.row is None or time.monotonic() - self._tried < RENEW_EVERY:
            return
        started = self._tried = time.monotonic()
        try:
            lease_renew(self.row, moved=self._moved)
            self._rate = bandwidth_share(self._job)
        except AWAY as error:
            tolerate_outage(error, self._job, since=self.renewed)
            return
        self.renewed = started

    def progress(self, progress: engine.Progress) -> None:
        """Keep the counters for the next renewal."""
        self._moved = progress.bytes_done

    def bandwidth(self, asked: int) -> int:
        """Return the bytes per second that this helper may use, as of the last renewal."""
        return self._rate

    def event(self, level: str, code: str, message: str, data: dict[str, object]) -> None:
        """Write an event to the log: only the worker that runs the job writes the job's events."""
        logger.warning("Job %s: %s: %s", self._job.pk, code, message)
