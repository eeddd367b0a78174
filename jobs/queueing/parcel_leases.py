"""The writes of parcel leases: the worker of a running job lends parcels, helpers carry them.

The worker that runs the job offers a lease. One helper takes it and marks it done. If the
helper is lost (the lease expires by the database's clock), the lease is returned. Each write
names the state that the writer expects. When a job leaves `running`, all its leases are
deleted, and with them the right of every helper to write.
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
from django.utils.translation import gettext as _

from engine.errors import Replaced
from engine.loans import LentParcel, Location, ParcelResult
from jobs.choices import LeaseState
from jobs.errors import replaced
from jobs.models import Job, ParcelLease
from jobs.queueing.eligibility import is_known
from jobs.queueing.machines import is_here
from jobs.queueing.transitions import lease
from jobs.states import Status

#: The advisory lock that a helper holds while it takes a lease: "KETTEL" in ASCII.
_TAKE_LOCK = 0x4B455454454C

# --- The worker that runs the job --------------------------------------------


@transaction.atomic
def leases_renew(
    job: Job,
    *,
    forget: Collection[int],
    location: Location | None,
    loans: Sequence[LentParcel],
    most: int,
) -> list[ParcelLease]:
    """Delete leases whose results are taken in (`forget`), offer new ones; return all that exist.

    `forget` has primary keys. A second call with the same arguments does no harm, for a caller
    that does not know whether the first was committed. An expired lease becomes returned.
    Raises engine.Replaced if this attempt does not run the job any more; its leases are deleted.
    """
    _still_runs(job)
    mine = ParcelLease.objects.filter(job=job, attempt=job.attempt)
    if forget:
        mine.filter(pk__in=forget).delete()
    if loans and location:
        rows = [
            ParcelLease(
                job=job,
                attempt=job.attempt,
                number=loan.number,
                loan=_packed(location, loan),
                entries=loan.entries,
                most=most,
            )
            for loan in loans
        ]
        ParcelLease.objects.bulk_create(rows, ignore_conflicts=True)
    late = mine.filter(state=LeaseState.TAKEN, lease_until__lt=Now())
    late.update(state=LeaseState.RETURNED)
    return list(mine.defer("entries", "loan").order_by("number"))


@transaction.atomic
def leases_withdraw(job: Job) -> list[int]:
    """Delete the leases that no helper took; return their parcels. Raises as `leases_renew`."""
    _still_runs(job)
    offered = ParcelLease.objects.filter(job=job, attempt=job.attempt, state=LeaseState.OFFERED)
    rows = dict(offered.select_for_update(skip_locked=True).values_list("pk", "number"))
    ParcelLease.objects.filter(pk__in=rows).delete()
    return list(rows.values())


def _still_runs(job: Job) -> None:
    """Lock the job's row while leases are written, as the process that ends the job does, too.

    Raises engine.Replaced if this attempt does not run the job any more.
    """
    rows = Job.objects.select_for_update(no_key=True)
    if not rows.filter(pk=job.pk, attempt=job.attempt, status=Status.RUNNING).exists():
        raise replaced(job.pk, job.attempt)


def _packed(location: Location, loan: LentParcel) -> str:
    """Return a parcel and its destination as ASCII JSON: file names may be unstorable text."""
    # Helpers of an earlier version read the location under the name "site".
    fields = {**loan._asdict(), "site": location._asdict()}
    del fields["entries"]
    return json.dumps(fields)


def loan_of(row: ParcelLease) -> tuple[Location, LentParcel]:
    """Return the destination and the parcel of a lease."""
    fields = json.loads(row.loan)
    location = Location(**fields.pop("site"))
    return location, LentParcel(**fields, entries=bytes(row.entries))


def result_of(row: ParcelLease) -> ParcelResult:
    """Return a helper's result of a parcel; of a returned one, only which helper had it."""
    if row.state == LeaseState.RETURNED:
        return ParcelResult(row.number, row.label, returned=True)
    report = json.loads(row.result)
    proven: Sequence[tuple[bytes, bytes]] = ()
    if row.proven is not None and row.digests is not None:
        proven = ((bytes(row.proven), bytes(row.digests)),)
    return ParcelResult(row.number, row.label, proven, report["failures"], report["undelivered"])


