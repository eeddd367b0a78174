"""The engine over a real sshd: every direction, every way to be refused."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Endpoint, EngineError, Report, Request, SshAccess
from engine.connect import ssh_options
from tests.rig.observers import Disturber
from tests.rig.relay import Relay, Way
from tests.rig.sshd import Sshd, free_port, make_key
from tests.rig.transfers import through
from tests.rig.trees import Entry, assert_equal_trees, build_mixed, build_small, snapshot
from tests.rig.waiting import wait_until
from tests.servers import processes_beside

#: A refusal must not keep an operator waiting longer than this.
PATIENCE = 30.0

Refusal = tuple[type[EngineError], Callable[[Sshd, Path], dict[str, Any]]]


def transfer(source: Endpoint, target: Endpoint, **more: Any) -> Report:
    """Run a transfer under an id of its own."""
    plain = Request(source=source, target=target, transfer_id=uuid.uuid4().hex)
    return engine.run(plain._replace(**more))


@pytest.fixture(autouse=True)
def leave_nothing(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No helper file (a key, an askpass, a known_hosts), process or session outlives a transfer."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("TMPDIR", str(scratch))
    before = processes_beside()
    yield
    assert os.listdir(scratch) == []
    wait_until(lambda: not sshd.sessions(), 5)
    assert processes_beside() <= before


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A source to transfer, with a few files in it."""
    root = tmp_path / "source"
    build_small(root, files=40)
    return root


