"""The soak's world: servers, a far host behind a bad line, workers that are started again."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet

from tests.rig.project import PROJECT
from tests.rig.relay import Relay
from tests.rig.sshd import Sshd, descendants, marked

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from ketter_site.embedded import Server
    from ketter_site.processes import Process
    from portals.models import Portal

#: Short, so that a lost worker is noticed while the next fault is on its way.
SHORT = {
    "KETTER_LEASE_SECONDS": "3",
    "KETTER_REAPER_SECONDS": "1",
    "KETTER_RETRY_SECONDS": "1",
    "KETTER_RETRY_MAX_SECONDS": "3",
    # So that workers help each other with small jobs, too.
    "KETTER_SPREAD_BYTES": "1000000",
}
LEASE = 3.0
_MARK = "LC_KETTER_SOAK"
#: Characters of a log that are shown of a worker that ended.
SAID = 4000
#: What rq says when a worker is up.
LISTENS = "Listening on"


class FarHost(Sshd):
    """An sshd that can go away for a while, with all its sessions."""

    def away(self) -> None:
        """Be gone."""
        self._end()

    def back(self) -> None:
        """Listen again, at the same port and with the same key."""
        if self._process is None:
            self._listen()

    def kill_sessions(self) -> int:
        """End every session, not the listener; how many processes that were."""
        victims = self.sessions()
        for pid in victims:
            send(pid, signal.SIGKILL)
        return len(victims)


class Slot:
    """A place for a worker: when one ends, the next one is started there."""

    def __init__(self, number: int, log: Path, env: dict[str, str]) -> None:
        self.number, self.log, self._env = number, log, env
        self.process: Process | None = None
        self.frozen = False
        self.start_at = self.started = 0.0
        #: Whether its end was asked for; one that ends otherwise is a finding.
        self.expected = False
        self._said_before = 0

    def start(self) -> None:
        """Start a worker."""
        from ketter_site.processes import spawn

        self.started, self._said_before = time.monotonic(), len(self._log())
        argv = [sys.executable, "manage.py", "rqworker"]
        self.process = spawn(argv, log=self.log, env=self._env, cwd=PROJECT)
        self.frozen = self.expected = False

    def horse(self) -> int:
        """The process that runs a job; 0 if there is none."""
        below = descendants(self.process.pid) if self.process else []
        return below[0] if below else 0

    def agents(self) -> list[int]:
        """The receiver, the sender, the next lane's receiver and so on; empty if none run."""
        horse = self.horse()
        return sorted(descendants(horse)) if horse else []

    def died_by_itself(self, redis_since: float) -> bool:
        """Whether nobody wanted the worker to end; `redis_since` is when Redis was last started.

        One that finds no Redis as it begins ends at once: whoever runs it tries again.
        """
        began_without = self.started < redis_since and LISTENS not in self.said()
        return not self.expected and not began_without

    def said(self) -> str:
        """What this worker has said."""
        return self._log()[self._said_before :].decode("utf-8", "replace")

    def _log(self) -> bytes:
        return self.log.read_bytes() if self.log.exists() else b""

    def send(self, number: signal.Signals, *more: int) -> None:
        """Send a signal to the worker, and to those of its processes that are named."""
        for pid in (*more, self.process.pid if self.process else 0):
            send(pid, number)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process, if it is there."""
    if pid > 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class World:
    """All of it, in one folder, which is gone afterwards."""

    def __init__(self, workers: int, place: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ketter-soak-", dir=place))
        self.folder.chmod(0o711)
        self._mark = f"{_MARK}={uuid.uuid4().hex}"
        self._count = workers
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.postgres: Server | None = None
        self.valkey: Server | None = None
        self.redis_since = 0.0
        self.slots: list[Slot] = []
        self.portals: dict[str, Portal] = {}
        self.roots: dict[str, Path] = {}
        #: How workers ended that nobody wanted to end, and what they said last.
        self.died: list[tuple[str, str]] = []
        self._prepare()

    def _prepare(self) -> None:
        """Say to Django, before it looks, where everything is."""
        from ketter_site import servers

        self._sockets = servers.postgres_socket_folder(self.folder)
        self._valkey_socket = servers.valkey_socket(self.folder)
        temporary = self.folder / "tmp"
        temporary.mkdir()
        (self.folder / "static").mkdir()
        os.environ.update(
            SHORT,
            DJANGO_SETTINGS_MODULE="ketter_site.settings",
            KETTER_VAR_DIR=str(self.folder),
            KETTER_SECRET_KEY=secrets.token_urlsafe(50),
            KETTER_FIELD_KEYS=Fernet.generate_key().decode(),
            DATABASE_URL=servers.postgres_url(self._sockets),
            REDIS_URL=servers.valkey_url(self._valkey_socket),
            TMPDIR=str(temporary),
        )

    def start(self) -> None:
        """Start everything, make the database, the portals and the user."""
        self.start_postgres()
        self.start_valkey()
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        self.far = FarHost()
        self.far.start()
        self.line = Relay(self.far.host, self.far.port).start()
        self._make_portals()
        name, _, value = self._mark.partition("=")
        env = {**os.environ, name: value}
        logs = self.folder / "logs"
        self.slots = [Slot(n, logs / f"worker-{n}.log", env) for n in range(self._count)]

    def _make_portals(self) -> None:
        from django.contrib.auth.models import User

        from portals.services import credential_create, portal_create

        self.user: User = User.objects.create_user("soak")
        key = self.far.identity_file.read_text()
        credential = credential_create(name="rig", kind="private_key", secret=key)
        for name in ("lab", "srvtrf", "far"):
            self.roots[name] = self.folder / "roots" / name
            self.roots[name].mkdir(parents=True)
        root = {name: str(path) for name, path in self.roots.items()}
        for name in ("lab", "srvtrf"):
            self.portals[name] = portal_create(name=name, kind="local", root_path=root[name])
        self.portals["far"] = portal_create(
            name="far",
            kind="ssh",
            host=self.line.host,
            port=self.line.port,
            username=self.far.username,
            root_path=root["far"],
            host_key=self.far.host_key,
            credential=credential,
        )

    def start_postgres(self) -> None:
        """Have Postgres running, durable: what it has committed outlives its crash."""
        from ketter_site import embedded

        self.postgres = embedded.start_postgres(self.folder / "postgres", self._sockets)

    def start_valkey(self) -> None:
        """Have Valkey running, which forgets everything when it ends."""
        from ketter_site import embedded

        self.valkey = embedded.start_valkey(
            self.folder / "valkey", self._valkey_socket, durable=False
        )
        self.redis_since = time.monotonic()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something in a while; `tick` does it."""
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), action))

    def tick(self) -> None:
        """Do what is due, and start workers where there are none."""
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()
        for slot in self.slots:
            process = slot.process
            if process is not None and process.poll() is not None:
                if slot.died_by_itself(self.redis_since):
                    how = f"exit status {process.returncode}"
                    self.died.append((how, slot.said()[-SAID:]))
                slot.process = process = None
            if process is None and time.monotonic() >= slot.start_at:
                slot.start()

    def calm(self) -> None:
        """End every fault that lasts."""
        while self._due:
            heapq.heappop(self._due)[2]()

    def wait_for_processes(self, seconds: float) -> list[int]:
        """Wait until no worker, horse or agent of ours is left; those that still are."""
        until = time.monotonic() + seconds
        while (left := marked(self._mark)) and time.monotonic() < until:
            time.sleep(0.2)
        return left

    def end_workers(self) -> list[int]:
        """Tell the workers to end; what is left of them after a while, and was then killed."""
        self._count, slots, self.slots = 0, self.slots, []
        for _ in range(2):
            for slot in slots:
                slot.send(signal.SIGCONT)
                slot.send(signal.SIGTERM)
            time.sleep(1)
        left = self.wait_for_processes(15)
        for pid in left:
            send(pid, signal.SIGKILL)
        for slot in slots:
            if slot.process:
                slot.process.wait()
        return left

    def close(self) -> None:
        """End everything and remove the folder."""
        from ketter_site import embedded

        with contextlib.suppress(Exception):
            self.calm()
        self.end_workers()
        for name in ("line", "far"):
            if hasattr(self, name):
                getattr(self, name).stop()
        for server in (self.postgres, self.valkey):
            if server:
                server.stop()
        embedded.remove_sockets(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)
