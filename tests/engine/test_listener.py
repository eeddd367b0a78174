"""Bytes of an agent that are no messages, and a machine without memory: no thread dies of them."""

from __future__ import annotations

import errno
import io
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from engine.agent import wire
from engine.connect.listener import WAITING_BYTES, Listener
from engine.protocol.messages import Failed, Hello, Message
from tests.rig.lying import Lie, failed_agent, reply_to
from tests.rig.transfers import Run
from tests.rig.waiting import wait_until


def listened(said: bytes | BinaryIO) -> list[Message | None]:
    """What a listener passes on of an agent that says this, up to the end of its thread."""
    passed: list[Message | None] = []
    listener = Listener("lab", passed.append, lambda: None)
    listener.stream = io.BytesIO(wire.MAGIC + said) if isinstance(said, bytes) else said
    listener.run()
    return passed


BEAT = wire.encode(wire.JSON, {"beat": True, "work": 1, "waits": False})
#: What is no message, though frames may look like it.
NO_MESSAGES = {
    "a type that no frame has": wire.HEADER.pack(b"X", 4) + b"abcd",
    "a frame without end": wire.HEADER.pack(wire.JSON, wire.MAX_MESSAGE + 1),
    "bytes": b"\0\xff\0\xff\0\xff\0\xff",
    "payload": wire.HEADER.pack(wire.DATA, 4) + b"abcd",
    **{
        f"a frame {kind!r} in place of a message": wire.encode(
            kind, {"beat": True, "work": 1, "waits": False}
        )
        for kind in (wire.HEAD, wire.MARK, wire.END_ENTRY, wire.END_PARCEL)
    },
}


@pytest.mark.parametrize("what", NO_MESSAGES)
def test_bytes_that_are_no_message_end_the_agent_with_its_failure(what: str) -> None:
    failed, end = listened(BEAT + NO_MESSAGES[what] + BEAT)

    assert end is None
    assert isinstance(failed, Failed)
    assert failed.failure.code == "AGENT_FAILED"
    assert failed.failure.sentence.startswith("the agent on lab: protocol error")


@pytest.mark.parametrize("text", [b"Killed\n", b"bash: line 1: 4711 Killed", b"Traceback (most"])
def test_a_text_in_place_of_a_frame_is_no_agents_and_its_end_says_why(text: bytes) -> None:
    """A shell writes one where the agent was killed: that is no fault of the agent."""
    assert listened(BEAT + text) == [None]


HELLO = {"hello": 1, "python": "3.11", "system": "linux"}


def test_messages_that_wait_for_the_worker_have_32_mib_at_most() -> None:
    """A host may send its longest messages faster than the worker takes them in."""
    one = wire.encode(wire.JSON, {**HELLO, "x": "y" * (3 << 20)})
    said = io.BytesIO(wire.MAGIC + one * 40)
    passed: list[Message | None] = []
    agent = Listener("lab", passed.append, lambda: None)

    agent.start(said)
    wait_until(lambda: len(passed) == WAITING_BYTES // len(one))
    time.sleep(0.1)
    assert len(passed) == WAITING_BYTES // len(one)
    agent.taken()
    wait_until(lambda: len(passed) == WAITING_BYTES // len(one) + 1)
    agent.close()
    agent.thread.join(10)

    assert len(passed) == 40 + 1  # And the end.


def test_a_message_beyond_the_limit_is_passed_on_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.connect.listener.WAITING_BYTES", 1000)
    one = wire.encode(wire.JSON, HELLO, b"z" * 1001)
    passed: list[Message | None] = []
    agent = Listener("lab", passed.append, lambda: None)
    agent.start(io.BytesIO(wire.MAGIC + one * 2))
    wait_until(lambda: len(passed) == 1)
    agent.taken()
    wait_until(lambda: len(passed) >= 2)
    agent.taken()
    agent.thread.join(10)

    assert [isinstance(message, Hello) for message in passed] == [True, True, False]


class Short(io.BytesIO):
    """A stream whose bytes this machine cannot take any more."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(wire.MAGIC + BEAT)
        self._error = error

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() == len(self.getvalue()):
            raise self._error
        return super().read(size)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "x")])
def test_a_machine_without_memory_is_no_dead_thread(error: Exception) -> None:
    failed, end = listened(Short(error))

    assert end is None
    assert isinstance(failed, Failed)
    assert failed.failure.code == "HOST_TROUBLE"
    assert "machine that runs the transfer" in failed.failure.sentence


def test_a_message_that_takes_too_much_memory_is_no_dead_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read_message(body: bytes) -> Message:
        raise MemoryError

    monkeypatch.setattr("engine.connect.listener.read_message", read_message)

    failed, end = listened(BEAT)

    assert isinstance(failed, Failed)
    assert (failed.failure.code, end) == ("HOST_TROUBLE", None)


def test_whoever_waits_learns_of_the_end_whatever_a_bug_does() -> None:
    passed: list[Message | None] = []
    listener = Listener("lab", passed.append, lambda: None)
    listener.stream = Short(ZeroDivisionError("a bug"))

    with pytest.raises(ZeroDivisionError):
        listener.run()

    assert passed == [None]


@pytest.mark.parametrize("end", ["source", "target"])
def test_a_transfer_ends_at_once_at_what_is_no_message(
    tree: Path, run: Run, lie: Lie, end: str
) -> None:
    op = {"source": "send", "target": "receive"}[end]
    frame = wire.HEADER.pack(wire.DATA, 4) + b"abcd"
    lie(**{f"{end}_commands": "import os\n" + reply_to(op, f"os.write(2, {frame!r})")})
    began = time.monotonic()

    assert "a frame of type" in failed_agent(run)

    assert time.monotonic() - began < 4.0
