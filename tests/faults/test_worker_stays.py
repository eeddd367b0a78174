"""A worker outlives its Redis: it waits for it, whether it was idle or at work."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
import redis
from rq import Queue
from rq.exceptions import StopRequested
from rq.worker import WorkerStatus

from jobs.models import Job
from jobs.queueing.notify import QUEUE
from jobs.states import FINAL, Status
from jobs.worker import KetterWorker
from tests.faults.own_redis import Redis, is_
from tests.rig.lanes import nightly
from tests.rig.sshd import descendants
from tests.rig.waiting import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@pytest.mark.parametrize("killed", [nightly("redis"), "redis and the process that runs the job"])
def test_a_busy_worker_stays_alive_until_its_redis_is_back(
    killed: str, own_redis: Redis, lone_worker: subprocess.Popen[bytes], launch: Callable[..., Job]
) -> None:
    job = launch("one")
    wait_until(lambda: is_(job, Status.RUNNING) and job.bytes_done, 60)
    own_redis.kill()
    if killed != "redis":
        os.kill(descendants(lone_worker.pid)[0], 9)
        time.sleep(3)
    else:
        wait_until(lambda: is_(job, *FINAL), 60)
        time.sleep(2)
    assert lone_worker.poll() is None
    own_redis.start()
    wait_until(lambda: is_(job, *FINAL), 60)
    other = launch("two")
    wait_until(lambda: is_(other, *FINAL), 60)
    assert (job.status, other.status) == (Status.DONE, Status.DONE), job.error_message
    assert lone_worker.poll() is None


@pytest.mark.parametrize("idle", [True, False])
def test_a_stop_request_ends_a_worker_whose_redis_is_gone(idle: bool, own_redis: Redis) -> None:
    connection = redis.Redis(unix_socket_path=str(own_redis.socket))
    worker = KetterWorker([Queue(QUEUE, connection=connection)], connection=connection)
    worker.set_state(WorkerStatus.IDLE if idle else WorkerStatus.BUSY)
    own_redis.kill()
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        # As a client does that gives up on its connection: whatever is raised there is lost.
        with suppress(Exception) if idle else nullcontext():
            worker.request_stop(signal.SIGTERM, None)
    finally:
        for number, handler in before:
            signal.signal(number, handler)

    worker._state = WorkerStatus.IDLE
    with pytest.raises(StopRequested):
        worker.heartbeat()


@pytest.mark.parametrize("step", ["register_birth", "subscribe"])
def test_a_stop_request_that_was_lost_ends_a_worker_that_cannot_start(
    step: str, own_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = redis.Redis(unix_socket_path=str(own_redis.socket))
    worker = KetterWorker([Queue(QUEUE, connection=connection)], connection=connection)
    own_redis.kill()
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    waits: list[float] = []

    def lose_the_request(seconds: float) -> None:
        """The signal comes while a log line is written: logging drops what its handler raises."""
        assert len(waits) < 2, "the worker goes on"
        waits.append(seconds)
        with suppress(Exception):
            worker.request_stop(signal.SIGINT, None)

    monkeypatch.setattr(worker, "_pause", lose_the_request)
    try:
        with pytest.raises(StopRequested):
            getattr(worker, step)()
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def test_a_worker_misses_its_redis_between_two_wake_ups_and_stays(own_redis: Redis) -> None:
    """rq waits for Redis only where it waits for a wake-up; just before and after, it ended."""
    connection = redis.Redis(unix_socket_path=str(own_redis.socket))
    worker = KetterWorker([Queue(QUEUE, connection=connection)], connection=connection)
    own_redis.kill()

    worker.check_for_suspension(False)
    worker.set_state(WorkerStatus.IDLE)
    worker.heartbeat()
    assert worker.should_run_maintenance_tasks
    worker.run_maintenance_tasks()


def test_an_idle_worker_without_its_redis_ends_on_sigterm(
    own_redis: Redis, lone_worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    wait_until(lambda: "istening" in (tmp_path / "log").read_text(), 60)
    own_redis.kill()
    wait_until(lambda: "Redis is away" in (tmp_path / "log").read_text(), 60)
    lone_worker.terminate()
    wait_until(lambda: lone_worker.poll() is not None, 10)
