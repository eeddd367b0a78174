"""The private folders for ssh: gone with their worker, also if that is killed."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import SshAccess
from engine.connect import ssh, ssh_files


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder with nothing in it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.mark.parametrize("dies_at", ["", "fcntl.flock", "os.listdir", "os.unlink", "os.rmdir"])
def test_a_sweep_removes_ssh_files_of_killed_workers_and_keeps_those_of_living_ones(
    temporary: Path, dies_at: str
) -> None:
    """Killed while it has its secrets, while it makes the folder, or while it removes it."""
    living = ssh.SshClient(SshAccess("host", private_key="secret"))
    living.command("true")
    kept = set(os.listdir(temporary))

    killed = killed_worker(dies_at)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert set(os.listdir(temporary)) > kept
    ssh.SshClient(SshAccess("host")).files.remove()
    assert set(os.listdir(temporary)) == kept
    assert Path(living.files.folder, "key").exists()
    living.files.remove()
    assert not os.listdir(temporary)


def killed_worker(dies_at: str) -> subprocess.CompletedProcess[str]:
    """Run a process that has files for ssh, and is killed before it can remove them."""
    code = f"""
import fcntl, os
from unittest import mock
from engine.connect.ssh import SshAccess, SshClient

def die(*given, **_):
    if fcntl.LOCK_EX | fcntl.LOCK_NB in given:
        raise BlockingIOError  # That is the sweep before it makes its own.
    os.kill(os.getpid(), 9)

with mock.patch("{dies_at or "os.fork"}", die):
    client = SshClient(SshAccess("host", private_key="secret"))
    client.command("true")
    if {bool(dies_at)}:
        client.files.remove()
die()
"""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_a_file_that_ssh_writes_during_a_sweep_is_removed_by_the_next_sweep(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it stops nobody who makes a connection of their own meanwhile."""
    assert killed_worker("").returncode == -signal.SIGKILL
    (left,) = temporary.iterdir()
    remove = os.rmdir

    def once_more(path: str) -> None:
        if path == str(left):
            (left / "log").write_text("killed by signal 1")
        remove(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", once_more)
        with pytest.raises(OSError, match="not empty"):
            ssh_files.sweep()
        ssh.SshClient(SshAccess("host")).files.remove()
    assert [path.name for path in left.iterdir()] == ["log"]

    ssh_files.sweep()

    assert not os.listdir(temporary)


def test_a_sweep_before_the_first_lock_takes_nothing_from_a_starting_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another worker sweeps just before the first lock of this one is taken."""
    lock = fcntl.flock
    swept: list[int] = []

    def late(fd: int, how: int) -> None:
        if how == fcntl.LOCK_EX and not swept:
            swept.append(fd)
            ssh_files.sweep()
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    client = ssh.SshClient(SshAccess("host", private_key="secret"))

    assert swept
    client.command("true")
    assert Path(client.files.folder, "key").exists()
    client.files.remove()


def test_a_sweep_follows_no_symlink_and_removes_nothing_of_other_users(temporary: Path) -> None:
    """In /tmp anybody may plant a name like ours."""
    mine = temporary.parent / "mine"
    mine.mkdir()
    (mine / "file").write_text("not for sweeping")
    (temporary / "ketter-ssh-0").symlink_to(mine)
    (temporary / "ketter-ssh-1").write_text("no folder")
    theirs = temporary / "ketter-ssh-2"
    theirs.mkdir()
    (theirs / "key").write_text("somebody else's")
    if os.geteuid() == 0:
        os.chown(theirs, 65534, 65534)
    else:
        theirs.chmod(0)

    ssh.SshClient(SshAccess("host")).files.remove()

    assert (mine / "file").exists()
    assert len(os.listdir(temporary)) == 3
    theirs.chmod(0o700)
    assert (theirs / "key").exists()


def test_six_workers_that_make_and_sweep_ssh_files_at_once_do_not_interfere(
    temporary: Path,
) -> None:
    code = """
import os, sys, time
from engine.connect.ssh import SshAccess, SshClient
until = time.monotonic() + 3
while time.monotonic() < until:
    client = SshClient(SshAccess("host", private_key="secret"))
    client.command("true")
    assert os.path.exists(os.path.join(client.files.folder, "key")), "swept alive"
    client.files.remove()
    assert not os.path.exists(client.files.folder), "not removed"
"""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[2], stderr=subprocess.PIPE
        )
        for _ in range(6)
    ]
    said = [worker.communicate(timeout=30)[1].decode() for worker in workers]
    assert said == [""] * 6
    assert os.listdir(temporary) == []


@pytest.mark.parametrize("ask", [engine.probe, engine.discard, engine.run, engine.fetch_host_key])
def test_a_full_temporary_folder_is_reported_as_host_trouble(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Any], object]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "mkdir", full)
    far = engine.Endpoint("/", "", SshAccess("host"))
    given = {engine.probe: far, engine.fetch_host_key: far.ssh}
    request = engine.Request(far, far, "job", resume=True)

    with pytest.raises(engine.EngineError, match="No space left") as caught:
        ask(given.get(ask, request))

    assert caught.value.code == "HOST_TROUBLE"
