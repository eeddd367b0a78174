"""Two attempts where the target has no locks: at most one publishes, by the fence alone."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.agent.target import locks
from engine.agent.target.publish.guarded import GuardedPublisher
from engine.agent.target.publish.had_before import FoldersBefore
from engine.agent.target.publish.opened_folders import OpenedFolders
from engine.agent.target.staging.folder import Staging
from engine.agent.tree import Tree
from engine.agent.wire import AgentError
from tests.rig.project import PROJECT
from tests.rig.waiting import wait_until

NUMBERS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]
#: Takes the lock of a file, says so, and stays.
HOLDER = """
import errno, fcntl, os, sys, time
def flock(fd, how):
    raise OSError(errno.ENOLCK, "no locks")
fcntl.flock = flock
from engine.agent.target import locks
print(locks.lock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), 0.0), flush=True)
time.sleep(600)
"""


@pytest.fixture(params=NUMBERS, ids=errno.errorcode.get)
def target(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    """A target folder on a file system without locks."""

    def refuse(fd: int, how: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "_lines", {})
    (tmp_path / "b").mkdir()
    fd = os.open(tmp_path / "b", os.O_RDONLY)
    yield fd
    os.close(fd)


def place(target: int, attempt: int, resume: bool = False) -> Staging:
    staging = Staging(target, "job", attempt, "this machine")
    staging.prepare([], resume)
    return staging


def test_a_lower_attempt_cannot_begin_publish_or_remove(target: int) -> None:
    first = place(target, 1)
    second = place(target, 2)

    with pytest.raises(AgentError, match="newer attempt"), first.publishing():
        pytest.fail("an old attempt got through the gate")
    with pytest.raises(AgentError, match="newer attempt"):
        place(target, 1)
    with pytest.raises(AgentError, match="newer attempt"):
        first.remove()
    with second.publishing():
        pass
    second.remove()
    assert os.listdir(target) == []


def test_an_attempt_that_publishes_stops_before_the_next_rename_once_a_newer_one_begins(
    target: int, tmp_path: Path
) -> None:
    first = place(target, 1)
    assert first.tree is not None
    for name in ("one", "two", "three"):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=first.tree.fd))
    checked = []

    def check() -> None:
        checked.append(1)
        if len(checked) == 2:  # Another machine's: it sees neither our lock nor our process.
            (tmp_path / "b" / ".ketter-job.part" / "fence").write_text("2")
        first.refuse_replaced()

    tree = Tree(os.dup(target))
    where = (first.tree, tree, "fail", OpenedFolders(tree, first.fd), FoldersBefore(first.fd))
    publisher = GuardedPublisher(check, *where, lambda: pytest.fail("nothing is across"))
    with pytest.raises(AgentError) as caught, first.publishing():
        publisher.publish(3)

    assert caught.value.code == "REPLACED"
    published = [name for name in os.listdir(tmp_path / "b") if not name.startswith(".ketter")]
    assert len(published) == 1
    assert locks.are_missing()


def test_a_process_of_this_machine_that_holds_a_lock_is_seen_until_it_is_gone(
    target: int, tmp_path: Path
) -> None:
    held = tmp_path / "held.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(held)], cwd=PROJECT, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        fd = os.open(held, os.O_RDWR)
        assert not locks.lock(fd, 0.0)
    finally:
        holder.kill()
        holder.communicate()

    assert locks.lock(fd, 1.0)
    assert locks.is_known(fd)
    locks.release(fd)


def test_what_another_machine_may_still_write_into_is_not_taken_over(
    target: int, tmp_path: Path
) -> None:
    first = place(target, 1)
    first.leave()
    (tmp_path / "b" / ".ketter-job.part" / "a1.lock").write_text("elsewhere/pid:[1] 4711 99\n")

    second = Staging(target, "job", 2, "this machine")
    _, left = second.prepare([], resume=True)

    assert not left
    second.remove()


def test_what_a_dead_process_of_this_machine_left_is_taken_over(target: int) -> None:
    place(target, 1).leave()

    second = Staging(target, "job", 2, "this machine")
    _, left = second.prepare([], resume=True)

    assert left
    second.remove()


def test_a_lock_that_was_given_up_is_free_for_a_process_that_sees_the_file(
    target: int, tmp_path: Path
) -> None:
    fd = os.open(tmp_path / "given-up.lock", os.O_RDWR | os.O_CREAT)
    assert locks.lock(fd, 0.0)
    assert (tmp_path / "given-up.lock").read_bytes().split()[1] == str(os.getpid()).encode()

    locks.release(fd)

    wait_until(lambda: set((tmp_path / "given-up.lock").read_bytes()) <= set(b"-\n"))
    assert not locks.are_missing()
