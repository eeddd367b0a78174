"""Every step ends: an agent that hangs, works for ever or lists for ever is given up, by name.

The agents are ours with more Python in them: they go on to send beats.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Mode, Strategy
from engine.agent.main import work_clock
from engine.connect import endings, listener
from engine.connect.listener import Pulse
from engine.protocol.commands import COMMANDS, HASH, PUBLISH, SCAN
from engine.protocol.messages import Beat
from engine.types import Phase
from tests.rig.lanes import nightly
from tests.rig.lying import Lie
from tests.rig.observers import Disturber
from tests.rig.project import PROJECT
from tests.rig.transfers import Run
from tests.rig.trees import build_small
from tests.rig.waiting import wait_until

#: An agent of one end that hangs in a command, or works at it for ever.
HANG = """
_carry_out = Agent._carry_out
def _stop(self, command):
    if command["op"] == "OP" and self._end == "END":
        while True:
            WAIT
    _carry_out(self, command)
Agent._carry_out = _stop
"""
#: A target that says that some entries could not take their place.
REFUSE = """
_publish = PublishCommands.do_publish
def _refuse(self, **arguments):
    return {**_publish(self, **arguments), "refused": True}
PublishCommands.do_publish = _refuse
"""
#: A receiver that hangs in a parcel.
HANG_IN_PARCEL = """
def _stop(self, reader, head):
    import time
    while True:
        time.sleep(60)
Target.receive = _stop
"""
#: A sender that hangs in a file that it reads.
HANG_IN_FILE = """
def _stop(self, *_):
    import time
    while True:
        time.sleep(60)
Sender._file = Sender._member = _stop
"""


def hang(end: str, op: str, wait: str = "time.sleep(60)") -> str:
    return HANG.replace("OP", op).replace("END", end).replace("WAIT", wait)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of a standstill in seconds that a test can wait for."""
    monkeypatch.setattr(listener, "STANDSTILL_SECONDS", 2.0)
    monkeypatch.setattr(listener, "FLUSH_SECONDS", 2.0)


def changed_file(tmp_path: Path) -> None:
    """A target that has one of the files, with the same size and time."""
    for at in "ab":
        (tmp_path / at).mkdir(exist_ok=True)
        (tmp_path / at / "same").write_bytes(b"same")
        os.utime(tmp_path / at / "same", ns=(5, 5))


def slices(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(exist_ok=True)
    with open(tmp_path / "a" / "long", "wb") as file:
        file.write(os.urandom(1 << 20))
        file.truncate(600 << 20)


#: Step -> what makes a transfer that has it, and the options of that transfer.
Made = tuple[Callable[[Path], object], dict[str, Any]]
_SMALL: Made = (lambda at: None, {})
_MOVE: Made = (lambda at: None, {"mode": Mode.MOVE})
_SAME: Made = (changed_file, {"mode": Mode.MOVE})
_ARCHIVE: Made = (lambda at: None, {"strategy": Strategy.ARCHIVE, "mode": Mode.MOVE})
STEPS: dict[tuple[str, str], Made] = {
    ("source", "inspect"): _SMALL,
    ("source", "open"): _SMALL,
    ("source", "scan"): _SMALL,
    ("source", "stat"): _SAME,
    ("source", "hash"): _SAME,
    ("source", "relay"): _SMALL,
    ("source", "remove"): _MOVE,
    ("source", "remove_folders"): _MOVE,
    ("target", "inspect"): _SMALL,
    ("target", "open"): _SAME,
    ("target", "compare"): _SAME,
    ("target", "hash"): _SAME,
    ("target", "sync"): _SAME,
    ("target", "stage"): _SMALL,
    ("target", "names"): _SMALL,
    ("target", "expect"): _SMALL,
    ("target", "complete"): (slices, {"streams": 3}),
    ("target", "close_archive"): _ARCHIVE,
    ("target", "inside"): _ARCHIVE,
    ("target", "publish_archive"): _ARCHIVE,
    ("target", "publish"): _SMALL,
    ("target", "unpublished"): _SMALL,
    ("target", "adjust"): _SAME,
    ("target", "clean"): _ARCHIVE,
}
#: Steps that other tests hang, and those whose replies nothing waits for.
ELSEWHERE = {"send", "receive", "check", "discard", "fence_out", "rate", "leave"}
EVERY_TIME = {("source", "scan"), ("target", "publish"), ("source", "remove"), ("target", "sync")}
CASES = [case if case in EVERY_TIME else nightly(*case) for case in STEPS]


def test_every_command_is_hung_by_some_case() -> None:
    assert {op for _, op in STEPS} | ELSEWHERE == set(COMMANDS)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("end", "op"), CASES)
