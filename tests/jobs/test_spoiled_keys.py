"""Keys of the queue that another program has spoiled stop neither the queue nor a page for ever."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import django_rq
import pytest
import redis
from django.db.models.functions import Now
from django.test import Client
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from dku.checks import workers as checks
from dku.findings import Verdict
from jobs.models import Job
from jobs.queueing import notify, reaper
from jobs.states import Status
from tests.jobs.helpers import SHORT, wait_for, wait_for_end
from tests.jobs.test_reaper import wake_ups

pytestmark = pytest.mark.django_db(transaction=True)

OF_QUEUE = WORKERS_BY_QUEUE_KEY % notify.QUEUE
#: Entries that no worker has written, each with what is put behind it.
IMPOSSIBLE: dict[str, tuple[bytes, object]] = {
    "no key of a worker": (b"nonsense", None),
    "no text": (b"\xff\xfe", None),
    "a name that cannot be shown": (b"rq:worker:\x1b[2J", {"state": "idle"}),
    "a string": (b"rq:worker:x", "text"),
    "no process id": (b"rq:worker:x", {"pid": "many"}),
    "no time": (b"rq:worker:x", {"last_heartbeat": "yesterday"}),
    "no number": (b"rq:worker:x", {"total_working_time": "long"}),
}


@pytest.fixture(autouse=True)
def store(clean_redis: redis.Redis) -> Any:
    """A Redis of its own, with its port to plant things."""
    return django_rq.get_connection(notify.QUEUE)


def alive(store: Any, name: str = "lab.7.abcdef", at: float = 0.0) -> None:
    """Write the entry of a worker that has just reported, or will."""
    key = f"rq:worker:{name}"
    seen = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() + at))
    store.hset(key, mapping={"state": "idle", "queues": "default", "last_heartbeat": seen})
    store.sadd(REDIS_WORKER_KEYS, key)
    store.sadd(OF_QUEUE, key)


def plant(store: Any, member: bytes, content: object) -> None:
    """Write an impossible entry into both sets."""
    if isinstance(content, dict):
        store.hset(member, mapping=content)
    elif content is not None:
        store.set(member, str(content))
    store.sadd(REDIS_WORKER_KEYS, member)
    store.sadd(OF_QUEUE, member)


@pytest.mark.parametrize("how", IMPOSSIBLE)
def test_an_entry_that_no_worker_wrote_is_removed_and_logged_once(
    store: Any, client: Client, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The health page failed for ever, the reaper saw no worker at all, and so did DKU."""
    member, content = IMPOSSIBLE[how]
    alive(store)
    plant(store, member, content)
    with caplog.at_level(logging.WARNING):
        assert client.get("/health").json()["checks"]["worker"] == "ok"
        assert notify.idle_workers() == 1
        assert [worker.name for worker in checks.alive()] == ["lab.7.abcdef"]
        assert client.get("/health").status_code == 200
    assert store.smembers(REDIS_WORKER_KEYS) == store.smembers(OF_QUEUE)
    assert store.smembers(OF_QUEUE) == {b"rq:worker:lab.7.abcdef"}
    assert caplog.text.count("which is no worker's") == 1
    assert "\x1b" not in caplog.text


def test_an_entry_outside_the_queues_own_set_is_removed_as_well(store: Any) -> None:
    """The queue's pages read that set."""
    store.sadd(REDIS_WORKER_KEYS, b"nonsense")
    assert notify.workers() == []
    assert not store.exists(REDIS_WORKER_KEYS)


@pytest.mark.parametrize("hours", [-1, 1, 24 * 365 * 1000])
def test_an_entry_of_another_time_is_no_living_worker(
    store: Any, client: Client, hours: int
) -> None:
    """One of the future was alive until then."""
    alive(store, at=hours * 3600.0)
    assert client.get("/health").json()["checks"]["worker"] == "failing: no worker is running"
    assert checks.alive() == []


@pytest.mark.parametrize("mark", [b"nonsense", b"99999999999999", b"\xff"])
def test_a_mark_of_the_reaper_that_no_reaper_wrote_is_no_sign_of_life(
    store: Any, mark: bytes
) -> None:
    store.set(reaper.LAST_TICK, mark)
    assert checks.reaper().verdict is Verdict.FAIL
    store.delete(reaper.LAST_TICK)
    store.sadd(reaper.LAST_TICK, mark)
    assert checks.reaper().verdict is Verdict.FAIL
    reaper.tick()
    assert checks.reaper().verdict is Verdict.PASS


