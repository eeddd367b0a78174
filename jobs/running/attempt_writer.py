"""Writes the reports of a running attempt to the database, and waits out its short outages."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import connection
from django.utils import timezone
from django.utils.translation import gettext as _

import engine
from jobs.errors import AWAY
from jobs.events import Note
from jobs.models import Job
from jobs.queueing.attempts import attempt_record

logger = logging.getLogger(__name__)

#: Seconds between two renewals of a lease while a transfer runs.
RENEW_EVERY = 1.0
#: The part of the lease for which a worker waits out an absent database. In the rest of the
#: lease the engine stops, before another worker may start the job.
PATIENCE = 0.8


def tolerate_outage(error: Exception, job: Job, *, since: float) -> None:
    """Log an error of an absent database, and close the broken connection.

    `since` is when the lease was last renewed, by the monotonic clock. Raises engine.Replaced if
    that is so long ago that the lease may soon expire.
    """
    connection.close()
    away = time.monotonic() - since
    logger.warning("Job %s: the database has been away for %.1f s: %s", job.pk, away, error)
    if away > settings.KETTER_LEASE_SECONDS * PATIENCE:
        raise engine.Replaced(_("The database was away for as long as the lease.")) from error


class AttemptWriter:
    """Collects the reports of an attempt and writes them at once; each write renews the lease.

    It keeps each report until it is written, so a database that is away for a moment loses none.
    If the database is away for almost as long as the lease, it raises engine.Replaced: another
    worker may soon have the job.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self.progress = engine.Progress()
        self.phase = ""
        self._notes: list[Note] = []
        self._parcels: dict[int, engine.ParcelReport] = {}
        #: Further columns of the job's row, to be written with the next save.
        self.columns: dict[str, Any] = {}
        #: When the lease was renewed, and the last save begun, by the monotonic clock.
        self._renewed = time.monotonic()
        self.saved_at = 0.0

    @property
    def is_due(self) -> bool:
        """Whether RENEW_EVERY seconds have passed since the last save."""
        return time.monotonic() - self.saved_at >= RENEW_EVERY

    def add_event(
        self, level: str, code: str, message: str, data: dict[str, Any] | None = None
    ) -> None:
        """Keep an event, with the time and the phase of now."""
        self._notes.append(Note(code, message, level, data or {}, timezone.now(), self.phase))

    def add_parcel(self, parcel: engine.ParcelReport) -> None:
        """Keep the latest report of a parcel, and the manifest of an earlier one."""
        before = self._parcels.get(parcel.number)
        if before and before.manifest is not None and parcel.manifest is None:
            parcel = parcel._replace(manifest=before.manifest, digest=before.digest)
        self._parcels[parcel.number] = parcel

    def save(self) -> bool:
        """Write all reports and renew the lease; False if the database is away for now."""
        started = self.saved_at = time.monotonic()
        try:
            attempt_record(
                self._job,
                progress=self.progress,
                phase=self.phase,
                notes=self._notes,
                parcels=self._parcels.values(),
                **self.columns,
            )
        except AWAY as error:
            tolerate_outage(error, self._job, since=self._renewed)
            return False
        self._renewed = started
        self._notes, self._parcels, self.columns = [], {}, {}
        return True

    @contextmanager
    def tolerant(self) -> Iterator[None]:
        """Let the block fail if the database is away, as long as the lease allows."""
        try:
            yield
        except AWAY as error:
            tolerate_outage(error, self._job, since=self._renewed)
