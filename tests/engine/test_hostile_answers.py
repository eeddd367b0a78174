"""Agents that answer nonsense, too much or for another: the worker believes nothing of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Endpoint, Mode, Request, Strategy, errors
from engine.agent import wire
from engine.carry.in_flight import ParcelInFlight
from engine.connect.child import Child
from engine.connect.inbox import Inbox
from engine.parcels.builder import Parcel
from engine.parcels.spool import Block
from engine.protocol.commands import STAGE
from engine.protocol.fields import Failure, Fields
from engine.protocol.messages import Done, Failed, Lost
from engine.protocol.replies import Nothing, ReceivedReply, SentReply
from engine.session.session import Session
from engine.types import ParcelKind
from tests.rig import answers, hostile
from tests.rig.answers import Parrot
from tests.rig.hostile import facts
from tests.rig.lying import Lie, twist
from tests.rig.needs import needs_proc
from tests.rig.project import PROJECT
from tests.rig.transfers import Run

GOT, SENT = '"got" in done', '"sent" in done'
#: What a target says of a parcel, and the code that the transfer ends with.
REFUSED: dict[str, tuple[str, str, str]] = {
    "digests of another list": (GOT, 'done["list"] = "00" * 16', "CHECKSUM_MISMATCH"),
    "other digests": (GOT, "blob = bytes(reversed(blob))", "CHECKSUM_MISMATCH"),
    "no digests": (GOT, 'blob = b""', "AGENT_FAILED"),
    "a digest that says there is none": (GOT, "blob = bytes(len(blob))", "CHECKSUM_MISMATCH"),
    "digests of another parcel": (GOT, 'done["got"] += 1', "AGENT_FAILED"),
    "the answer twice": (GOT, "more = [(body, blob)]", "AGENT_FAILED"),
}


@pytest.mark.parametrize(
    "sort",
    REFUSED,
)
def test_a_false_reply_of_the_target_to_a_parcel_ends_the_move_and_the_source_stays(
    tree: Path, run: Run, lie: Lie, sort: str
) -> None:
    condition, change, code = REFUSED[sort]
    lie(target_commands=twist(condition, change))
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
def test_a_malformed_reply_ends_the_transfer_with_agent_failed(
    tree: Path, run: Run, lie: Lie, sort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, condition, change = SHAPELESS[sort]
    lie(**{f"{end}_commands": twist(condition, change)})
    # The agent has said nonsense, and waits to be asked more: nobody need wait for its end.
    has_ended = Child.has_ended
    monkeypatch.setattr(
        Child,
        "has_ended",
        lambda self, until: has_ended(self, min(until, time.monotonic() + 0.5)),
    )

    with pytest.raises(engine.EngineError) as caught:
        run()

    assert caught.value.code == "AGENT_FAILED"


@pytest.mark.parametrize("code", ["REPLACED", "TARGET_BUSY", "CANCELLED"])
def test_a_source_that_claims_replaced_busy_or_cancelled_counts_as_agent_failed(
    tree: Path, run: Run, lie: Lie, code: str
) -> None:
    lie(source_commands=twist(SENT, f'body = {{"error": ["{code}", "x"]}}'))

    with pytest.raises(engine.EngineError) as caught:
        run()

    assert caught.value.code == "AGENT_FAILED"
    assert [path.name for path in (tree / "b").iterdir()] == ["private"]


def test_digests_that_the_source_sends_for_the_target_prove_nothing(
    tree: Path, run: Run, lie: Lie, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both digests of a file in slices are the source's; the target's own never comes."""
    monkeypatch.setattr("engine.parcels.builder.LARGE", 1 << 20)
    monkeypatch.setattr("engine.parcels.builder.SLICE", 1 << 18)
    monkeypatch.setattr("engine.plan.streams.WORTH_A_STREAM", 1 << 18)
    (tree / "a" / "large").write_bytes(b"content" * 400_000)
    lie(
        inspect=twist(
            'done.get("whole")',
            "more = [(body, blob)] if self._of_source else [({'progress': 0, 'parcel': 0}, b'')];"
            " body = body if self._of_source else {'progress': 0, 'parcel': 0}",
        ).replace("Context.send = say", "Context.send, Context._of_source = say, False"),
        source_commands="from engine.agent.context import Context\nContext._of_source = True\n",
        target_commands=twist('done.get("whole")', "body = {'progress': 0, 'parcel': 0}"),
    )

    with pytest.raises(engine.AgentFailed, match="unexpected digest"):
        run(streams=2)


