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
from engine import SshAccess, ssh


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder with nothing in it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.mark.parametrize("dies_at", ["", "fcntl.flock", "os.listdir", "os.unlink", "os.rmdir"])
def test_what_a_killed_worker_left_is_swept_away_and_what_a_living_one_has_stays(
    temporary: Path, dies_at: str
) -> None:
    """Killed while it has its secrets, while it makes the folder, or while it removes it."""
    living = ssh.SshFiles(SshAccess("host", private_key="secret"))
    living.command("true")
    kept = set(os.listdir(temporary))

    killed = killed_worker(dies_at)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert set(os.listdir(temporary)) > kept
    ssh.SshFiles(SshAccess("host")).remove()
    assert set(os.listdir(temporary)) == kept
    assert Path(living.folder, "key").exists()
    living.remove()
    assert not os.listdir(temporary)


def killed_worker(dies_at: str) -> subprocess.CompletedProcess[str]:
    """Run a process that has files for ssh, and is killed before it can remove them."""
    code = f"""
import fcntl, os
from unittest import mock
from engine.ssh import SshAccess, SshFiles

def die(*given, **_):
    if fcntl.LOCK_EX | fcntl.LOCK_NB in given:
        raise BlockingIOError  # That is the sweep before it makes its own.
    os.kill(os.getpid(), 9)

with mock.patch("{dies_at or "os.fork"}", die):
    files = SshFiles(SshAccess("host", private_key="secret"))
    files.command("true")
    if {bool(dies_at)}:
        files.remove()
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


def test_what_an_ssh_still_writes_as_it_is_swept_away_is_swept_at_the_next_look(
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
            ssh.sweep()
        ssh.SshFiles(SshAccess("host")).remove()
    assert [path.name for path in left.iterdir()] == ["log"]

    ssh.sweep()

    assert not os.listdir(temporary)


def test_a_sweep_at_the_worst_moment_takes_nothing_from_a_worker_that_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another worker sweeps just before the first lock of this one is taken."""
    lock = fcntl.flock
    swept: list[int] = []

    def late(fd: int, how: int) -> None:
        if how == fcntl.LOCK_EX and not swept:
            swept.append(fd)
            ssh.sweep()
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    files = ssh.SshFiles(SshAccess("host", private_key="secret"))

    assert swept
    files.command("true")
    assert Path(files.folder, "key").exists()
    files.remove()


def test_a_sweep_follows_no_link_and_takes_nothing_of_others(temporary: Path) -> None:
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

    ssh.SshFiles(SshAccess("host")).remove()

    assert (mine / "file").exists()
    assert len(os.listdir(temporary)) == 3
    theirs.chmod(0o700)
    assert (theirs / "key").exists()


def test_workers_that_make_remove_and_sweep_at_once_are_not_in_each_others_way(
    temporary: Path,
) -> None:
    code = """
import os, sys, time
from engine.ssh import SshAccess, SshFiles
until = time.monotonic() + 3
while time.monotonic() < until:
    files = SshFiles(SshAccess("host", private_key="secret"))
    files.command("true")
    assert os.path.exists(os.path.join(files.folder, "key")), "swept alive"
    files.remove()
    assert not os.path.exists(files.folder), "not removed"
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
def test_a_temporary_folder_that_takes_none_is_trouble_of_this_machine(
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
