"""Settings: refused loudly when wrong, kept privately when made."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from ketter_site import servers
from tests.conftest import PROJECT


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run some lines in a Python of their own, with a changed environment."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("url", ["sqlite:///db.sqlite3", "mysql://localhost/ketter", "ketter.db"])
def test_it_refuses_any_database_but_postgres(monkeypatch, url):
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(ImproperlyConfigured, match=r"PostgreSQL only .* row locks"):
        servers.database_config()


def test_it_refuses_sqlite_at_once_at_the_command_line():
    done = subprocess.run(
        [sys.executable, "manage.py", "migrate"],
        cwd=PROJECT,
        env={**os.environ, "DATABASE_URL": "sqlite:///db.sqlite3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Ketter runs on PostgreSQL only" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("DATABASE_URL", "postgresql://k:secret-word@127.0.0.1:1/k", "cannot use its database"),
        ("REDIS_URL", "http://:secret-word@localhost", "does not begin with redis://"),
        ("KETTER_LEASE_SECONDS", "soon", "'soon', which is not a whole number above 0"),
        ("KETTER_REAPER_SECONDS", "0", "'0', which is not a whole number above 0"),
    ],
)
def test_its_commands_say_in_a_sentence_which_setting_is_wrong(name, value, sentence):
    done = subprocess.run(
        [sys.executable, "manage.py", "create_token", "alice"],
        cwd=PROJECT,
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret-word" not in done.stderr


@pytest.mark.parametrize("script", [["manage.py", "up"], ["deploy/demo.py", "--exit"]])
def test_it_says_when_it_cannot_write_where_it_should(tmp_path, script):
    (tmp_path / "taken").write_text("a file")
    env = {**os.environ, "KETTER_VAR_DIR": str(tmp_path / "taken")}
    done = subprocess.run(
        [sys.executable, *script],
        cwd=PROJECT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "cannot be used for what Ketter writes (File exists)" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_tells_of_the_wrong_database_before_anything_that_is_missing(tmp_path):
    done = python(
        "import ketter_site.settings",
        DATABASE_URL="sqlite:///db.sqlite3",
        KETTER_SECRET_KEY="",
        KETTER_VAR_DIR=str(tmp_path),
    )
    assert "Ketter runs on PostgreSQL only" in done.stderr


def test_it_names_the_variable_that_is_missing(tmp_path):
    done = python(
        "import ketter_site.settings", KETTER_SECRET_KEY=" ", KETTER_VAR_DIR=str(tmp_path)
    )
    assert "KETTER_SECRET_KEY is not set (signs sessions and forms)" in done.stderr


def test_it_reads_a_secret_from_a_file(tmp_path):
    (tmp_path / "key").write_text("from-a-file")
    code = "from ketter_site import settings; print(settings.SECRET_KEY)"
    done = python(code, KETTER_SECRET_KEY_FILE=str(tmp_path / "key"))
    assert done.stdout.strip() == "from-a-file"


def test_it_makes_keys_once_that_only_their_owner_can_read(tmp_path):
    var = tmp_path / "var"
    env = {"KETTER_SECRET_KEY": "", "KETTER_FIELD_KEYS": "", "KETTER_VAR_DIR": str(var)}
    code = """if True:
        import os
        del os.environ["KETTER_SECRET_KEY"], os.environ["KETTER_FIELD_KEYS"]
        from ketter_site.env import make_secrets
        make_secrets()
        from ketter_site import settings
        print(settings.SECRET_KEY, *settings.FIELD_KEYS)
    """
    first, second = python(code, **env), python(code, **env)
    assert first.returncode == 0, first.stderr
    assert len(first.stdout.split()) == 2
    assert first.stdout == second.stdout
    file = var / "secrets.env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_text().splitlines()) == 2
    assert stat.S_IMODE(var.stat().st_mode) & 0o077 in {0, 0o011}


def test_it_makes_no_key_that_the_environment_brings(tmp_path):
    var = tmp_path / "var"
    done = python(
        "from ketter_site.env import make_secrets; make_secrets()", KETTER_VAR_DIR=str(var)
    )
    assert done.returncode == 0, done.stderr
    assert not var.exists()


def test_it_keeps_sockets_in_the_var_folder_while_that_is_short():
    assert servers.socket_folder(Path("/srv/ketter/var")) == Path("/srv/ketter/var/run")


def test_it_finds_a_short_folder_of_its_own_for_sockets_of_a_deep_one():
    one, other = (servers.socket_folder(Path("/srv", "deep/" * 20, name)) for name in "ab")
    assert one != other
    for folder in (one, other):
        assert len(os.fsencode(folder / servers.LONGEST_SOCKET)) <= servers.SOCKET_PATH_MAX


def test_it_takes_the_socket_folder_out_of_a_database_url(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", servers.postgres_url(Path("/a b/run"), "ketter"))
    config = servers.database_config()
    assert config["HOST"] == "/a b/run"
    assert config["NAME"] == "ketter"
    assert "host" not in config["OPTIONS"]


def test_its_example_names_every_setting():
    """An example that leaves one out hides it: nobody reads the source for settings."""
    rooms = [PROJECT / room for room in ("ketter_site", "portals", "jobs", "dku")]
    source = "".join(path.read_text() for room in rooms for path in room.rglob("*.py"))
    read = set(re.findall(r'\b(?:env\.\w+|required|positive|one_of)\(\s*"([A-Z_]+)"', source))
    example = (PROJECT / "deploy" / "env.example").read_text()
    named = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    assert read == named
