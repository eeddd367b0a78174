"""`manage.py up`: all of Ketter on one machine, until Ctrl-C."""

from __future__ import annotations

import hashlib
import ipaddress
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
from http.client import HTTPException
from pathlib import Path
from typing import Any

import django_rq
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.finders import get_finders
from django.core.management import BaseCommand, CommandError, call_command
from django.db import OperationalError, connections
from django.utils.translation import gettext_lazy as _
from redis.exceptions import RedisError
from rq import Worker
from rq.worker import WorkerStatus

from ketter_site import embedded, servers
from ketter_site.env import (
    BASE_DIR,
    LOOPBACK,
    VAR_DIR,
    env,
    keep_machine,
    make_var_dir,
    private_folder,
)
from ketter_site.only_one import RUN_DIR, note_end, only_one
from ketter_site.processes import Ledger, Process, StartFailed, spawn, write_whole
from ketter_site.supervisor import Child, StopRequested, Supervisor, raise_on_signals

DEFAULT_BIND = "127.0.0.1:8000"
LOG_DIR = VAR_DIR / "log"
#: gunicorn's options under `--dev`. One process, so that a page never comes from older code than
#: the page before; Django keeps templates in memory, so that these reload the process, too.
DEV_OPTIONS = ["--reload", "--reload-extra-file", "*/templates/**/*.html", "--workers", "1"]
#: Holds the web server's address for `manage.py dku`, while the web server runs.
WEB_URL_FILE = RUN_DIR / "web.url"


