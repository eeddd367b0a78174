"""Who the embedded servers let in, and what of Ketter's environment they have: nothing."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest
import redis

from ketter_site import admission, embedded
from ketter_site.processes import StartFailed
from ketter_site.programs import postgres_programs, valkey_program
from ketter_site.servers import postgres_url
from tests.rig.sshd import descendants
from tests.site.helpers import root_only

#: What no server needs to know.
SECRETS = {
    "KETTER_FIELD_KEYS": "a-field-key",
    "KETTER_SECRET_KEY": "a-secret-key",
    "KETTER_FIELD_KEYS_FILE": "/run/secrets/keys",
    "DATABASE_URL": "postgresql://u:a-password@db/k",
    "REDIS_URL": "redis://:a-password@r/0",
    "PGPASSWORD": "a-password",
    "PYTHONPATH": "/x",
    "PIP_INDEX_URL": "https://u:a-password@index.example",
    "AWS_SECRET_ACCESS_KEY": "a-password",
}


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder that others may pass, started from with secrets in the environment."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    folder = Path(tempfile.mkdtemp(prefix="ketter-admission-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def start(home: Path) -> Iterator[Callable[[], embedded.Server]]:
    """Start a Postgres of this test; it is ended afterwards."""
    started: list[embedded.Server] = []

    def start() -> embedded.Server:
        server = embedded.start_postgres(home / "pg", home / "run" / "pg", durable=False)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


def as_user(uid: int, deed: Callable[[], object]) -> str:
    """What comes of a deed that another user does: what it raised, or empty."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        said = ""
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            deed()
        except BaseException as error:  # noqa: BLE001  (a forked child, which must end here)
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return said


def connect(socket_dir: Path, role: str, database: str = "postgres") -> psycopg.Connection:
    """A connection as a role; who asks, Postgres hears from the kernel."""
    return psycopg.connect(postgres_url(socket_dir, database, role=role), autocommit=True)


def environments(pid: int) -> list[str]:
    """The environment of a process and of all below it."""
    pids = [pid, *descendants(pid)]
    return [
        entry
        for one in pids
        for entry in Path(f"/proc/{one}/environ").read_bytes().decode().split("\0")
        if entry
    ]


