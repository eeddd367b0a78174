"""Wake-ups where several machines have workers: Redis gives each to any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import django_rq
import pytest
import redis
from rq.worker import BaseWorker

from engine.loans import LentParcel, Location
from jobs.models import Job
from jobs.queueing import notify, reaper
from jobs.queueing.parcel_leases import leases_renew
from jobs.states import Status
from jobs.tasks import run_job
from portals.machines import machine_seen
from tests.jobs.on_machines import HERE, a_worker, on

pytestmark = pytest.mark.django_db(transaction=True)

JobIn = Callable[..., Job]


@pytest.fixture(autouse=True)
def _here(settings: Any, clean_redis: redis.Redis) -> None:
    """The machine of the portals, where this process runs unless a test says otherwise."""
    settings.KETTER_MACHINE = HERE


@pytest.fixture
def move(job_in: JobIn) -> Job:
    """A queued move from this machine."""
    return job_in(Status.QUEUED, mode="move")


def wake_ups() -> list[str]:
    """The ids of all jobs that have a wake-up waiting, in order."""
    return [job.args[0] for job in django_rq.get_queue().jobs]


def test_a_wake_up_for_another_machine_is_passed_on_while_a_worker_waits_there(
    move: Job, clean_redis: redis.Redis
) -> None:
    machine_seen(name=HERE)
    django_rq.get_queue().empty()
    with on("lab-2"):
        run_job(str(move.pk))
        assert wake_ups() == []
        a_worker(clean_redis, "lab-1.77.abcdef")
        a_worker(clean_redis, "lab-2.78.abcdef")
        run_job(str(move.pk))
    assert wake_ups() == [str(move.pk)]


def test_a_wake_up_is_passed_on_once_for_each_waiting_worker_and_once_more(
    move: Job, clean_redis: redis.Redis
) -> None:
    """The entry of a killed worker stays idle for minutes: no wake-up circles meanwhile."""
    machine_seen(name=HERE)
    a_worker(clean_redis, "lab-1.77.abcdef")
    django_rq.get_queue().empty()
    with on("lab-2"):
        for _number in range(9):
            run_job(str(move.pk))
    assert wake_ups() == [str(move.pk)] * 2


def test_the_count_of_a_wake_ups_steps_ends_with_the_interval_in_which_it_began(
    move: Job, clean_redis: redis.Redis
) -> None:
    """Else a wake-up from the reaper in each interval would never be passed on again."""
    machine_seen(name=HERE)
    a_worker(clean_redis, "lab-1.77.abcdef")
    counted = f"ketter:passed-on:{move.pk.hex}"
    with on("lab-2"):
        run_job(str(move.pk))
        assert 0 < clean_redis.pttl(counted) <= 15_000
        clean_redis.pexpire(counted, 5_000)
        run_job(str(move.pk))
    assert 0 < clean_redis.pttl(counted) <= 5_000


def test_a_worker_looks_once_who_waits_however_many_jobs_another_machine_has(
    job_in: JobIn, clean_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has looked once for each job: with 1,000 jobs a wake-up took six seconds."""
    machine_seen(name=HERE)
    jobs = [job_in(Status.QUEUED, target_path=f"in/{number}") for number in range(5)]
    a_worker(clean_redis, "lab-1.77.abcdef", state="busy")
    a_worker(clean_redis, "lab-2.78.abcdef")
    looks: list[int] = []
    look = notify._workers

    def counted() -> Sequence[BaseWorker]:
        looks.append(1)
        return look()

    monkeypatch.setattr(notify, "_workers", counted)
    with on("lab-2"):
        run_job(str(jobs[0].pk))
    assert (len(looks), wake_ups()) == (1, [])


@pytest.mark.parametrize(
    ("waiting", "others", "sent"),
    [(0, True, 0), (2, True, 2), (0, False, 4)],
    ids=["all are busy", "two wait", "there is no other machine"],
)
def test_the_reaper_sends_no_wake_up_that_another_machine_alone_could_take(
    job_in: JobIn, clean_redis: redis.Redis, waiting: int, others: bool, sent: int
) -> None:
    for number in range(4):
        job_in(Status.QUEUED, target_path=f"in/{number}")
    Job.objects.update(queued_at=datetime(2026, 1, 1, tzinfo=UTC))
    clean_redis.flushdb()
    a_worker(clean_redis, "lab-1.77.abcdef", state="busy")
    for number in range(waiting):
        a_worker(clean_redis, f"lab-1.{number}.abcdef")
    if others:
        a_worker(clean_redis, "lab-2.78.abcdef")
    reaper.tick()
    assert len(wake_ups()) == sent


def test_a_wake_up_to_help_is_passed_on_to_the_machine_of_the_job(
    job_in: JobIn, clean_redis: redis.Redis
) -> None:
    machine_seen(name=HERE)
    job = job_in(Status.RUNNING)
    place = Location("x", "y", (), "boot 1", (1, 2), "boot 2")
    parcel = LentParcel(1, "zip", 1, 100, b"list")
    leases_renew(job, forget=(), location=place, loans=[parcel], most=3)
    a_worker(clean_redis, "lab-1.77.abcdef")
    with on("lab-2"):
        run_job(str(job.pk))
    assert wake_ups() == [str(job.pk)]
