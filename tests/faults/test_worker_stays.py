"""A worker outlives its Redis: it waits for it, whether it was idle or at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from rq import Queue
from rq.exceptions import StopRequested
from rq.worker import WorkerStatus

from jobs.models import Job
from jobs.queue import QUEUE
from jobs.services import job_create
from jobs.states import FINAL, Status
from jobs.worker import KetterWorker
from ketter_site import embedded
from ketter_site.servers import valkey_url
from tests.factories import PortalFactory
from tests.rig.sshd import descendants, end_tree

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

PROJECT = Path(__file__).resolve().parent.parent.parent
MEGABYTE = 1_000_000


class Redis:
    """A Valkey of this test alone, that forgets everything when it is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.socket = folder / "valkey", folder / "v.sock"
        self.start()

    def start(self) -> None:
        """Start it, with nothing in it."""
        self._server = embedded.start_valkey(self._folder, self.socket, durable=False)

    def kill(self) -> None:
        """Have it gone, with no goodbye."""
        self._server.process.kill()
        self._server.process.wait()


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """That Valkey; below a short folder, for its socket's sake."""
    server = Redis(tmp_path_factory.mktemp("v"))
    yield server
    server.kill()


@pytest.fixture
def lone_worker(
    own_redis: Redis, worker_env: dict[str, str], tmp_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker at that Redis: it hears of jobs by its own reaper, which asks the database."""
    short = {"KETTER_LEASE_SECONDS": "10", "KETTER_REAPER_SECONDS": "1"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "rqworker"],
            cwd=PROJECT,
            env={**worker_env, **short, "REDIS_URL": valkey_url(own_redis.socket)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    yield process
    end_tree(process.pid)
    process.wait()


@pytest.fixture
def launch(oscar: User, tmp_path: Path) -> Callable[[str], Job]:
    """Launch a copy that lasts some seconds."""
    for name in ("lab", "srvtrf"):
        (tmp_path / name).mkdir()
    (tmp_path / "lab" / "a.bin").write_bytes(os.urandom(3 * MEGABYTE))
    lab, srvtrf = (
        PortalFactory.create(name=name, root_path=str(tmp_path / name))
        for name in ("lab", "srvtrf")
    )

    def launch(target: str) -> Job:
        order: dict[str, Any] = {"source_path": "a.bin", "target_path": f"{target}/"}
        order |= {"source_portal": lab, "target_portal": srvtrf, "bandwidth_limit": MEGABYTE}
        return job_create(by=oscar, **order)

    return launch


def wait_for(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def is_(job: Job, *states: str) -> bool:
    """Whether the job is in one of these states now."""
    job.refresh_from_db()
    return job.status in states


@pytest.mark.parametrize("killed", ["redis", "redis and the process that runs the job"])
def test_a_busy_worker_waits_for_its_redis(
    killed: str, own_redis: Redis, lone_worker: subprocess.Popen[bytes], launch: Callable[..., Job]
) -> None:
    job = launch("one")
    wait_for(lambda: is_(job, Status.RUNNING) and job.bytes_done)
    own_redis.kill()
    if killed != "redis":
        os.kill(descendants(lone_worker.pid)[0], 9)
        time.sleep(3)
    else:
        wait_for(lambda: is_(job, *FINAL))
        time.sleep(2)
    assert lone_worker.poll() is None
    own_redis.start()
    wait_for(lambda: is_(job, *FINAL))
    other = launch("two")
    wait_for(lambda: is_(other, *FINAL))
    assert (job.status, other.status) == (Status.DONE, Status.DONE), job.error_message
    assert lone_worker.poll() is None


@pytest.mark.parametrize("idle", [True, False])
def test_a_worker_that_is_told_to_end_ends_whatever_its_redis_does(
    idle: bool, own_redis: Redis
) -> None:
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


def test_a_worker_misses_its_redis_between_two_rings_and_stays(own_redis: Redis) -> None:
    """rq waits for Redis only where it waits for a ring; just before and after, it ended."""
    connection = redis.Redis(unix_socket_path=str(own_redis.socket))
    worker = KetterWorker([Queue(QUEUE, connection=connection)], connection=connection)
    own_redis.kill()

    worker.check_for_suspension(False)
    worker.set_state(WorkerStatus.IDLE)
    worker.heartbeat()
    assert worker.should_run_maintenance_tasks
    worker.run_maintenance_tasks()


def test_an_idle_worker_without_its_redis_ends_when_told_to(
    own_redis: Redis, lone_worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    wait_for(lambda: "istening" in (tmp_path / "log").read_text())
    own_redis.kill()
    wait_for(lambda: "could not connect" in (tmp_path / "log").read_text())
    lone_worker.terminate()
    wait_for(lambda: lone_worker.poll() is not None, 10)
