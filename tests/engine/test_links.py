"""The worker's ends of the agents: what they survive, what they say, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Endpoint
from engine.connect import bundle, listener
from engine.connect.agent_process import AgentProcess
from engine.connect.child import Child
from engine.connect.inbox import Inbox
from engine.plan import compare
from engine.protocol.fields import Failure
from engine.protocol.messages import Done, Failed
from tests.rig.project import PROJECT
from tests.rig.trees import build_small

HERE = Endpoint("/")


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox(lambda: None)
    yield inbox
    inbox.close()


@pytest.fixture
def replace_in_agents(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Have every agent run with one piece of its source replaced."""

    def replace(old: bytes, new: bytes) -> None:
        source_of = bundle.source_of
        assert any(
            old in source_of(name) for role in ("source", "target") for name in bundle.modules(role)
        )
        monkeypatch.setattr(bundle, "source_of", lambda name: source_of(name).replace(old, new))
        bundle.program.cache_clear()

    yield replace
    monkeypatch.undo()
    bundle.program.cache_clear()


def test_several_hanging_agents_are_ended_at_the_same_time(
    inbox: Inbox, replace_in_agents: Any
) -> None:
    replace_in_agents(b"import errno\n", b"import errno\nimport time\ntime.sleep(60)\n")
    for _ in range(5):
        AgentProcess(inbox, HERE)
    began = time.monotonic()

    inbox.close()

    assert time.monotonic() - began < 4.0


def test_an_agents_error_is_raised_instead_of_the_loss_of_the_other_agent(inbox: Inbox) -> None:
    sender, receiver = AgentProcess(inbox, HERE), AgentProcess(inbox, HERE)
    inbox.put(sender, None)
    inbox.put(receiver, Failed(Failure("NO_SPACE", "the disk is full")))

    with pytest.raises(engine.NoSpace, match="the disk is full"):
        inbox.wait_for(receiver, Done)


def test_an_interrupt_while_an_agent_starts_leaves_no_agent_running(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    start = Child.start

    def interrupted(child: Child, *args: Any) -> None:
        start(child, *args)
        started.append(child.process)
        raise KeyboardInterrupt

    monkeypatch.setattr(Child, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        AgentProcess(inbox, HERE)
    inbox.close()

    assert started[0].wait(timeout=5) == 1  # Its input ended before it had its program.
    started[0].stderr.close()


def test_a_scan_waits_for_a_worker_that_is_slow_to_take_its_batches(
    tmp_path: Path, replace_in_agents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_small(tmp_path / "a", 300)
    replace_in_agents(b"BATCH = 2500", b"BATCH = 5")
    waiting = []
    take = compare.TreeComparison._take

    def slow_take(chooser: Any, *args: Any) -> None:
        time.sleep(0.05)
        waiting.append(chooser._session.inbox._arrived.qsize())
        take(chooser, *args)

    monkeypatch.setattr(compare.TreeComparison, "_take", slow_take)
    there, back = (Endpoint("/", str(tmp_path / name).lstrip("/")) for name in "ab")

    plan = engine.dry_run(engine.Request(there, back, "test"))

    assert plan["files"] == 300
    # The last batch, its failures and the answer need not wait.
    assert 0 < max(waiting) <= listener.WAITING_MESSAGES + 2


def test_a_suspended_worker_does_not_take_its_own_pause_for_silent_agents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with open(tmp_path / "a" / "large.mov", "wb") as file:
        file.truncate(2 << 30)
    code = (
        "import sys; from engine.cli import __main__ as cli; "
        "from engine.connect import inbox, listener; "
        "listener.SILENCE_SECONDS, inbox.ASLEEP_SECONDS = 4.0, 2.0; sys.exit(cli.main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--from", tmp_path / "a", "--to", tmp_path / "b"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not list((tmp_path / "b").glob(".ketter*/a1/large.mov")):
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(5.0)
        os.kill(process.pid, signal.SIGCONT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()

    assert (process.returncode, said) == (0, "")
