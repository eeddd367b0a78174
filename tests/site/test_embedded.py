"""The embedded servers: private, durable, gone when they should be, and possible where we run."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from ketter_site import embedded, programs, servers
from tests.rig.project import PROJECT, is_open_to_others
from tests.rig.waiting import wait_until
from tests.site.helpers import root_only

reachable = pytest.mark.skipif(
    not is_open_to_others(), reason="other users cannot enter the folder of this checkout"
)


@pytest.fixture
def home() -> Iterator[Path]:
    """A short folder that only its owner may enter, as /root is one."""
    folder = Path(tempfile.mkdtemp(prefix="ketter-embedded-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def start_postgres(home: Path) -> embedded.Server:
    """A Postgres of this test."""
    return embedded.start_postgres(home / "postgres", home / "run" / "pg", durable=False)


def start_valkey(home: Path, *, durable: bool = False) -> embedded.Server:
    """A Valkey of this test."""
    return embedded.start_valkey(home / "valkey", home / "run" / "v.sock", durable=durable)


def count(server: embedded.Server) -> int:
    """How many rows the test's table holds."""
    with psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT count(*) FROM things").fetchone()
    assert row is not None
    return int(row[0])


def test_postgres_starts_below_a_private_folder_and_keeps_its_data(home):
    before = stat.S_IMODE(home.stat().st_mode)
    server = start_postgres(home)
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE things AS SELECT generate_series(1, 3)")
    server.stop()
    assert not server.alive()
    server = start_postgres(home)
    assert count(server) == 3
    server.stop()
    assert stat.S_IMODE(home.stat().st_mode) == before == 0o700


def test_the_embedded_servers_open_no_network_port(home):
    server = start_postgres(home)
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    server.stop()
    server = start_valkey(home)
    client = redis.Redis.from_url(server.url)
    assert client.config_get("port") == {"port": "0"}
    client.close()
    server.stop()


def test_the_sockets_and_data_of_embedded_servers_are_open_to_their_owner_only(home):
    server = start_postgres(home)
    assert stat.S_IMODE((home / "run" / "pg").stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "postgres").stat().st_mode) == 0o700
    server.stop()
    server = start_valkey(home)
    assert stat.S_IMODE((home / "run" / "v.sock").stat().st_mode) == 0o700
    server.stop()


def test_the_log_of_postgres_has_no_values_and_is_open_to_its_owner_only(home):
    server = start_postgres(home)
    log = home / "postgres.log"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE secrets (name text PRIMARY KEY, number int)")
        connection.execute("INSERT INTO secrets VALUES ('hunter2', 1)")
        for statement in (
            "INSERT INTO secrets VALUES ('hunter2', 2)",  # DETAIL: Key (name)=(hunter2) exists.
            "SELECT 'hunter2'::int",  # ERROR: invalid input syntax: "hunter2"
            "SELECT hunter2 FROM secrets",
        ):
            with pytest.raises(psycopg.Error):
                connection.execute(statement)
        with pytest.raises(psycopg.Error):
            connection.execute("INSERT INTO secrets VALUES (%s, %s)", ("hunter2", 2))
    server.stop()
    assert "ready to accept connections" in log.read_text()
    assert "hunter2" not in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@root_only
def test_postgres_does_not_run_as_root(home):
    server = start_postgres(home)
    owner = Path(f"/proc/{server.process.pid}").stat().st_uid
    server.stop()
    assert owner != 0
    assert (home / "postgres" / "data").stat().st_uid == owner


