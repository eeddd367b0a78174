"""Several agents at one staging folder: who removes it, who comes too early, who comes too late."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engine import Endpoint, SilentObserver, Strategy, errors
from engine.agent import staging as stagings
from engine.agent.look import machine
from engine.agent.stage import made_as
from engine.agent.staging import Staging
from engine.agent.tree import remove_tree
from engine.agent.wire import AgentError
from engine.carry import Carrier
from engine.hub import Hub
from engine.links import Link
from engine.session import Lane
from tests.engine.command import wait_until
from tests.engine.conftest import Run
from tests.rig.sshd import marked

PROJECT = Path(__file__).resolve().parents[2]
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
def test_an_old_attempt_that_removes_the_folder_leaves_it_to_a_new_one_that_has_come(
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
def test_a_new_attempt_makes_the_folder_anew_that_an_old_one_removes_meanwhile(
    attempt: At, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    old, new = attempt(1), attempt(2)
    old.prepare([])
    monkeypatch.setattr(stagings, "PATIENCE", 0.1)

    def removed() -> None:
        with suppress(AgentError):  # REPLACED, or TARGET_BUSY.
            old.remove()

    once(monkeypatch, Staging, step, lambda self, *_: self is new, removed)

    new.prepare([], resume=True)

    with new.publishing():
        made_as(new.fd)


def test_a_target_folder_that_is_removed_under_a_new_attempt_is_not_waited_for_for_ever(
    attempt: At, tmp_path: Path
) -> None:
    new = attempt(2)
    tmp_path.rmdir()
    with pytest.raises(AgentError) as caught:
        new.prepare([])
    assert caught.value.code == "TARGET_BUSY"
    tmp_path.mkdir()


def test_who_waits_to_remove_what_somebody_else_removes_is_done(
    attempt: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt(1).prepare([])
    one, other = attempt(1), attempt(1)
    assert one.fd >= 0
    monkeypatch.setattr(one, "_lock_attempt", lambda _: other.remove())
    monkeypatch.setattr(stagings, "DYING_SECONDS", 0.1)
    monkeypatch.setattr(other, "_lock_attempt", lambda _: None)

    assert one.remove() == []


def test_two_that_tell_the_same_agents_to_end_are_not_in_each_others_way(
    attempt: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = attempt(1), attempt(2), attempt(2)
    first.prepare([])
    for one in others:
        assert one.fd >= 0
    once(monkeypatch, os, "rename", lambda *_: True, lambda: others[1]._tell_to_end(1))

    others[0]._tell_to_end(1)

    assert first.is_over()


def test_a_further_stream_that_comes_too_early_does_not_keep_the_place(attempt: At) -> None:
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


def test_two_that_remove_one_tree_are_not_in_each_others_way(tmp_path: Path) -> None:
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
from engine import session
begin_stage = session.Session.begin_stage

def begin(self, resume=False):
    pid = self.target._process.pid
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    print(pid, flush=True)
    begin_stage(self, resume)
    os.kill(os.getpid(), signal.SIGKILL)

session.Session.begin_stage = begin
ends = [engine.Endpoint(sys.argv[1], name) for name in ("a", "b")]
engine.run(engine.Request(*ends, transfer_id="job", resume=True))
"""


def test_an_agent_that_wakes_up_when_all_is_over_makes_nothing(tmp_path: Path) -> None:
    """It stood still before it had read that it is to make a staging folder."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"content")
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    mark = f"KETTER_TEST={tmp_path}"
    env = {**os.environ, "KETTER_TEST": str(tmp_path)}
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
    """A link to an agent that says, or has said, no more."""

    is_target = True

    def __init__(self, dispensable: bool) -> None:
        self.dispensable = dispensable

    said = staticmethod(errors.from_code)

    def cause_of_death(self) -> errors.EngineError:
        return errors.AgentLost("it was killed")

    def innocence(self) -> int:
        return 0

    def taken(self, message: Any) -> Any:
        return message


@pytest.mark.parametrize(("code", "cause"), [("VANISHED", "AGENT_LOST"), ("NO_SPACE", "NO_SPACE")])
def test_what_a_stream_says_that_comes_too_late_is_not_taken_for_the_cause(
    code: str, cause: str
) -> None:
    """But what stops it may be what stopped the others."""
    hub = Hub(lambda: None)
    first: Any = _Dead(dispensable=False)
    further: Any = _Dead(dispensable=True)
    hub.put(first, None)
    hub.put(further, {"error": [code, "so it is"]})

    with pytest.raises(errors.EngineError) as caught:
        hub.wait_for(first, "done")

    assert caught.value.code == cause


def test_nothing_is_written_to_an_agent_that_was_let_go(tmp_path: Path) -> None:
    hub = Hub(lambda: None)
    link = Link(hub, Endpoint(str(tmp_path)))
    try:
        link.send_program()
        link.hang_up()
        link.tell("look", root="/", path="")
    finally:
        hub.close()


@pytest.mark.slow
def test_a_further_stream_that_falls_silent_ends_the_transfer(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing else is to come that would be waited for."""
    monkeypatch.setattr("engine.links.SILENCE_SECONDS", 4.0)
    send = Carrier._send
    frozen: list[object] = []
    for number in range(24):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / str(number)).write_bytes(os.urandom(2 << 20))

    def freeze(self: Carrier, lane: Lane, load: Any) -> None:
        if not frozen and lane is not self._session.lanes[0]:
            process = lane.target._process
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