@pytest.mark.parametrize("build", [build_small, build_mixed])
@pytest.mark.parametrize("mode", ["copy", "move"])
@pytest.mark.parametrize("way", ["local-ssh", "ssh-local", "ssh-ssh"])
def test_a_tree_is_transferred_over_ssh_in_every_direction(
    sshd: Sshd, tmp_path: Path, way: str, mode: str, build: Callable[[Path], None]
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    build(source)
    before = snapshot(source)
    from_ssh, to_ssh = (through(sshd) if side == "ssh" else None for side in way.split("-"))
    report = transfer(
        Endpoint(str(tmp_path), "source", from_ssh),
        Endpoint(str(tmp_path), "target", to_ssh),
        mode=engine.Mode(mode),
    )
    assert report.status == "done", report.failures
    assert report.files == sum(entry.kind != "folder" for entry in before.values())
    assert_equal_trees(before, target)
    assert snapshot(source) == ({} if mode == "move" else before)


def test_a_copy_between_two_ssh_ends_over_three_streams_arrives(
    sshd: Sshd, small: Path, tmp_path: Path
) -> None:
    source = Endpoint(str(small), "", through(sshd))
    target = Endpoint(str(tmp_path), "target", through(sshd))
    assert transfer(source, target, streams=3).status == "done"
    assert_equal_trees(small, tmp_path / "target")


def _key_as_text(server: Sshd) -> SshAccess:
    return through(server, identity_file="", private_key=server.identity_file.read_text())


def _client_configuration(server: Sshd) -> SshAccess:
    return SshAccess(host="somewhere", config_file=str(server.ssh_config))


@pytest.mark.parametrize("make", [_key_as_text, _client_configuration])
def test_ssh_access_accepts_a_private_key_as_text_or_a_client_configuration_file(
    sshd: Sshd, small: Path, tmp_path: Path, make: Callable[[Sshd], SshAccess]
) -> None:
    transfer(Endpoint(str(small)), Endpoint(str(tmp_path), "target", make(sshd)))
    assert_equal_trees(small, tmp_path / "target")


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_login_that_prints_text_does_not_disturb_a_transfer(
    fresh_sshd: Sshd, small: Path, tmp_path: Path, side: str
) -> None:
    fresh_sshd.greet("Welcome!\nYou have mail.\n" * 50)
    chatty = {side: through(fresh_sshd)}
    transfer(
        Endpoint(str(small), "", chatty.get("source")),
        Endpoint(str(tmp_path), "target", chatty.get("target")),
    )
    assert_equal_trees(small, tmp_path / "target")


def _other_key(server: Sshd, folder: Path) -> dict[str, Any]:
    return {"identity_file": str(make_key(folder / "other_key"))}


def _no_known_host(server: Sshd, folder: Path) -> dict[str, Any]:
    (folder / "known_hosts").touch()
    return {"host_key": "", "known_hosts_file": str(folder / "known_hosts")}


def _changed_known_host(server: Sshd, folder: Path) -> dict[str, Any]:
    server.rotate_host_key()
    return {"host_key": "", "known_hosts_file": str(server.known_hosts)}


def _changed_pin(server: Sshd, folder: Path) -> dict[str, Any]:
    pinned = server.host_key
    server.rotate_host_key()
    return {"host_key": pinned}


def _closed_port(server: Sshd, folder: Path) -> dict[str, Any]:
    return {"port": free_port()}


def _no_such_name(server: Sshd, folder: Path) -> dict[str, Any]:
    return {"host": "no-such-host.invalid"}


def _no_python(server: Sshd, folder: Path) -> dict[str, Any]:
    server.hide_python()
    return {}


def _killed_python(server: Sshd, folder: Path) -> dict[str, Any]:
    server.hide_python("#!/bin/sh\nkill -9 $$\n")
    return {}


def _killed_agent(server: Sshd, folder: Path) -> dict[str, Any]:
    server.hide_python("#!/bin/sh\nprintf '\\n\\0KETTER AGENT 2\\n' >&2\nkill -9 $$\n")
    return {}


def _agent_that_gives_up(server: Sshd, folder: Path) -> dict[str, Any]:
    server.hide_python("#!/bin/sh\nprintf '\\n\\0KETTER AGENT 2\\n' >&2\nexit 1\n")
    return {}


REFUSALS: dict[str, Refusal] = {
    "other key": (engine.AuthFailed, _other_key),
    "unknown host": (engine.HostKeyUnknown, _no_known_host),
    "changed host": (engine.HostKeyChanged, _changed_known_host),
    "changed pin": (engine.HostKeyChanged, _changed_pin),
    "closed port": (engine.ConnectionRefused, _closed_port),
    "no such name": (engine.HostUnreachable, _no_such_name),
    "no python": (engine.NoPython, _no_python),
    "killed as it starts": (engine.ConnectionLost, _killed_python),
    "killed after its greeting": (engine.ConnectionLost, _killed_agent),
    "ended after its greeting": (engine.ConnectionLost, _agent_that_gives_up),
}


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("what", REFUSALS)
def test_a_refused_connection_is_reported_with_its_cause(
    fresh_sshd: Sshd, small: Path, tmp_path: Path, what: str, side: str
) -> None:
    expected, spoil = REFUSALS[what]
    spoilt = {side: through(fresh_sshd)._replace(**spoil(fresh_sshd, tmp_path))}
    refused(expected, small, tmp_path / "target", spoilt.get("source"), spoilt.get("target"))
    wait_until(lambda: not fresh_sshd.sessions(), 5)


@pytest.mark.parametrize("what", ["other key", "unknown host", "changed host", "closed port"])
def test_a_quiet_configuration_hides_no_cause(
    fresh_sshd: Sshd, small: Path, tmp_path: Path, what: str
) -> None:
    expected, spoil = REFUSALS[what]
    (tmp_path / "quiet").write_text("Host *\n  LogLevel QUIET\n")
    access = through(fresh_sshd)._replace(**spoil(fresh_sshd, tmp_path))
    access = access._replace(config_file=str(tmp_path / "quiet"))

    refused(expected, small, tmp_path / "target", None, access)


def refused(
    expected: type[EngineError],
    source: Path,
    target: Path,
    source_ssh: SshAccess | None,
    target_ssh: SshAccess | None,
) -> None:
    """Try a move that must be refused, in time, with one sentence, and with nothing touched."""
    before = snapshot(source)
    begun = time.monotonic()
    with pytest.raises(EngineError) as caught:
        transfer(
            Endpoint(str(source), "", source_ssh),
            Endpoint(str(target.parent), target.name, target_ssh),
            mode=engine.Mode.MOVE,
        )
    assert type(caught.value) is expected, caught.value
    assert_one_sentence(str(caught.value))
    assert time.monotonic() - begun < PATIENCE
    assert_equal_trees(before, source)
    assert not target.exists()


def assert_one_sentence(text: str) -> None:
    """Fail unless the text is something one would show a person."""
    assert "\n" not in text
    assert 15 < len(text) < 300, text


def test_a_host_that_never_answers_is_reported_as_unreachable_in_time(
    sshd: Sshd, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ssh_options._OLD, "ConnectTimeout", "2")  # As it is, only sooner.
    with Relay(sshd.host, sshd.port) as relay:
        relay.stalled = True
        silent = through(sshd, port=relay.port)
        refused(engine.HostUnreachable, small, tmp_path / "target", None, silent)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A source whose transfer takes long enough to be disturbed."""
    root = tmp_path / "source"
    build_mixed(root, large_bytes=24 * 1024 * 1024)
    return root


@pytest.mark.parametrize("mode", ["copy", "move"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_broken_connection_loses_nothing_and_the_next_attempt_completes(
    sshd: Sshd, large: Path, tmp_path: Path, side: str, mode: str
) -> None:
    before = snapshot(large)
    with Relay(sshd.host, sshd.port) as relay:
        relay.rate = 12 * 1024 * 1024  # Slow enough to be caught half-way.
        spoilt = {side: through(sshd, port=relay.port)}
        way = Way.UP if side == "target" else Way.DOWN
        with pytest.raises(engine.ConnectionLost) as caught:
            engine.run(
                Request(
                    source=Endpoint(str(large), "", spoilt.get("source")),
                    target=Endpoint(str(tmp_path), "target", spoilt.get("target")),
                    transfer_id="broken-line",
                    mode=engine.Mode(mode),
                ),
                Disturber(lambda: relay.passed[way] > 8 * 1024 * 1024, relay.drop),
            )
        assert caught.value.retry == "transient"
        assert_one_sentence(str(caught.value))
    assert_equal_trees(before, large)
    assert not published(tmp_path / "target")
    again(large, tmp_path / "target", mode, before)


def published(target: Path) -> list[bytes]:
    """What an operator would find at the target: everything but a staging folder."""
    if not target.exists():
        return []
    return [name for name in snapshot(target) if not name.startswith(b".ketter-")]


def again(source: Path, target: Path, mode: str, before: dict[bytes, Entry]) -> None:
    """Run the broken transfer's next attempt, which must end as if nothing had happened."""
    report = engine.run(
        Request(
            source=Endpoint(str(source)),
            target=Endpoint(str(target.parent), target.name),
            transfer_id="broken-line",
            attempt=2,
            mode=engine.Mode(mode),
        )
    )
    assert report.status == "done"
    assert_equal_trees(before, target)


def test_a_probe_over_ssh_describes_the_folder(sshd: Sshd, small: Path) -> None:
    found = engine.probe(Endpoint(str(small), "", through(sshd)))
    assert (found.exists, found.is_dir, found.writable) == (True, True, True)
    assert found.realpath == str(small.resolve())


def test_fetch_host_key_reads_the_key_without_logging_in(fresh_sshd: Sshd) -> None:
    address = SshAccess(host=fresh_sshd.host, port=fresh_sshd.port, username="nobody-at-all")
    key = engine.fetch_host_key(address)
    assert key.line == fresh_sshd.host_key
    assert key.fingerprint.startswith("SHA256:")
    assert "nobody-at-all" not in fresh_sshd.log.read_text()


def test_fetch_host_key_reports_a_closed_port_as_refused(sshd: Sshd) -> None:
    with pytest.raises(engine.ConnectionRefused):
        engine.fetch_host_key(SshAccess(host=sshd.host, port=free_port()))


def test_paths_with_blanks_and_percent_signs_reach_ssh_whole(
    sshd: Sshd, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "my %d keys"
    odd.mkdir()
    known, identity = odd / "known hosts", odd / "id"
    known.write_bytes(sshd.known_hosts.read_bytes())
    identity.write_bytes(sshd.identity_file.read_bytes())
    identity.chmod(0o600)
    there = through(sshd, host_key="", known_hosts_file=str(known), identity_file=str(identity))
    target = Endpoint("/", f"{tmp_path}/target".lstrip("/"), there)

    assert transfer(Endpoint(str(small)), target).status == "done"

    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    pinned = target._replace(ssh=through(sshd))
    assert transfer(Endpoint(str(small)), pinned).files_skipped == 40
    assert engine.fetch_host_key(through(sshd)).line == sshd.host_key
    assert set(os.listdir(odd)) == {"known hosts", "id"}


def test_a_second_line_in_a_pinned_host_key_is_not_accepted(
    sshd: Sshd, small: Path, tmp_path: Path
) -> None:
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    there = through(sshd, host_key=f"{other}\n* {sshd.host_key}")

    with pytest.raises(engine.HostKeyChanged):
        transfer(Endpoint(str(small)), Endpoint("/", f"{tmp_path}/target".lstrip("/"), there))
