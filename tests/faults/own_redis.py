"""Redis of one test alone, and the worker that works with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from jobs.models import Job
from ketter_site import embedded
from ketter_site.servers import valkey_url
from tests.rig.project import PROJECT

SHORT = {"KETTER_LEASE_SECONDS": "10", "KETTER_REAPER_SECONDS": "1"}


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


def start_worker(server: Redis, env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A worker at that Redis: it hears of jobs by its own reaper, which asks the database."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "manage.py", "rqworker"],
            cwd=PROJECT,
            env={**env, **SHORT, "REDIS_URL": valkey_url(server.socket)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def is_(job: Job, *states: str) -> bool:
    """Whether the job is in one of these states now."""
    job.refresh_from_db()
    return job.status in states
