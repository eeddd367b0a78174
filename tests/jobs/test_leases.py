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
from engine.errand import Errand, News, Outcome, Site
from jobs import lender as lenders
from jobs import reaper
from jobs.attempts import bandwidth_share
from jobs.leases import (
    errand_of,
    jobs_that_lend,
    lease_deliver,
    lease_renew,
    lease_return,
    lease_take,
)
from jobs.lender import MOST_RETURNED, JobLender
from jobs.life import job_move
from jobs.models import Job, ParcelLease
from jobs.services import job_cancel
from jobs.states import Status
from jobs.tasks import run_job

pytestmark = pytest.mark.django_db(transaction=True)

JobIn = Callable[..., Job]
SITE = Site("odd\udcff", "in/day1", (), "boot 1", (1, 2), "boot 2")
GIB = 1 << 30
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _empty(clean_redis: redis.Redis) -> None:
    """Each test has a Redis of its own."""


@contextmanager
def patience() -> Iterator[None]:
    """Put up with an absent database, as a job's observer does."""
    try:
        yield
    except OperationalError:
        return


@pytest.fixture
def told() -> list[str]:
    """The codes that the lender has told the trail."""
    return []


@pytest.fixture
def job(job_in: JobIn) -> Job:
    """A job that runs."""
    return job_in(Status.RUNNING)


@pytest.fixture
def lender(job: Job, told: list[str], settings: Any) -> JobLender:
    """Its side of the leases, that has seen how much there is to do."""
    settings.KETTER_SPREAD_BYTES = GIB
    lender = JobLender(job, patience, lambda level, code, message: told.append(code))
    assert lender.look(GIB, 1).room == 6
    return lender


def errands(*numbers: int) -> list[Errand]:
    """Parcels of those numbers."""
    return [Errand(number, "zip", 1, 100, b"list %d" % number) for number in numbers]


def take(worker: str = "w2", label: str = "") -> ParcelLease | None:
    return lease_take(worker=worker, label=label or worker)


def took(worker: str = "w2", label: str = "") -> ParcelLease:
    row = take(worker, label)
    assert row is not None
    return row


def numbers(outcomes: Sequence[Outcome]) -> list[tuple[int, bool]]:
    """Which parcels came back, and whether undone."""
    return [(outcome.number, outcome.returned) for outcome in outcomes]


def late(row: ParcelLease) -> None:
    """Let the time of a lease run out."""
    ParcelLease.objects.filter(pk=row.pk).update(lease_until=Now() - timedelta(seconds=1))


