"""A running job's side of its parcel leases, as the engine's `Lender`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from django.conf import settings
from redis.exceptions import RedisError

from engine.errand import Errand, News, Outcome, Site
from jobs.choices import LeaseState
from jobs.leases import leases_renew, leases_withdraw, outcome_of
from jobs.models import Job, ParcelLease
from jobs.queue import idle_workers, ring

logger = logging.getLogger(__name__)

#: Parcels per helper that are on offer or under way: the next one is there when one is done.
EACH = 2
#: After so many parcels that came back undone an attempt lends no more.
MOST_RETURNED = 8
#: Helpers that are told of in the trail, one by one.
TOLD_HELPERS = 20

Tell = Callable[[str, str, str], None]


class JobLender:
    """Lends a job's parcels while the database answers; without it nothing new is lent.

    `patience` puts up with an absent database, `tell` writes an event (level,
    code, message).
    """

    def __init__(
        self, job: Job, patience: Callable[[], AbstractContextManager[None]], tell: Tell
    ) -> None:
        self._job = job
        self._patience, self._tell = patience, tell
        self._spreads: bool | None = None
        self._out: set[int] = set()
        self._unsaid: tuple[Site, list[Errand]] | None = None
        self._taken_in: set[int] = set()
        self._helpers: set[str] = set()
        self._most = self._returned = 0
        self._rung = False

    def helpers(self, size: int, streams: int) -> int:
        """How many workers wait for work that may help; none while Redis is away."""
        room = self._room(size, streams)
        try:
            return min(room, idle_workers()) if room else 0
        except RedisError as error:
            logger.warning("Job %s: nobody knows who could help: %s", self._job.pk, error)
            return 0

    def look(self, left: int, streams: int) -> News:
        """See what helpers have done; whether the job is large enough is decided the first time."""
        if self._spreads is None:
            self._most = self._room(left, streams)
            self._spreads = self._most > 0
        if not self._spreads:
            return News()
        with self._patience():
            return self._look()
        return News()

    def offer(self, site: Site, errands: Sequence[Errand]) -> None:
        """Offer parcels; what the database does not take now, it is told at the next look."""
        self._out.update(errand.number for errand in errands)
        waiting = self._unsaid[1] if self._unsaid else []
        self._unsaid = (site, [*waiting, *errands])
        with self._patience():
            self._renew()
        if not self._rung:
            self._rung = True
            self._ring()

    def withdraw(self) -> Sequence[int]:
        """Take back what nobody has taken; nothing while the database is away."""
        if self._unsaid:
            return []
        with self._patience():
            numbers = leases_withdraw(self._job)
            self._out.difference_update(numbers)
            return numbers
        return []

    def _room(self, size: int, streams: int) -> int:
        """How many helpers so many bytes are worth, beside so many streams."""
        if not 0 < settings.KETTER_SPREAD_BYTES <= size:
            return 0
        # All streams of a job count, whichever worker has them; a helper has one.
        return max(0, min(settings.KETTER_SPREAD_WORKERS, _streams_of(self._job) - streams))

    def _look(self) -> News:
        rows = self._renew()
        # From here on nothing is asked of the database: what is noted as taken in is told.
        outcomes = []
        for row in rows:
            if row.label and row.label not in self._helpers:
                self._greet(row)
            if row.state in (LeaseState.DONE, LeaseState.RETURNED):
                outcomes.append(self._take_in(row))
        # Withdrawn, and the database was gone before it could say so.
        for number in self._out - {row.number for row in rows}:
            outcomes.append(Outcome(number, returned=True))
        self._out.difference_update(outcome.number for outcome in outcomes)
        room = self._most * EACH - len(self._out)
        if self._returned >= MOST_RETURNED:
            room = 0
        moving = sum(row.moved for row in rows if row.state == LeaseState.TAKEN)
        return News(outcomes, moving, max(0, room))

    def _renew(self) -> list[ParcelLease]:
        site, errands = self._unsaid or (None, [])
        rows = leases_renew(
            self._job, forget=self._taken_in, site=site, errands=errands, most=self._most
        )
        self._unsaid, self._taken_in = None, set()
        return rows

    def _take_in(self, row: ParcelLease) -> Outcome:
        self._taken_in.add(row.pk)
        if row.state == LeaseState.RETURNED:
            self._returned += 1
            message = f"Parcel {row.number} came back undone from worker {row.worker}: sent anew."
            self._tell("warning", "HELPER_LOST", message)
        return outcome_of(row)

    def _greet(self, row: ParcelLease) -> None:
        self._helpers.add(row.label)
        if len(self._helpers) <= TOLD_HELPERS:
            self._tell("info", "HELPER_JOINED", f"Worker {row.worker} carries parcels, too.")

    def _ring(self) -> None:
        """Tell workers that there is something to carry; the reaper tells those that come later."""
        try:
            for _ in range(self._most):
                ring(self._job.pk)
        except RedisError as error:
            logger.warning("Job %s: nobody was asked to help: %s", self._job.pk, error)


def _streams_of(job: Job) -> int:
    """How many streams a job may have."""
    limit = min(job.source_portal.max_streams, job.target_portal.max_streams)
    return min(job.streams, limit) or limit
