"""Listener: reads an agent's messages in its own thread, and says if the agent gets on."""

from __future__ import annotations

import io
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from engine import errors
from engine.agent import wire
from engine.agent.typed import NamedTuple
from engine.connect.ssh_options import CONNECT_SECONDS
from engine.protocol.commands import Command
from engine.protocol.fields import Failure
from engine.protocol.messages import Beat, Done, Failed, Message, read_message

#: Seconds of silence after which an agent counts as stalled; agents send a beat every second.
SILENCE_SECONDS = 45.0
#: Seconds that an agent may take to introduce itself.
HELLO_SECONDS = CONNECT_SECONDS * 2 + 5.0
#: Seconds of a step in which an agent sends beats, and neither a message nor a sign of work.
STANDSTILL_SECONDS = 300.0
#: The same for a step that flushes files to a disk: one system call may take that long.
FLUSH_SECONDS = 1800.0
#: Seconds of one step, however the agent gets on with it; each MiB that was announced adds one.
STEP_SECONDS = 24 * 3600.0
#: Messages of an agent that may wait for the worker; then the agent waits. The source may finish
#: its scan before the target's host has let the worker in.
WAITING_MESSAGES = 32
#: And bytes of messages; one message may be larger.
WAITING_BYTES = 32 << 20
#: Bytes that are kept of the output before an agent's first message.
_NOISE = 8192
#: What a text begins with that is in place of a frame, whose length has zeros.
_TEXT = bytes(range(32, 127)) + b"\t\r\n"


class Patience(NamedTuple):
    """How long a worker waits for an agent (seconds); see the constants of those names."""

    hello: float
    silence: float
    standstill: float
    flush: float
    step: float

    @classmethod
    def usual(cls) -> Patience:
        """Return the patience of a transfer."""
        return cls(HELLO_SECONDS, SILENCE_SECONDS, STANDSTILL_SECONDS, FLUSH_SECONDS, STEP_SECONDS)


class Pulse:
    """An agent's signs of life, and the steps that it has not ended yet.

    The worker's thread gives steps; the listener's thread writes all else.
    """

    def __init__(self) -> None:
        #: Commands without a reply yet, and when the first of them became the first.
        self._steps: list[Command[Any]] = []
        self._since = time.monotonic()
        #: When the agent last sent a message, and last a sign of work (monotonic clock).
        self._heard = self._got_on = time.monotonic()
        self._work = -1
        #: True if the agent waits for the one at the other end, by its own word.
        self.waits = False

    def beat(self, beat: Beat) -> None:
        """Record a beat: a sign of work if the agent has used processor time since the last."""
        self._heard = time.monotonic()
        self.waits = beat.waits
        if beat.work != self._work:
            self._work, self._got_on = beat.work, self._heard

    def message(self) -> None:
        """Record another message, which is a sign of work; or that the worker was stopped."""
        self._heard = self._got_on = time.monotonic()

    def give(self, *commands: Command[Any]) -> None:
        """Record commands that the agent is given, in its order."""
        if not self._steps:
            self._since = time.monotonic()
        self._steps += commands

    def answered(self, op: str) -> None:
        """Record a reply: the next step begins."""
        for command in self._steps:
            if command.op == op:
                self._steps.remove(command)
                self._since = time.monotonic()
                return

    def step(self, now: float) -> tuple[Command[Any], float] | None:
        """Return the agent's present step, and its seconds; None if the agent has no work."""
        steps = self._steps[:1]  # In one go: the other thread may take it away.
        return (steps[0], now - self._since) if steps else None

    def suspend(self) -> None:
        """Measure nothing until the next message: the agent waits for the worker."""
        self._heard = self._got_on = math.inf

    def silence(self, now: float) -> float:
        """Return the seconds since the last message; negative while suspended."""
        return now - self._heard

    def standstill(self, now: float) -> float:
        """Return the seconds since the last sign of work; negative while suspended."""
        return now - self._got_on


