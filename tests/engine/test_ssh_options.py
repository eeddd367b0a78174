"""What no `ssh_config` can undo, what an old client is not given, and who gets the password."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine
from engine import Endpoint, SshAccess, errors
from engine.connect import ssh_options
from engine.connect.ssh import SshClient
from tests.rig.command import running
from tests.rig.old_ssh import PATCHED, UNKNOWN_IN_2015, old_client
from tests.rig.project import PROJECT
from tests.rig.sshd import Sshd, make_key, public_line
from tests.rig.transfers import through
from tests.rig.waiting import wait_until

#: A configuration that undoes a pin, forwards, and keeps Ketter from hearing what it needs.
CONTRARY = """IgnoreUnknown GSSAPIKeyExchange
Host *
  GSSAPIKeyExchange yes
  StrictHostKeyChecking no
  UpdateHostKeys yes
  VerifyHostKeyDNS yes
  NoHostAuthenticationForLocalhost yes
  KnownHostsCommand /bin/cat {known}
  UserKnownHostsFile {known}
  GlobalKnownHostsFile {known}
  HostKeyAlias elsewhere
  ForwardAgent yes
  ForwardX11 yes
  ForwardX11Trusted yes
  GSSAPIDelegateCredentials yes
  Tunnel yes
  LocalForward 127.0.0.1:1 127.0.0.1:1
  RemoteForward 127.0.0.1:1 127.0.0.1:1
  DynamicForward 127.0.0.1:1
  PermitLocalCommand yes
  LocalCommand touch {touched}
  RemoteCommand touch {touched}
  RequestTTY force
  SessionType none
  StdinNull yes
  ForkAfterAuthentication yes
  AddKeysToAgent yes
  BatchMode no
  LogLevel QUIET
  VisualHostKey yes
  ControlMaster auto
  ControlPath {folder}/shared
  ControlPersist 1h
  ServerAliveInterval 0
  PasswordAuthentication no
"""
#: What ssh -G has to show of it, whatever the configuration says.
EFFECTIVE = {
    "stricthostkeychecking": {"true", "yes"},
    "updatehostkeys": {"false", "no"},
    "verifyhostkeydns": {"false", "no"},
    "nohostauthenticationforlocalhost": {"no"},
    "knownhostscommand": {"none", ""},
    "globalknownhostsfile": {"/dev/null"},
    "forwardagent": {"no"},
    "forwardx11": {"no"},
    "gssapidelegatecredentials": {"no"},
    "gssapikeyexchange": {"no", ""},
    "tunnel": {"false", "no"},
    "localforward": {""},
    "remoteforward": {""},
    "dynamicforward": {""},
    "permitlocalcommand": {"no"},
    "remotecommand": {"none", ""},
    "requesttty": {"false", "no"},
    "sessiontype": {"default"},
    "stdinnull": {"no"},
    "forkafterauthentication": {"no"},
    "addkeystoagent": {"false", "no"},
    "batchmode": {"yes"},
    "loglevel": {"VERBOSE"},
    "visualhostkey": {"no"},
    "serveraliveinterval": {"10"},
    "hostkeyalias": {"ketter-pinned"},
}


@pytest.fixture(autouse=True)
def _ask_again() -> Iterator[None]:
    """What the client takes is asked once a process."""
    ssh_options._asked.cache_clear()
    yield
    ssh_options._asked.cache_clear()


@pytest.fixture
def contrary(tmp_path: Path, sshd: Sshd) -> Path:
    """That configuration, with the server's true key where it would be believed."""
    known = tmp_path / "known"
    known.write_text(f"* {sshd.host_key}\n")
    config = tmp_path / "config"
    config.write_text(CONTRARY.format(known=known, touched=tmp_path / "touched", folder=tmp_path))
    return config


def access(server: Sshd, config: Path, **more: object) -> SshAccess:
    """How to reach the server, with its key pinned, past the configuration."""
    return through(server, config_file=str(config), **more)


def effective(line: list[str]) -> dict[str, str]:
    """What ssh would use with a command line: its options by name."""
    options = line[: line.index("--")]
    done = subprocess.run([*options, "-G", "x"], capture_output=True, text=True, check=True)
    found: dict[str, str] = {}
    for row in done.stdout.splitlines():
        name, _, value = row.partition(" ")
        found.setdefault(name, value)
    return found


def test_no_configuration_undoes_an_option_of_ketter(sshd: Sshd, contrary: Path) -> None:
    client = SshClient(access(sshd, contrary))
    try:
        found = effective(client.command("true"))
    finally:
        client.files.remove()

    shown = {name: found.get(name, "") for name in EFFECTIVE}
    assert {name: value for name, value in shown.items() if value not in EFFECTIVE[name]} == {}
    assert found["controlpath"].startswith(os.path.dirname(client.files.socket))


