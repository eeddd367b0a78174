"""Several agents at one staging folder: who removes it, who comes too early, who comes too late."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import Endpoint, SilentObserver, Strategy, errors
from engine.agent.inspect import machine
from engine.agent.target.staged_files import made_as
from engine.agent.target.staging import folder as stagings
from engine.agent.target.staging import place
from engine.agent.target.staging.folder import Staging
from engine.agent.tree import remove_tree
from engine.agent.wire import AgentError
from engine.carry.carrier import Carrier
from engine.connect.agent_process import AgentProcess
from engine.connect.inbox import CAUSE_SECONDS, Inbox
from engine.protocol.commands import INSPECT
from engine.protocol.fields import Failure
from engine.protocol.messages import Done, Failed
from engine.session.stream import Stream
from tests.rig.project import PROJECT
from tests.rig.sshd import marked
from tests.rig.transfers import Run
from tests.rig.waiting import wait_until

At = Callable[[int], Staging]


@pytest.fixture
def attempt(tmp_path: Path) -> Iterator[At]:
    """The staging folder as an agent of that attempt sees it."""
    opened: list[int] = []

    def at(number: int) -> Staging:
        opened.append(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY))
        return Staging(opened[-1], "job", number, machine())

    yield at
    for fd in opened:
        os.close(fd)


def once(
    patch: pytest.MonkeyPatch, what: Any, name: str, where: Any, deed: Any, *, late: bool = False
) -> None:
    """Have something done just before a call, or after it (`late`), the first time it is so."""
    call = getattr(what, name)
    done: list[bool] = []

    def with_deed(*args: Any, **kwargs: Any) -> Any:
        mine = not done and where(*args)
        if mine:
            done.append(True)
        if mine and not late:
            deed()
        result = call(*args, **kwargs)
        if mine and late:
            deed()
        return result

    patch.setattr(what, name, with_deed)


@pytest.mark.parametrize("resume", [False, True])
def test_an_old_attempt_stops_removing_the_staging_folder_when_a_new_one_takes_it(
    attempt: At, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, resume: bool
) -> None:
    """It stood still just before the last step, say."""
    old, new = attempt(1), attempt(2)
    old.prepare([])
    once(
        monkeypatch, os, "unlink", lambda name: name == "gate",
        lambda: new.prepare([], resume), late=True,
    )  # fmt: skip

    with pytest.raises(AgentError, match="newer attempt"):
        old.remove()

    made_as(new.fd)
    with new.publishing():
        assert (tmp_path / ".ketter-job.part" / "a2").is_dir()


@pytest.mark.parametrize("step", ["_lock_attempt", "_gate", "_fence", "_take_over"])
def test_a_new_attempt_recreates_a_staging_folder_that_an_old_one_removes(
    attempt: At, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    old, new = attempt(1), attempt(2)
    old.prepare([])
    monkeypatch.setattr(place, "PATIENCE", 0.1)

    def removed() -> None:
        with suppress(AgentError):  # REPLACED, or TARGET_BUSY.
            old.remove()

    once(monkeypatch, Staging, step, lambda self, *_: self is new, removed)

    new.prepare([], resume=True)

    with new.publishing():
        made_as(new.fd)


def test_a_new_attempt_fails_with_target_busy_when_the_target_folder_is_removed(
    attempt: At, tmp_path: Path
) -> None:
    new = attempt(2)
    tmp_path.rmdir()
    with pytest.raises(AgentError) as caught:
        new.prepare([])
    assert caught.value.code == "TARGET_BUSY"
    tmp_path.mkdir()


def test_remove_succeeds_when_another_agent_removed_the_folder_first(
    attempt: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt(1).prepare([])
    one, other = attempt(1), attempt(1)
    assert one.fd >= 0
    monkeypatch.setattr(one, "_lock_attempt", lambda _: other.remove())
    monkeypatch.setattr(stagings, "LEAVING_SECONDS", 0.1)
    monkeypatch.setattr(other, "_lock_attempt", lambda _: None)

    assert one.remove() == []


def test_two_agents_can_request_the_end_of_the_same_attempt_at_once(
    attempt: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = attempt(1), attempt(2), attempt(2)
    first.prepare([])
    for one in others:
        assert one.fd >= 0
    once(monkeypatch, os, "rename", lambda *_: True, lambda: others[1]._request_end(1))

    others[0]._request_end(1)

    assert first.is_over()


def test_a_stream_that_attaches_too_early_does_not_block_its_attempt(attempt: At) -> None:
    attempt(1).prepare([])
    with pytest.raises(FileNotFoundError):
        attempt(2).attach()

    attempt(2).prepare([])


def _remove(folder: Path, together: Any, said: Any) -> None:
    fd = os.open(folder, os.O_RDONLY)
    together.wait()
    try:
        remove_tree(fd, "tree")
        said.put("")
    except OSError as error:
        said.put(repr(error))


def test_two_processes_can_remove_the_same_tree_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for number in range(20):
        place = tmp_path / str(number)
        for folder in range(400):
            (place / "tree" / str(folder % 20) / str(folder)).mkdir(parents=True)
        together, said = context.Barrier(2), context.Queue()
        both = [context.Process(target=_remove, args=(place, together, said)) for _ in range(2)]
        for one in both:
            one.start()
        assert [said.get(timeout=20) for _ in both] == ["", ""]
        for one in both:
            one.join()
        assert not (place / "tree").exists()


WORKER = """
import os, signal, sys
import engine
from engine.session.staging import StagingFolder
begin_stage = StagingFolder.begin

