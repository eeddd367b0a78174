"""The reaper and its wake-ups: what it takes back, what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import django_rq
import pytest
import redis
from django.db import connection
from django.db.models.functions import Now

from jobs.models import Job
from jobs.queueing import reaper
from jobs.queueing.notify import notify
from jobs.queueing.transitions import job_move
from jobs.states import Status
from tests.rig.jobs_threads import in_threads

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _empty(clean_redis: redis.Redis) -> None:
    """Each test has a Redis of its own."""


def wake_ups() -> list[str]:
    """The ids of all jobs that have a wake-up waiting, in order."""
    return [job.args[0] for job in django_rq.get_queue().jobs]


def seconds_ago(seconds: int) -> object:
    """A time by the database's clock."""
    return Now() - timedelta(seconds=seconds)


def test_the_reaper_takes_back_a_job_whose_lease_ran_out(job_in: Callable[..., Job]) -> None:
    job = job_in(Status.RUNNING, lease_until=seconds_ago(1), worker="lab.77")
    tick = reaper.tick()
    job.refresh_from_db()
    assert tick.taken_back == [job.pk]
    assert (job.status, job.worker, job.lease_until) == (Status.QUEUED, "", None)
    assert "lab.77" in job.events.get().message
    assert wake_ups() == [str(job.pk)]


def test_the_reaper_changes_no_healthy_job_whatever_its_status(job_in: Callable[..., Job]) -> None:
    jobs = [job_in(status, target_path=status) for status in Status]
    before = list(Job.objects.order_by("pk").values())
    assert reaper.tick() == reaper.Tick([], [], [])
    assert list(Job.objects.order_by("pk").values()) == before
    assert not any(job.events.exists() for job in jobs)
    assert wake_ups() == []


def test_the_reaper_skips_a_job_whose_lease_is_being_renewed(job_in: Callable[..., Job]) -> None:
    job = job_in(Status.RUNNING, lease_until=seconds_ago(1))
    connection.set_autocommit(False)
    try:
        Job.objects.select_for_update(no_key=True).get(pk=job.pk)
        found = in_threads(1, reaper.tick)
    finally:
        connection.rollback()
        connection.set_autocommit(True)
    assert found == [reaper.Tick([], [], [])]


def test_reapers_that_run_at_once_take_each_lost_job_back_once(job_in: Callable[..., Job]) -> None:
    jobs = [job_in(Status.RUNNING, lease_until=seconds_ago(1)) for _ in range(20)]
    in_threads(4, reaper.tick)
    assert sorted(wake_ups()) == sorted(str(job.pk) for job in jobs)
    assert all(job.events.count() == 1 for job in jobs)


@pytest.mark.parametrize(
    ("seconds", "waits", "notified", "wakes"),
    [(60, False, True, True), (60, True, False, True), (0, False, False, False)],
    ids=["its wake-up was lost", "its wake-up waits", "it was queued just now"],
)
def test_the_reaper_sends_another_wake_up_only_for_a_job_whose_wake_up_was_lost(
    seconds: int, waits: bool, notified: bool, wakes: bool, job_in: Callable[..., Job]
) -> None:
    job = job_in(Status.QUEUED, queued_at=seconds_ago(seconds))
    if waits:
        notify(job.pk)
    assert reaper.tick().notified == ([job.pk] if notified else [])
    assert wake_ups() == ([str(job.pk)] if wakes else [])


def test_the_reaper_sends_one_wake_up_for_a_job_per_interval(job_in: Callable[..., Job]) -> None:
    job = job_in(Status.QUEUED, queued_at=seconds_ago(60))
    reaper.tick()
    django_rq.get_queue().empty()  # A worker took the wake-up and died before it claimed the job.
    assert reaper.tick().notified == []
    for mark in django_rq.get_connection().scan_iter("ketter:rung-again:*"):
        django_rq.get_connection().delete(mark)
    assert reaper.tick().notified == [job.pk]


def test_the_reaper_sends_wake_ups_for_all_jobs_after_redis_lost_its_data(
    job_in: Callable[..., Job],
) -> None:
    jobs = [job_in(Status.QUEUED, queued_at=seconds_ago(60 - age)) for age in range(5)]
    for job in jobs:
        notify(job.pk)
    django_rq.get_connection().flushdb()
    reaper.tick()
    assert wake_ups() == [str(job.pk) for job in jobs]


def test_give_back_queues_only_the_jobs_of_the_worker_it_names(job_in: Callable[..., Job]) -> None:
    job = job_in(Status.RUNNING, worker="w1")
    reaper.give_back(worker="w2", reason="died")
    job.refresh_from_db()
    assert job.status == Status.RUNNING
    reaper.give_back(worker="w1", reason="died")
    job.refresh_from_db()
    assert job.status == Status.QUEUED


def test_the_reaper_records_the_time_of_its_last_tick(db: None) -> None:
    assert reaper.last_tick() is None
    reaper.tick()
    assert reaper.last_tick() is not None


def test_a_job_moved_back_to_the_queue_gets_a_wake_up(job_in: Callable[..., Job]) -> None:
    job = job_move(job_in(Status.RUNNING), Status.QUEUED, code="WORKER_LOST", message="Lost.")
    assert wake_ups() == [str(job.pk)]
