"""Parcels that a running job lends: who may take them, and what becomes of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import django_rq
import pytest
import redis
from django.db import OperationalError, connection, transaction
from django.db.models.functions import Now

import engine
from engine.loans import LentParcel, LoanStatus, Location, ParcelResult
from engine.types import OPTIONS_VERSION
from jobs.models import Job, ParcelLease
from jobs.queueing import reaper
from jobs.queueing.attempts import bandwidth_share
from jobs.queueing.parcel_leases import (
    jobs_that_lend,
    lease_deliver,
    lease_renew,
    lease_return,
    lease_take,
    loan_of,
)
from jobs.queueing.transitions import job_move
from jobs.running import lender as lenders
from jobs.running.lender import MOST_RETURNED, JobLender
from jobs.services import job_cancel
from jobs.states import Status

pytestmark = pytest.mark.django_db(transaction=True)

JobIn = Callable[..., Job]
LOCATION = Location("odd\udcff", "in/day1", (), "boot 1", (1, 2), "boot 2")
GIB = 1 << 30
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _empty(clean_redis: redis.Redis) -> None:
    """Each test has a Redis of its own."""


@contextmanager
def patience() -> Iterator[None]:
    """Wait an outage of the database out, as a job's observer does."""
    try:
        yield
    except OperationalError:
        return


@pytest.fixture
def added() -> list[str]:
    """The codes of the events that the lender has added."""
    return []


@pytest.fixture
def job(job_in: JobIn) -> Job:
    """A job that runs."""
    return job_in(Status.RUNNING)


@pytest.fixture
def lender(job: Job, added: list[str], settings: Any) -> JobLender:
    """Its side of the leases, that has seen how much there is to do."""
    settings.KETTER_SPREAD_BYTES = GIB
    lender = JobLender(job, patience, lambda level, code, message: added.append(code))
    assert lender.look(GIB, 1).room == 6
    return lender


def loans(*numbers: int) -> list[LentParcel]:
    """Parcels of those numbers."""
    return [LentParcel(number, "zip", 1, 100, b"list %d" % number) for number in numbers]


def take(worker: str = "w2", label: str = "") -> ParcelLease | None:
    return lease_take(worker=worker, label=label or worker)


def took(worker: str = "w2", label: str = "") -> ParcelLease:
    row = take(worker, label)
    assert row is not None
    return row


def numbers(results: Sequence[ParcelResult]) -> list[tuple[int, bool]]:
    """Which parcels came back, and whether undone."""
    return [(result.number, result.returned) for result in results]


def late(row: ParcelLease) -> None:
    """Let the time of a lease run out."""
    ParcelLease.objects.filter(pk=row.pk).update(lease_until=Now() - timedelta(seconds=1))