def begin(self, resume=False):
    pid = self._session.target.child.process.pid
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    print(pid, flush=True)
    begin_stage(self, resume)
    os.kill(os.getpid(), signal.SIGKILL)

StagingFolder.begin = begin
ends = [engine.Endpoint(sys.argv[1], name) for name in ("a", "b")]
engine.run(engine.Request(*ends, transfer_id="job", resume=True))
"""


def test_an_agent_that_wakes_up_after_its_worker_died_creates_nothing(tmp_path: Path) -> None:
    """It stood still before it had read that it is to make a staging folder."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"content")
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    mark = f"LC_KETTER_TEST={tmp_path}"
    env = {**os.environ, "LC_KETTER_TEST": str(tmp_path)}
    worker = subprocess.run(
        command, cwd=PROJECT, env=env, capture_output=True, timeout=20, check=False
    )
    pid = int(worker.stdout)
    assert worker.returncode == -signal.SIGKILL, worker.stderr.decode()
    wait_until(lambda: marked(mark) == [pid])
    time.sleep(0.5)  # All others have ended; by now they have let go of the pipe, too.

    os.kill(pid, signal.SIGCONT)

    wait_until(lambda: not marked(mark))
    assert not (tmp_path / "b").exists()


class _Dead:
    """An agent that says, or has said, no more."""

    is_target = greeted = True

    def __init__(self, optional: bool) -> None:
        self.optional = optional
        lost = errors.AgentLost("it was killed")
        self.access = SimpleNamespace(
            is_remote=False, explain=lambda *_: lost, look_after=lambda: None
        )
        self.child = SimpleNamespace(
            process=None, status=None, has_ended=lambda until: True, is_closed=True
        )
        self.listener = SimpleNamespace(
            noise=b"", taken=lambda: None, pulse=SimpleNamespace(message=lambda: None)
        )


@pytest.mark.parametrize(("code", "cause"), [("VANISHED", "AGENT_LOST"), ("NO_SPACE", "NO_SPACE")])
def test_an_optional_streams_permanent_error_is_not_the_cause_but_a_full_disk_is(
    code: str, cause: str
) -> None:
    """But what stops it may be what stopped the others."""
    inbox = Inbox(lambda: None)
    first: Any = _Dead(optional=False)
    further: Any = _Dead(optional=True)
    inbox.put(first, None)
    inbox.put(further, Failed(Failure(code, "so it is")))

    with pytest.raises(errors.EngineError) as caught:
        inbox.wait_for(first, Done)

    assert caught.value.code == cause


def test_the_late_end_of_a_connection_is_the_cause_of_an_orderly_one() -> None:
    """On a busy machine the end of ssh comes later than that of the agent that lost its peer."""
    inbox = Inbox(lambda: None)
    near: Any = _Dead(optional=False)
    near.child.process, near.child.status = object(), 0
    far: Any = _Dead(optional=False)
    lost = errors.ConnectionLost("the connection broke")
    far.access.is_remote, far.access.explain = True, lambda *_: lost
    inbox.agents += [near, far]
    inbox.put(near, None)
    late = threading.Timer(CAUSE_SECONDS * 3, inbox.put, (far, None))
    late.start()

    with pytest.raises(errors.ConnectionLost):
        inbox.wait_for(near, Done)

    late.join()


def test_sending_a_command_to_a_closed_agent_does_nothing(tmp_path: Path) -> None:
    inbox = Inbox(lambda: None)
    link = AgentProcess(inbox, Endpoint(str(tmp_path)))
    try:
        link.send_program()
        link.close()
        link.send(INSPECT, root="/", path="")
    finally:
        inbox.close()


@pytest.mark.slow
def test_a_second_stream_that_falls_silent_ends_the_transfer_as_stalled(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing else is to come that would be waited for."""
    monkeypatch.setattr("engine.connect.listener.SILENCE_SECONDS", 4.0)
    send = Carrier._send
    frozen: list[object] = []
    for number in range(24):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / str(number)).write_bytes(os.urandom(2 << 20))

    def freeze(self: Carrier, lane: Stream, load: Any) -> None:
        if not frozen and lane is not self._session.streams[0]:
            process = lane.target.child.process
            assert process
            os.kill(process.pid, signal.SIGSTOP)
            frozen.append(process)
        send(self, lane, load)

    monkeypatch.setattr(Carrier, "_send", freeze)

    with pytest.raises(errors.Stalled):
        # Slowly, so that the further stream is there before all is sent.
        run(Impatient(30), streams=2, strategy=Strategy.FILES, bwlimit=16 << 20)

    assert frozen


class Impatient(SilentObserver):
    """Waits for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def checkpoint(self) -> None:
        """Fail if it takes longer."""
        assert time.monotonic() < self._until, "it hangs"
