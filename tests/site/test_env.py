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
from ketter_site.env import private_folder
from tests.rig.project import PROJECT
from tests.site.helpers import root_only

TOKEN = ["create_token", "alice"]
#: A password in an address, which no message may repeat.
WORD = "secret-word"


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
def test_database_config_refuses_any_database_but_postgres(monkeypatch, url):
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(ImproperlyConfigured, match=r"PostgreSQL only .* row locks"):
        servers.database_config()


@pytest.mark.parametrize(
    ("command", "name", "value", "sentence"),
    [
        (["migrate"], "DATABASE_URL", "sqlite:///db.sqlite3", "Ketter runs on PostgreSQL only"),
        (TOKEN, "DATABASE_URL", f"postgresql://k:{WORD}@127.0.0.1:1/k", "cannot use its database"),
        (TOKEN, "REDIS_URL", f"http://:{WORD}@localhost", "does not begin with redis://"),
        (TOKEN, "KETTER_LEASE_SECONDS", "soon", "'soon', which is not a whole number above 0"),
        (
            TOKEN,
            "KETTER_MACHINE",
            "my lab",
            "'my lab', which is no machine's name: 1 to 64 letters",
        ),
        (TOKEN, "KETTER_MACHINE", "x" * 65, "which is no machine's name"),
        (TOKEN, "KETTER_REAPER_SECONDS", "0", "'0', which is not a whole number above 0"),
    ],
)
def test_a_command_names_the_wrong_setting_without_a_traceback_or_a_password(
    command, name, value, sentence
):
    done = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=PROJECT,
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert WORD not in done.stderr


@pytest.mark.parametrize("script", [["manage.py", "up"], ["deploy/demo.py", "--exit"]])
def test_up_and_the_demo_explain_that_the_var_folder_cannot_be_created(tmp_path, script):
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
    assert "for its own files (File exists)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (
            {"DATABASE_URL": "sqlite:///db.sqlite3", "KETTER_SECRET_KEY": ""},
            "Ketter runs on PostgreSQL only",
        ),
        (
            {"KETTER_SECRET_KEY": " "},
            "KETTER_SECRET_KEY is not set (signs sessions and forms)",
        ),
    ],
)
def test_settings_report_a_wrong_database_first_and_name_a_missing_variable(
    tmp_path, environment, sentence
):
    done = python("import ketter_site.settings", KETTER_VAR_DIR=str(tmp_path), **environment)
    assert sentence in done.stderr


def test_settings_read_a_secret_from_a_file(tmp_path):
    (tmp_path / "key").write_text("from-a-file")
    code = "from ketter_site import settings; print(settings.SECRET_KEY)"
    done = python(code, KETTER_SECRET_KEY_FILE=str(tmp_path / "key"))
    assert done.stdout.strip() == "from-a-file"


def test_make_secrets_creates_keys_once_and_readable_by_their_owner_only(tmp_path):
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


def make_secrets_in(var: Path) -> subprocess.CompletedProcess[str]:
    """What `make_secrets` does and prints with that var folder."""
    code = """if True:
        import os
        del os.environ["KETTER_SECRET_KEY"], os.environ["KETTER_FIELD_KEYS"]
        from ketter_site.env import make_secrets
        make_secrets()
    """
    return python(code, KETTER_SECRET_KEY="", KETTER_FIELD_KEYS="", KETTER_VAR_DIR=str(var))


@pytest.mark.parametrize("planted", ["symlink", "dangling symlink", "second name", "folder"])
def test_make_secrets_writes_no_key_into_a_planted_file(tmp_path, planted):
    var, stolen = tmp_path / "var", tmp_path / "stolen"
    var.mkdir(mode=0o700)
    if planted != "dangling symlink":
        stolen.write_text("#")
    if "symlink" in planted:
        (var / "secrets.env").symlink_to(stolen)
    elif planted == "second name":
        os.link(stolen, var / "secrets.env")
    else:
        (var / "secrets.env").mkdir()

    done = make_secrets_in(var)

    assert "Ketter cannot keep its keys in" in done.stderr.splitlines()[-1]
    assert (stolen.read_text() if stolen.exists() else "#") == "#"


