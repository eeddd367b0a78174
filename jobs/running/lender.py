"""Lends parcels of a running job to helpers, as the engine's `Lender`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from django.conf import settings
from django.utils.translation import gettext as _
from redis.exceptions import RedisError

from engine.loans import LentParcel, LoanStatus, Location, ParcelResult
from jobs.choices import LeaseState
from jobs.models import EventLevel, Job, ParcelLease
from jobs.queueing.machines import machine_of
from jobs.queueing.notify import idle_workers, notify
from jobs.queueing.parcel_leases import leases_renew, leases_withdraw, result_of

logger = logging.getLogger(__name__)

#: Parcels on offer or under way per helper: a helper that is done finds the next one at once.
EACH = 2
#: After this many parcels that helpers returned unfinished, an attempt lends no more.
MOST_RETURNED = 8
#: Helpers that get an event of their own, at most.
NAMED_HELPERS = 20

AddEvent = Callable[[str, str, str], None]


class JobLender:
    """Lends a job's parcels while the database answers; while it is away, it lends nothing new.

    `tolerant` makes a context that lets a short outage of the database pass, `add_event` keeps
    an event (level, code, message).
    """

    def __init__(
        self, job: Job, tolerant: Callable[[], AbstractContextManager[None]], add_event: AddEvent
    ) -> None:
        self._job = job
        self._tolerant, self._add_event = tolerant, add_event
        #: Whether the job is large enough to lend parcels; None until the first look.
        self._lends: bool | None = None
        #: The numbers of the parcels that are lent.
        self._lent: set[int] = set()
        #: Parcels on offer that are not in the database yet.
        self._unsaved: tuple[Location, list[LentParcel]] | None = None
        #: Leases (primary keys) whose results are read, and which the next write deletes.
        self._read: set[int] = set()
        self._helpers: set[str] = set()
        self._most = self._returned = 0
        self._notified = False

    def helpers(self, size: int, streams: int) -> int:
        """Return the number of idle workers that may help; 0 while Redis is away."""
        room = self._room(size, streams)
        try:
            return min(room, idle_workers(machine_of(self._job))) if room else 0
        except RedisError as error:
            logger.warning("Job %s: no helper, Redis does not answer: %s", self._job.pk, error)
            return 0

    def look(self, left: int, streams: int) -> LoanStatus:
        """Read what helpers have done. The first call decides whether the job is large enough."""
        if self._lends is None:
            self._most = self._room(left, streams)
            self._lends = self._most > 0
        if not self._lends:
            return LoanStatus()
        with self._tolerant():
            return self._look()
        return LoanStatus()

    def offer(self, location: Location, loans: Sequence[LentParcel]) -> None:
        """Offer parcels. If the database is away, the next look writes them."""
        self._lent.update(loan.number for loan in loans)
        waiting = self._unsaved[1] if self._unsaved else []
        self._unsaved = (location, [*waiting, *loans])
        with self._tolerant():
            self._renew()
        if not self._notified:
            self._notified = True
            self._notify_workers()

    def withdraw(self) -> Sequence[int]:
        """Take back the parcels that no helper took; none while the database is away."""
        if self._unsaved:
            return []
        with self._tolerant():
            numbers = leases_withdraw(self._job)
            self._lent.difference_update(numbers)
            return numbers
        return []

    def _room(self, size: int, streams: int) -> int:
        """Return how many helpers a job of `size` bytes may have, beside its own `streams`."""
        if not 0 < settings.KETTER_SPREAD_BYTES <= size:
            return 0
        # A job's limit of streams counts those of all its workers; a helper has one.
        return max(0, min(settings.KETTER_SPREAD_WORKERS, _streams_of(self._job) - streams))

    def _look(self) -> LoanStatus:
        rows = self._renew()
        # No query from here on: a lease noted as read must also reach the engine.
        results = []
        for row in rows:
            if row.label and row.label not in self._helpers:
                self._report_helper(row)
            if row.state in (LeaseState.DONE, LeaseState.RETURNED):
                results.append(self._result_of(row))
        # These were withdrawn, but the reply of the database got lost.
        for number in self._lent - {row.number for row in rows}:
            results.append(ParcelResult(number, returned=True))
        self._lent.difference_update(result.number for result in results)
        room = self._most * EACH - len(self._lent)
        if self._returned >= MOST_RETURNED:
            room = 0
        moving = sum(row.moved for row in rows if row.state == LeaseState.TAKEN)
        return LoanStatus(results, moving, max(0, room))

    def _renew(self) -> list[ParcelLease]:
        location, loans = self._unsaved or (None, [])
        rows = leases_renew(
            self._job, forget=self._read, location=location, loans=loans, most=self._most
        )
        self._unsaved, self._read = None, set()
        return rows

    def _result_of(self, row: ParcelLease) -> ParcelResult:
        self._read.add(row.pk)
        if row.state == LeaseState.RETURNED:
            self._returned += 1
            words = {"number": row.number, "worker": row.worker}
            message = _("Worker %(worker)s did not finish parcel %(number)d: it is sent again.")
            self._add_event(EventLevel.WARNING, "HELPER_LOST", message % words)
        return result_of(row)

    def _report_helper(self, row: ParcelLease) -> None:
        self._helpers.add(row.label)
        if len(self._helpers) <= NAMED_HELPERS:
            message = _("Worker %s helps: it carries parcels of this job.") % row.worker
            self._add_event(EventLevel.INFO, "HELPER_JOINED", message)

    def _notify_workers(self) -> None:
        """Wake workers to carry parcels; the reaper wakes those that become idle later."""
        try:
            for _number in range(self._most):
                notify(self._job.pk)
        except RedisError as error:
            logger.warning("Job %s: no helper, Redis takes no wake-up: %s", self._job.pk, error)


def _streams_of(job: Job) -> int:
    """Return the number of streams that a job may have."""
    limit = min(job.source_portal.max_streams, job.target_portal.max_streams)
    return min(job.streams, limit) or limit
