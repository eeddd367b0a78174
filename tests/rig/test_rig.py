"""The rig itself: it does what it says, and nothing of it remains."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.project import PROJECT
from tests.rig.relay import Relay, Way
from tests.rig.sshd import Sshd
from tests.rig.trees import assert_equal_trees, build_mixed, build_small, snapshot
from tests.rig.two_hosts import TwoHosts, missing
from tests.servers import processes_beside

Answer = subprocess.CompletedProcess[str]


def ssh(server: Sshd, command: str) -> Answer:
    """Run a command through the server, with nothing from this user's own ssh settings."""
    return subprocess.run(
        ["ssh", "-F", str(server.ssh_config), server.host, command],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_the_rig_sshd_accepts_its_own_key(sshd: Sshd) -> None:
    answer = ssh(sshd, "id -un; echo $HOME")
    assert answer.stdout.split() == [sshd.username, str(sshd.home)], answer.stderr


def test_the_rig_sshd_refuses_a_key_that_was_removed(fresh_sshd: Sshd) -> None:
    fresh_sshd.refuse_client_key()
    assert "Permission denied" in ssh(fresh_sshd, "true").stderr


def test_the_rig_sshd_shows_another_host_key_after_a_rotation(fresh_sshd: Sshd) -> None:
    pinned = fresh_sshd.host_key
    fresh_sshd.rotate_host_key()
    assert fresh_sshd.host_key != pinned
    assert "HOST IDENTIFICATION HAS CHANGED" in ssh(fresh_sshd, "true").stderr


def test_the_rig_sshd_can_hide_python_and_keep_the_shell(fresh_sshd: Sshd) -> None:
    fresh_sshd.hide_python()
    assert ssh(fresh_sshd, "python3 -V").returncode == 127
    assert ssh(fresh_sshd, "echo here | cat").stdout == "here\n"


def test_the_rig_sshd_prints_its_greeting_before_the_output_of_a_command(fresh_sshd: Sshd) -> None:
    fresh_sshd.greet("Welcome to 'the lab'\n")
    assert ssh(fresh_sshd, "echo here").stdout == "Welcome to 'the lab'\nhere\n"


def test_the_rig_sshd_ends_its_sessions_when_it_stops() -> None:
    with Sshd() as server:
        command = ["ssh", "-F", str(server.ssh_config), server.host, "sleep 600 & sleep 600"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as client:
            # Two sleeps, the shell between them and sshd, and one or two of sshd's own.
            while len(server.sessions()) < 4:
                time.sleep(0.05)
            server.stop()
            assert client.wait(10) != 0
        assert not server.sessions()
        assert not server.folder.exists()


def test_the_two_hosts_have_separate_srv_folders(two_hosts: TwoHosts) -> None:
    (two_hosts.lab_root / "where").write_text("lab")
    (two_hosts.srvtrf_root / "where").write_text("srvtrf")
    assert two_hosts.run_in_lab(["cat", "/srv/where"]).stdout == "lab"
    assert two_hosts.on_srvtrf(["cat", "/srv/where"]) == "srvtrf"
    assert two_hosts.run_in_lab(["pwd"]).stdout.strip() == str(PROJECT)
    # Hidden there, or not there at all where the clone lies in the folder for temporary files.
    assert two_hosts.on_srvtrf(["sh", "-c", f"ls '{PROJECT}' 2>/dev/null || true"]) == ""


@pytest.mark.parametrize("way", ["publickey", "password"])
def test_srvtrf_accepts_a_login_from_lab_by_key_and_by_password(
    two_hosts: TwoHosts, tmp_path: Path, way: str
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"{two_hosts.host} {two_hosts.host_key}\n")
    ask = tmp_path / "ask"
    ask.write_text('#!/bin/sh\nprintf "%s\\n" "$RIG_PASSWORD"\n')
    ask.chmod(0o755)
    options = [
        f"PreferredAuthentications={way}",
        f"UserKnownHostsFile={known}",
        f"IdentityFile={two_hosts.identity_file}",
    ]
    answer = two_hosts.run_in_lab(
        ["ssh", "-F", "none"]
        + [word for option in options for word in ("-o", option)]
        + [f"{two_hosts.username}@{two_hosts.host}", "id -un; hostname; touch /srv/$$"],
        env={
            "PATH": os.environ["PATH"],
            "SSH_ASKPASS": str(ask),
            "SSH_ASKPASS_REQUIRE": "force",
            "RIG_PASSWORD": two_hosts.password,
        },
    )
    assert answer.stdout.split() == ["ketter", "srvtrf"], answer.stderr


@pytest.mark.skipif(bool(missing()), reason=missing() or "it can")
def test_the_two_hosts_leave_no_mount_process_or_folder_behind(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    base = tmp_path_factory.getbasetemp()
    # With -n others mount small disks meanwhile, each below its own folder in the run's.
    others = str(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)

    def mounted() -> list[str]:
        lines = Path("/proc/mounts").read_text().splitlines()
        return [line for line in lines if not line.split()[1].startswith(f"{others}/")]

    mounts, processes = mounted(), processes_beside()
    with TwoHosts() as hosts, subprocess.Popen(hosts.in_lab(["sleep", "600"])) as inside:
        time.sleep(0.1)
        hosts.stop()
        assert inside.wait(5) != 0
    assert mounted() == mounts
    assert processes_beside() == processes
    assert not hosts.folder.exists()


@pytest.fixture
def echo() -> Iterator[Relay]:
    """A relay in front of a server that sends everything back."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                    with client:
                        while data := client.recv(65536):
                            client.sendall(data)
                except OSError:
                    if server.fileno() < 0 or not alive.is_set():
                        return

        alive = threading.Event()
        alive.set()
        thread = threading.Thread(target=serve)
        thread.start()
        with Relay("127.0.0.1", server.getsockname()[1]) as relay:
            yield relay
        alive.clear()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def connect(relay: Relay) -> socket.socket:
    """A client of the relay that gives up after a while."""
    return socket.create_connection((relay.host, relay.port), timeout=5)


def test_the_relay_delays_each_direction(echo: Relay) -> None:
    echo.delay = 0.15
    with connect(echo) as client:
        begun = time.monotonic()
        client.sendall(b"ping")
        assert client.recv(4) == b"ping"
    assert 0.3 <= time.monotonic() - begun < 1


def test_the_relay_limits_the_rate(echo: Relay) -> None:
    echo.rate = 400_000
    with connect(echo) as client:
        begun = time.monotonic()
        client.sendall(bytes(100_000))
        client.shutdown(socket.SHUT_WR)
        assert sum(len(data) for data in iter(lambda: client.recv(65536), b"")) == 100_000
    assert 0.2 <= time.monotonic() - begun < 2


def test_the_relay_passes_everything_on_after_a_stall(echo: Relay) -> None:
    with connect(echo) as client:
        echo.stalled = True
        client.sendall(b"ping")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(4)
        echo.stalled = False
        client.settimeout(5)
        assert client.recv(4) == b"ping"


def test_the_relay_can_block_old_connections_and_let_new_ones_pass(echo: Relay) -> None:
    with connect(echo) as client:
        client.sendall(b"ping")
        assert client.recv(4) == b"ping"
        echo.hold()
        client.sendall(b"late")
        with connect(echo) as other:
            other.sendall(b"other")
            other.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + 5
            while echo.passed[Way.UP] < len(b"pingother"):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert echo.passed[Way.UP] == len(b"pingother")
            echo.hold(False)
            assert client.recv(4) == b"late"


def test_the_relay_drops_a_connection_with_a_reset(echo: Relay) -> None:
    with connect(echo) as client:
        client.sendall(b"ping")
        assert client.recv(4) == b"ping"
        echo.drop()
        with pytest.raises(ConnectionResetError):
            client.recv(4)


def test_the_relay_can_close_one_direction_of_a_connection(echo: Relay) -> None:
    with connect(echo) as client:
        client.sendall(b"ping")
        assert client.recv(4) == b"ping"
        echo.half_close(Way.DOWN)
        assert client.recv(4) == b""
        client.sendall(b"still open")


def test_the_relay_inverts_one_byte_of_a_connection(echo: Relay) -> None:
    echo.flip(Way.UP, 5)
    with connect(echo) as client:
        for part in (b"abcd", b"efgh"):
            client.sendall(part)
            time.sleep(0.05)
        client.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: client.recv(64), b"")) == b"abcde" + bytes([102 ^ 255]) + b"gh"


def test_the_relay_resets_a_client_when_no_server_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    relay = Relay("127.0.0.1", closed)
    # The reset may come as early as the connection itself.
    with relay, pytest.raises(ConnectionResetError), connect(relay) as client:
        client.recv(1)


def test_the_same_seed_builds_the_same_small_tree(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build_small(tmp_path / name, files=30, seed=seed)
    files = [
        {name: entry for name, entry in snapshot(tmp_path / root).items() if entry.kind == "file"}
        for root in "abc"
    ]
    assert len(files[0]) == 30
    assert_equal_trees(files[0], files[1])
    with pytest.raises(AssertionError, match=r"differ in \d+ places"):
        assert_equal_trees(files[0], files[2])


def test_the_comparison_of_trees_names_every_kind_of_difference(tmp_path: Path) -> None:
    build_mixed(tmp_path, large_bytes=1000)
    before = snapshot(tmp_path)
    (tmp_path / "zero.bin").chmod(0o644)
    (tmp_path / "link_to_file").unlink()
    (tmp_path / "more").write_text("more")
    with pytest.raises(AssertionError) as caught:
        assert_equal_trees(before, tmp_path)
    for words in ("'zero.bin': mode is", "'link_to_file': only in the first", "'more': only in"):
        assert words in str(caught.value)