def test_the_lender_counts_idle_workers_as_helpers_for_a_large_job_only(
    job: Job, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.KETTER_SPREAD_BYTES, settings.KETTER_SPREAD_WORKERS = GIB, 3
    lender = JobLender(job, patience, lambda *_: None)
    for idle, expected in ((0, 0), (2, 2), (9, 3)):
        monkeypatch.setattr(lenders, "idle_workers", lambda _machine, idle=idle: idle)
        assert lender.helpers(GIB, 1) == expected
    settings.KETTER_SPREAD_BYTES = GIB + 1
    assert lender.helpers(GIB, 1) == 0
    settings.KETTER_SPREAD_BYTES = 1

    def away(_machine: str) -> int:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(lenders, "idle_workers", away)
    assert lender.helpers(GIB, 1) == 0


def test_a_lent_parcel_comes_back_with_its_proof(lender: JobLender, added: list[str]) -> None:
    lender.offer(LOCATION, loans(4))
    row = took()
    location, loan = loan_of(row)
    assert (row.worker, loan) == ("w2", loans(4)[0]._replace(slices=[]))
    assert location == LOCATION._replace(names=[], folder=[1, 2])
    lease_renew(row, moved=60)
    assert lender.look(0, 1).moving == 60

    failure = ("odd\udcff\u0000name", "IO_ERROR", "it broke")
    lease_deliver(row, result=ParcelResult(4, "w2", [(b"entries", b"digests")], [failure], 1))

    (result,) = lender.look(0, 1).results
    assert (result.proven, result.undelivered) == (((b"entries", b"digests"),), 1)
    assert tuple(result.failures[0]) == failure
    assert lender.look(0, 1) == LoanStatus([], room=6)
    assert not ParcelLease.objects.exists()
    assert added == ["HELPER_JOINED"]


@pytest.mark.parametrize(
    ("least", "left", "streams", "room"),
    [(GIB, GIB - 1, 1, 0), (0, 9 * GIB, 1, 0), (GIB, GIB, 8, 0), (GIB, GIB, 7, 2), (1, GIB, 1, 6)],
)
def test_only_a_large_job_lends_parcels_and_no_more_than_its_streams_allow(
    job: Job, settings: Any, least: int, left: int, streams: int, room: int
) -> None:
    settings.KETTER_SPREAD_BYTES = least
    job.source_portal.max_streams = job.target_portal.max_streams = 8
    lender = JobLender(job, patience, lambda *_: None)
    assert lender.look(left, streams).room == room
    assert lender.look(9 * GIB, 1).room == room  # Decided once.


def test_a_job_gets_no_more_helpers_than_it_allows(lender: JobLender) -> None:
    lender.offer(LOCATION, loans(1, 2, 3, 4, 5))
    assert [row.number for row in (took("w2"), took("w3"), took("w4"))] == [5, 4, 3]
    assert take("w5") is None


def test_the_lender_withdraws_only_parcels_that_no_helper_took(lender: JobLender) -> None:
    lender.offer(LOCATION, loans(1, 2))
    row = took()
    assert lender.withdraw() == [1]
    assert take("w3") is None
    lease_renew(row, moved=1)


def test_the_parcel_of_a_lost_helper_comes_back_and_its_late_delivery_is_refused(
    lender: JobLender, added: list[str]
) -> None:
    lender.offer(LOCATION, loans(1))
    row = took()
    late(row)
    assert numbers(lender.look(0, 1).results) == [(1, True)]
    assert added == ["HELPER_JOINED", "HELPER_LOST"]
    with pytest.raises(engine.Replaced):
        lease_renew(row, moved=1)
    with pytest.raises(engine.Replaced):
        lease_deliver(row, result=ParcelResult(1, "w2"))

    lender.offer(LOCATION, loans(1))  # The same parcel, to another helper.
    again = took("w3")
    with pytest.raises(engine.Replaced):
        lease_deliver(row, result=ParcelResult(1, "w2"))
    lease_renew(again, moved=1)


def test_a_parcel_that_its_helper_returns_comes_back_at_once(lender: JobLender) -> None:
    lender.offer(LOCATION, loans(1, 2))
    lease_return(took("w2"))
    assert numbers(lender.look(0, 1).results) == [(2, True)]
    took("w3")
    reaper.give_back(worker="w3", reason="it was killed")
    assert numbers(lender.look(0, 1).results) == [(1, True)]


def test_an_attempt_whose_helpers_return_every_parcel_stops_lending(lender: JobLender) -> None:
    for number in range(MOST_RETURNED):
        lender.offer(LOCATION, loans(number))
        lease_return(took())
        room = lender.look(0, 1).room
    assert room == 0


@pytest.mark.parametrize("to", [Status.QUEUED, Status.PAUSED, Status.DONE])
def test_a_job_that_has_ended_has_no_helpers(job: Job, lender: JobLender, to: Status) -> None:
    lender.offer(LOCATION, loans(1, 2))
    row = took()
    job_move(job, to, code="TEST", message="It ended.")
    assert take() is None
    with pytest.raises(engine.Replaced):
        lease_renew(row, moved=1)


def test_no_helper_joins_a_job_that_is_being_stopped(job: Job, lender: JobLender) -> None:
    lender.offer(LOCATION, loans(1))
    job_cancel(Job.objects.get(pk=job.pk), by=job.requested_by)
    assert take() is None


@pytest.mark.parametrize("newer", [{"options_version": OPTIONS_VERSION + 1}, {"symlinks": "newer"}])
def test_no_helper_takes_parcels_of_a_job_that_it_does_not_know_all_of(
    job: Job, lender: JobLender, job_in: JobIn, newer: dict[str, Any]
) -> None:
    """A worker of this version, while a newer one runs a job with an option of its own."""
    lender.offer(LOCATION, loans(1, 2))
    Job.objects.filter(pk=job.pk).update(**newer, priority=9)
    assert take() is None
    assert lease_take(worker="w2", label="w2", of=job) is None

    other = job_in(Status.RUNNING)
    ParcelLease.objects.create(job=other, attempt=1, number=1, loan="{}", entries=b"", most=1)
    assert took("w3").job_id == other.pk


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("call", ["leases_renew", "leases_withdraw"])
def test_an_outage_of_the_database_loses_no_parcel_and_lends_none_twice(
    lender: JobLender, monkeypatch: pytest.MonkeyPatch, call: str, committed: bool
) -> None:
    lender.offer(LOCATION, loans(1, 2))
    with monkeypatch.context() as patched:
        real = getattr(lenders, call)

        def away(*args: Any, **words: Any) -> Any:
            if committed:
                real(*args, **words)
            raise OperationalError("the server closed the connection")

        patched.setattr(lenders, call, away)
        lender.offer(LOCATION, loans(3))
        assert lender.withdraw() == []
        back = [*lender.look(0, 1).results]

    back += lender.look(0, 1).results
    out = list(ParcelLease.objects.values_list("number", flat=True))
    assert all(result.returned and not result.label for result in back)
    assert sorted([*out, *(result.number for result in back)]) == [1, 2, 3]


def test_the_lender_reads_a_result_only_once_even_if_the_database_fails_meanwhile(
    lender: JobLender, monkeypatch: pytest.MonkeyPatch
) -> None:
    lender.offer(LOCATION, loans(1))
    lease_deliver(took(), result=ParcelResult(1, "w2"))
    assert numbers(lender.look(0, 1).results) == [(1, False)]
    real = lenders.__dict__["leases_renew"]
    with monkeypatch.context() as patched:

        def away(*args: Any, **words: Any) -> Any:
            real(*args, **words)
            raise OperationalError("the server closed the connection")

        patched.setattr(lenders, "leases_renew", away)
        lender.offer(LOCATION, loans(1))  # It was not whole: once more.
    row = took("w3")
    assert lender.look(0, 1).results == []
    lease_renew(row, moved=1)


def test_the_lender_reads_all_results_without_a_second_query(
    lender: JobLender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is read at once, before anything is noted as taken in."""
    lender.offer(LOCATION, loans(1, 2))
    lease_return(took("w2"))
    lease_deliver(took("w3"), result=ParcelResult(1, "w3", [(b"entries", b"digests")]))
    with monkeypatch.context() as patched:

        def away(*args: Any, **words: Any) -> Any:
            raise OperationalError("the server closed the connection")

        patched.setattr(ParcelLease, "refresh_from_db", away)
        results = lender.look(0, 1).results
    assert [(o.number, o.label, bool(o.proven)) for o in results] == [
        (1, "w3", True),
        (2, "w2", False),
    ]


def test_a_stale_attempt_lends_nothing_and_takes_nothing_back(job: Job, lender: JobLender) -> None:
    lender.offer(LOCATION, loans(1))
    job_move(job, Status.QUEUED, code="TEST", message="Another worker has it.")
    for act in (
        lender.withdraw,
        lambda: lender.look(0, 1),
        lambda: lender.offer(LOCATION, loans(2)),
    ):
        with pytest.raises(engine.Replaced):
            act()
    assert not ParcelLease.objects.exists()


def test_parcels_left_by_a_job_that_is_done_wake_no_worker(job_in: JobIn) -> None:
    done = job_in(Status.DONE, attempt=1)
    ParcelLease.objects.create(
        job=done, attempt=1, number=1, loan="{}", entries=b"", most=1, created_at=LONG_AGO
    )
    assert jobs_that_lend() == []


def test_a_delivery_whose_reply_got_lost_may_be_repeated(lender: JobLender) -> None:
    lender.offer(LOCATION, loans(1))
    row = took()
    for _ in range(2):
        lease_deliver(row, result=ParcelResult(1, "w2"))
    assert numbers(lender.look(0, 1).results) == [(1, False)]


def test_a_delivery_is_refused_while_the_lender_takes_the_parcel_back(lender: JobLender) -> None:
    lender.offer(LOCATION, loans(1))
    row = took()
    late(row)
    caught: list[Exception] = []

    def deliver() -> None:
        try:
            lease_deliver(row, result=ParcelResult(1, "w2"))
        except engine.Replaced as error:
            caught.append(error)
        finally:
            connection.close()

    with transaction.atomic():
        ParcelLease.objects.filter(pk=row.pk).update(state="returned")
        thread = Thread(target=deliver)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()  # It waits for us.
    thread.join()
    assert len(caught) == 1
    assert numbers(lender.look(0, 1).results) == [(1, True)]


def test_a_job_shares_its_bandwidth_limit_with_its_helpers(job: Job, lender: JobLender) -> None:
    Job.objects.filter(pk=job.pk).update(bandwidth_limit=900)
    job.refresh_from_db()
    lender.offer(LOCATION, loans(1, 2))
    assert bandwidth_share(job) == 900
    took("w2")
    took("w3")
    assert bandwidth_share(job) == 300


def test_workers_get_wake_ups_for_parcels_at_once_and_again_from_the_reaper(
    job: Job, lender: JobLender, settings: Any
) -> None:
    lender.offer(LOCATION, loans(1))
    queue = django_rq.get_queue()
    assert [wake_up.args[0] for wake_up in queue.jobs] == [str(job.pk)] * 3
    queue.empty()
    lease_return(took())
    lender.look(0, 1)
    lender.offer(LOCATION, loans(2))
    assert queue.is_empty()  # A helper looks for more parcels by itself.

    assert reaper.tick().notified == []
    settings.KETTER_REAPER_SECONDS = 0
    assert reaper.tick().notified == [job.pk]