@root_only
@reachable
def test_postgres_starts_when_ketter_runs_as_an_ordinary_user(home):
    os.chown(home, 65534, 65534)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    # Only to reach this Python, which may lie in a folder of root's.
    nobody += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    code = (
        "from pathlib import Path; from ketter_site import embedded;"
        f"s = embedded.start_postgres(Path('{home}/p'), Path('{home}/r'), durable=False);"
        "print(s.url); s.stop()"
    )
    done = subprocess.run(
        [*nobody, sys.executable, "-c", code],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("postgresql://"), done.stderr


@root_only
def test_valkey_refuses_a_run_folder_that_belongs_to_another_user(home):
    (home / "run").mkdir()
    os.chown(home / "run", 65534, 65534)
    with pytest.raises(programs.EmbeddedError, match="belongs to another user"):
        start_valkey(home)
    (home / "run").rmdir()
    (home / "run").symlink_to("/tmp")
    with pytest.raises(programs.EmbeddedError, match="belongs to another user"):
        start_valkey(home)


def test_valkey_keeps_its_data_when_it_is_killed(home):
    server = start_valkey(home, durable=True)
    client = redis.Redis.from_url(server.url)
    client.set("bell", "rung")
    client.close()
    server.process.kill()
    server.process.wait()
    server = start_valkey(home, durable=True)
    client = redis.Redis.from_url(server.url)
    assert client.get("bell") == b"rung"
    client.close()
    server.stop()


def test_postgres_starts_again_after_it_was_killed(home):
    server = start_postgres(home)
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
    server = start_postgres(home)
    assert server.alive()
    server.stop()


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv --pdeathsig")
def test_valkey_dies_with_the_process_that_started_it(home):
    code = (
        "from pathlib import Path; from ketter_site import embedded; import time;"
        f"s = embedded.start_valkey(Path('{home}/v'), Path('{home}/v.sock'));"
        "print(s.process.pid, flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    starter.kill()
    starter.communicate()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), seconds=10)


def test_postgres_programs_says_what_to_install_when_postgres_is_missing(monkeypatch, home):
    monkeypatch.setattr(programs, "_postgres_candidates", lambda: iter([home]))
    with pytest.raises(programs.EmbeddedError, match="No Postgres found: install"):
        programs.postgres_programs(home)


@pytest.mark.parametrize("name", ['a "b"', "$HOME", "`touch seen`", "a\\b", "a\nb"])
def test_postgres_programs_refuses_a_path_that_a_shell_would_interpret(monkeypatch, home, name):
    """initdb puts its own path between double quotes and hands that to a shell."""
    (home / name).mkdir()
    (home / name / "initdb").touch()
    monkeypatch.setattr(programs, "_postgres_candidates", lambda: iter([home / name]))
    with pytest.raises(programs.EmbeddedError, match="Move Ketter to a folder without them"):
        programs.postgres_programs(home)
    other = home / "other"
    other.mkdir()
    (other / "initdb").touch()
    monkeypatch.setattr(programs, "_postgres_candidates", lambda: iter([home / name, other]))
    assert programs.postgres_programs(home) == other


@pytest.mark.parametrize("planted", ["another's", "a link"])
@root_only
def test_a_socket_folder_of_another_user_is_neither_used_nor_removed(home, planted):
    folder = servers.socket_folder(home)
    if planted == "a link":
        folder.symlink_to(home)
    else:
        folder.mkdir()
        os.chown(folder, 65534, 65534)
    try:
        with pytest.raises(programs.EmbeddedError, match="belongs to another user"):
            embedded.start_valkey(home / "valkey", servers.valkey_socket(home))
        embedded.remove_sockets(home)
        assert folder.lstat()
        assert home.exists()
    finally:
        folder.unlink() if folder.is_symlink() else folder.rmdir()


@root_only
@reachable
def test_postgres_has_no_capabilities_when_its_user_can_reach_the_folder(home):
    home.chmod(0o755)
    server = start_postgres(home)
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    server.stop()
    if Path(programs.postgres_programs()).is_relative_to("/root"):
        pytest.skip("Postgres' programs lie in /root, which is closed to its user")
    assert "CapEff:\t0000000000000000" in status


def test_postgres_programs_names_the_version_that_the_data_needs(home):
    (home / "data").mkdir()
    (home / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(programs.EmbeddedError, match=r"made by Postgres 9, but only .* installed"):
        programs.postgres_programs(home)


def test_a_failed_start_of_postgres_shows_the_error_of_the_server(home):
    start_postgres(home).stop()
    (home / "postgres" / "data" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(programs.EmbeddedError, match="no_such_setting"):
        start_postgres(home)
