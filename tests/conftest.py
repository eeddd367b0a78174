"""The cast and the stage of all tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import servers
from tests.rig.project import PROJECT

if TYPE_CHECKING:
    import redis
    from django.contrib.auth.models import User
    from rest_framework.test import APIClient


@pytest.fixture(scope="session", autouse=True)
def _quick_passwords() -> Iterator[None]:
    """Hash passwords cheaply: the real hashers take a second each, on purpose."""
    from django.test import override_settings

    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield


@pytest.fixture(scope="session", autouse=True)
def _folders_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have no test write to the cache or the state folder of the user who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("cache", "state"):
            patch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path_factory.mktemp(name)))
        yield


@pytest.fixture(scope="session")
def redis_server() -> str:
    """The address of the run's Redis, which runs from here on."""
    servers.start_redis()
    return os.environ["REDIS_URL"]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(redis_server: str) -> None:
    """Have both servers up before pytest-django makes the test database."""
    servers.start_postgres()


@pytest.fixture
def clean_redis(redis_server: str) -> redis.Redis:
    """The run's Redis, empty: no queue, no worker, no lock of an earlier test."""
    import django_rq

    connection: redis.Redis = django_rq.get_connection()
    connection.flushdb()
    return connection


@pytest.fixture
def alice(db: None) -> User:
    """A superuser."""
    from tests.factories import UserFactory

    return UserFactory(username="alice", is_staff=True, is_superuser=True)


@pytest.fixture
def oscar(db: None) -> User:
    """An operator: may launch, cancel and relaunch jobs."""
    from tests.factories import UserFactory

    return UserFactory(username="oscar", is_staff=True, groups=["operators"])


@pytest.fixture
def vera(db: None) -> User:
    """A viewer: may look, and nothing else."""
    from tests.factories import UserFactory

    return UserFactory(username="vera", is_staff=True, groups=["viewers"])


@pytest.fixture
def api() -> Callable[[User | None], APIClient]:
    """Make an API client that speaks for a user, or for nobody."""
    from rest_framework.test import APIClient

    def make(user: User | None = None) -> APIClient:
        client = APIClient()
        if user is not None:
            client.force_authenticate(user)
        return client

    return make


@pytest.fixture
def worker_env(transactional_db: None, clean_redis: redis.Redis) -> dict[str, str]:
    """The environment for processes that must see the test's database, Redis and keys."""
    from django.db import connection

    from ketter_site.servers import database_url
    from tests.factories import with_database

    name = str(connection.settings_dict["NAME"])
    return {**os.environ, "DATABASE_URL": with_database(database_url(), name)}


@pytest.fixture
def worker(
    worker_env: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start real `manage.py rqworker` processes; what still runs is ended afterwards.

    `worker(KETTER_LEASE_SECONDS=3)` starts one with more environment and
    returns once it has announced itself in Redis.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, **env: object) -> subprocess.Popen[bytes]:
        log = (tmp_path / f"worker-{len(started)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "manage.py", "rqworker", *arguments],
            cwd=PROJECT,
            env={**worker_env, **{name: str(value) for name, value in env.items()}},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        started.append(process)
        _wait_for_worker(process, Path(log.name))
        return process

    yield start
    for process in started:
        _end(process)


def _wait_for_worker(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the worker has registered; fail with its output when it dies instead."""
    import django_rq
    from rq import Worker

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        if process.pid in {w.pid for w in Worker.all(connection=django_rq.get_connection())}:
            return
        time.sleep(0.05)
    pytest.fail(f"the worker did not start:\n{log.read_text('utf-8', 'replace')[-4000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a worker: the first signal lets it finish its job, the second one does not."""
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(3)
            return
        except subprocess.TimeoutExpired:
            continue
    process.wait()