def test_it_says_who_could_help(job: Job, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.KETTER_SPREAD_BYTES, settings.KETTER_SPREAD_WORKERS = GIB, 3
    lender = JobLender(job, patience, lambda *_: None)
    for idle, expected in ((0, 0), (2, 2), (9, 3)):
        monkeypatch.setattr(lenders, "idle_workers", lambda idle=idle: idle)
        assert lender.helpers(GIB, 1) == expected
    settings.KETTER_SPREAD_BYTES = GIB + 1
    assert lender.helpers(GIB, 1) == 0
    settings.KETTER_SPREAD_BYTES = 1

    def away() -> int:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(lenders, "idle_workers", away)
    assert lender.helpers(GIB, 1) == 0


def test_a_parcel_goes_out_and_its_proof_comes_back(lender: JobLender, told: list[str]) -> None:
    lender.offer(SITE, errands(4))
    row = took()
    site, errand = errand_of(row)
    assert (row.worker, errand) == ("w2", errands(4)[0]._replace(slices=[]))
    assert site == SITE._replace(names=[], folder=[1, 2])
    lease_renew(row, moved=60)
    assert lender.look(0, 1).moving == 60

    failure = ("odd\udcff\u0000name", "IO_ERROR", "it broke")
    lease_deliver(row, outcome=Outcome(4, "w2", [(b"entries", b"digests")], [failure], 1))

    (outcome,) = lender.look(0, 1).outcomes
    assert (outcome.proven, outcome.undelivered) == (((b"entries", b"digests"),), 1)
    assert tuple(outcome.failures[0]) == failure
    assert lender.look(0, 1) == News([], room=6)
    assert not ParcelLease.objects.exists()
    assert told == ["HELPER_JOINED"]


@pytest.mark.parametrize(
    ("least", "left", "streams", "room"),
    [(GIB, GIB - 1, 1, 0), (0, 9 * GIB, 1, 0), (GIB, GIB, 8, 0), (GIB, GIB, 7, 2), (1, GIB, 1, 6)],
)
def test_only_a_large_job_lends_and_no_more_than_its_streams_allow(
    job: Job, settings: Any, least: int, left: int, streams: int, room: int
) -> None:
    settings.KETTER_SPREAD_BYTES = least
    job.source_portal.max_streams = job.target_portal.max_streams = 8
    lender = JobLender(job, patience, lambda *_: None)
    assert lender.look(left, streams).room == room
    assert lender.look(9 * GIB, 1).room == room  # Decided once.


def test_no_more_helpers_than_the_job_allows(lender: JobLender) -> None:
    lender.offer(SITE, errands(1, 2, 3, 4, 5))
    assert [row.number for row in (took("w2"), took("w3"), took("w4"))] == [5, 4, 3]
    assert take("w5") is None


def test_a_parcel_that_nobody_took_is_taken_back(lender: JobLender) -> None:
    lender.offer(SITE, errands(1, 2))
    row = took()
    assert lender.withdraw() == [1]
    assert take("w3") is None
    lease_renew(row, moved=1)


def test_a_lost_helpers_parcel_comes_back_and_it_may_deliver_nothing(
    lender: JobLender, told: list[str]
) -> None:
    lender.offer(SITE, errands(1))
    row = took()
    late(row)
    assert numbers(lender.look(0, 1).outcomes) == [(1, True)]
    assert told == ["HELPER_JOINED", "HELPER_LOST"]
    with pytest.raises(engine.Replaced):
        lease_renew(row, moved=1)
    with pytest.raises(engine.Replaced):
        lease_deliver(row, outcome=Outcome(1, "w2"))

    lender.offer(SITE, errands(1))  # The same parcel, to somebody else.
    again = took("w3")
    with pytest.raises(engine.Replaced):
        lease_deliver(row, outcome=Outcome(1, "w2"))
    lease_renew(again, moved=1)


def test_what_is_given_back_comes_back_at_once(lender: JobLender) -> None:
    lender.offer(SITE, errands(1, 2))
    lease_return(took("w2"))
    assert numbers(lender.look(0, 1).outcomes) == [(2, True)]
    took("w3")
    reaper.give_back(worker="w3", reason="it was killed")
    assert numbers(lender.look(0, 1).outcomes) == [(1, True)]


def test_an_attempt_whose_helpers_are_always_lost_lends_no_more(lender: JobLender) -> None:
    for number in range(MOST_RETURNED):
        lender.offer(SITE, errands(number))
        lease_return(took())
        room = lender.look(0, 1).room
    assert room == 0


@pytest.mark.parametrize("to", [Status.QUEUED, Status.PAUSED, Status.DONE])
def test_a_job_that_does_not_run_any_more_has_no_helpers(
    job: Job, lender: JobLender, to: Status
) -> None:
    lender.offer(SITE, errands(1, 2))
    row = took()
    job_move(job, to, code="TEST", message="It ended.")
    assert take() is None
    with pytest.raises(engine.Replaced):
        lease_renew(row, moved=1)


def test_nobody_begins_to_help_with_what_is_being_stopped(job: Job, lender: JobLender) -> None:
    lender.offer(SITE, errands(1))
    job_cancel(Job.objects.get(pk=job.pk), by=job.requested_by)
    assert take() is None


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("call", ["leases_renew", "leases_withdraw"])
def test_a_database_that_goes_away_loses_no_parcel_and_lends_none_twice(
    lender: JobLender, monkeypatch: pytest.MonkeyPatch, call: str, committed: bool
) -> None:
    lender.offer(SITE, errands(1, 2))
    with monkeypatch.context() as patched:
        real = getattr(lenders, call)

        def away(*args: Any, **words: Any) -> Any:
            if committed:
                real(*args, **words)
            raise OperationalError("the server closed the connection")

        patched.setattr(lenders, call, away)
        lender.offer(SITE, errands(3))
        assert lender.withdraw() == []
        back = [*lender.look(0, 1).outcomes]

    back += lender.look(0, 1).outcomes
    out = list(ParcelLease.objects.values_list("number", flat=True))
    assert all(outcome.returned and not outcome.label for outcome in back)
    assert sorted([*out, *(outcome.number for outcome in back)]) == [1, 2, 3]


def test_what_was_taken_in_is_taken_in_once_though_the_database_goes_away(
    lender: JobLender, monkeypatch: pytest.MonkeyPatch
) -> None:
    lender.offer(SITE, errands(1))
    lease_deliver(took(), outcome=Outcome(1, "w2"))
    assert numbers(lender.look(0, 1).outcomes) == [(1, False)]
    real = lenders.__dict__["leases_renew"]
    with monkeypatch.context() as patched:

        def away(*args: Any, **words: Any) -> Any:
            real(*args, **words)
            raise OperationalError("the server closed the connection")

        patched.setattr(lenders, "leases_renew", away)
        lender.offer(SITE, errands(1))  # It was not whole: once more.
    row = took("w3")
    assert lender.look(0, 1).outcomes == []
    lease_renew(row, moved=1)


def test_outcomes_that_cannot_be_read_are_read_later(
    lender: JobLender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is read at once, before anything is noted as taken in."""
    lender.offer(SITE, errands(1, 2))
    lease_return(took("w2"))
    lease_deliver(took("w3"), outcome=Outcome(1, "w3", [(b"entries", b"digests")]))
    with monkeypatch.context() as patched:

        def away(*args: Any, **words: Any) -> Any:
            raise OperationalError("the server closed the connection")

        patched.setattr(ParcelLease, "refresh_from_db", away)
        outcomes = lender.look(0, 1).outcomes
    assert [(o.number, o.label, bool(o.proven)) for o in outcomes] == [
        (1, "w3", True),
        (2, "w2", False),
    ]


def test_a_stale_attempt_lends_nothing_and_takes_nothing_back(job: Job, lender: JobLender) -> None:
    lender.offer(SITE, errands(1))
    job_move(job, Status.QUEUED, code="TEST", message="Another worker has it.")
    for act in (
        lender.withdraw,
        lambda: lender.look(0, 1),
        lambda: lender.offer(SITE, errands(2)),
    ):
        with pytest.raises(engine.Replaced):
            act()
    assert not ParcelLease.objects.exists()


def test_nobody_is_rung_for_what_a_stale_attempt_lends(job_in: JobIn) -> None:
    done = job_in(Status.DONE, attempt=1)
    ParcelLease.objects.create(
        job=done, attempt=1, number=1, errand="{}", entries=b"", most=1, created_at=LONG_AGO
    )
    assert jobs_that_lend() == []


def test_a_delivery_that_nobody_heard_of_may_be_said_again(lender: JobLender) -> None:
    lender.offer(SITE, errands(1))
    row = took()
    for _ in range(2):
        lease_deliver(row, outcome=Outcome(1, "w2"))
    assert numbers(lender.look(0, 1).outcomes) == [(1, False)]


def test_a_delivery_that_waited_for_the_lender_finds_it_returned(lender: JobLender) -> None:
    lender.offer(SITE, errands(1))
    row = took()
    late(row)
    caught: list[Exception] = []

    def deliver() -> None:
        try:
            lease_deliver(row, outcome=Outcome(1, "w2"))
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
    assert numbers(lender.look(0, 1).outcomes) == [(1, True)]


def test_who_helps_has_a_share_of_what_the_job_may_use(job: Job, lender: JobLender) -> None:
    Job.objects.filter(pk=job.pk).update(bandwidth_limit=900)
    job.refresh_from_db()
    lender.offer(SITE, errands(1, 2))
    assert bandwidth_share(job) == 900
    took("w2")
    took("w3")
    assert bandwidth_share(job) == 300


def test_a_ring_for_a_job_that_was_taken_leaves_one_line_and_nothing_else(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 8: same job delivered twice by RQ."""
    before = Job.objects.values().get(pk=job.pk)
    with caplog.at_level("DEBUG", "jobs"):
        run_job(str(job.pk))
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert str(job.pk) in caplog.text
    assert Job.objects.values().get(pk=job.pk) == before
    assert not job.events.exists()


def test_workers_are_told_at_once_and_again_when_nobody_came(
    job: Job, lender: JobLender, settings: Any
) -> None:
    lender.offer(SITE, errands(1))
    queue = django_rq.get_queue()
    assert [rung.args[0] for rung in queue.jobs] == [str(job.pk)] * 3
    queue.empty()
    lease_return(took())
    lender.look(0, 1)
    lender.offer(SITE, errands(2))
    assert queue.is_empty()  # Whoever is there looks for more by himself.

    assert reaper.tick().rung == []
    settings.KETTER_REAPER_SECONDS = 0
    assert reaper.tick().rung == [job.pk]
