"""Redis answers and takes nothing: full, read-only, unable to save, or with another password."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from django.test import Client
from django.utils import timezone

from jobs.models import Job
from jobs.states import FINAL, Status
from ketter_site.servers import valkey_url
from tests.factories import JobFactory
from tests.faults.own_redis import Redis, is_, start_worker
from tests.rig.lanes import nightly
from tests.rig.sshd import end_tree
from tests.rig.waiting import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

Refuse = Callable[[Any], None]


def oom(redis_: Any) -> None:
    """No memory is left, by its limit."""
    redis_.config_set("maxmemory", "100kb")


def readonly(redis_: Any) -> None:
    """It has become a replica, of one that is not there."""
    redis_.execute_command("REPLICAOF", "127.0.0.1", "9")


def misconf(redis_: Any) -> None:
    """It is to save to a folder that is gone, and takes no writes until it can."""
    shutil.rmtree(redis_.config_get("dir")["dir"])
    redis_.config_set("stop-writes-on-bgsave-error", "yes")
    redis_.config_set("save", "1 1")
    redis_.set("something", "new")
    wait_until(lambda: redis_.info("persistence")["rdb_last_bgsave_status"] == "err", 60)


def noauth(redis_: Any) -> None:
    """It has a password all of a sudden, and ends the connections that it had."""
    redis_.config_set("requirepass", "another")
    redis_.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    redis_.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


def noperm(redis_: Any) -> None:
    """Its user may not write any more."""
    redis_.execute_command("ACL", "SETUSER", "default", "-@write")


def mend(redis_: Any) -> None:
    """Have it as it was."""
    redis_.execute_command("ACL", "SETUSER", "default", "+@all")
    redis_.config_set("requirepass", "")
    redis_.execute_command("REPLICAOF", "NO", "ONE")
    redis_.config_set("maxmemory", "0")
    redis_.config_set("stop-writes-on-bgsave-error", "no")
    redis_.config_set("save", "")


REFUSALS = [oom, nightly(readonly), nightly(misconf), noauth, nightly(noperm)]
SAID: dict[Refuse, str] = {
    oom: "failing: Redis is full, it takes no writes (maxmemory)",
    readonly: "failing: Redis is a replica, it takes no writes",
    misconf: "failing: Redis cannot save to its disk, it takes no writes",
    noauth: "failing: AuthenticationError",
    noperm: "failing: Redis does not let Ketter's user write",
}


@pytest.fixture
def admin(own_redis: Redis) -> Iterator[Any]:
    """A connection to that Redis, which stays."""
    client: Any = redis.Redis(unix_socket_path=str(own_redis.socket), single_connection_client=True)
    yield client
    client.close()


@pytest.fixture
def late_worker(
    own_redis: Redis, worker_env: dict[str, str], tmp_path: Path
) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """A worker that is started while Redis refuses."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(start_worker(own_redis, worker_env, tmp_path / "late"))
        return started[-1]

    yield start
    for process in started:
        end_tree(process.pid)
        process.wait()


@pytest.mark.parametrize("refuse", REFUSALS, ids=lambda refuse: refuse.__name__)
def test_workers_wait_and_their_reaper_continues_while_redis_refuses_commands(
    refuse: Refuse,
    own_redis: Redis,
    admin: Any,
    lone_worker: subprocess.Popen[bytes],
    late_worker: Callable[[], subprocess.Popen[bytes]],
    launch: Callable[[str], Job],
    client: Client,
    settings: Any,
    tmp_path: Path,
) -> None:
    wait_until(lambda: "istening on" in (tmp_path / "log").read_text(), 60)
    refuse(admin)
    late = late_worker()
    due = JobFactory.create(status=Status.RETRY_WAIT, next_run_at=timezone.now())

    # The reaper: what Postgres has, it looks after.
    wait_until(lambda: is_(due, Status.QUEUED), 15)
    Job.objects.filter(pk=due.pk).update(
        status=Status.DRAFT, next_run_at=timezone.now() + timedelta(days=1)
    )
    job = launch("one")
    wait_until(lambda: "Redis is away or refuses" in (tmp_path / "log").read_text(), 15)
    wait_until(lambda: "Redis is away or refuses" in (tmp_path / "late").read_text(), 15)
    time.sleep(5)
    assert (lone_worker.poll(), late.poll()) == (None, None)
    url = valkey_url(own_redis.socket)
    settings.RQ_QUEUES = {"default": {**settings.RQ_QUEUES["default"], "URL": url}}
    assert client.get("/health").json()["checks"]["redis"] == SAID[refuse]

    mend(admin)

    wait_until(lambda: is_(job, *FINAL), 40)
    assert job.status == Status.DONE, job.error_message
    wait_until(lambda: client.get("/health").json()["status"] == "ok", 20)
    wait_until(lambda: admin.scard("rq:workers") == 2, 20)
    assert (lone_worker.poll(), late.poll()) == (None, None)
    said = (tmp_path / "log").read_text()
    # Once for each kind of trouble: that a connection ended, that another one is refused.
    assert 1 <= said.count("Redis is away or refuses") <= 3, said
    assert "Redis takes orders again" in said


@pytest.mark.parametrize(
    "refuse", [oom, nightly(readonly), nightly(noauth)], ids=lambda refuse: refuse.__name__
)
def test_a_running_job_is_done_and_its_worker_stays_while_redis_refuses_commands(
    refuse: Refuse,
    admin: Any,
    lone_worker: subprocess.Popen[bytes],
    launch: Callable[[str], Job],
    tmp_path: Path,
) -> None:
    job = launch("one")
    wait_until(lambda: is_(job, Status.RUNNING) and job.bytes_done, 60)
    refuse(admin)
    wait_until(lambda: is_(job, *FINAL), 60)
    assert (job.status, job.attempt) == (Status.DONE, 1), job.error_message
    time.sleep(2)
    assert lone_worker.poll() is None
    other = launch("two")
    mend(admin)
    wait_until(lambda: is_(other, *FINAL), 60)
    assert (other.status, lone_worker.poll()) == (Status.DONE, None)


def test_a_worker_registers_again_after_redis_loses_its_entry(
    own_redis: Redis, admin: Any, lone_worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    wait_until(lambda: admin.scard("rq:workers") == 1, 60)
    admin.flushall()
    wait_until(lambda: admin.scard("rq:workers:default") == admin.scard("rq:workers") == 1, 10)
    (key,) = admin.smembers("rq:workers")
    wait_until(lambda: admin.hget(key, "pid") == str(lone_worker.pid).encode(), 10)
    assert 0 < admin.ttl(key) <= 180


@pytest.mark.parametrize("refuse", [oom, noauth], ids=lambda refuse: refuse.__name__)
def test_a_worker_that_waits_for_a_refusing_redis_ends_on_sigterm(
    refuse: Refuse, admin: Any, lone_worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    wait_until(lambda: "istening on" in (tmp_path / "log").read_text(), 60)
    refuse(admin)
    wait_until(lambda: "Redis is away or refuses" in (tmp_path / "log").read_text(), 60)
    lone_worker.terminate()
    wait_until(lambda: lone_worker.poll() is not None, 10)
    assert lone_worker.returncode == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
