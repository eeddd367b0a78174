"""What the workers of a machine note of it, and the way of a wake-up to the machine of its job."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django_rq
import pytest
import redis
from django.contrib.auth.models import User
from django.test import override_settings
from rq import Worker
from rq.worker import WorkerStatus

from engine.loans import LentParcel, Location
from jobs.models import Job
from jobs.queueing import reaper
from jobs.queueing.notify import QUEUE, idle_workers
from jobs.queueing.parcel_leases import leases_renew
from jobs.services import job_create
from jobs.states import Status
from jobs.tasks import run_job
from portals.machines import machine_seen
from portals.models import Machine, Portal
from tests.factories import PortalFactory

pytestmark = pytest.mark.django_db(transaction=True)

HERE = "lab-1"
JobIn = Callable[..., Job]


@pytest.fixture(autouse=True)
def _here(settings: Any, clean_redis: redis.Redis) -> None:
    """The machine of the portals, where this process runs unless a test says otherwise."""
    settings.KETTER_MACHINE = HERE


def on(machine: str) -> Any:
    """Be a process of another machine, with the same folders."""
    return override_settings(KETTER_MACHINE=machine)


def wake_ups() -> list[str]:
    """The ids of all jobs that have a wake-up waiting, in order."""
    return [job.args[0] for job in django_rq.get_queue().jobs]


@pytest.fixture
def move(oscar: User, order: dict[str, Any], lab: Portal) -> Job:
    """A queued move from this machine."""
    (Path(lab.root_path) / "day1").mkdir()
    (Path(lab.root_path) / "day1/clip").write_bytes(b"clip")
    return job_create(by=oscar, **order, mode="move")


# --- The reaper notes the machine --------------------------------------------------


def test_the_reaper_notes_its_machine_and_gives_it_to_portals_that_have_none(db: None) -> None:
    portal = PortalFactory.create(machine="")
    far = PortalFactory.create(kind="ssh", host="srvtrf")
    reaper.tick()
    assert list(Machine.objects.values_list("name", flat=True)) == [HERE]
    portal.refresh_from_db()
    far.refresh_from_db()
    assert (portal.machine, far.machine) == (HERE, "")


def a_worker(redis_: redis.Redis, name: str, hostname: str = "", state: str = "idle") -> Worker:
    """An entry in Redis of a worker that waits for wake-ups."""
    worker = Worker([QUEUE], name=name, connection=redis_)
    worker.hostname = hostname or socket.gethostname()
    worker.register_birth()
    worker.set_state(WorkerStatus(state))
    return worker


@pytest.mark.parametrize("known_to", ["the database", "Redis alone"])
def test_no_portal_is_given_to_this_machine_while_another_one_may_have_it(
    clean_redis: redis.Redis, known_to: str
) -> None:
    """A worker of an earlier version is known to Redis alone."""
    portal = PortalFactory.create(machine="")
    if known_to == "the database":
        machine_seen(name="lab-2")
    else:
        a_worker(clean_redis, "lab-2.77.abcdef")
    reaper.tick()
    portal.refresh_from_db()
    assert portal.machine == ""


def test_a_worker_with_a_name_of_its_own_belongs_to_the_machine_of_its_host(
    clean_redis: redis.Redis,
) -> None:
    portal = PortalFactory.create(machine="")
    a_worker(clean_redis, "mine")
    assert (idle_workers(HERE), idle_workers("lab-2")) == (1, 0)
    a_worker(clean_redis, "theirs", hostname="lab-2")
    assert (idle_workers(HERE), idle_workers("lab-2"), idle_workers()) == (1, 1, 2)
    reaper.tick()
    portal.refresh_from_db()
    assert portal.machine == ""


# --- Wake-ups ---------------------------------------------------------------------


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
