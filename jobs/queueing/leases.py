"""The writes of parcel leases: a running job lends parcels, free workers carry them.

A lease is offered by the worker that runs the job, taken by one helper, and
done, or returned when the helper is lost (its time runs out by the database's
clock). Every write names the state it believes in; when the job leaves
`running` all its leases go, and with them every helper's right to write.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from engine.errand import Errand, Outcome, Site
from engine.errors import Replaced
from jobs.choices import LeaseState
from jobs.life import lease
from jobs.models import Job, ParcelLease
from jobs.states import Status

#: The advisory lock under which leases are taken: "KETTEL" in ASCII.
_TAKE_LOCK = 0x4B455454454C

# --- The worker that runs the job --------------------------------------------


@transaction.atomic
def leases_renew(
    job: Job, *, forget: Collection[int], site: Site | None, errands: Sequence[Errand], most: int
) -> list[ParcelLease]:
    """Forget leases (by primary key) that were taken in, offer some more; return all there are.

    Safe to be said again when nobody knows whether it was done. A lease whose
    time ran out is returned. Raises `engine.Replaced` if this attempt does not
    run the job any more: its leases are gone, and nobody's.
    """
    _still_runs(job)
    mine = ParcelLease.objects.filter(job=job, attempt=job.attempt)
    if forget:
        mine.filter(pk__in=forget).delete()
    if errands and site:
        rows = [
            ParcelLease(
                job=job,
                attempt=job.attempt,
                number=errand.number,
                errand=_packed(site, errand),
                entries=errand.entries,
                most=most,
            )
            for errand in errands
        ]
        ParcelLease.objects.bulk_create(rows, ignore_conflicts=True)
    late = mine.filter(state=LeaseState.TAKEN, lease_until__lt=Now())
    late.update(state=LeaseState.RETURNED)
    return list(mine.defer("entries", "errand").order_by("number"))


@transaction.atomic
def leases_withdraw(job: Job) -> list[int]:
    """Take back what nobody has taken; return the parcels' numbers. Raises as `leases_renew`."""
    _still_runs(job)
    offered = ParcelLease.objects.filter(job=job, attempt=job.attempt, state=LeaseState.OFFERED)
    rows = dict(offered.select_for_update(skip_locked=True).values_list("pk", "number"))
    ParcelLease.objects.filter(pk__in=rows).delete()
    return list(rows.values())


def _still_runs(job: Job) -> None:
    """Hold the job's row, as whoever ends it does, while leases are written."""
    rows = Job.objects.select_for_update(no_key=True)
    if not rows.filter(pk=job.pk, attempt=job.attempt, status=Status.RUNNING).exists():
        raise Replaced(f"Attempt {job.attempt} of job {job.pk} does not run it any more.")


def _packed(site: Site, errand: Errand) -> str:
    """Names need not be storable text: as ASCII JSON they are."""
    said = {**errand._asdict(), "site": site._asdict()}
    del said["entries"]
    return json.dumps(said)


def errand_of(row: ParcelLease) -> tuple[Site, Errand]:
    """The parcel that was taken, and where it goes."""
    said = json.loads(row.errand)
    site = Site(**said.pop("site"))
    return site, Errand(**said, entries=bytes(row.entries))


def outcome_of(row: ParcelLease) -> Outcome:
    """What a helper says of a parcel; of one that came back, only who had it."""
    if row.state == LeaseState.RETURNED:
        return Outcome(row.number, row.label, returned=True)
    told = json.loads(row.outcome)
    proven: Sequence[tuple[bytes, bytes]] = ()
    if row.proven is not None and row.digests is not None:
        proven = ((bytes(row.proven), bytes(row.digests)),)
    return Outcome(row.number, row.label, proven, told["failures"], told["undelivered"])


# --- Helpers -----------------------------------------------------------------


@transaction.atomic
def lease_take(*, worker: str, label: str, of: Job | None = None) -> ParcelLease | None:
    """Take a parcel that a running job lends, the most urgent job's first; None if there is none.

    No job has more helpers at once than it allows.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_TAKE_LOCK])
    offered = ParcelLease.objects.filter(
        state=LeaseState.OFFERED,
        job__status=Status.RUNNING,
        job__attempt=F("attempt"),
        job__cancel_requested_at=None,
        job__pause_requested_at=None,
    )
    if of is not None:
        offered = offered.filter(job=of, attempt=of.attempt)
    full: set[UUID] = set()
    rows = offered.select_for_update(skip_locked=True, of=("self",)).order_by(
        "-job__priority", "job__created_at", "-number"
    )
    for row in rows.values("pk", "job_id", "most").iterator(20):
        if row["job_id"] in full:
            continue
        helpers = ParcelLease.objects.filter(job=row["job_id"], state=LeaseState.TAKEN).count()
        if helpers >= row["most"]:
            full.add(row["job_id"])
            continue
        taken = {"state": LeaseState.TAKEN, "worker": worker, "label": label}
        ParcelLease.objects.filter(pk=row["pk"]).update(**taken, lease_until=lease(), moved=0)
        return ParcelLease.objects.select_related(
            "job__source_portal__credential", "job__target_portal__credential", "job__requested_by"
        ).get(pk=row["pk"])
    return None


def lease_renew(row: ParcelLease, *, moved: int) -> None:
    """Renew a lease; raises `engine.Replaced` when the helper does not have it any more."""
    if not _held(row).update(lease_until=lease(), moved=moved):
        raise _taken_away(row)


def lease_deliver(row: ParcelLease, *, outcome: Outcome) -> None:
    """Hand in what became of a parcel; raises `engine.Replaced` as `lease_renew` does."""
    proven, digests = outcome.proven[0] if outcome.proven else (None, None)
    told = {"failures": outcome.failures, "undelivered": outcome.undelivered}
    done = _held(row).update(
        state=LeaseState.DONE, outcome=json.dumps(told), proven=proven, digests=digests
    )
    # Perhaps it was done before, and nobody heard of it.
    before = ParcelLease.objects.filter(pk=row.pk, label=row.label, state=LeaseState.DONE)
    if not done and not before.exists():
        raise _taken_away(row)


def lease_return(row: ParcelLease) -> None:
    """Give a parcel back undone, if this helper still has it."""
    _held(row).update(state=LeaseState.RETURNED)


def jobs_that_lend() -> list[UUID]:
    """Running jobs whose parcels have been on offer for a while."""
    before = Now() - timedelta(seconds=settings.KETTER_REAPER_SECONDS)
    rows = ParcelLease.objects.filter(
        state=LeaseState.OFFERED,
        created_at__lt=before,
        job__status=Status.RUNNING,
        job__attempt=F("attempt"),
    )
    return list(rows.values_list("job_id", flat=True).distinct())


def leases_give_back(*, worker: str) -> None:
    """Give back what a worker is known to have lost, not waiting for the lease."""
    ParcelLease.objects.filter(state=LeaseState.TAKEN, worker=worker).update(
        state=LeaseState.RETURNED
    )


def _taken_away(row: ParcelLease) -> Replaced:
    return Replaced(f"Parcel {row.number} of job {row.job_id} is no longer with this helper.")


def _held(row: ParcelLease) -> QuerySet[ParcelLease]:
    """The lease if its helper still has it.

    State and label stand in the updated row itself: an UPDATE that had to wait for
    another one looks at these once more, and at no subquery.
    """
    jobs = Job.objects.filter(pk=row.job_id, attempt=row.attempt, status=Status.RUNNING)
    return ParcelLease.objects.filter(
        pk=row.pk, state=LeaseState.TAKEN, label=row.label, job_id__in=jobs.values("pk")
    )