def test_an_agent_that_hangs_and_beats_is_given_up_with_the_name_of_its_step(
    tmp_path: Path, run: Run, lie: Lie, end: str, op: str
) -> None:
    build_small(tmp_path / "a", 5)
    prepare, options = STEPS[end, op]
    prepare(tmp_path)
    refusing = {"target_publish_commands": REFUSE} if op == "unpublished" else {}
    lie(main=hang(end, op), **refusing)
    began = time.monotonic()

    with pytest.raises(engine.Stalled) as caught:
        run(**options)

    assert f"“{COMMANDS[op].step}”" in str(caught.value)
    assert "no sign of work" in str(caught.value)
    assert time.monotonic() - began < 15.0


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("lies", "step", "waits"),
    [
        ({"target_commands": HANG_IN_PARCEL}, "receive a parcel", False),
        ({"source_sender": HANG_IN_FILE}, "send a parcel", False),
    ],
    ids=["receiver", "sender"],
)
def test_of_two_agents_that_stand_still_the_one_that_hangs_is_named(
    tmp_path: Path, run: Run, lie: Lie, lies: dict[str, str], step: str, waits: bool
) -> None:
    build_small(tmp_path / "a", 5)
    with open(tmp_path / "a" / "large", "wb") as file:
        file.write(os.urandom(32 << 20))  # More than the pipe between them holds.
    lie(**lies)

    with pytest.raises(engine.Stalled) as caught:
        run()

    assert f"“{step}”" in str(caught.value)
    assert ("waits for the other end" in str(caught.value)) == waits


@pytest.mark.parametrize(("end", "op"), [("source", "scan"), nightly("target", "publish")])
def test_an_agent_that_works_at_a_step_for_ever_is_given_up(
    tmp_path: Path, run: Run, lie: Lie, monkeypatch: pytest.MonkeyPatch, end: str, op: str
) -> None:
    monkeypatch.setattr(listener, "STEP_SECONDS", 3.0)
    monkeypatch.setattr(endings, "_SLOWEST", 1 << 40)
    build_small(tmp_path / "a", 5)
    lie(main=hang(end, op, "sum(range(1000)); time.sleep(0.01)"))

    with pytest.raises(engine.Stalled, match="has not ended the step"):
        run()


def test_a_scan_without_end_is_given_up_whatever_it_announces(
    tmp_path: Path, run: Run, lie: Lie, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "STEP_SECONDS", 3.0)
    build_small(tmp_path / "a", 5)
    endless = """
import time
def do_scan(self, **_):
    number = 0
    while True:
        number += 1
        entry = Entry("f%d" % number, "f", 1 << 40, 5, 0o644, 0)
        self._context.send({"entries": 1}, pack_entries([entry]))
        time.sleep(0.05)
Source.do_scan = do_scan
"""
    lie(source_commands=endless)

    with pytest.raises(engine.Stalled, match="has not ended the step “list the source”"):
        run()


@pytest.mark.usefixtures("impatient")
def test_an_agent_that_waits_long_for_a_slow_line_is_not_given_up(tmp_path: Path, run: Run) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(bytes(range(256)) * 1000)

    assert run(bwlimit=40_000, streams=1).status == "done"  # Some 6 seconds.


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "lies",
    [
        {"main": hang("target", "publish", "sum(range(10**7)); break")},
        {"source_scan": "import time\n_scan = Scanner.scan\ndef scan(self):\n    until = "
         "time.monotonic() + 4\n    while time.monotonic() < until:\n        os.listdir('/')\n    "
         "_scan(self)\nScanner.scan = scan\n"},
    ],
    ids=["publish", "scan"],
)  # fmt: skip
def test_an_agent_that_works_without_a_message_is_not_given_up(
    tmp_path: Path, run: Run, lie: Lie, lies: dict[str, str]
) -> None:
    build_small(tmp_path / "a", 5)
    lie(**lies)

    assert run().status == "done"


def test_an_agent_may_flush_for_longer_than_it_may_stand_still_elsewhere(
    tmp_path: Path, run: Run, lie: Lie, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "STANDSTILL_SECONDS", 1.5)
    build_small(tmp_path / "a", 5)
    lie(main=hang("target", "publish", "time.sleep(5); break"))

    assert run().status == "done"


#: A phase -> the step that hangs in it, and who hangs.
PHASES = {
    Phase.PREFLIGHT: ("target", "inspect"),
    Phase.SCAN: ("source", "scan"),
    Phase.TRANSFER: ("source", "relay"),
    Phase.PUBLISH: ("target", "publish"),
    Phase.REMOVE_SOURCE: ("source", "remove"),
}


