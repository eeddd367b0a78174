"""Retention: jobs that ended long ago leave the record, each whole or not at all.

A job takes its events and its parcels with it. It stays as long as any job
that was relaunched from it stays, so a trail that is kept never points at
something that is gone: of a chain the latest goes first, and then those before it.
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

#: As many jobs are removed in one transaction.
BATCH = 500
#: Where a count tells of jobs that were left alone, beside those of removed rows by model.
_LEFT = "left"

#: All jobs a kept one was relaunched from, however far back; parameters as in `_stay`.
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
    """How much was removed, or would be, of what had ended before a moment.

    `left` counts jobs that could not go: somebody held them, or something needs them.
    """

    before: datetime
    jobs: int
    events: int
    parcels: int
    left: int = 0


def jobs_prune(*, older_than: timedelta, dry_run: bool = False) -> Pruned:
    """Remove the jobs that ended longer ago than that, by the database's clock.

    Oldest first and in batches, each its own transaction: what is removed stays
    removed however this ends. With `dry_run` it only says what would go.
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
    """The time that long ago, by the database's clock; one for all batches."""
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
    """Those of the ended jobs that nothing on record was relaunched from."""
    return _ended(before).exclude(Exists(Job.objects.filter(relaunched_from=OuterRef("pk"))))


def _forecast(before: datetime) -> Pruned:
    stay = RawSQL(_ORIGINS_OF_KEPT, [sorted(FINAL), before])  # noqa: S611  (a constant)
    jobs = _ended(before).exclude(pk__in=stay)
    events, parcels = (model.objects.filter(job__in=jobs) for model in (JobEvent, JobParcel))
    return Pruned(before, jobs.count(), events.count(), parcels.count())


def _batches(before: datetime) -> Iterator[list[UUID]]:
    """The removable jobs, oldest first, from a cursor on the server: they may be many."""
    oldest = _removable(before).order_by("finished_at", "pk")
    ids = oldest.values_list("pk", flat=True).iterator(BATCH)
    while batch := list(islice(ids, BATCH)):
        yield batch


def _remove_what_can_go(before: datetime, ids: list[UUID]) -> tuple[Counter[str], list[UUID]]:
    """Remove those jobs, but for any the database does not let go of."""
    try:
        return _remove(before, ids)
    except IntegrityError as error:  # `ProtectedError` is one.
        if len(ids) == 1:
            logger.warning("Job %s stays, for something needs it: %s", ids[0], error)
            return Counter({_LEFT: 1}), []
    # One of them holds the others up: each by itself.
    total, origins = Counter[str](), list[UUID]()
    for job_id in ids:
        removed, more = _remove_what_can_go(before, [job_id])
        total += removed
        origins += more
    return total, origins


def _remove(before: datetime, ids: list[UUID]) -> tuple[Counter[str], list[UUID]]:
    """Remove those jobs whole; say how much that was, and what they were relaunched from.

    1. Lock them, but for those that somebody holds.
    2. Look anew under the locks: a job that was relaunched before they were
       taken is not removable any more, and none can be relaunched meanwhile.
    3. Remove them, and tell of those that were passed over.
    """
    with transaction.atomic(durable=True):
        asked = _removable(before).filter(pk__in=ids)
        free = asked.select_for_update(skip_locked=True).values_list("pk", "relaunched_from_id")
        origin_of = dict(free)
        _rows, by_model = asked.filter(pk__in=origin_of).only("pk").delete()
        held = list(asked.values_list("pk", flat=True))
    for job_id in held:
        logger.warning("Job %s stays, for somebody holds it at this moment", job_id)
    removed = Counter({**by_model, _LEFT: len(held)})
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
