"""JobRecord: what earlier attempts of a job have proven, as their manifests in the database say."""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar

from django.db.models import QuerySet, Sum

from engine.proof import manifest
from jobs.models import Job, JobParcel
from jobs.running.attempt_writer import RENEW_EVERY

logger = logging.getLogger(__name__)

Read = TypeVar("Read")


class JobRecord:
    """The engine's `ProofRecord` for a job.

    `tolerant` makes a context that lets a short outage of the database pass.
    """

    def __init__(self, job: Job, tolerant: Callable[[], AbstractContextManager[None]]) -> None:
        self._job, self._tolerant = job, tolerant

    def add(self, entries: bytes, digests: bytes) -> None:
        """Do nothing: the attempt's writer puts the parcel's manifest on record."""

    def known(self) -> Iterator[manifest.Entries]:
        """Yield the entries of all manifests of earlier attempts, the latest first.

        Waits for an absent database as long as the lease allows; raises engine.Replaced after that.
        """
        for number in self._read(lambda: list(self._earlier.values_list("pk", flat=True))):
            # One by one: a cursor would not outlive an outage.
            blob = self._read(partial(self._manifest, number))
            try:
                yield manifest.entries_of(blob)
            except (ValueError, zlib.error) as error:
                logger.warning("Job %s: manifest %d is damaged: %s", self._job.pk, number, error)

    def most(self) -> int | None:
        """Return the number of entries that earlier attempts planned, at most."""
        plan = self._job.plan or {}
        planned = sum(plan.get(name, 0) for name in ("files", "folders", "resumed"))
        files = self._read(lambda: self._earlier.aggregate(Sum("files"))["files__sum"])
        return planned + (files or 0)

    @property
    def _earlier(self) -> QuerySet[JobParcel]:
        earlier = self._job.parcels.filter(attempt__lt=self._job.attempt).exclude(manifest=None)
        return earlier.order_by("-attempt", "number")

    def _manifest(self, number: int) -> bytes:
        return bytes(self._earlier.values_list("manifest", flat=True).get(pk=number) or b"")

    def _read(self, query: Callable[[], Read]) -> Read:
        while True:
            with self._tolerant():
                return query()
            time.sleep(RENEW_EVERY)