class Cancel(Disturber):
    """Cancels a second after a phase has begun."""

    def __init__(self, phase: Phase) -> None:
        self._phase, self._since, self.at = phase, 0.0, 0.0

    def phase(self, phase: Phase) -> None:
        if phase is self._phase:
            self._since = time.monotonic()

    def checkpoint(self) -> None:
        if self._since and time.monotonic() - self._since > 1.0:
            self.at = self.at or time.monotonic()
            raise engine.Cancelled("enough")


@pytest.mark.parametrize("phase", PHASES)
def test_a_cancel_ends_within_five_seconds_though_an_agent_hangs(
    tmp_path: Path, run: Run, lie: Lie, phase: Phase
) -> None:
    build_small(tmp_path / "a", 5)
    lie(main=hang(*PHASES[phase]))
    observer = Cancel(phase)

    with pytest.raises(engine.Cancelled):
        run(observer, mode=Mode.MOVE)

    assert observer.at
    assert time.monotonic() - observer.at < 5.0
    assert len(os.listdir(tmp_path / "a")) > 0
    assert not list((tmp_path).glob("b/.ketter*"))


@pytest.mark.parametrize("op", ["clean", nightly("open")])
def test_a_cancel_ends_within_five_seconds_though_the_clean_up_hangs(
    tmp_path: Path, run: Run, lie: Lie, op: str
) -> None:
    build_small(tmp_path / "a", 5)
    lie(main=hang("target", "publish") + hang("target", op).replace("_carry_out", "_carry_on")
        .replace("Agent._carry_on", "Agent._carry_out"))  # fmt: skip
    observer = Cancel(Phase.PUBLISH)

    with pytest.raises(engine.Cancelled) as caught:
        run(observer)

    assert time.monotonic() - observer.at < 5.0
    (note,) = caught.value.__notes__
    assert "could not be removed" in note
    assert f"“{COMMANDS[op].step}”" in note


#: The command line, with agents as its first argument changes them.
KILLED = """
import sys
from engine.cli import __main__ as cli
from engine.connect import bundle
source_of = bundle.source_of
more = {"main": sys.argv.pop(1).encode()}
bundle.source_of = lambda name: source_of(name) + more.get(name, b"")
sys.exit(cli.main())
"""


def test_no_agent_outlives_a_killed_worker_though_it_hangs(tmp_path: Path) -> None:
    build_small(tmp_path / "a", 5)
    noted = tmp_path / "pids"
    note = f"open({str(noted)!r}, 'a').write('%d\\n' % os.getpid()); time.sleep(60)"
    worker = subprocess.Popen(
        [sys.executable, "-c", KILLED, hang("source", "scan", note), "--from", tmp_path / "a",
         "--to", tmp_path / "b"],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: noted.exists() and noted.read_text().endswith("\n"))
        (agent,) = map(int, noted.read_text().split())
        assert os.path.exists(f"/proc/{agent}")
    finally:
        worker.kill()
        worker.wait()

    wait_until(lambda: not os.path.exists(f"/proc/{agent}"))


# -- the clock and the pulse -----------------------------------------------------------


def test_the_clock_of_work_stands_still_while_its_thread_sleeps_and_goes_on_while_it_works() -> (
    None
):
    clock = work_clock()
    before = clock()
    time.sleep(0.2)
    asleep = clock() - before
    sum(range(3_000_000))

    assert asleep < 5_000
    assert clock() - before > asleep + 10_000


def test_a_beat_is_a_sign_of_work_only_if_processor_time_was_used() -> None:
    pulse = Pulse()
    pulse.beat(Beat(sibling_lives=True, work=5, waits=False))
    time.sleep(0.1)
    pulse.beat(Beat(sibling_lives=True, work=5, waits=True))
    now = time.monotonic()

    assert pulse.standstill(now) > 0.09
    assert pulse.silence(now) < 0.09
    assert pulse.waits
    pulse.beat(Beat(sibling_lives=True, work=6, waits=False))
    assert pulse.standstill(now) < 0.09


def test_the_step_is_the_first_command_without_a_reply() -> None:
    pulse = Pulse()
    assert pulse.step(time.monotonic()) is None
    pulse.give(SCAN, HASH)
    pulse.give(HASH)
    pulse.answered("publish")  # Nothing waits for it.
    pulse.answered("scan")
    time.sleep(0.05)
    step = pulse.step(time.monotonic())

    assert step
    assert step[0] is HASH
    assert 0.04 < step[1] < 5
    pulse.answered("hash")
    pulse.answered("hash")
    assert pulse.step(time.monotonic()) is None


def test_a_flush_is_given_the_longer_time() -> None:
    assert PUBLISH.flushes
    assert not SCAN.flushes
