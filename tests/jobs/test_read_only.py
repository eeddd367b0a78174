"""Postgres takes no writes for some seconds, as during a failover: no job ends for that."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from jobs.services import job_create
from jobs.states import Status
from ketter_site.servers import database_url
from portals.models import Portal
from tests.factories import with_database
from tests.jobs.helpers import MEGABYTE, wait_for_bytes, wait_for_status
from tests.rig.events import codes

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@contextmanager
def read_only() -> Iterator[None]:
    """Have the test's database read-only, for sessions that begin after now: those of today end."""
    name = connection.settings_dict["NAME"]
    connection.close()
    with psycopg.connect(with_database(database_url(), "postgres"), autocommit=True) as admin:

        def alter(how: str) -> None:
            admin.execute(f'ALTER DATABASE "{name}" {how}')
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )

        alter("SET default_transaction_read_only = on")
        try:
            yield
        finally:
            alter("RESET default_transaction_read_only")
            connection.close()


def test_a_run_outlives_a_postgres_that_takes_no_writes(
    worker: Callable[..., subprocess.Popen[bytes]],
    lab: Portal,
    oscar: User,
    order: dict[str, Any],
    client: Client,
    tmp_path: Path,
) -> None:
    folder = Path(lab.root_path) / "day1"
    folder.mkdir()
    (folder / "a.bin").write_bytes(os.urandom(6 * MEGABYTE))
    process = worker(KETTER_LEASE_SECONDS=60, KETTER_REAPER_SECONDS=1)
    job = job_create(by=oscar, **order, bandwidth_limit=MEGABYTE)
    wait_for_bytes(job)

    with read_only():
        time.sleep(3)
        health = json.loads(client.get("/health").content)

    wait_for_status(job, Status.DONE)
    assert job.attempt == 1
    assert "takes no writes" in health["checks"]["database"]
    assert "INTERNAL" not in codes(job)
    assert process.poll() is None