def keys() -> list[str]:
    """The keys of the queue that Redis gives one type."""
    queue = django_rq.get_queue(notify.QUEUE)
    return [
        queue.key,
        queue.intermediate_queue_key,
        "rq:queues",
        REDIS_WORKER_KEYS,
        OF_QUEUE,
        *(f"rq:{name}:default" for name in ("wip", "finished", "failed", "deferred", "scheduled")),
    ]


@pytest.mark.parametrize("kind", ["string", "hash"])
def test_a_key_of_another_type_is_removed_by_the_next_tick(
    store: Any, job_in: Callable[..., Job], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No wake-up came through: Redis refuses each command for such a key."""
    for key in keys():
        if kind == "string":
            store.set(key, "x")
        else:
            store.hset(key, "x", "y")
    job = job_in(Status.QUEUED, queued_at=Now() - timedelta(hours=1))
    assert reaper.tick().notified == [job.pk]
    assert wake_ups() == [str(job.pk)]
    removed = [key for key in keys() if f"Removed the key {key}, a {kind}" in caplog.text]
    assert removed == keys()


@pytest.mark.slow
@pytest.mark.parametrize("key", ["rq:queue:default", "rq:wip:default", "rq:workers"])
def test_a_job_comes_to_its_end_although_a_key_has_another_type(
    worker: Any, store: Any, job_in: Callable[..., Job], order: dict[str, Any], key: str
) -> None:
    worker(**SHORT)
    store.set(key, "x")
    job = job_in(Status.QUEUED, queued_at=Now() - timedelta(hours=1), **order)
    wait_for_end(job)
    wait_for(lambda: store.type(key) != b"string")


# --- Brakes ----------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [None, 10 * 365 * 24 * 3600])
def test_a_mark_without_an_end_holds_a_job_for_one_interval_only(
    store: Any, job_in: Callable[..., Job], seconds: int | None, settings: Any
) -> None:
    """No reaper woke a worker for the job again: it waited for ever."""
    settings.KETTER_REAPER_SECONDS = 1
    job = job_in(Status.QUEUED, queued_at=Now() - timedelta(hours=1))
    store.set(f"ketter:rung-again:{job.pk.hex}", 1, ex=seconds)
    assert reaper.tick().notified == []
    time.sleep(1.1)
    assert reaper.tick().notified == [job.pk]


@pytest.mark.parametrize("value", ["1000", "nonsense", "", str((1 << 63) - 1), None])
def test_a_count_without_an_end_holds_a_wake_up_for_one_interval_only(
    store: Any, job_in: Callable[..., Job], value: str | None, settings: Any
) -> None:
    """No worker passed the wake-up of a job on to its machine: it waited for ever."""
    settings.KETTER_REAPER_SECONDS = 1
    job = job_in(Status.QUEUED)
    key = f"ketter:passed-on:{job.pk.hex}"
    if value is None:
        store.sadd(key, "x")
    else:
        store.set(key, value)
    held = value == "1000"
    assert notify.pass_on(job.pk, waiting=1) is not held
    time.sleep(1.1)
    assert notify.pass_on(job.pk, waiting=1)


def test_a_lock_without_an_end_does_not_stop_rqs_maintenance_for_ever(store: Any) -> None:
    queue = django_rq.get_queue(notify.QUEUE)
    store.set(queue.registry_cleaning_key, 1)
    assert not queue.acquire_maintenance_lock()
    reaper.tick()
    assert 0 < store.ttl(queue.registry_cleaning_key) <= 899


def test_the_brakes_that_ketter_sets_itself_keep_their_end(
    store: Any, job_in: Callable[..., Job], caplog: pytest.LogCaptureFixture
) -> None:
    job = job_in(Status.QUEUED, queued_at=Now() - timedelta(hours=1))
    with caplog.at_level(logging.WARNING, "jobs.queueing.queue_keys"):
        for _ in range(3):
            reaper.tick()
            notify.pass_on(job.pk, waiting=1)
    assert "lasted longer" not in caplog.text
    assert 0 < store.ttl(f"ketter:rung-again:{job.pk.hex}") <= 15
    assert 0 < store.ttl(f"ketter:passed-on:{job.pk.hex}") <= 15