def test_a_transfer_runs_past_a_contrary_configuration(
    sshd: Sshd, contrary: Path, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("x")

    report = engine.run(
        engine.Request(
            Endpoint("/", f"{tmp_path}/a".lstrip("/")),
            Endpoint("/", f"{tmp_path}/b".lstrip("/"), access(sshd, contrary)),
            "contrary",
        )
    )

    assert report.status == "done"
    assert not (tmp_path / "touched").exists()


def test_a_wrong_pin_is_refused_whatever_the_configuration_knows(
    sshd: Sshd, contrary: Path, tmp_path: Path
) -> None:
    other = public_line(make_key(tmp_path / "other"))

    with pytest.raises(errors.HostKeyChanged):
        engine.probe(Endpoint("/", ssh=access(sshd, contrary, host_key=other)))


@pytest.mark.parametrize("refused", [(), PATCHED, UNKNOWN_IN_2015[:1], UNKNOWN_IN_2015, ("-G",)])
def test_an_old_client_gets_only_the_options_that_it_knows(
    sshd: Sshd,
    contrary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: tuple[str, ...],
) -> None:
    log = old_client(tmp_path, monkeypatch, refused)
    plain = tmp_path / "plain"
    plain.write_text("")
    where = Endpoint("/", ssh=access(sshd, plain))

    for _ in range(2):
        assert engine.probe(where).exists

    lines = log.read_text().splitlines()
    asked = [line for line in lines if " -G " in line]
    most = {(): 1, PATCHED: 2}
    assert len(asked) <= most.get(refused, 3 + len(ssh_options._NEWER))
    given = " ".join(line for line in lines if " -G " not in line)
    assert ("KnownHostsCommand=none" in given) == (refused in most)
    assert ("GSSAPIKeyExchange=no" in given) == (not {*PATCHED, "-G"} & {*refused})
    assert "IgnoreUnknown" not in given


def test_a_missing_client_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(errors.AgentFailed, match=r"ssh cannot be started: .*No such file"):
        engine.probe(Endpoint("/", ssh=SshAccess("host.invalid")))


# -- the password ------------------------------------------------------------------


def test_a_program_of_the_configuration_does_not_get_the_password(tmp_path: Path) -> None:
    """A jump host's ssh has the same environment; ssh starts it as it starts this program."""
    config, seen = tmp_path / "config", tmp_path / "seen"
    proxy = tmp_path / "proxy"
    proxy.write_text(f'#!/bin/sh\n"$SSH_ASKPASS" > {seen}.new\necho $? >> {seen}.new\n'
                     f"mv {seen}.new {seen}\n")  # fmt: skip
    proxy.chmod(0o755)
    config.write_text(f"Host *\n  ProxyCommand {proxy}\n")

    with pytest.raises(errors.EngineError):
        engine.probe(
            Endpoint("/", ssh=SshAccess("h", config_file=str(config), password="swordfish"))
        )

    assert seen.read_text() == "1\n"


def test_the_ssh_that_was_started_gets_the_password(tmp_path: Path) -> None:
    client = SshClient(SshAccess("h", password="swordfish"))
    try:
        client.command("true")
        env = client.environment()
        client.started(os.getpid())
        done = subprocess.run([env["SSH_ASKPASS"]], env=env, capture_output=True, check=True)
    finally:
        client.files.remove()
    assert done.stdout == b"swordfish"


# -- the end -------------------------------------------------------------------------


def test_no_ssh_outlives_a_killed_worker(tmp_path: Path) -> None:
    """Its host hangs: of itself this ssh would wait for ever."""
    if not ssh_options.command()[:-1]:
        pytest.skip("no setpriv with --pdeathsig here")
    config, pid = tmp_path / "config", tmp_path / "pid"
    config.write_text(f"Host *\n  ProxyCommand sh -c 'echo $PPID $$ > {pid}; exec sleep 60'\n")
    words = ["--from", str(tmp_path), "--to", "ssh://u@h/x", "--ssh-config", str(config)]
    with subprocess.Popen([sys.executable, "-m", "engine.cli", *words], cwd=PROJECT) as worker:
        wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"))
        started, proxy = map(int, pid.read_text().split())
        assert running(started)
        worker.send_signal(signal.SIGKILL)
    wait_until(lambda: not running(started), 5)
    os.kill(proxy, signal.SIGKILL)  # It is the configuration's own program.