@pytest.mark.parametrize("digests", [b"", b"x", bytes(32) + b"x"])
def test_too_few_digests_prove_nothing_even_if_both_ends_send_the_same(digests: bytes) -> None:
    blob = wire.pack_entries([hostile.entry("one"), hostile.entry("two")])
    flight = ParcelInFlight(Parcel(1, ParcelKind.FILE, 2, 0, Block(0, len(blob))), blob)
    sent = SentReply(1, {}, False, "", digests)
    received = ReceivedReply(1, "", {}, (), 0, digests)

    assert not flight.all_proven(sent, received)
    flight.sort(sent, received)

    assert flight.proven == []


# -- the ends of the links -------------------------------------------------------


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    until = time.monotonic() + 3.0

    def checkpoint() -> None:
        if time.monotonic() > until:
            raise errors.Stalled("nothing came")

    inbox = Inbox(checkpoint)
    yield inbox
    inbox.close()


#: The reply to some command.
DONE = Done("sync", Nothing())


def silent(inbox: Inbox) -> Parrot:
    """A link whose own end is forgotten: what comes of it is put in by the test."""
    link = Parrot(inbox, b"")
    link.listener.thread.join()
    inbox._arrived.get()
    return link


def test_the_loss_of_an_optional_stream_loses_no_reply_of_the_others(inbox: Inbox) -> None:
    further, first = silent(inbox), silent(inbox)
    further.optional = True
    inbox.put(further, None)
    inbox.put(first, DONE)

    assert isinstance(inbox.next()[1], Lost)
    assert inbox.next() == (first, DONE)


def test_the_loss_of_an_optional_stream_hides_no_error_of_the_others(inbox: Inbox) -> None:
    further, first = silent(inbox), silent(inbox)
    further.optional = True
    inbox.put(further, None)
    inbox.put(first, Failed(Failure("NO_SPACE", "the disk is full")))

    inbox.next()
    with pytest.raises(engine.NoSpace):
        inbox.next()


def test_a_deeply_nested_json_reply_ends_the_link() -> None:
    assert answers.heard(wire.MAGIC + hostile.frame(wire.JSON, b"[" * 100_000)) == "done"


_FLOOD = """
import sys
from engine.agent import wire
from engine.connect.inbox import Inbox
from engine.carry.in_flight import ParcelInFlight
from engine.parcels.builder import Parcel
from engine.session.session import Session
from engine.parcels.spool import Block
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
Parrot.stream = property(lambda self: io.BufferedReader(Endless()))
inbox = Inbox(lambda: None)
before = peak_kib()
link = Parrot(inbox, b"")
left = -1
while left != Endless.left:  # Until it has said all, or is not listened to any more.
    left = Endless.left
    time.sleep(2)
print(peak_kib() - before)
sys.stdout.flush()
os._exit(0)
"""


@needs_proc
@pytest.mark.parametrize(
    "what",
    [
        "entries",
        "failures",
        "anything",
    ],
)
def test_an_agent_that_talks_without_end_does_not_fill_the_workers_memory(what: str) -> None:
    code = _FLOOD.replace("WHAT", repr(what))

    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, timeout=60, check=True
    )

    assert int(ended.stdout) < 100 << 10  # KiB, of 200 MiB that were said.


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"fresh": True, "transfer_id": "job"},
        {"keeps_owners": True, "transfer_id": "job"},
        {"fresh": True, "keeps_owners": "no", "transfer_id": "job"},
        {"fresh": 1, "keeps_owners": True, "transfer_id": "job"},
        {"fresh": True, "keeps_owners": True},
        {"fresh": True, "keeps_owners": True, "transfer_id": ""},
        {"fresh": True, "keeps_owners": True, "transfer_id": ["job"]},
        {"fresh": True, "keeps_owners": True, "transfer_id": "other"},
    ],
    ids=str,
)
def test_an_invalid_stage_reply_of_the_target_is_refused(answer: dict[str, Any]) -> None:
    ends = Endpoint("/", "a"), Endpoint("/", "b")
    session = Session(Request(*ends, transfer_id="job", on_record=True), lambda: None)

    with pytest.raises((errors.AgentFailed, wire.AgentError), match=r"protocol error|another"):
        session.staging.take_in(STAGE.read(Fields({"left": False, **answer}, b"", "the reply")))
