"""The embedded servers: private, durable, gone when they should be, and possible where we run."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from ketter_site import embedded
from tests.conftest import PROJECT

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


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


def test_it_starts_postgres_below_a_closed_folder_and_keeps_its_data(home):
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


def test_it_opens_no_network_port(home):
    server = start_postgres(home)
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    server.stop()
    server = start_valkey(home)
    client = redis.Redis.from_url(server.url)
    assert client.config_get("port") == {"port": "0"}
    client.close()
    server.stop()


def test_it_lets_nobody_else_near_the_sockets(home):
    server = start_postgres(home)
    assert stat.S_IMODE((home / "run" / "pg").stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "postgres").stat().st_mode) == 0o700
    server.stop()
    server = start_valkey(home)
    assert stat.S_IMODE((home / "run" / "v.sock").stat().st_mode) == 0o700
    server.stop()


@root_only
def test_it_does_not_run_postgres_as_root(home):
    server = start_postgres(home)
    owner = Path(f"/proc/{server.process.pid}").stat().st_uid
    server.stop()
    assert owner != 0
    assert (home / "postgres" / "data").stat().st_uid == owner


@root_only
def test_it_starts_postgres_as_an_ordinary_user(home):
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
def test_it_does_not_move_into_a_folder_that_somebody_else_made(home):
    (home / "run").mkdir()
    os.chown(home / "run", 65534, 65534)
    with pytest.raises(embedded.EmbeddedError, match="belongs to another user"):
        start_valkey(home)
    (home / "run").rmdir()
    (home / "run").symlink_to("/tmp")
    with pytest.raises(embedded.EmbeddedError, match="belongs to another user"):
        start_valkey(home)


def test_it_does_not_lose_what_valkey_was_told(home):
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


def test_it_starts_again_after_postgres_was_killed(home):
    server = start_postgres(home)
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
    server = start_postgres(home)
    assert server.alive()
    server.stop()


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv --pdeathsig")
def test_it_dies_with_the_process_that_started_it(home):
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
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "Valkey outlived its parent"
        time.sleep(0.05)


def test_it_says_what_to_install_when_there_is_no_postgres(monkeypatch, home):
    monkeypatch.setattr(embedded, "_postgres_candidates", lambda: iter([home]))
    with pytest.raises(embedded.EmbeddedError, match="No Postgres found: install"):
        embedded.postgres_programs(home)


def test_it_says_which_postgres_the_data_needs(home):
    (home / "data").mkdir()
    (home / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(embedded.EmbeddedError, match=r"made by Postgres 9, but only .* installed"):
        embedded.postgres_programs(home)


def test_it_shows_why_a_server_did_not_start(home):
    start_postgres(home).stop()
    (home / "postgres" / "data" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(embedded.EmbeddedError, match="no_such_setting"):
        start_postgres(home)
