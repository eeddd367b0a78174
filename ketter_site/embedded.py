"""A private Postgres and a private Valkey, on Unix sockets only.

The programs come with two wheels (requirements/embedded.in), or from the
system; this module starts, watches and stops them. Postgres does not run as
root: started by root, it runs as the owner of its folder, which at the first
start is `postgres`, `_postgres` or `nobody`, the first that the machine has.
This module creates no user and changes no folder but the given ones.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis

from ketter_site.admission import DATABASE, SUPERUSER, settle, write_admission
from ketter_site.processes import (
    Process,
    end,
    last_lines,
    open_log,
    small_environment,
    spawn,
)
from ketter_site.programs import (
    EmbeddedError,
    is_there,
    postgres_programs,
    user_name,
    valkey_program,
)
from ketter_site.servers import POSTGRES_PORT, postgres_url, socket_folder, valkey_url

logger = logging.getLogger(__name__)

START_SECONDS = 60
#: Room that lock files need beside the sockets; checked before a server starts.
ROOM_BYTES = 16 * 1024
#: Errors go to the program that made them, which logs them. In Postgres' own log they would show
#: values: sealed credentials, password hashes, the names of files.
NO_VALUES_IN_LOG = (
    "log_min_messages=log",
    "log_min_error_statement=panic",
    "log_error_verbosity=terse",
)
#: Settings for data that may be lost in a power cut: tests and scratch databases.
NOT_DURABLE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@dataclass(frozen=True)
class Server:
    """A running embedded server."""

    name: str
    url: str
    process: Process
    stop_signal: signal.Signals

    def alive(self) -> bool:
        """True if the server still runs."""
        return self.process.poll() is None

    def stop(self) -> None:
        """End the server cleanly: committed data is on disk afterwards."""
        end(self.process, self.stop_signal, seconds=20)


def start_postgres(
    folder: Path, socket_dir: Path, *, log: Path | None = None, durable: bool = True
) -> Server:
    """Start Postgres on the data in `folder`, made at the first start, with a database `ketter`."""
    log = log or folder.with_suffix(".log")
    programs = postgres_programs(folder)
    owner = _owner(folder)
    for path in (folder, socket_dir):
        _make_parent(path)
        _private_folder(path, owner)
    run_as = _run_as(owner, programs, folder, socket_dir)
    data = folder / "data"
    if not is_there(data):
        _check_has_name(owner)
        _initdb(programs, data, run_as, log)
    (socket_dir / ".s.PGSQL.5432.lock").unlink(missing_ok=True)
    settings = ["listen_addresses=", f"unix_socket_directories={socket_dir}"]
    settings += [f"port={POSTGRES_PORT}", "unix_socket_permissions=0700"]
    settings += [*NO_VALUES_IN_LOG] if durable else [*NO_VALUES_IN_LOG, *NOT_DURABLE]
    settings += write_admission(folder)
    process = spawn(
        [str(programs / "postgres"), "-D", str(data), *_options(settings)],
        log=log,
        run_as=run_as,
        env=small_environment(),
        cwd=Path("/"),
        when_orphaned=signal.SIGINT,
    )
    server = Server("postgres", postgres_url(socket_dir, DATABASE), process, signal.SIGINT)
    _wait_ready(server, log, lambda: settle(socket_dir))
    return server


def start_valkey(
    folder: Path, socket: Path, *, log: Path | None = None, durable: bool = True
) -> Server:
    """Start Valkey (or Redis) on the data in `folder`, listening at `socket` only."""
    log = log or folder.with_suffix(".log")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _make_parent(socket)
    socket.unlink(missing_ok=True)
    options = {
        "--port": "0",
        "--unixsocket": str(socket),
        "--unixsocketperm": "700",
        "--dir": ".",
        "--appendonly": "yes" if durable else "no",
        "--save": "",
        "--daemonize": "no",
    }
    argv = [str(valkey_program()), *(word for pair in options.items() for word in pair)]
    process = spawn(argv, log=log, env=small_environment(), cwd=folder)
    server = Server("valkey", valkey_url(socket), process, signal.SIGTERM)
    client = redis.Redis(unix_socket_path=str(socket))
    try:
        _wait_ready(server, log, client.ping)
    finally:
        client.close()
    return server


def _owner(folder: Path) -> int:
    """The user id that Postgres runs as, never root's. Raises EmbeddedError if there is none."""
    me = os.geteuid()
    if folder.exists():
        owner = folder.stat().st_uid
        if owner != me and me != 0:
            raise EmbeddedError(
                f"{folder} belongs to another user ({user_name(owner)}), but this Ketter runs as "
                f"{user_name(me)}: start it as that user."
            )
        if owner != 0:
            return owner
    if me != 0:
        return me
    for name in ("postgres", "_postgres", "nobody"):
        with contextlib.suppress(KeyError):
            uid = pwd.getpwnam(name).pw_uid
            if name == "nobody":
                logger.warning(
                    "Postgres runs as the user nobody, so that all other programs of that user can "
                    "read its data: make a user for it (adduser --system postgres), or start "
                    "Ketter as an ordinary user."
                )
            return uid
    raise EmbeddedError(
        "Postgres does not run as root, and there is no user postgres or nobody to run it: "
        "start Ketter as an ordinary user, or set DATABASE_URL."
    )


def _check_has_name(owner: int) -> None:
    """Raises EmbeddedError if the user has no name, as in a container run as any user id."""
    try:
        pwd.getpwuid(owner)
    except KeyError:
        raise EmbeddedError(
            f"The user id {owner} has no name on this machine, which Postgres' initdb needs: add "
            "it to /etc/passwd, start Ketter as a user that has one, or set DATABASE_URL."
        ) from None


