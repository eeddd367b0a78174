"""The database's host vanishes without a word, and a second address answers all the time."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from jobs.models import Job
from jobs.states import FINAL, Status
from tests.faults.own_redis import is_
from tests.rig import vanishing
from tests.rig.project import PROJECT
from tests.rig.sshd import end_tree
from tests.rig.waiting import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

MISSING = vanishing.missing()


@pytest.fixture
def host() -> Iterator[vanishing.VanishingHost]:
    """The run's Postgres behind two addresses of a host that can vanish."""
    if MISSING:
        pytest.skip(MISSING)
    folder = str(connection.settings_dict["HOST"])
    if not folder.startswith("/"):
        pytest.skip("the tests' Postgres is not behind a Unix socket, which the rig relays to")
    port = connection.settings_dict["PORT"] or 5432
    with vanishing.VanishingHost(f"{folder}/.s.PGSQL.{port}") as host:
        yield host


@pytest.fixture
def start(
    host: vanishing.VanishingHost, worker_env: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start Ketter's programs where the database is behind that host."""
    settings = connection.settings_dict
    login = settings["USER"] + (f":{settings['PASSWORD']}" if settings["PASSWORD"] else "")
    hosts = ",".join(
        f"{address}:{vanishing.PORT}" for address in (vanishing.FIRST, vanishing.SECOND)
    )
    env = {**worker_env, "DATABASE_URL": f"postgresql://{login}@{hosts}/{settings['NAME']}"}
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"log-{len(started)}").open("wb") as log:
            process = subprocess.Popen(
                host.here([sys.executable, *command]),
                cwd=PROJECT,
                env={**env, "KETTER_LEASE_SECONDS": "60", "KETTER_REAPER_SECONDS": "2"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        end_tree(process.pid)
        process.wait()


def health(web: Path, seconds: float) -> dict[str, Any]:
    """What `/health` answers through a web server's socket."""
    with (
        closing(http.client.HTTPConnection("localhost", timeout=seconds)) as talk,
        socket.socket(socket.AF_UNIX) as stream,
    ):
        stream.settimeout(seconds)
        stream.connect(str(web))
        talk.sock = stream
        talk.request("GET", "/health")
        return dict(json.loads(talk.getresponse().read())["checks"])


def well(web: Path) -> bool:
    """Whether the web server answers, and has its database."""
    try:
        return health(web, 40)["database"] == "ok"
    except (OSError, http.client.HTTPException):
        return False


def test_web_and_worker_recover_within_seconds_when_the_database_host_vanishes(
    host: vanishing.VanishingHost,
    start: Callable[..., subprocess.Popen[bytes]],
    launch: Callable[[str], Job],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    web = tmp_path_factory.mktemp("w") / "s"
    argv = ["ketter_site.wsgi", "--bind", f"unix:{web}", "--workers", "1", "--threads", "4"]
    start("-m", "gunicorn", *argv)
    worker = start("manage.py", "rqworker")
    wait_until(lambda: web.exists() and well(web), 60)
    job = launch("one")
    Job.objects.filter(pk=job.pk).update(bandwidth_limit=300_000)  # Some 10 s.
    wait_until(lambda: is_(job, Status.RUNNING) and job.bytes_done, 60)

    host.vanish()

    began = time.monotonic()
    wait_until(lambda: well(web), 60)
    took = time.monotonic() - began
    assert took < 22, f"/health answered after {took:.0f} s"
    later = launch("two")
    wait_until(lambda: is_(job, *FINAL) and is_(later, *FINAL), 60)
    assert (job.status, job.attempt) == (Status.DONE, 1), job.error_message
    assert later.status == Status.DONE
    assert worker.poll() is None