class Listener:
    """Passes an agent's messages to `put`, and None once the stream has ended.

    Beats are not passed on; if one reports it, `sibling_died` is called. `place` names the host.
    """

    def __init__(
        self,
        place: str,
        put: Callable[[Message | None], None],
        sibling_died: Callable[[], None],
    ) -> None:
        self._place, self._put, self._sibling_died = place, put, sibling_died
        self.stream: BinaryIO = io.BytesIO()
        #: The output before the first message: a shell's greeting, or why no agent started.
        self.noise = b""
        #: True if the agent's messages come in pieces: at its host others write to its streams.
        self.is_shared = False
        self.pulse = Pulse()
        self._room = threading.Condition()
        #: The sizes of the messages that wait for the worker, in bytes, and their sum.
        self._waiting: deque[int] = deque()
        self._waiting_bytes = 0
        self._is_closed = False
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self, stream: BinaryIO) -> None:
        """Start to read a stream; raises HostTrouble if no thread can be started."""
        self.stream = stream
        try:
            self.thread.start()
        except RuntimeError as error:  # "can't start new thread"
            raise errors.of_this_machine(error) from error

    def taken(self) -> None:
        """Make room for a message: the worker has taken one.

        It is mostly the oldest; the sum is right again once the others are taken.
        """
        with self._room:
            if self._waiting:
                self._waiting_bytes -= self._waiting.popleft()
            self._room.notify()

    def close(self) -> None:
        """Let the thread read to the end of the stream, however many messages wait."""
        with self._room:
            self._is_closed = True
            self._room.notify()

    def dispose(self, until: float) -> None:
        """Wait for the thread until `until` (monotonic clock), and close the stream."""
        if self.thread.ident is not None:  # Else no thread could be started.
            self.thread.join(timeout=max(0.0, until - time.monotonic()))
        # If another process keeps the stream open, close would block the worker.
        if not self.thread.is_alive():
            self.stream.close()

    def run(self) -> None:
        """Read messages to the end of the stream; the thread's own function.

        A malformed message is the agent's failure: what follows is not trusted.
        """
        try:
            if self._skip_noise():
                while True:
                    self._read_one()
        except (wire.EndOfStream, ValueError):
            pass  # The messages end here, or the stream is closed; the process's end says why.
        except wire.AgentError as error:
            self._put(Failed(Failure(error.code, f"the agent on {self._place}: {error}")))
        except (OSError, MemoryError) as error:
            trouble = errors.of_this_machine(error)
            self._put(Failed(Failure(trouble.code, str(trouble))))
        finally:
            self._put(None)  # Whatever happens: a reader may be waiting.

    def _read_one(self) -> None:
        """Read one message; raises AgentError if it is malformed, EndOfStream at the end."""
        body = self._read_body()
        message = read_message(body)
        if isinstance(message, Beat):
            self.pulse.beat(message)
            if not message.sibling_lives:
                self._sibling_died()
            return
        self.pulse.message()
        if isinstance(message, Done):
            self.pulse.answered(message.op)
        self._wait_for_room(len(body))
        self._put(message)

    def _wait_for_room(self, size: int) -> None:
        with self._room:
            self.pulse.suspend()  # While the message waits, the worker is the slow one.
            self._room.wait_for(lambda: self._is_closed or self._has_room(size))
            self.pulse.message()
            self._waiting.append(size)
            self._waiting_bytes += size

    def _has_room(self, size: int) -> bool:
        """True if the message may wait for the worker beside those that do."""
        if not self._waiting:
            return True
        fits = self._waiting_bytes + size <= WAITING_BYTES
        return fits and len(self._waiting) < WAITING_MESSAGES

    def _read_body(self) -> bytes:
        """Read a message's frame; a text in its place is the end, as a killed agent's shell says.

        Raises AgentError for another frame: payload never comes this way.
        """
        header = read_exactly(self.stream, wire.HEADER.size)
        if not header.translate(None, _TEXT):
            raise wire.EndOfStream
        kind, size = wire.check_header(*wire.HEADER.unpack(header))
        if kind != wire.JSON:
            raise wire.AgentError(
                "AGENT_FAILED",
                f"protocol error: a frame of type {kind!r} came in place of a message",
            )
        return read_exactly(self.stream, size)

    def _skip_noise(self) -> bool:
        """Skip a banner or a shell's greeting; False if the agent sent nothing."""
        came = b""
        while not came.endswith(wire.MAGIC):
            line = self.stream.readline(_NOISE)
            self.noise = came = (came + line)[-_NOISE:]
            if not line:
                return False
        self.is_shared = came.endswith(next(iter(wire.cut(wire.MAGIC))))
        if self.is_shared:
            self.stream = cast("BinaryIO", _Pieces(self.stream))
        return True


class _Pieces:
    """A stream's pieces as one stream, without what others wrote between them."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._came, self._data = bytearray(), b""
        self.close = stream.close

    def read(self, size: int) -> bytes:
        """Read between 1 and `size` bytes; b"" at the end."""
        while not self._data:
            self._data = wire.first_piece(self._came)
            if not self._data:
                more = self._stream.read1(1 << 16)  # type: ignore[attr-defined]
                if not more:
                    return b""
                self._came += more
        data, self._data = self._data[:size], self._data[size:]
        return data


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """Read `size` bytes; raises wire.EndOfStream if the stream ends before."""
    data = stream.read(size)
    while data is not None and len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            break
        data += more
    if not data or len(data) < size:
        if size == 0:
            return b""
        raise wire.EndOfStream
    return data
