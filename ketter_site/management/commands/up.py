"""`manage.py up`: all of Ketter on one machine, until Ctrl-C."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import secrets
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import django_rq
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.finders import get_finders
from django.core.management import BaseCommand, CommandError, call_command
from django.db import OperationalError, connections
from django.utils.translation import gettext_lazy as _
from redis.exceptions import RedisError

from ketter_site import embedded, servers
from ketter_site.env import BASE_DIR, VAR_DIR, env, make_var_dir
from ketter_site.processes import Ledger, Process, StartFailed, last_lines, spawn, write_whole
from ketter_site.supervisor import Child, StopRequested, Supervisor, raise_on_signals

DEFAULT_BIND = "127.0.0.1:8000"
RUN_DIR = VAR_DIR / "run"
LOG_DIR = VAR_DIR / "log"
#: Tells `manage.py dku` where the web server is, while it is there.
WEB_URL_FILE = RUN_DIR / "web.url"


class Command(BaseCommand):
    """Start servers, web and workers, and keep them running until Ctrl-C."""

    help = str(
        _(
            "Run all of Ketter on this machine: Postgres and Valkey (unless DATABASE_URL and "
            "REDIS_URL name others), the web server and the workers. Ctrl-C ends them all."
        )
    )
    # Settings may name servers that only run later.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Where to listen, how many workers, and whom to tell."""
        parser.add_argument(
            "--bind",
            metavar="HOST:PORT",
            help=f"where to listen; port 0 takes a free one (default: {DEFAULT_BIND}, "
            "or a free port if that one is taken)",
        )
        parser.add_argument("--workers", type=int, default=1, help="how many workers (default: 1)")
        parser.add_argument(
            "--ready-file",
            type=Path,
            metavar="FILE",
            help="a plain file: gets a JSON object with `url` and `pid` once Ketter answers",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until asked to stop; every process started here has ended then."""
        make_var_dir()
        for folder in (RUN_DIR, LOG_DIR):
            folder.mkdir(exist_ok=True)
        with (RUN_DIR / "up.lock").open("a+") as lock:
            _take_lock(lock)
            raise_on_signals()
            ledger = Ledger(RUN_DIR / "children.json")
            if left := ledger.end_leftovers():
                self.say(f"ended {len(left)} processes that an earlier run had left")
            supervisor = Supervisor(ledger, self.say)
            try:
                self._start(supervisor, options)
                supervisor.watch()
            except StopRequested:
                self.say("stopping")
            except (StartFailed, OperationalError, RedisError) as error:
                raise CommandError(str(error).strip()) from error
            finally:
                try:
                    supervisor.stop()
                finally:
                    WEB_URL_FILE.unlink(missing_ok=True)
            self.say("stopped")

    def say(self, line: str) -> None:
        """Tell the person at the terminal, at once."""
        self.stdout.write(line)
        self.stdout.flush()

    def _start(self, supervisor: Supervisor, options: dict[str, Any]) -> None:
        """Bring everything up in the order in which one part needs another."""
        began = time.monotonic()
        for child in _servers():
            self.say(f"starting {child.name}")
            supervisor.add(child)
        self._prepare()
        listener = _listen(options["bind"])
        url = _url(listener)
        supervisor.add(Child("web", lambda: _spawn_web(listener)))
        for number in range(1, options["workers"] + 1):
            name = f"worker-{number}"
            supervisor.add(Child(name, functools.partial(_spawn_worker, name)))
        _wait_for_web(url, supervisor.children)
        write_whole(WEB_URL_FILE, url)
        if ready_file := options["ready_file"]:
            write_whole(ready_file, json.dumps({"url": url, "pid": os.getpid()}))
        self.say(f"Ketter is up after {time.monotonic() - began:.1f} s: {url}/admin/")
        self.say(f"Logs are in {LOG_DIR}. Ctrl-C ends it.")

    def _prepare(self) -> None:
        """Bring the schema, the static files and the first user up to date."""
        django_rq.get_connection().ping()
        call_command("migrate", interactive=False, verbosity=0)
        _collect_static()
        user_model = get_user_model()
        if not user_model.objects.filter(is_superuser=True).exists():
            password = secrets.token_urlsafe(12)
            user_model.objects.create_superuser(username="admin", password=password)
            self.say(f"created the user admin with the password {password} (shown this once)")
        connections.close_all()


def _take_lock(lock: TextIO) -> None:
    """Be the only `up` in this var folder."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        raise CommandError(f"Ketter already runs here, as process {lock.read().strip()}.") from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()


def _collect_static() -> None:
    """Collect and compress the static files, unless they are the same as last time."""
    digest = hashlib.sha256()
    for finder in get_finders():
        for path, storage in finder.list([]):
            stat = Path(storage.path(path)).stat()
            digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    mark = RUN_DIR / "static.sha256"
    if mark.exists() and mark.read_text("ascii") == digest.hexdigest():
        return
    mark.unlink(missing_ok=True)
    call_command("collectstatic", interactive=False, verbosity=0)
    mark.write_text(digest.hexdigest(), "ascii")


def _servers() -> list[Child]:
    """The embedded servers, those that the environment does not replace."""

    def postgres() -> Process:
        folder = servers.postgres_socket_folder()
        log = LOG_DIR / "postgres.log"
        return embedded.start_postgres(VAR_DIR / "postgres", folder, log=log).process

    def valkey() -> Process:
        log = LOG_DIR / "valkey.log"
        return embedded.start_valkey(VAR_DIR / "valkey", servers.valkey_socket(), log=log).process

    found = []
    if not env.str("DATABASE_URL", default=""):
        found.append(Child("postgres", postgres, signal.SIGINT, is_server=True))
    if not env.str("REDIS_URL", default=""):
        found.append(Child("valkey", valkey, is_server=True))
    return found


def _listen(bind: str | None) -> socket.socket:
    """Open the web server's socket here, so that it outlives a restart of the web server."""
    host, _colon, port = (bind or DEFAULT_BIND).rpartition(":")
    try:
        return _open_socket(host.strip("[]"), int(port))
    except (ValueError, OverflowError):
        raise CommandError(f"--bind {bind}: not of the form HOST:PORT.") from None
    except OSError as error:
        if bind:
            raise CommandError(f"--bind {bind}: {error.strerror}.") from None
        return _open_socket(host, 0)


def _open_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=512)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _spawn_web(listener: socket.socket) -> Process:
    argv = [
        sys.executable,
        "-m",
        "gunicorn",
        "ketter_site.wsgi",
        "--bind",
        f"fd://{listener.fileno()}",
    ]
    argv += ["--preload", "--workers", "2", "--threads", "4", "--graceful-timeout", "5"]
    argv += ["--access-logfile", "-"]
    return spawn(argv, log=LOG_DIR / "web.log", cwd=BASE_DIR, pass_fds=[listener.fileno()])


def _spawn_worker(name: str) -> Process:
    argv = [sys.executable, "manage.py", "rqworker"]
    return spawn(argv, log=LOG_DIR / f"{name}.log", cwd=BASE_DIR)


def _wait_for_web(url: str, children: list[Child]) -> None:
    """Wait until the web server answers; say what its log says when it does not."""
    web = next(child.process for child in children if child.name == "web")
    # A proxy of the environment has no business between us.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and web and web.poll() is None:
        with suppress(urllib.error.URLError, TimeoutError):
            host = settings.ALLOWED_HOSTS[0].lstrip(".*") or "localhost"
            request = urllib.request.Request(f"{url}/status/", headers={"Host": host})
            with direct.open(request, timeout=10):
                return
        time.sleep(0.05)
    log = LOG_DIR / "web.log"
    raise StartFailed(f"The web server did not start, see {log}:\n{last_lines(log)}")