@pytest.mark.parametrize("planted", ["symlink", "pipe", "second name"])
def test_settings_read_no_planted_file_of_keys(tmp_path, planted):
    """It could name a Redis and a database of the user who put it there."""
    file, elsewhere = tmp_path / "secrets.env", tmp_path / "elsewhere"
    elsewhere.write_text("REDIS_URL=redis://evil:1/0\n")
    if planted == "symlink":
        file.symlink_to(elsewhere)
    elif planted == "pipe":
        os.mkfifo(file)
    else:
        os.link(elsewhere, file)

    done = python("import ketter_site.settings", KETTER_VAR_DIR=str(tmp_path))

    assert "Ketter cannot keep its keys in" in done.stderr.splitlines()[-1]


@root_only
def test_settings_read_no_file_of_keys_of_another_user(tmp_path):
    file = tmp_path / "secrets.env"
    file.write_text("REDIS_URL=redis://evil:1/0\n")
    os.chown(file, 65534, 65534)
    done = python("import ketter_site.settings", KETTER_VAR_DIR=str(tmp_path))
    assert "no plain file of this user" in done.stderr.splitlines()[-1]


@root_only
def test_another_users_symlink_in_place_of_the_var_folder_is_refused(tmp_path):
    ours = tmp_path / "ours"
    ours.mkdir(mode=0o755)
    link = tmp_path / "var"
    link.symlink_to(ours)
    assert make_secrets_in(link).returncode == 0
    (ours / "secrets.env").unlink()
    ours.chmod(0o755)
    os.lchown(link, 65534, 65534)

    done = make_secrets_in(link)

    assert "belongs to nobody, and this is root" in done.stderr.splitlines()[-1]
    assert stat.S_IMODE(ours.stat().st_mode) == 0o755
    assert list(ours.iterdir()) == []


@root_only
@pytest.mark.parametrize("name", ["var", "var/log", "var/run", "var/secrets.env"])
def test_a_folder_or_file_of_another_user_is_refused_and_stays_as_it_is(tmp_path, name):
    planted = tmp_path / name
    planted.parent.mkdir(exist_ok=True)
    if name.endswith(".env"):
        planted.write_text("#")
        planted.chmod(0o666)
    else:
        planted.mkdir(mode=0o777)
        planted.chmod(0o777)
    os.chown(planted, 65534, 65534)
    before = planted.stat().st_mode

    if name in ("var", "var/secrets.env"):
        done = make_secrets_in(tmp_path / "var")
    else:
        code = "import sys; from pathlib import Path; from ketter_site.env import private_folder; "
        done = python(f"{code} private_folder(Path({str(planted)!r}))")

    last = done.stderr.splitlines()[-1]
    assert "cannot" in last
    assert "belongs to nobody, and this is root" in last or "no plain file of this user" in last
    assert planted.stat().st_mode == before
    assert not planted.is_file() or planted.read_text() == "#"


def test_a_private_folder_that_was_open_is_closed(tmp_path):
    open_to_all = tmp_path / "log"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)

    assert stat.S_IMODE(private_folder(open_to_all).stat().st_mode) == 0o700


def test_make_secrets_creates_no_key_that_the_environment_provides(tmp_path):
    var = tmp_path / "var"
    done = python(
        "from ketter_site.env import make_secrets; make_secrets()", KETTER_VAR_DIR=str(var)
    )
    assert done.returncode == 0, done.stderr
    assert not var.exists()


@pytest.mark.parametrize(
    "var",
    [
        "/srv/ketter/var",
        "/home/eva/my clips/ketter/var",
        "/srv/kätter/日本,%20'/var",
        "/srv" + "/deep" * 40,
    ],
)
def test_the_socket_folder_has_a_short_plain_path_for_any_var_folder(var):
    folder = servers.socket_folder(Path(var))
    assert re.fullmatch(r"/tmp/ketter-[0-9a-f]{16}", str(folder))
    assert len(os.fsencode(folder / servers.LONGEST_SOCKET)) <= servers.SOCKET_PATH_MAX
    assert folder != servers.socket_folder(Path(var, "other"))


def test_every_spelling_of_the_var_folder_leads_to_the_same_sockets(tmp_path):
    (tmp_path / "var").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "var")
    assert servers.socket_folder(tmp_path / "link") == servers.socket_folder(tmp_path / "var")
    code = "from ketter_site import servers; print(servers.database_url(), servers.redis_url())"
    ways = [str(tmp_path / "var"), f"{tmp_path}/link/../var/", str(tmp_path / "link")]
    said = {
        python(code, KETTER_VAR_DIR=way, DATABASE_URL="", REDIS_URL="", **more).stdout
        for way in ways
        for more in ({}, {"TMPDIR": "/var/tmp"}, {"PGPORT": "5433"})
    }
    assert len(said) == 1


