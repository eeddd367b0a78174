"""A free worker's side of parcel leases: carrying parcels of jobs that others run."""

from __future__ import annotations

import logging
import os
import secrets
import time
from contextlib import closing

from django.db import InterfaceError, OperationalError, connection

import engine
from engine.errand import Outcome
from jobs.attempts import bandwidth_share
from jobs.bridge import request_for
from jobs.errors import HandedBack, Orphaned
from jobs.leases import errand_of, lease_deliver, lease_renew, lease_return, lease_take
from jobs.models import ParcelLease
from jobs.observer import LOOK_EVERY, is_told_to_end, put_up_with
from jobs.turns import next_in_turn
from portals.errors import PortalError

logger = logging.getLogger(__name__)

#: Seconds a helper waits for a further parcel, and between two looks for one.
STAY, STAY_LOOK = 2.0, 0.25


def help_out(*, worker: str) -> None:
    """Carry parcels that running jobs lend, until there are none, or a job waits for a worker.

    What cannot be carried goes back to the worker that runs the job, which
    meets the same trouble itself, if it is one, and tells of it.
    """
    try:
        while (row := lease_take(worker=worker, label=secrets.token_hex(6))) is not None:
            logger.info("Job %s: this worker carries parcels of it, too", row.job_id)
            _assist(row, worker)
            if _somebody_waits():
                return
    except (engine.EngineError, PortalError, OperationalError, InterfaceError) as error:
        logger.warning("Cannot go on helping: %s", error)
        connection.close()


def _assist(row: ParcelLease, worker: str) -> None:
    """Carry that parcel and others of the same job, as long as there are any."""
    held: ParcelLease | None = row
    try:
        observer = HelperObserver(row)
        site, errand = errand_of(row)
        with closing(engine.Helper(request_for(row.job), site, row.label, observer)) as helper:
            while held is not None:
                _deliver(held, helper.carry(errand), observer)
                held = None
                observer.holds(None)
                if (further := _another(row, worker, observer)) is None:
                    return
                held, errand = further, errand_of(further)[1]
                observer.holds(held)
    finally:
        if held is not None:
            _give_back(held)


def _deliver(row: ParcelLease, outcome: Outcome, observer: HelperObserver) -> None:
    """Hand in what was carried; an absent database gets as much time as the lease leaves."""
    while True:
        try:
            lease_deliver(row, outcome=outcome)
            return
        except (OperationalError, InterfaceError) as error:
            put_up_with(error, row.job, since=observer.renewed)
            time.sleep(LOOK_EVERY)


def _give_back(row: ParcelLease) -> None:
    try:
        lease_return(row)
    except (OperationalError, InterfaceError) as error:
        connection.close()
        logger.warning("Job %s: a parcel comes back with its lease only: %s", row.job_id, error)


def _another(before: ParcelLease, worker: str, observer: HelperObserver) -> ParcelLease | None:
    """A further parcel of the same job, for the same agents, if one is offered soon."""
    until = time.monotonic() + STAY
    while time.monotonic() < until and not _somebody_waits():
        observer.checkpoint()
        row = lease_take(worker=worker, label=before.label, of=before.job)
        if row is not None:
            return row
        time.sleep(STAY_LOOK)
    return None


def _somebody_waits() -> bool:
    """Whether a job could begin: that comes before helping."""
    return next_in_turn() is not None


class HelperObserver(engine.SilentObserver):
    """Watches over a parcel that is carried for another worker's job: the lease, and its end."""

    def __init__(self, row: ParcelLease) -> None:
        #: The lease that is held; none between two parcels.
        self.row: ParcelLease | None = row
        self._job = row.job
        self._parent = os.getppid()
        self._moved = 0
        #: When the lease was last renewed, by the monotonic clock.
        self.renewed = self._looked = time.monotonic()
        self._rate = bandwidth_share(self._job)

    def holds(self, row: ParcelLease | None) -> None:
        """Another parcel is carried from now on, or none."""
        self.row, self._moved = row, 0
        self.renewed = self._looked = time.monotonic()

    def checkpoint(self) -> None:
        """Renew the lease once a second; stop when told to, or when nobody watches us."""
        if os.getppid() != self._parent:
            raise Orphaned("The worker's parent process is gone.")
        if is_told_to_end():
            raise HandedBack("The worker was told to end.")
        if self.row is None or time.monotonic() - self._looked < LOOK_EVERY:
            return
        started = self._looked = time.monotonic()
        try:
            lease_renew(self.row, moved=self._moved)
            self._rate = bandwidth_share(self._job)
        except (OperationalError, InterfaceError) as error:
            put_up_with(error, self._job, since=self.renewed)
            return
        self.renewed = started

    def progress(self, progress: engine.Progress) -> None:
        """Keep the counters for the next look."""
        self._moved = progress.bytes_done

    def bandwidth(self, asked: int) -> int:
        """What this helper may use at the moment, as of the last look."""
        return self._rate

    def event(self, level: str, code: str, message: str, data: dict[str, object]) -> None:
        """Write what a helper notices to the log: the trail is the job's own worker's."""
        logger.warning("Job %s: %s: %s", self._job.pk, code, message)