class Command(BaseCommand):
    """Start servers, web and workers, and keep them running until Ctrl-C."""

    help = str(
        _(
            "Run all of Ketter on this machine: Postgres and Valkey (unless DATABASE_URL and "
            "REDIS_URL name others), the web server and the workers. Ctrl-C ends them all."
        )
    )
    # The servers that settings name may start only later, in this command.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
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
        parser.add_argument(
            "--dev",
            action="store_true",
            help="for developers, on this machine's own addresses only: the web server reloads "
            "changed code and templates and shows debug pages; a worker keeps the code that it "
            "started with",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until a signal asks to stop; by then every process started here has ended."""
        if options["dev"]:
            _check_dev(options["bind"])
        make_var_dir()
        private_folder(LOG_DIR)
        keep_machine(settings.KETTER_MACHINE)
        raise_on_signals()
        try:
            with only_one(self.say) as lock:
                self._run(lock, options)
        except StopRequested:
            self.say("stopped")
        except (StartFailed, OperationalError) as error:
            raise CommandError(str(error).strip()) from error
        except RedisError as error:
            raise CommandError(
                f"Ketter cannot use its Redis: {str(error).rstrip('.')}. Start it, or correct "
                "REDIS_URL, or leave REDIS_URL out: then Ketter starts its own."
            ) from error

    def _run(self, lock: int, options: dict[str, Any]) -> None:
        """Bring everything up, keep it running, and end it."""
        supervisor = Supervisor(Ledger(RUN_DIR / "children.json"), self.say)
        try:
            if left := supervisor.ledger.end_leftovers():
                self.say(f"ended {len(left)} processes that an earlier run left behind")
            self._start(supervisor, options)
            supervisor.watch()
        except StopRequested:
            self.say("stopping")
            raise
        finally:
            note_end(lock)
            try:
                supervisor.stop()
            finally:
                WEB_URL_FILE.unlink(missing_ok=True)
                embedded.remove_sockets(VAR_DIR)

    def say(self, line: str) -> None:
        """Print a line for the person at the terminal, at once."""
        self.stdout.write(line)
        self.stdout.flush()

    def _start(self, supervisor: Supervisor, options: dict[str, Any]) -> None:
        """Start every part after the parts that it needs."""
        began = time.monotonic()
        for child in _servers():
            self.say(f"starting {child.name}")
            supervisor.add(child)
        self._prepare()
        listener = _listen(options["bind"])
        url = _url(listener)
        if not options["bind"] and not url.endswith(f"//{DEFAULT_BIND}"):
            self.say(f"{DEFAULT_BIND} is taken: Ketter listens at {url} instead")
        web = _web(listener, url, dev=options["dev"])
        supervisor.add(web)
        for number in range(1, options["workers"] + 1):
            supervisor.add(_worker(f"worker-{number}"))
        supervisor.wait_until_ready(web, seconds=60)
        write_whole(WEB_URL_FILE, url)
        if ready_file := options["ready_file"]:
            _write_ready_file(ready_file, {"url": url, "pid": os.getpid()})
        self.say(f"Ketter is up after {time.monotonic() - began:.1f} s: {url}/admin/")
        if options["dev"]:
            self.say("--dev: the web server reloads changed code; restart `up` for the workers.")
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


def _check_dev(bind: str | None) -> None:
    """Raises CommandError if `--dev` contradicts a setting, or other machines could reach it."""
    others = sorted(set(settings.ALLOWED_HOSTS).difference(LOOPBACK))
    if bind and not _is_loopback(bind.rpartition(":")[0].strip("[]")):
        why = f"--bind {bind} lets other machines in: bind to 127.0.0.1"
    elif others:
        why = f"KETTER_ALLOWED_HOSTS names {', '.join(others)}: leave it out"
    elif env.str("KETTER_DEBUG", default="").strip() and not settings.DEBUG:
        why = "KETTER_DEBUG is off: leave it out"
    else:
        return
    raise CommandError(
        f"--dev shows pages with source and settings, for this machine alone, but {why}, or start "
        "Ketter without --dev."
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(bind: str | None) -> socket.socket:
    """Open the web server's socket here, so that it outlives a restart of the web server.

    Raises CommandError if `bind` is no address, or cannot be listened at.
    """
    host, _colon, port = (bind or DEFAULT_BIND).rpartition(":")
    try:
        return _open_socket(host.strip("[]"), int(port))
    except (ValueError, OverflowError):
        raise CommandError(f"--bind {bind} is not of the form HOST:PORT.") from None
    except OSError as error:
        if bind:
            raise CommandError(f"--bind {bind}: {error.strerror}.") from None
        return _open_socket(host, 0)


def _open_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=512)


def _write_ready_file(path: Path, content: dict[str, Any]) -> None:
    """Write the file that --ready-file names; raises StartFailed if that is not possible."""
    try:
        if path.exists() and not path.is_file():  # As root, a device of the whole machine.
            raise StartFailed(f"{path} (--ready-file) is no plain file: name another one")
        write_whole(path, json.dumps(content))
    except OSError as error:
        raise StartFailed(f"{path} (--ready-file) cannot be written: {error.strerror}") from error


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _web(listener: socket.socket, url: str, *, dev: bool = False) -> Child:
    """The web server; with `dev` it reloads changed code and shows debug pages."""
    log = LOG_DIR / "web.log"
    argv = [sys.executable, "-m", "gunicorn", "ketter_site.wsgi"]
    argv += ["--bind", f"fd://{listener.fileno()}"]
    argv += DEV_OPTIONS if dev else ["--preload", "--workers", "2"]
    argv += ["--threads", "4", "--graceful-timeout", "5"]
    # gunicorn's control socket would lie in the home folder, which all Ketters of a user share.
    argv += ["--access-logfile", "-", "--no-control-socket"]

    # In the web server alone: in debug mode Django remembers each query of a long-lived worker.
    environment = {**os.environ, "KETTER_DEBUG": "true"} if dev else None

    def start() -> Process:
        fds = [listener.fileno()]
        return spawn(argv, log=log, env=environment, cwd=BASE_DIR, pass_fds=fds)

    return Child("web", start, ready=lambda _process: _answers(url), log=log)


def _answers(url: str) -> bool:
    """True if the web server answers within 3 s."""
    # A proxy of the environment must not stand between this process and the web server.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    host = settings.ALLOWED_HOSTS[0].lstrip(".*") or "localhost"
    request = urllib.request.Request(f"{url}/status/", headers={"Host": host})
    with suppress(urllib.error.URLError, HTTPException, OSError):
        direct.open(request, timeout=3).close()
        return True
    return False


def _worker(name: str) -> Child:
    """A worker that serves all queues."""
    log = LOG_DIR / f"{name}.log"
    argv = [sys.executable, "manage.py", "rqworker"]
    return Child(name, lambda: spawn(argv, log=log, cwd=BASE_DIR), ready=_waits_for_jobs, log=log)


def _waits_for_jobs(worker: Process) -> bool:
    """True if the worker has registered in Redis and waits for jobs or runs one."""
    mark = f"{Worker.redis_worker_namespace_prefix}{settings.KETTER_MACHINE}.{worker.pid}.".encode()
    at_work = {WorkerStatus.IDLE.encode(), WorkerStatus.BUSY.encode()}
    with suppress(RedisError):
        redis: Any = django_rq.get_connection()
        keys = [key for key in redis.smembers(Worker.redis_workers_keys) if key.startswith(mark)]
        return any(redis.hget(key, "state") in at_work for key in keys)
    return False
