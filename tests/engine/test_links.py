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
from engine import Endpoint, bundle, choose, links
from engine.hub import Hub
from engine.links import Link
from tests.rig.trees import build_small

PROJECT = Path(__file__).parents[2]
HERE = Endpoint("/")


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub(lambda: None)
    yield hub
    hub.close()


@pytest.fixture
def replace_in_agents(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Have every agent run with one piece of its source replaced."""

    def replace(old: bytes, new: bytes) -> None:
        source_of = bundle.source_of
        assert any(old in source_of(name) for name in bundle.MODULES)
        monkeypatch.setattr(bundle, "source_of", lambda name: source_of(name).replace(old, new))
        bundle.program.cache_clear()

    yield replace
    monkeypatch.undo()
    bundle.program.cache_clear()


def test_agents_that_hang_are_ended_all_at_once(hub: Hub, replace_in_agents: Any) -> None:
    replace_in_agents(b"import errno\n", b"import errno\nimport time\ntime.sleep(60)\n")
    for _ in range(5):
        Link(hub, HERE)
    began = time.monotonic()

    hub.close()

    assert time.monotonic() - began < 4.0


def test_what_an_agent_says_counts_for_more_than_the_end_it_brings_to_another(hub: Hub) -> None:
    sender, receiver = Link(hub, HERE), Link(hub, HERE)
    hub.put(sender, None)
    hub.put(receiver, {"error": ["NO_SPACE", "the disk is full"]})

    with pytest.raises(engine.NoSpace, match="the disk is full"):
        hub.wait_for(receiver, "done")


def test_an_interrupt_while_an_agent_starts_leaves_none(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    start = Link._start

    def interrupted(*args: Any) -> None:
        started.append(start(*args))
        raise KeyboardInterrupt

    monkeypatch.setattr(Link, "_start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Link(hub, HERE)
    hub.close()

    assert started[0].wait(timeout=5) == 1  # Its input ended before it had its program.
    started[0].stderr.close()


def test_a_scan_waits_for_us(
    tmp_path: Path, replace_in_agents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_small(tmp_path / "a", 300)
    replace_in_agents(b"BATCH = 2500", b"BATCH = 5")
    waiting = []
    take = choose.Chooser._take

    def slow_take(chooser: Any, *args: Any) -> None:
        time.sleep(0.05)
        waiting.append(chooser._session.hub._arrived.qsize())
        take(chooser, *args)

    monkeypatch.setattr(choose.Chooser, "_take", slow_take)
    there, back = (Endpoint("/", str(tmp_path / name).lstrip("/")) for name in "ab")

    plan = engine.dry_run(engine.Request(there, back, "test"))

    assert plan["files"] == 300
    # The last batch, its failures and the answer need not wait.
    assert 0 < max(waiting) <= links.WAITING_ANSWERS + 2


def test_a_pause_of_our_own_is_no_silence_of_the_agents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with open(tmp_path / "a" / "large.mov", "wb") as file:
        file.truncate(2 << 30)
    code = (
        "from engine import cli, hub, links; import sys; "
        "links.SILENCE_SECONDS, hub.ASLEEP_SECONDS = 4.0, 2.0; sys.exit(cli.main())"
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