def test_database_config_reads_the_socket_folder_from_the_database_url(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", servers.postgres_url(Path("/a b/run"), "ketter"))
    config = servers.database_config()
    assert config["HOST"] == "/a b/run"
    assert config["NAME"] == "ketter"
    assert "host" not in config["OPTIONS"]


def test_env_example_names_every_setting():
    """An example that leaves one out hides it: nobody reads the source for settings."""
    rooms = [PROJECT / room for room in ("ketter_site", "portals", "jobs", "dku")]
    source = "".join(path.read_text() for room in rooms for path in room.rglob("*.py"))
    read = set(re.findall(r'\b(?:env\.\w+|required|positive|one_of)\(\s*"([A-Z_]+)"', source))
    example = (PROJECT / "deploy" / "env.example").read_text()
    named = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    assert read == named


PATIENT = {
    "connect_timeout": 4,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 12000,
}


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("postgresql://k@db/ketter", PATIENT),
        ("postgresql://k@10.0.0.1:5432,10.0.0.2:5433/ketter", PATIENT),
        ("postgresql://k@/ketter?host=a,b", PATIENT),
        ("postgresql://k@[::1]/ketter", PATIENT),
        ("postgresql://k@db/ketter?connect_timeout=9", {**PATIENT, "connect_timeout": 9}),
        (
            "postgresql://k@db/k?keepalives=0&tcp_user_timeout=0&sslmode=require",
            {**PATIENT, "keepalives": 0, "tcp_user_timeout": 0, "sslmode": "require"},
        ),
        ("postgresql://k@/ketter?host=/run/pg", {}),
        ("postgresql://k@%2Frun%2Fpg/ketter", {}),
        ("postgresql://k@/ketter?host=/run/pg,db", PATIENT),
    ],
)
def test_database_config_sets_timeouts_for_network_hosts_only(monkeypatch, url, options):
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.delenv("PGHOST", raising=False)
    said = servers.database_config()["OPTIONS"]
    assert {name: str(value) for name, value in said.items()} == {
        name: str(value) for name, value in options.items()
    }


MACHINE = "from ketter_site import settings; print(settings.KETTER_MACHINE)"
KEEP = "from ketter_site import env; env.keep_machine(env.machine_name())"


def under(host: str, code: str, var: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run some lines of Python on a host of that name."""
    code = f"import socket; socket.gethostname = lambda: {host!r}; {code}"
    return python(code, **{"KETTER_VAR_DIR": str(var), "KETTER_MACHINE": "", **env})


@pytest.mark.parametrize(
    ("host", "machine"),
    [("lab-1.example", "lab-1.example"), ("-a b/c", "a-b-c"), ("é", "machine"), ("", "machine")],
)
def test_the_machine_has_the_name_of_its_host_by_default(tmp_path, host, machine):
    assert under(host, MACHINE, tmp_path).stdout == f"{machine}\n"


def test_the_first_name_of_the_machine_is_kept_when_the_host_gets_another_one(tmp_path):
    var = tmp_path / "var"
    assert under("lab-1", KEEP, var).returncode == 0
    assert stat.S_IMODE((var / "machine").stat().st_mode) == 0o600
    assert under("lab-2", KEEP, var).returncode == 0
    assert under("lab-2", MACHINE, var).stdout == "lab-1\n"


def test_the_name_in_the_environment_wins_over_the_kept_one(tmp_path):
    (tmp_path / "machine").write_text("lab-1\n")
    assert under("host", MACHINE, tmp_path, KETTER_MACHINE=" lab-3 ").stdout == "lab-3\n"


@pytest.mark.parametrize("planted", ["symlink", "pipe", "second name"])
def test_no_planted_file_names_the_machine(tmp_path, planted):
    """It could give this machine the portals of another one."""
    file, elsewhere = tmp_path / "machine", tmp_path / "elsewhere"
    elsewhere.write_text("lab-9\n")
    if planted == "symlink":
        file.symlink_to(elsewhere)
    elif planted == "pipe":
        os.mkfifo(file)
    else:
        os.link(elsewhere, file)
    for code in (MACHINE, KEEP):
        said = under("lab-1", code, tmp_path).stderr.splitlines()[-1]
        assert "Ketter cannot keep its machine's name in" in said
    assert elsewhere.read_text() == "lab-9\n"