def _make_parent(path: Path) -> None:
    """Make the parent folder of `path`; made by root, it lets Postgres' user pass through.

    Raises EmbeddedError if the folder belongs to another user (any user can make it first in
    /tmp), or if it has no room: this error names a full /tmp, which a server's log may not.
    """
    parent = path.parent
    me = os.geteuid()
    try:
        if not parent.is_symlink():
            parent.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                parent.mkdir(mode=0o700)
                parent.chmod(0o711 if me == 0 else 0o700)  # Whatever the umask is.
        owner = parent.lstat().st_uid
        if parent.is_symlink() or owner not in {0, me}:
            raise EmbeddedError(
                f"{parent} belongs to another user ({user_name(owner)}), but this Ketter runs as "
                f"{user_name(me)}: start it as that user, or remove {parent} if no Ketter of "
                "that user runs, or name another folder in KETTER_VAR_DIR."
            )
        with tempfile.TemporaryFile(dir=parent) as file:
            file.write(bytes(ROOM_BYTES))
    except OSError as error:
        raise EmbeddedError(
            f"{parent} cannot hold the servers' files ({error.strerror}): make room in "
            f"{parent.parent} and let the user {user_name(me)} write there, then start again."
        ) from error


def remove_sockets(var_dir: Path) -> None:
    """Remove the folder of the sockets after the servers' end; another user's folder stays."""
    folder = socket_folder(var_dir)
    if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.geteuid():
        return
    with contextlib.suppress(OSError):
        # Postgres has emptied it; a root without all capabilities cannot list it.
        (folder / "postgres").rmdir()
    shutil.rmtree(folder, ignore_errors=True)


def _private_folder(path: Path, owner: int) -> None:
    """Make a folder that only `owner` may enter."""
    path.mkdir(exist_ok=True, mode=0o700)
    if path.stat().st_uid != owner:
        os.chown(path, owner, _group(owner))
    path.chmod(0o700)


def _group(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid


def _run_as(owner: int, programs: Path, folder: Path, socket_dir: Path) -> list[str]:
    """The `setpriv` command line under which `owner` can run Postgres in those folders.

    Below a folder closed to that user (for example a clone in /root), Postgres keeps one of
    root's capabilities: to look into folders or, if that is not enough, to pass any of them.
    Postgres' own programs try each, because they call access(2), too, and find their own path.
    Raises EmbeddedError if none is enough.
    """
    if owner == os.geteuid():
        return []
    if not shutil.which("setpriv"):
        raise EmbeddedError(
            "Postgres does not run as root, and there is no setpriv to run it as another user: "
            "start Ketter as an ordinary user, or set DATABASE_URL."
        )
    data = folder / "data"
    if is_there(data):
        look = [programs / "postgres", "-D", data, "-C", "port", "-c", "config_file=/dev/null"]
    else:
        look = [programs / "initdb", "-D", data, "--show"]
    script = 'cd "$0" && cd "$1" && shift && exec "$@"'
    test = ["/bin/sh", "-c", script, str(socket_dir), str(folder), *map(str, look)]
    for caps in ((), ("dac_read_search",), ("dac_read_search", "dac_override"), ("dac_override",)):
        command = _setpriv(owner, caps)
        tried = subprocess.run(
            [*command, *test], capture_output=True, cwd="/", check=False, env=small_environment()
        )
        if tried.returncode == 0:
            return command
    said = tried.stderr.decode("utf-8", "replace").strip().splitlines()
    raise EmbeddedError(
        f"Postgres does not run as root, and the user {user_name(owner)} cannot run it in "
        f"{folder} ({said[-1] if said else f'status {tried.returncode}'}): move Ketter to a "
        "folder that others may enter, start it as an ordinary user, or set DATABASE_URL."
    )


def _setpriv(owner: int, caps: tuple[str, ...]) -> list[str]:
    command = ["setpriv", f"--reuid={owner}", f"--regid={_group(owner)}", "--clear-groups"]
    if caps:
        kept = ",".join(["-all", *(f"+{cap}" for cap in caps)])
        # Without that bit, access(2) ignores the capabilities of an ordinary user.
        command += ["--securebits=+no_setuid_fixup", f"--inh-caps={kept}", f"--ambient-caps={kept}"]
    return command


def _initdb(programs: Path, data: Path, run_as: list[str], log: Path) -> None:
    """Make the data folder, whole or not at all; `ketter_site.admission` says who may connect."""
    unfinished = data.with_name("unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    argv = [*run_as, str(programs / "initdb"), "-D", str(unfinished), f"--username={SUPERUSER}"]
    argv += ["--auth=peer", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    log.parent.mkdir(parents=True, exist_ok=True)
    with open_log(log) as output:
        done = subprocess.run(
            argv, stdout=output, stderr=output, cwd="/", check=False, env=small_environment()
        )
    if done.returncode != 0:
        raise EmbeddedError(f"initdb failed, see {log}:\n{last_lines(log)}")
    unfinished.rename(data)


def _options(settings: list[str]) -> list[str]:
    return [word for setting in settings for word in ("-c", setting)]


def _wait_ready(server: Server, log: Path, probe: Callable[[], object]) -> None:
    """Wait until `probe` succeeds; on any other way out, end the server.

    Raises EmbeddedError if the server ends, or does not answer within START_SECONDS.
    """
    deadline = time.monotonic() + START_SECONDS
    try:
        while server.alive() and time.monotonic() < deadline:
            with contextlib.suppress(psycopg.OperationalError, redis.RedisError):
                probe()
                return
            time.sleep(0.03)
    except BaseException:
        server.stop()
        raise
    server.stop()
    raise EmbeddedError(f"{server.name} did not start, see {log}:\n{last_lines(log)}")
