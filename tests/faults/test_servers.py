"""Redis and Postgres that go away and come back, empty or not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import django_rq
import pytest
from django.db import connection

from tests import servers
from tests.faults.crew import MARKED, Stage
from tests.rig.events import codes
from tests.rig.interrupted import MIB, build_large, staged
from tests.rig.lanes import nightly
from tests.rig.trees import build_small

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        not (servers._own_postgres and servers._own_valkey),
        reason="only servers of the run's own can be stopped",
    ),
]


@pytest.fixture
def redis_again() -> Iterator[None]:
    """Have the run's Redis up again whatever the test did to it."""
    yield
    servers.start_redis()


@pytest.fixture
def postgres_again() -> Iterator[None]:
    """Have the run's Postgres up again whatever the test did to it."""
    yield
    servers.start_postgres()


def stop_redis() -> None:
    """Kill it: it keeps nothing on the disk, so it comes back empty."""
    server = servers._running.pop("valkey")
    server.process.kill()
    server.process.wait()


def stop_postgres() -> None:
    """End it, and every session with it."""
    connection.close()
    servers._running.pop("postgres").stop()


@pytest.mark.fault(6)
@pytest.mark.parametrize("how", [nightly("flushed"), "restarted"])
def test_running_and_waiting_jobs_are_done_after_redis_forgets_everything(
    stage: Stage, redis_again: None, how: str
) -> None:
    """Fault 6: Redis restart or flush."""
    running = stage.launch(
        "running", lambda root: build_large(root / "large.mov", 8 * MIB), bandwidth_limit=2 * MIB
    )
    stage.crew.start(1, MARKED)
    stage.watch(lambda: staged(stage.oracles[running].target) >= MIB)
    waiting = [
        stage.launch(f"waiting{number}", lambda root: build_small(root, 20)) for number in range(3)
    ]

    if how == "flushed":
        django_rq.get_connection().flushdb()
    else:
        stop_redis()
        time.sleep(1.5)
        servers.start_redis()

    stage.wait()
    for job in (running, *waiting):
        stage.oracles[job].judge(job)
        assert codes(job) == ["CREATED", "STARTED", "DONE"]


@pytest.mark.fault(6)
def test_a_job_launched_while_redis_is_away_runs_when_redis_is_back(
    stage: Stage, redis_again: None
) -> None:
    """Fault 6: Redis restart or flush."""
    stage.crew.start(1)
    stage.watch(lambda: "Listening" in stage.crew.said())
    stop_redis()

    job = stage.launch("day1", lambda root: build_small(root, 20))

    servers.start_redis()
    stage.wait()
    stage.oracles[job].judge(job)
    assert codes(job) == ["CREATED", "STARTED", "DONE"]


@pytest.mark.fault(7)
def test_a_job_is_done_in_one_attempt_when_postgres_restarts_within_the_lease(
    stage: Stage, postgres_again: None
) -> None:
    """Fault 7: Postgres restart mid-job."""
    job = stage.launch(
        "large", lambda root: build_large(root / "large.mov", 8 * MIB), bandwidth_limit=2 * MIB
    )
    stage.crew.start(2, MARKED, KETTER_LEASE_SECONDS=30)
    stage.watch(lambda: staged(stage.oracles[job].target) >= MIB)

    stop_postgres()
    time.sleep(2)
    servers.start_postgres()

    stage.wait()
    stage.oracles[job].judge(job)
    assert codes(job) == ["CREATED", "STARTED", "DONE"]


@pytest.mark.fault(7)
def test_a_job_stops_and_is_retried_when_postgres_is_away_longer_than_the_lease(
    stage: Stage, postgres_again: None
) -> None:
    """Fault 7: Postgres restart mid-job."""
    job = stage.launch(
        "large", lambda root: build_large(root / "large.mov", 16 * MIB), bandwidth_limit=2 * MIB
    )
    oracle = stage.oracles[job]
    stage.crew.start(2, MARKED, KETTER_LEASE_SECONDS=3)
    stage.watch(lambda: staged(oracle.target) >= MIB)

    stop_postgres()
    time.sleep(5)  # By now nobody may write any more.
    arrived = staged(oracle.target)
    time.sleep(1)
    assert staged(oracle.target) == arrived < 16 * MIB
    servers.start_postgres()

    stage.wait()
    oracle.judge(job)
    assert (job.attempt, codes(job).count("WORKER_LOST")) == (2, 1)