@pytest.fixture(params=["postgres", "valkey"])
def seen(
    request: pytest.FixtureRequest,
    home: Path,
    start: Callable[[], embedded.Server],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[], list[str]]:
    """Start a server and return its environment.

    Valkey writes its title over what /proc shows of it: a program before it notes it down.
    """
    if request.param == "postgres":
        return lambda: environments(start().process.pid)
    noted, program = home / "valkey.env", home / "valkey.sh"
    program.write_text(f'#!/bin/sh\nenv -0 > {noted}\nexec {valkey_program()} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(embedded, "valkey_program", lambda: program)

    def of_valkey() -> list[str]:
        embedded.start_valkey(home / "v", home / "run" / "v.sock", durable=False).stop()
        return [entry for entry in noted.read_text().split("\0") if entry]

    return of_valkey


on_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")


@on_proc
def test_a_secret_in_the_environment_of_an_embedded_server_is_seen(
    seen: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the next test relies on. For Valkey it read what the title had overwritten: nothing."""
    monkeypatch.setattr(embedded, "small_environment", lambda: dict(os.environ))
    assert {f"{name}={value}" for name, value in SECRETS.items()} <= set(seen())


@on_proc
def test_the_environment_of_embedded_servers_contains_nothing_of_ketter(
    seen: Callable[[], list[str]],
) -> None:
    names = {entry.partition("=")[0] for entry in seen()}
    assert "PATH" in names
    allowed = {"PATH", "HOME", "TMPDIR", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "LOCPATH"}
    ours = {"PGDATA", "PG_GRANDPARENT_PID", "PWD", "OLDPWD", "SHLVL", "_"}
    assert {name for name in names if not name.startswith("LC_")} <= allowed | ours
    assert not names & SECRETS.keys()


@root_only
def test_the_user_that_runs_postgres_finds_no_secret_in_the_environment_of_the_server(
    start: Callable[[], embedded.Server],
) -> None:
    server = start()
    pid = server.process.pid
    owner = Path(f"/proc/{pid}").stat()
    assert owner.st_uid != 0
    user = [f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups"]
    read = ["setpriv", *user, "cat"]
    seen = subprocess.run([*read, f"/proc/{pid}/environ"], capture_output=True, check=True)
    assert b"PATH=" in seen.stdout
    for value in SECRETS.values():
        assert value.encode() not in seen.stdout


@root_only
@pytest.mark.parametrize("role", ["ketter", "postgres", "ketter_moving", "nobody"])
def test_postgres_refuses_every_system_user_but_the_one_that_started_ketter(
    home: Path, start: Callable[[], embedded.Server], role: str
) -> None:
    server = start()
    uid = (home / "pg").stat().st_uid
    assert uid != 0
    for user in (uid, 65534, 54321):
        if user == uid:  # It owns the socket's folder: only Postgres itself keeps it out.
            said = as_user(user, lambda: connect(home / "run" / "pg", role))
            assert "Peer authentication failed" in said or "peer" in said.lower(), said
        assert as_user(user, lambda: connect(home / "run" / "pg", role, "ketter")), user
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("ketter",)


def test_the_ketter_role_is_no_superuser_and_cannot_read_server_files(
    start: Callable[[], embedded.Server],
) -> None:
    server = start()
    with psycopg.connect(server.url, autocommit=True) as connection:
        told = connection.execute(
            "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        assert told == (False, True, False)
        for query in (
            "SELECT pg_read_binary_file('/proc/self/environ')",
            "SELECT pg_read_file('/etc/hostname')",
            "COPY (SELECT 1) TO PROGRAM 'id'",
            "CREATE TEMP TABLE t (a text); COPY t FROM '/etc/hostname'",
            "SET ROLE postgres",
            "ALTER ROLE ketter SUPERUSER",
            "ALTER SYSTEM SET hba_file = '/tmp/x'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(query)
        connection.execute("CREATE TABLE mine (id bigint GENERATED ALWAYS AS IDENTITY)")
        connection.execute("CREATE DATABASE scratch")
        connection.execute("DROP DATABASE scratch")


def earlier(home: Path) -> tuple[Path, list[str]]:
    """A data folder as an earlier Ketter made it, trusting whoever reaches the socket."""
    folder = home / "pg"
    found = postgres_programs()
    owner = embedded._owner(folder)
    folder.mkdir(mode=0o700)
    os.chown(folder, owner, embedded._group(owner))
    run_as = embedded._run_as(owner, found, folder, home)
    argv = [*run_as, str(found / "initdb"), "-D", str(folder / "data"), "--username=ketter"]
    argv += ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    subprocess.run(argv, check=True, cwd="/", capture_output=True)
    (home / "run").mkdir(mode=0o711)
    sockets = home / "run" / "pg"
    sockets.mkdir(mode=0o700)
    os.chown(sockets, owner, embedded._group(owner))
    settings = ["listen_addresses=", f"unix_socket_directories={sockets}"]
    server = [*run_as, str(found / "postgres"), "-D", str(folder / "data")]
    return sockets, [*server, *embedded._options(settings)]


@pytest.fixture
def old_folder(home: Path) -> Path:
    """Such a folder with a database and rows in it; returns where its sockets are."""
    sockets, argv = earlier(home)
    process = subprocess.Popen(argv, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                with connect(sockets, "ketter") as connection:
                    connection.execute("CREATE DATABASE ketter")
                break
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        with connect(sockets, "ketter", "ketter") as connection:
            connection.execute(
                "CREATE TABLE rows (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, a text);"
                "CREATE SEQUENCE alone; CREATE VIEW seen AS SELECT a FROM rows;"
                'CREATE TABLE "Odd ""name" (a int);'
                "CREATE TABLE old_style (id serial, r int REFERENCES rows);"
                "INSERT INTO rows (a) VALUES ('one'), ('two')"
            )
    finally:
        process.send_signal(2)
        process.wait()
    return sockets


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_data_folder_with_trust_authentication_is_secured_and_keeps_its_data(
    interrupted: bool,
    old_folder: Path,
    start: Callable[[], embedded.Server],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if interrupted:  # After its first step, which is not in one transaction with the others.
        with monkeypatch.context() as patch:
            patch.setattr(admission, "_MOVE", "SELECT 1/0")
            with pytest.raises(psycopg.errors.DivisionByZero):
                start()
    for _ in range(2):
        server = start()
        with psycopg.connect(server.url, autocommit=True) as connection:
            owners = connection.execute(
                "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
                "WHERE nspname = 'public' AND pg_get_userbyid(relowner) <> 'ketter'"
            ).fetchone()
            assert owners == (0,)
            assert connection.execute("SELECT count(*) >= 2 FROM rows").fetchone() == (True,)
            connection.execute("INSERT INTO rows (a) VALUES ('three')")
            connection.execute("ALTER TABLE rows ADD COLUMN IF NOT EXISTS b text")
            connection.execute('DROP TABLE IF EXISTS "Odd ""name"')
            roles = connection.execute(
                "SELECT rolname, rolsuper FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1"
            ).fetchall()
            assert roles == [("ketter", False), ("postgres", True)]
        if os.geteuid() == 0:
            uid = old_folder.stat().st_uid
            assert "eer authentication" in as_user(uid, lambda: connect(old_folder, "ketter"))
        server.stop()


def test_settle_does_not_take_a_postgres_that_is_starting_up_for_an_old_data_folder(
    home: Path, start: Callable[[], embedded.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    make_missing, asked = admission._make_missing, []

    def late(socket_dir: Path) -> None:
        asked.append(socket_dir)
        if len(asked) == 1:
            raise psycopg.OperationalError("the database system is starting up")
        make_missing(socket_dir)

    monkeypatch.setattr(admission, "_make_missing", late)
    admission.settle(home / "run" / "pg")

    with connect(home / "run" / "pg", "postgres") as connection:
        roles = "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1"
        assert connection.execute(roles).fetchall() == [("ketter",), ("postgres",)]


@root_only
def test_postgres_admits_the_ordinary_user_who_started_it_and_root(home: Path) -> None:
    uid = pwd.getpwnam("nobody").pw_uid
    os.chown(home, uid, uid)
    (home / "pg").mkdir(mode=0o700)
    os.chown(home / "pg", uid, uid)
    admitted: list[str] = []
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.setresuid(uid, uid, uid)
        admission.write_admission(home / "pg")
        os.write(writer, (home / "pg.ident").read_bytes())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        admitted = stream.read().splitlines()[1:]
    os.waitpid(child, 0)
    assert {line.split()[1] for line in admitted} == {'"nobody"', '"root"'}


def test_write_admission_escapes_a_user_name_with_quotes(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_name", lambda uid: 'a"b' if uid == os.geteuid() else "")
    admission.write_admission(home / "pg")
    lines = (home / "pg.ident").read_text().splitlines()[1:]
    assert {line.split(" ", 1)[1].rsplit(" ", 1)[0] for line in lines} == {'"a""b"'}


@root_only
def test_write_admission_refuses_a_user_id_without_a_name(home: Path) -> None:
    os.chown(home, 54321, 54321)
    said = as_user(54321, lambda: admission.write_admission(home / "pg"))
    assert said.startswith(f"{StartFailed.__name__}: The user id 54321 has no name")


def test_write_admission_replaces_a_symlink_instead_of_writing_through_it(home: Path) -> None:
    precious = home / "precious"
    precious.write_text("somebody's")
    (home / "pg.hba").symlink_to(precious)
    (home / "pg.ident").symlink_to(precious)

    admission.write_admission(home / "pg")

    assert precious.read_text() == "somebody's"
    assert not (home / "pg.hba").is_symlink()
    assert "trust" not in (home / "pg.hba").read_text()


@root_only
def test_the_user_that_runs_postgres_cannot_change_the_admission_files(
    home: Path, start: Callable[[], embedded.Server]
) -> None:
    start()
    uid = (home / "pg").stat().st_uid
    for name in ("pg.hba", "pg.ident"):
        said = as_user(uid, partial((home / name).write_text, "local all all trust"))
        assert said.startswith("PermissionError")


@root_only
def test_other_users_cannot_connect_to_valkey(home: Path) -> None:
    server = embedded.start_valkey(home / "v", home / "run" / "v.sock", durable=False)
    try:
        for uid in (65534, 54321):
            client = redis.Redis(unix_socket_path=str(home / "run" / "v.sock"))
            assert "ConnectionError" in as_user(uid, client.ping)
            client.close()
    finally:
        server.stop()


@root_only
def test_a_warning_is_logged_when_postgres_runs_as_the_user_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    getpwnam = pwd.getpwnam

    def without_postgres(name: str) -> pwd.struct_passwd:
        if "postgres" in name:
            raise KeyError(name)
        return getpwnam(name)

    monkeypatch.setattr(pwd, "getpwnam", without_postgres)
    assert embedded._owner(tmp_path / "new") == getpwnam("nobody").pw_uid
    assert "Postgres runs as the user nobody" in caplog.text
