"""Agents that answer nonsense, too much or for another: the worker believes nothing of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine
from engine import Mode, Strategy, errors
from engine.agent import wire
from engine.hub import Hub
from engine.links import Link
from engine.load import Load
from engine.plan import Parcel
from engine.spool import Block
from engine.types import ParcelKind
from tests.engine.conftest import Run
from tests.engine.test_hostile_hosts import Lie, lie, tree
from tests.rig import answers, hostile
from tests.rig.answers import Parrot
from tests.rig.hostile import facts

PROJECT = Path(__file__).parents[2]
__all__ = ["lie", "tree"]

#: Put before the agent's way to speak, in the module of one end: `body`, `blob` are what it says.
TWIST = """
from engine.agent.desk import Desk
_say = Desk.say
def say(self, body, blob=b""):
    done = body.get("done", {})
    more = []
    if CONDITION:
        CHANGE
    _say(self, body, blob)
    for one in more:
        _say(self, *one)
Desk.say = say
"""


def twist(condition: str, change: str) -> str:
    return TWIST.replace("CONDITION", condition).replace("CHANGE", change)


GOT, SENT = '"got" in done', '"sent" in done'
#: What a target says of a parcel, and the code that the transfer ends with.
REFUSED: dict[str, tuple[str, str, str]] = {
    "digests of another list": (GOT, 'done["list"] = "00" * 16', "CHECKSUM_MISMATCH"),
    "other digests": (GOT, "blob = bytes(reversed(blob))", "CHECKSUM_MISMATCH"),
    "no digests": (GOT, 'blob = b""', "CHECKSUM_MISMATCH"),
    "a digest that says there is none": (GOT, "blob = bytes(len(blob))", "CHECKSUM_MISMATCH"),
    "digests of another parcel": (GOT, 'done["got"] += 1', "AGENT_FAILED"),
    "the answer twice": (GOT, "more = [(body, blob)]", "AGENT_FAILED"),
}


@pytest.mark.parametrize(
    "sort",
    REFUSED,
)
def test_a_target_that_answers_something_else_ends_the_move(
    tree: Path, run: Run, lie: Lie, sort: str
) -> None:
    condition, change, code = REFUSED[sort]
    lie(target=twist(condition, change))
    before = facts(tree / "a")

    with pytest.raises(engine.EngineError) as caught:
        run(mode=Mode.MOVE, strategy=Strategy.FILES)

    assert caught.value.code == code
    assert facts(tree / "a") == before
    if (
        sort != "the answer twice"
    ):  # It comes when publishing has been asked for, of what is proven.
        assert [path.name for path in (tree / "b").iterdir()] == ["private"]


#: Answers that are of no form we know: which end says them, when, and what.
SHAPELESS: dict[str, tuple[str, str, str]] = {
    "an error that is no pair": ("target", GOT, 'body = {"error": 5}'),
    "an error of odd types": ("target", GOT, 'body = {"error": [[], {}]}'),
    "an answer that is no object": ("target", GOT, 'body = {"done": 5}'),
    "an answer without its fields": ("target", GOT, 'body = {"done": {"got": done["got"]}}'),
    "errors that are none": ("source", SENT, 'done["errors"] = 5'),
    "an error of one entry that is no pair": ("source", SENT, 'done["errors"] = {"0": 5}'),
    "progress that is no number": ("target", GOT, 'body = {"progress": "x", "parcel": 1}'),
    "a word of our own": ("source", SENT, 'body = {"lost": 1}'),
    "a scan's list that is none": ("source", '"entries" in body', "blob = b'x'"),
    "a failure that is no triple": ("source", '"failures" in body', 'body = {"failures": [1]}'),
    "a failure that is no text": (
        "source", '"failures" in body', r'body = {"failures": [["\ud800", "X", "x"]]}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("sort", SHAPELESS)
def test_an_answer_of_no_known_form_is_the_agents_failure(
    tree: Path, run: Run, lie: Lie, sort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, condition, change = SHAPELESS[sort]
    lie(**{end: twist(condition, change)})
    # The agent has said nonsense, and waits to be asked more: nobody need wait for its end.
    has_ended = Link.has_ended
    monkeypatch.setattr(
        Link, "has_ended", lambda self, until: has_ended(self, min(until, time.monotonic() + 0.5))
    )

    with pytest.raises(engine.EngineError) as caught:
        run()

    assert caught.value.code == "AGENT_FAILED"


@pytest.mark.parametrize("code", ["REPLACED", "TARGET_BUSY", "CANCELLED"])
def test_a_source_cannot_say_that_the_transfer_is_somebody_elses(
    tree: Path, run: Run, lie: Lie, code: str
) -> None:
    lie(source=twist(SENT, f'body = {{"error": ["{code}", "x"]}}'))

    with pytest.raises(engine.EngineError) as caught:
        run()

    assert caught.value.code == "AGENT_FAILED"
    assert [path.name for path in (tree / "b").iterdir()] == ["private"]


def test_a_source_cannot_answer_for_the_target(
    tree: Path, run: Run, lie: Lie, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both digests of a file in slices are the source's; the target's own never comes."""
    monkeypatch.setattr("engine.plan.LARGE", 1 << 20)
    monkeypatch.setattr("engine.plan.SLICE", 1 << 18)
    monkeypatch.setattr("engine.planning.WORTH_A_STREAM", 1 << 18)
    (tree / "a" / "large").write_bytes(b"content" * 400_000)
    lie(
        look=twist(
            'done.get("whole")',
            "more = [(body, blob)] if self._of_source else [({'progress': 0, 'parcel': 0}, b'')];"
            " body = body if self._of_source else {'progress': 0, 'parcel': 0}",
        ).replace("Desk.say = say", "Desk.say, Desk._of_source = say, False"),
        source="from engine.agent.desk import Desk\nDesk._of_source = True\n",
        target=twist('done.get("whole")', "body = {'progress': 0, 'parcel': 0}"),
    )

    class NotForever(engine.SilentObserver):
        until = time.monotonic() + 3.0

        def checkpoint(self) -> None:
            if time.monotonic() > self.until:
                raise engine.Cancelled("nothing was believed")

    with pytest.raises(engine.Cancelled):
        run(NotForever(), streams=2)