# --- Helpers -----------------------------------------------------------------


@transaction.atomic
def lease_take(*, worker: str, label: str, of: Job | None = None) -> ParcelLease | None:
    """Take a parcel that a running job lends, of the most urgent job first; None if none is.

    A job never has more helpers at once than it allows. A worker does not help a job whose
    options it does not know, since a newer worker may run it, nor one with a folder of another
    machine.
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
    passed_over: set[UUID] = set()
    rows = offered.select_for_update(skip_locked=True, of=("self",)).order_by(
        "-job__priority", "job__created_at", "-number"
    )
    for row in rows.values("pk", "job_id", "most").iterator(20):
        if row["job_id"] in passed_over:
            continue
        helpers = ParcelLease.objects.filter(job=row["job_id"], state=LeaseState.TAKEN).count()
        if helpers >= row["most"] or not _may_help(row["job_id"]):
            passed_over.add(row["job_id"])
            continue
        taken = {"state": LeaseState.TAKEN, "worker": worker, "label": label}
        ParcelLease.objects.filter(pk=row["pk"]).update(**taken, lease_until=lease(), moved=0)
        return ParcelLease.objects.select_related(
            "job__source_portal__credential", "job__target_portal__credential", "job__requested_by"
        ).get(pk=row["pk"])
    return None


def _may_help(job_id: UUID) -> bool:
    job = Job.objects.select_related("source_portal", "target_portal").get(pk=job_id)
    return is_known(job) and is_here(job)


def lease_renew(row: ParcelLease, *, moved: int) -> None:
    """Renew a lease. Raises engine.Replaced if this helper does not hold it any more."""
    if not _held(row).update(lease_until=lease(), moved=moved):
        raise _taken_away(row)


def lease_deliver(row: ParcelLease, *, result: ParcelResult) -> None:
    """Write the result of a parcel. Raises engine.Replaced as `lease_renew` does."""
    proven, digests = result.proven[0] if result.proven else (None, None)
    report = {"failures": result.failures, "undelivered": result.undelivered}
    done = _held(row).update(
        state=LeaseState.DONE, result=json.dumps(report), proven=proven, digests=digests
    )
    # Perhaps an earlier call was committed and its reply got lost.
    before = ParcelLease.objects.filter(pk=row.pk, label=row.label, state=LeaseState.DONE)
    if not done and not before.exists():
        raise _taken_away(row)


def lease_return(row: ParcelLease) -> None:
    """Give a parcel back unfinished, if this helper still holds its lease."""
    _held(row).update(state=LeaseState.RETURNED)


def jobs_that_lend() -> list[UUID]:
    """Return the running jobs with parcels that have been on offer for a while."""
    before = Now() - timedelta(seconds=settings.KETTER_REAPER_SECONDS)
    rows = ParcelLease.objects.filter(
        state=LeaseState.OFFERED,
        created_at__lt=before,
        job__status=Status.RUNNING,
        job__attempt=F("attempt"),
    )
    return list(rows.values_list("job_id", flat=True).distinct())


def leases_give_back(*, worker: str) -> None:
    """Return the leases of a worker whose run is known to be dead, before they expire."""
    ParcelLease.objects.filter(state=LeaseState.TAKEN, worker=worker).update(
        state=LeaseState.RETURNED
    )


def _taken_away(row: ParcelLease) -> Replaced:
    words = {"number": row.number, "job": row.job_id}
    sentence = _("This helper does not hold parcel %(number)d of job %(job)s any more.")
    return Replaced(sentence % words)


def _held(row: ParcelLease) -> QuerySet[ParcelLease]:
    """The lease, if its helper still holds it.

    State and label are in the row that is updated: after waiting for another transaction an
    UPDATE checks these again, but no subquery.
    """
    jobs = Job.objects.filter(pk=row.job_id, attempt=row.attempt, status=Status.RUNNING)
    return ParcelLease.objects.filter(
        pk=row.pk, state=LeaseState.TAKEN, label=row.label, job_id__in=jobs.values("pk")
    )
