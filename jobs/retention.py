"""Retention: removes jobs that ended long ago, each with all of its events and parcels.

A job stays as long as any job that was relaunched from it stays, so the events of a
job that is kept never point at a job that is gone: of a chain of relaunches the latest
job goes first, then those before it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.expressions import RawSQL

from jobs.models import Job, JobEvent, JobParcel
from jobs.states import FINAL

logger = logging.getLogger(__name__)

#: Jobs removed in one transaction, at most.
BATCH = 500
#: The key of the jobs that stay in a count; its other keys are models, with the rows removed.
_LEFT = "left"

#: All jobs that a kept job was relaunched from, directly or over others. Parameters: the final
#: states, the moment.
_ORIGINS_OF_KEPT = """
    WITH RECURSIVE origin AS (
        SELECT relaunched_from_id AS id FROM jobs
        WHERE relaunched_from_id IS NOT NULL
            AND (status = ANY(%s) AND finished_at < %s) IS NOT TRUE
        UNION
        SELECT jobs.relaunched_from_id FROM jobs JOIN origin ON origin.id = jobs.id
        WHERE jobs.relaunched_from_id IS NOT NULL
    )
    SELECT id FROM origin
"""


@dataclass(frozen=True)
class Pruned:
    """The numbers of rows removed, or to be removed, for jobs that ended before a moment.

    `left` counts jobs that stay because another transaction locks them or a row refers to them.
    """

    before: datetime
    jobs: int
    events: int
    parcels: int
    left: int = 0


def jobs_prune(*, older_than: timedelta, dry_run: bool = False) -> Pruned:
    """Remove the jobs that ended longer ago than `older_than`, by the database's clock.

    It removes the oldest first and in batches, each a transaction of its own: the batches that
    are done stay done if a later one fails. With `dry_run` it counts and removes nothing.
    """
    before = _moment(older_than)
    if dry_run:
        return _forecast(before)
    total = Counter[str]()
    for ids in _batches(before):
        while ids:
            removed, ids = _remove_what_can_go(before, ids)
            total += removed
    return _pruned(before, total)


def _moment(ago: timedelta) -> datetime:
    """Return the time that long ago, by the database's clock: one value for all batches."""
    with connection.cursor() as cursor:
        seconds = ago.total_seconds()
        cursor.execute("SELECT STATEMENT_TIMESTAMP() - make_interval(secs => %s)", [seconds])
        (moment,) = cursor.fetchone()
    return moment


def _pruned(before: datetime, count: Counter[str]) -> Pruned:
    jobs, events, parcels = (count[model._meta.label] for model in (Job, JobEvent, JobParcel))
    return Pruned(before, jobs, events, parcels, count[_LEFT])


def _ended(before: datetime) -> QuerySet[Job]:
    return Job.objects.filter(status__in=FINAL, finished_at__lt=before)


def _removable(before: datetime) -> QuerySet[Job]:
    """The ended jobs that no job on record was relaunched from."""
    return _ended(before).exclude(Exists(Job.objects.filter(relaunched_from=OuterRef("pk"))))


def _forecast(before: datetime) -> Pruned:
    stay = RawSQL(_ORIGINS_OF_KEPT, [sorted(FINAL), before])  # noqa: S611  (a constant)
    jobs = _ended(before).exclude(pk__in=stay)
    events, parcels = (model.objects.filter(job__in=jobs) for model in (JobEvent, JobParcel))
    return Pruned(before, jobs.count(), events.count(), parcels.count())


def _batches(before: datetime) -> Iterator[list[UUID]]:
    """Yield the removable jobs, oldest first, from a cursor on the server: they may be many."""
    oldest = _removable(before).order_by("finished_at", "pk")
    ids = oldest.values_list("pk", flat=True).iterator(BATCH)
    while batch := list(islice(ids, BATCH)):
        yield batch


def _remove_what_can_go(before: datetime, ids: list[UUID]) -> tuple[Counter[str], list[UUID]]:
    """Remove these jobs, except any that another row still refers to."""
    try:
        return _remove(before, ids)
    except IntegrityError as error:  # `ProtectedError` is one.
        if len(ids) == 1:
            logger.warning("Job %s stays, another row refers to it: %s", ids[0], error)
            return Counter({_LEFT: 1}), []
    # One of them makes the transaction fail: remove each in one of its own.
    total, origins = Counter[str](), list[UUID]()
    for job_id in ids:
        removed, more = _remove_what_can_go(before, [job_id])
        total += removed
        origins += more
    return total, origins


def _remove(before: datetime, ids: list[UUID]) -> tuple[Counter[str], list[UUID]]:
    """Remove these jobs whole; return the numbers, and the jobs they were relaunched from.

    1. Lock them, except those that another transaction has locked.
    2. Select again under the locks: a job that was relaunched before they were taken
       is not removable any more, and none can be relaunched meanwhile.
    3. Remove them, and log those that were skipped.
    """
    with transaction.atomic(durable=True):
        asked = _removable(before).filter(pk__in=ids)
        free = asked.select_for_update(skip_locked=True).values_list("pk", "relaunched_from_id")
        origin_of = dict(free)
        _rows, by_model = asked.filter(pk__in=origin_of).only("pk").delete()
        locked = list(asked.values_list("pk", flat=True))
    for job_id in locked:
        logger.warning("Job %s stays, another transaction has locked it", job_id)
    removed = Counter({**by_model, _LEFT: len(locked)})
    done = _pruned(before, removed)
    if done.jobs:
        logger.info(
            "Pruned %d jobs that had ended before %s, with %d events and %d parcels",
            done.jobs,
            before,
            done.events,
            done.parcels,
        )
    return removed, list({origin for origin in origin_of.values() if origin})
