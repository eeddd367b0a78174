"""What can be proven of the container files without a container engine."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from cryptography.fernet import Fernet

from ketter_site.programs import valkey_program
from tests.deploy.helpers import Run
from tests.rig.project import PROJECT
from tests.rig.waiting import wait_until

DOCKER = PROJECT / "deploy" / "docker"
LINT = PROJECT / "deploy" / "scripts" / "lint_deploy.sh"
#: The tools of the environment that the tests run in.
TOOLS = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
SETTINGS = {
    "KETTER_SECRET_KEY": "x",
    "KETTER_FIELD_KEYS": "x",
    "DATABASE_URL": "postgresql://ketter:p@db:5432/ketter",
    "REDIS_URL": "redis://:p@redis:6379/0",
}
#: Says yes to everything and notes what it was asked; knows no volume.
STAND_IN = """#!/bin/sh
echo "$*" >>"$(dirname "$0")/asked"
[ "$1" != volume ] || [ -e "$(dirname "$0")/volume" ]
"""


def _sh(argv: list[str | Path], env: dict[str, str], folder: Path = PROJECT) -> Run:
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_the_deployment_files_pass_their_linters() -> None:
    done = _sh(["bash", LINT], {**os.environ, "PATH": TOOLS})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "text", "finding"),
    [
        ("docker-compose.yml", "services:\n  web:\n    imag: x\n", "imag"),
        ("Dockerfile", "FROM python\n", "DL3006"),
        ("up.sh", "#!/bin/sh\nrm $1\n", "SC2086"),
    ],
)
def test_lint_deploy_finds_a_fault_in_each_kind_of_file(
    tmp_path: Path, name: str, text: str, finding: str
) -> None:
    good = {"docker-compose.yml": "services: {}\n", "Dockerfile": "FROM scratch\n"}
    for path, content in {**good, "up.sh": "#!/bin/sh\ntrue\n", name: text}.items():
        (tmp_path / path).write_text(content, "utf-8")
    script = tmp_path / "deploy" / "scripts" / "lint_deploy.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(LINT, script)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    done = _sh(["bash", script], {**os.environ, "PATH": TOOLS})
    assert done.returncode != 0
    assert finding in done.stdout + done.stderr


def test_the_entrypoint_runs_the_command_when_the_settings_are_valid() -> None:
    done = _sh(["sh", DOCKER / "entrypoint.sh", "echo", "a b"], {**os.environ, **SETTINGS})
    assert (done.returncode, done.stdout) == (0, "a b\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KETTER_SECRET_KEY", ""),
        ("DATABASE_URL", "postgresql://u:p@localhost:5432/k"),
        ("DATABASE_URL", "postgres://127.0.0.1/k"),
        ("REDIS_URL", "redis://:p@[::1]:6379/0"),
        ("REDIS_URL", "redis://localhost"),
    ],
)
def test_the_entrypoint_refuses_settings_that_cannot_work_in_a_container(
    name: str, value: str
) -> None:
    env = {**os.environ, **SETTINGS, name: value}
    done = _sh(["sh", DOCKER / "entrypoint.sh", "echo", "started"], env)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith(f"ketter: {name} ")


@pytest.mark.parametrize("script", ["dev_up.sh", "dev_down.sh"])
def test_dev_up_and_dev_down_report_a_missing_container_engine(tmp_path: Path, script: str) -> None:
    for tool in ("bash", "dirname"):
        found = shutil.which(tool)
        assert found
        (tmp_path / tool).symlink_to(found)
    done = _sh([tmp_path / "bash", DOCKER / script], {"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.startswith("ketter: no container engine")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of deploy/docker with a stand-in for `docker` that does nothing."""
    shutil.copytree(DOCKER, tmp_path / "docker", ignore=shutil.ignore_patterns(".env*"))
    (tmp_path / "docker" / "docker").write_text(STAND_IN, "utf-8")
    (tmp_path / "docker" / "docker").chmod(0o755)
    return tmp_path / "docker"


def _with_stand_in(folder: Path, *argv: str) -> Run:
    return _sh(["bash", *argv], {"PATH": f"{folder}:{os.environ['PATH']}"}, folder)


