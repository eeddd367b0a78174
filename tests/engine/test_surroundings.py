"""What ssh, its helpers and local agents see of the environment: no key of the installation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import engine
from engine import Endpoint, SshAccess
from engine.connect import environment
from engine.connect.agent_process import AgentProcess
from engine.connect.inbox import Inbox
from engine.connect.ssh import SshClient, fetch_host_key
from tests.rig.command import cli, finish
from tests.rig.waiting import wait_until

#: The beginnings of the names that are the installation's own.
OURS = ("KETTER_", "DATABASE_URL", "REDIS_URL")
SECRETS = (
    *("KETTER_FIELD_KEYS", "KETTER_SECRET_KEY", "KETTER_FIELD_KEYS_FILE", "DATABASE_URL"),
    *("REDIS_URL", "PGPASSWORD", "DATABASE_URL_FILE", "PIP_INDEX_URL", "PYTHONPATH"),
    *("AWS_SECRET_ACCESS_KEY", "DJANGO_SETTINGS_MODULE", "RQ_JOB_ID", "SECRET"),
)


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have them in the worker's environment."""
    for name in SECRETS:
        monkeypatch.setenv(name, "hunter2")
    for name in ("SSH_AUTH_SOCK", "LC_TIME", "KRB5CCNAME", "LANG"):
        monkeypatch.setenv(name, "x")


def names(written: str, separator: str) -> set[str]:
    """The names in an environment that was written down."""
    assert "hunter2" not in written
    return {entry.partition("=")[0] for entry in written.split(separator) if entry}


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_a_local_agent_sees_no_secret() -> None:
    inbox = Inbox(lambda: None)
    try:
        link = AgentProcess(inbox, Endpoint("/"))
        assert link.child.process
        environ = Path(f"/proc/{link.child.process.pid}/environ")
        wait_until(lambda: bool(environ.read_text()))  # For a moment a new program has none.
        seen = names(environ.read_text(), "\0")
    finally:
        inbox.close()
    assert {"PATH", "LC_TIME"} <= seen
    assert not seen & {*SECRETS, "SSH_AUTH_SOCK"}


@pytest.fixture
def dumping(tmp_path: Path) -> tuple[Path, Path]:
    """A configuration of ssh whose ProxyCommand writes down what it sees, and where."""
    config, seen = tmp_path / "config", tmp_path / "seen"
    script = tmp_path / "proxy"
    script.write_text(f"#!/bin/sh\nenv > '{seen}.new' && mv '{seen}.new' '{seen}'\nsleep 1\n")
    script.chmod(0o755)
    config.write_text(f"Host *\n  SendEnv *\n  ProxyCommand '{script}'\n")
    return config, seen


#: What the shell of a ProxyCommand adds, and what asks for the password.
BESIDE = {"PWD", "OLDPWD", "SHLVL", "_", "SSH_ASKPASS", "SSH_ASKPASS_REQUIRE", "DISPLAY"}


@pytest.mark.parametrize("passes", [(), ("KRB5CCNAME", "KETTER_FIELD_KEYS", "REDIS_URL")])
def test_a_workers_proxy_command_sees_what_is_listed_and_no_secret(
    dumping: tuple[Path, Path], passes: tuple[str, ...]
) -> None:
    config, seen = dumping
    access = SshAccess("host.invalid", config_file=str(config), password="swordfish", passes=passes)
    with pytest.raises(engine.EngineError):
        engine.probe(Endpoint("/", ssh=access))
    found = names(seen.read_text(), "\n")
    assert found - BESIDE == {"HOME", "LANG", "PATH", "KETTER_ASKPASS_FILE", *passes[:1]}
    assert "swordfish" not in seen.read_text()


def test_a_persons_proxy_command_sees_all_but_what_is_the_installations(
    dumping: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, seen = dumping
    for name in SECRETS:
        if not name.startswith(OURS):
            monkeypatch.setenv(name, "a person's own")
    arguments = ["--from", "/nowhere", "--to", "ssh://host.invalid/x", "--ssh-config", str(config)]
    assert finish(cli(*arguments))[0] != 0
    found = names(seen.read_text(), "\n")
    assert {name for name in SECRETS if not name.startswith(OURS)} <= found
    assert {"HOME", "PATH", "SSH_AUTH_SOCK", "LC_TIME", "KRB5CCNAME"} <= found
    assert not {name for name in found if name.startswith(OURS)}


def test_fetch_host_key_passes_no_secret_to_the_proxy_command(dumping: tuple[Path, Path]) -> None:
    config, seen = dumping
    with pytest.raises(engine.EngineError):
        fetch_host_key(SshAccess("host.invalid", config_file=str(config)))
    told = names(seen.read_text(), "\n")
    assert "PATH" in told
    assert not told & set(SECRETS)


def test_a_password_replaces_the_askpass_program_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSH_ASKPASS", "/usr/bin/somebodys")
    client = SshClient(SshAccess("host", password="swordfish"))
    try:
        assert client.environment()["SSH_ASKPASS"] != "/usr/bin/somebodys"
    finally:
        client.files.remove()


def test_changing_the_environment_of_ssh_leaves_the_workers_own_unchanged() -> None:
    environment.of_ssh()["PATH"] = ""
    assert os.environ["KETTER_FIELD_KEYS"] == "hunter2"
