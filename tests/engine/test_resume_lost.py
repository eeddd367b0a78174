"""Agents that are killed, sessions that end, lines that break: kept, and gone on with."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Endpoint, Mode, Report, Request, SilentObserver, SshAccess
from tests.rig.command import running
from tests.rig.interrupted import (
    LOST_OF_A_FILE,
    MIB,
    build_large,
    build_many,
    staged,
    staging,
    whole,
)
from tests.rig.lanes import nightly
from tests.rig.observers import Disturber
from tests.rig.relay import Relay
from tests.rig.sshd import Sshd
from tests.rig.transfers import through
from tests.rig.trees import Entry, assert_equal_trees
from tests.rig.waiting import wait_until
from tests.servers import processes_beside

#: Small files first, then a large one, which is disturbed half-way.
SMALL, LARGE = 16 * MIB, 100 * MIB
ARRIVED = 85 * MIB

pytestmark = pytest.mark.slow


@dataclass
class Broken:
    """A transfer from a to b that will be disturbed, and what it must come to."""

    root: Path
    before: dict[bytes, Entry]

    def run(self, observer: SilentObserver | None = None, **options: Any) -> Report:
        """One attempt."""
        options = {
            "source": Endpoint(str(self.root), "a"),
            "target": Endpoint(str(self.root), "b"),
            "transfer_id": "broken",
            "mode": Mode.MOVE,
            **options,
        }
        return engine.run(Request(**options), observer)

    def breaks(self, act: Callable[[], object], **options: Any) -> engine.EngineError:
        """Run it, do that half-way; what it is ended by."""
        disturber = Disturber(lambda: staged(self.root / "b") >= ARRIVED, act)
        with pytest.raises(engine.EngineError) as caught:
            self.run(disturber, bwlimit=60 * MIB, **options)
        assert disturber.done
        return caught.value

    def assert_kept(self, error: engine.EngineError) -> None:
        """Fail unless it can be gone on with, and nothing shows and nothing is lost."""
        assert error.kept
        assert error.retry == "transient"
        assert "\n" not in str(error)
        assert os.listdir(self.root / "b") == [staging(self.root / "b")[0].name]
        assert whole(self.root / "a") == self.before

    def assert_resumed(self, **options: Any) -> None:
        """Fail unless it goes on, and ends as if nothing had happened."""
        report = self.run(resume=True, **options)
        assert (report.status, report.failures_total) == ("done", 0)
        assert ARRIVED - LOST_OF_A_FILE <= report.bytes_resumed < SMALL + LARGE
        assert report.bytes_resumed >= SMALL
        assert_equal_trees(self.before, whole(self.root / "b"))
        assert os.listdir(self.root / "a") == []


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Broken]:
    """A tree to be disturbed; it takes two seconds to transfer."""
    build_many(tmp_path / "a", SMALL // (32 << 10))
    build_large(tmp_path / "a" / "z" / "large.mov", LARGE)
    before = processes_beside()
    yield Broken(tmp_path, whole(tmp_path / "a"))
    wait_until(lambda: processes_beside() <= before)


def own_agents() -> list[int]:
    """The agents of a transfer of this process: of each stream the target's, then the source's."""
    return sorted(
        pid
        for pid in processes_beside()
        if b"engine.agent.main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )


@pytest.mark.parametrize("streams", [nightly(1), 3])
@pytest.mark.parametrize(
    ("agents", "more"),
    [(slice(0, 1), {}), (slice(1, 2), {}), (slice(None), {"attempt": 2})],
    ids=["target", "source", "all"],
)
def test_a_transfer_with_one_or_all_agents_killed_is_kept_and_resumed(
    broken: Broken, agents: slice, more: dict[str, int], streams: int
) -> None:
    def kill() -> None:
        for pid in own_agents()[agents]:
            os.kill(pid, signal.SIGKILL)

    error = broken.breaks(kill, streams=streams)

    assert type(error) is engine.AgentLost
    broken.assert_kept(error)
    broken.assert_resumed(streams=streams, **more)


def ends(broken: Broken, side: str, access: SshAccess) -> dict[str, Endpoint]:
    """The end of the transfer that is behind ssh."""
    return {side: Endpoint(str(broken.root), "ab"[side == "target"], access)}


@pytest.mark.parametrize("streams", [nightly(1), 3])
@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("what", ["sshd", "python"])
def test_a_transfer_whose_ssh_session_ended_is_kept_and_resumed(
    broken: Broken, fresh_sshd: Sshd, what: str, side: str, streams: int
) -> None:
    def kill() -> None:
        for pid in fresh_sshd.sessions():
            if Path(f"/proc/{pid}/comm").read_text().startswith(what):
                os.kill(pid, signal.SIGKILL)

    far = ends(broken, side, through(fresh_sshd))
    error = broken.breaks(kill, streams=streams, **far)

    assert isinstance(error, engine.ConnectionLost)
    broken.assert_kept(error)
    broken.assert_resumed(streams=streams, **far)
    wait_until(lambda: not fresh_sshd.sessions())


@pytest.mark.parametrize("streams", [nightly(1), 3])
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_transfer_whose_connection_broke_is_kept_and_resumed(
    broken: Broken, sshd: Sshd, side: str, streams: int
) -> None:
    with Relay(sshd.host, sshd.port) as relay:
        spoilt = through(sshd)._replace(port=relay.port)
        far = ends(broken, side, spoilt)
        error = broken.breaks(relay.drop, streams=streams, **far)

        assert type(error) is engine.ConnectionLost
        broken.assert_kept(error)
        broken.assert_resumed(streams=streams, **far)
    wait_until(lambda: not sshd.sessions())


def test_a_transfer_whose_connection_broke_three_times_keeps_more_each_time(
    broken: Broken, sshd: Sshd
) -> None:
    before = 0
    with Relay(sshd.host, sshd.port) as relay:
        far = ends(broken, "target", through(sshd)._replace(port=relay.port))
        for attempt, arrived in enumerate((30, 60, 90), 1):
            due = staged_at_least(broken.root / "b", arrived * MIB)
            with pytest.raises(engine.ConnectionLost) as caught:
                broken.run(
                    Disturber(due, relay.drop),
                    attempt=attempt,
                    resume=True,
                    bwlimit=60 * MIB,
                    **far,
                )
            broken.assert_kept(caught.value)
            assert staged(broken.root / "b") > before
            before = staged(broken.root / "b")
    broken.assert_resumed(attempt=4)


def staged_at_least(target: Path, size: int) -> Callable[[], bool]:
    return lambda: staged(target) >= size


def test_a_refused_reconnection_keeps_what_has_arrived(broken: Broken, fresh_sshd: Sshd) -> None:
    far = ends(broken, "target", through(fresh_sshd))
    error = broken.breaks(fresh_sshd._end, **far)
    assert isinstance(error, engine.ConnectError)
    before = staged(broken.root / "b")

    with pytest.raises(engine.ConnectionRefused):
        broken.run(resume=True, **far)

    assert staged(broken.root / "b") == before
    broken.assert_resumed()


def test_the_next_attempt_without_resume_starts_over(broken: Broken) -> None:
    error = broken.breaks(lambda: os.kill(own_agents()[0], signal.SIGKILL))
    broken.assert_kept(error)

    report = broken.run(attempt=2)

    assert (report.status, report.bytes_resumed, report.files_resumed) == ("done", 0, 0)
    assert_equal_trees(broken.before, whole(broken.root / "b"))


def test_discard_removes_all_that_a_lost_transfer_left_at_the_target(broken: Broken) -> None:
    broken.breaks(lambda: os.kill(own_agents()[0], signal.SIGKILL))
    here, there = Endpoint(str(broken.root), "a"), Endpoint(str(broken.root), "b")

    engine.discard(Request(here, there, "broken", attempt=1))

    assert not (broken.root / "b").exists()
    assert whole(broken.root / "a") == broken.before
    assert not any(map(running, own_agents()))