def test_dev_up_creates_keys_once_and_readable_by_their_owner_only(folder: Path) -> None:
    assert _with_stand_in(folder, "dev_up.sh").returncode == 0
    env = folder / ".env"
    first = env.read_text("utf-8")
    values = dict(line.split("=", 1) for line in first.splitlines() if not line.startswith("#"))
    Fernet(values["KETTER_FIELD_KEYS"])
    assert len(values["KETTER_SECRET_KEY"]) >= 50
    assert len(values["POSTGRES_PASSWORD"]) >= 32
    assert len(values["REDIS_PASSWORD"]) >= 32
    assert stat.S_IMODE(env.stat().st_mode) == 0o600

    assert _with_stand_in(folder, "dev_up.sh").returncode == 0
    assert env.read_text("utf-8") == first


def test_dev_up_adds_the_redis_password_to_a_file_of_an_earlier_version(folder: Path) -> None:
    env = folder / ".env"
    env.write_text("POSTGRES_PASSWORD=x\n")
    for _ in range(2):
        assert _with_stand_in(folder, "dev_up.sh").returncode == 0
    first, second = env.read_text("utf-8").splitlines()
    assert first == "POSTGRES_PASSWORD=x"
    assert len(second.removeprefix("REDIS_PASSWORD=")) >= 32


@pytest.fixture
def compose() -> dict[str, Any]:
    """The services of the compose file."""
    return dict(yaml.safe_load((DOCKER / "docker-compose.yml").read_text("utf-8"))["services"])


def test_the_redis_of_the_compose_file_asks_for_the_password(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    """Its own command, with this machine's Valkey: at a socket, for its port may be taken."""
    service = compose["redis"]
    (variable,) = service["environment"]
    shell, option, line = service["command"]
    socket = tmp_path / "s"
    here = f"port 0\nunixsocket {socket}\ndir {tmp_path}"
    line = line.replace("$$", "$").replace("appendonly yes", here)
    (tmp_path / "valkey-server").symlink_to(valkey_program())
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", variable: "swordfish-swordfish"}
    server = subprocess.Popen([shell, option, line], env=env, stdout=subprocess.DEVNULL)
    try:
        wait_until(socket.exists)
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(unix_socket_path=str(socket)).ping()
        told = redis.Redis(unix_socket_path=str(socket), password="swordfish-swordfish")
        assert told.ping()
        told.close()
        words = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert words.startswith(b"valkey-server")
        assert b"swordfish" not in words
    finally:
        server.terminate()
        server.wait(10)


def test_all_containers_of_ketter_are_one_machine_with_a_lasting_name(
    compose: dict[str, Any],
) -> None:
    """A container's host name changes with each start; portals of this machine need one name."""
    ours = [service for service in compose.values() if "ketter" in service["image"]]
    assert len(ours) == 3
    names = {service["environment"]["KETTER_MACHINE"] for service in ours}
    assert names == {"${KETTER_MACHINE:-ketter}"}


def test_no_argument_of_the_compose_file_has_a_password(compose: dict[str, Any]) -> None:
    for name, service in compose.items():
        words = f"{service.get('command', '')} {service.get('healthcheck', '')}"
        assert "PASSWORD" not in words, name
    assert ":${REDIS_PASSWORD:?" in (DOCKER / "docker-compose.yml").read_text("utf-8")


def test_dev_up_creates_no_new_keys_when_the_database_volume_exists(folder: Path) -> None:
    (folder / "volume").touch()
    done = _with_stand_in(folder, "dev_up.sh")
    assert done.returncode == 1
    assert "put .env back" in done.stderr
    assert not (folder / ".env").exists()


@pytest.mark.parametrize(("options", "dropped"), [((), False), (("--volumes",), True)])
def test_dev_down_keeps_the_data_unless_called_with_volumes(
    folder: Path, options: tuple[str, ...], dropped: bool
) -> None:
    assert _with_stand_in(folder, "dev_down.sh", *options).returncode == 0
    last = (folder / "asked").read_text("utf-8").splitlines()[-1]
    assert last.endswith("down --volumes" if dropped else "down")


def test_the_dockerfile_copies_every_app_and_dockerignore_hides_none_of_them() -> None:
    lines = (DOCKER / "Dockerfile").read_text("utf-8").splitlines()
    copied = {
        line.split()[1] for line in lines if line.startswith("COPY ") and "--from" not in line
    }
    assert {"engine", "portals", "jobs", "dku", "ketter_site", "manage.py"} <= copied
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    assert {line[1:] for line in ignore if line.startswith("!")} == copied
    assert all((PROJECT / path).exists() for path in copied)