@pytest.mark.parametrize("digests", [b"", b"x", bytes(32) + b"x"])
def test_too_few_digests_prove_nothing_though_both_ends_tell_the_same(digests: bytes) -> None:
    blob = wire.pack_entries([hostile.entry("one"), hostile.entry("two")])
    load = Load(Parcel(1, ParcelKind.FILE, 2, 0, Block(0, len(blob))), blob)
    sent = {"blob": digests, "errors": {}}

    assert not load.all_proven(sent, dict(sent))
    load.sort(sent, dict(sent))

    assert load.proven == []


# -- the ends of the links -------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[Hub]:
    until = time.monotonic() + 3.0

    def checkpoint() -> None:
        if time.monotonic() > until:
            raise errors.Stalled("nothing came")

    hub = Hub(checkpoint)
    yield hub
    hub.close()


def silent(hub: Hub) -> Parrot:
    """A link whose own end is forgotten: what comes of it is put in by the test."""
    link = Parrot(hub, b"")
    link._reader.join()
    hub._arrived.get()
    return link


def test_the_end_of_a_further_stream_costs_no_answer_of_the_others(hub: Hub) -> None:
    further, first = silent(hub), silent(hub)
    further.dispensable = True
    hub.put(further, None)
    hub.put(first, {"done": {"got": 1}, "blob": b""})

    assert "lost" in hub.next()[1]
    assert hub.next() == (first, {"done": {"got": 1}, "blob": b""})


def test_the_end_of_a_further_stream_hides_no_error_of_the_others(hub: Hub) -> None:
    further, first = silent(hub), silent(hub)
    further.dispensable = True
    hub.put(further, None)
    hub.put(first, {"error": ["NO_SPACE", "the disk is full"]})

    hub.next()
    with pytest.raises(engine.NoSpace):
        hub.next()


def test_an_answer_of_brackets_ends_the_link() -> None:
    assert answers.heard(wire.MAGIC + hostile.frame(wire.JSON, b"[" * 100_000)) == "done"


_FLOOD = """
import sys
from engine.agent import wire
from engine.hub import Hub
from engine.load import Load
from engine.plan import Parcel
from engine.spool import Block
from engine.types import ParcelKind
from tests.rig.answers import Parrot
from tests.rig.hostile import peak_kib
import io, os, time
class Endless(io.RawIOBase):
    left = 200
    said = memoryview(wire.MAGIC)
    def readable(self):
        return True
    def readinto(self, room):
        if not self.said and self.left:
            self.left -= 1
            self.said = memoryview(wire.encode(wire.JSON, {WHAT: []}, bytes(1 << 20)))
        part = self.said[:len(room)]
        room[:len(part)] = part
        self.said = self.said[len(part):]
        return len(part)
Start = Parrot._start
def start(self, *ends):
    process = Start(self, *ends)
    process.stderr = io.BufferedReader(Endless())
    return process
Parrot._start = start
hub = Hub(lambda: None)
before = peak_kib()
link = Parrot(hub, b"")
left = -1
while left != Endless.left:  # Until it has said all, or is not listened to any more.
    left = Endless.left
    time.sleep(2)
print(peak_kib() - before)
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.parametrize(
    "what",
    [
        "entries",
        "failures",
        "anything",
    ],
)
def test_an_agent_that_talks_without_end_fills_no_memory(what: str) -> None:
    code = _FLOOD.replace("WHAT", repr(what))

    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, timeout=60, check=True
    )

    assert int(ended.stdout) < 100 << 10  # KiB, of 200 MiB that were said.
