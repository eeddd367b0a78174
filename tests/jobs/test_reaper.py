"""The reaper and the doorbell: what they take back, what they leave alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from threading import Thread

import django_rq
import pytest
import redis
from django.db import connection
from django.db.models.functions import Now

from jobs import reaper
from jobs.life import job_move
from jobs.models import Job
from jobs.queue import ring
from jobs.states import Status

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _empty(clean_redis: redis.Redis) -> None:
    """Each test has a Redis of its own."""


def rings() -> list[str]:
    """The ids of all jobs that have a ring waiting, in order."""
    return [job.args[0] for job in django_rq.get_queue().jobs]


def seconds_ago(seconds: int) -> object:
    """A time by the database's clock."""
    return Now() - timedelta(seconds=seconds)


def test_it_takes_back_a_job_whose_lease_ran_out(job_in: Callable[..., Job]) -> None:
    job = job_in(Status.RUNNING, lease_until=seconds_ago(1), worker="lab.77")
    tick = reaper.tick()
    job.refresh_from_db()
    assert tick.taken_back == [job.pk]
    assert (job.status, job.worker, job.lease_until) == (Status.QUEUED, "", None)
    assert "lab.77" in job.events.get().message
    assert rings() == [str(job.pk)]


def test_it_never_touches_a_healthy_job(job_in: Callable[..., Job]) -> None:
    jobs = [job_in(status, target_path=status) for status in Status]
    before = list(Job.objects.order_by("pk").values())
    assert reaper.tick() == reaper.Tick([], [], [])
    assert list(Job.objects.order_by("pk").values()) == before
    assert not any(job.events.exists() for job in jobs)
    assert rings() == []


def test_it_leaves_a_lease_alone_that_is_being_renewed(job_in: Callable[..., Job]) -> None:
    job = job_in(Status.RUNNING, lease_until=seconds_ago(1))
    connection.set_autocommit(False)
    try:
        Job.objects.select_for_update(no_key=True).get(pk=job.pk)
        found: list[reaper.Tick] = []

        def look() -> None:
            found.append(reaper.tick())
            connection.close()

        thread = Thread(target=look)
        thread.start()
        thread.join()
    finally:
        connection.rollback()
        connection.set_autocommit(True)
    assert found == [reaper.Tick([], [], [])]


def test_it_shares_the_work_between_reapers_that_look_at_once(job_in: Callable[..., Job]) -> None:
    jobs = [job_in(Status.RUNNING, lease_until=seconds_ago(1)) for _ in range(20)]

    def look() -> None:
        reaper.tick()
        connection.close()

    threads = [Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(rings()) == sorted(str(job.pk) for job in jobs)
    assert all(job.events.count() == 1 for job in jobs)


def test_it_rings_again_for_a_job_whose_ring_was_lost(job_in: Callable[..., Job]) -> None:
    job = job_in(Status.QUEUED, queued_at=seconds_ago(60))
    assert reaper.tick().rung == [job.pk]
    assert rings() == [str(job.pk)]


def test_it_does_not_ring_while_a_ring_waits(job_in: Callable[..., Job]) -> None:
    job = job_in(Status.QUEUED, queued_at=seconds_ago(60))
    ring(job.pk)
    assert reaper.tick().rung == []
    assert rings() == [str(job.pk)]


def test_it_does_not_ring_for_a_job_that_was_queued_just_now(job_in: Callable[..., Job]) -> None:
    job_in(Status.QUEUED)
    assert reaper.tick().rung == []


def test_it_rings_again_at_its_pace_only(job_in: Callable[..., Job]) -> None:
    job = job_in(Status.QUEUED, queued_at=seconds_ago(60))
    reaper.tick()
    django_rq.get_queue().empty()  # A worker took the ring and died before it claimed the job.
    assert reaper.tick().rung == []
    for mark in django_rq.get_connection().scan_iter("ketter:rung-again:*"):
        django_rq.get_connection().delete(mark)
    assert reaper.tick().rung == [job.pk]


def test_it_rings_for_all_after_redis_lost_its_memory(job_in: Callable[..., Job]) -> None:
    jobs = [job_in(Status.QUEUED, queued_at=seconds_ago(60 - age)) for age in range(5)]
    for job in jobs:
        ring(job.pk)
    django_rq.get_connection().flushdb()
    reaper.tick()
    assert rings() == [str(job.pk) for job in jobs]


def test_it_gives_back_only_what_that_worker_runs(job_in: Callable[..., Job]) -> None:
    job = job_in(Status.RUNNING, worker="w1")
    reaper.give_back(worker="w2", reason="died")
    job.refresh_from_db()
    assert job.status == Status.RUNNING
    reaper.give_back(worker="w1", reason="died")
    job.refresh_from_db()
    assert job.status == Status.QUEUED


def test_it_says_when_it_last_looked(db: None) -> None:
    assert reaper.last_tick() is None
    reaper.tick()
    assert reaper.last_tick() is not None


def test_a_job_moved_back_to_the_queue_is_rung_for(job_in: Callable[..., Job]) -> None:
    job = job_move(job_in(Status.RUNNING), Status.QUEUED, code="WORKER_LOST", message="Lost.")
    assert rings() == [str(job.pk)]
