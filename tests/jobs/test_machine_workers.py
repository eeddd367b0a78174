"""What the workers of a machine note of it: that it is alive, and the portals that are on it."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from jobs.queueing import reaper
from jobs.queueing.notify import idle_workers
from portals.machines import machine_seen
from portals.models import Machine
from tests.factories import PortalFactory
from tests.jobs.on_machines import HERE, a_worker

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _here(settings: Any, clean_redis: redis.Redis) -> None:
    """The machine of the portals, where this process runs unless a test says otherwise."""
    settings.KETTER_MACHINE = HERE


def test_the_reaper_notes_its_machine_and_gives_it_to_portals_that_have_none(db: None) -> None:
    portal = PortalFactory.create(machine="")
    far = PortalFactory.create(kind="ssh", host="srvtrf")
    reaper.tick()
    assert list(Machine.objects.values_list("name", flat=True)) == [HERE]
    portal.refresh_from_db()
    far.refresh_from_db()
    assert (portal.machine, far.machine) == (HERE, "")


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
