"""Listener: reads an agent's messages in its own thread, and measures the agent's silence."""

from __future__ import annotations

import io
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from engine import errors
from engine.agent import wire
from engine.connect.ssh_options import CONNECT_SECONDS
from engine.protocol.fields import Failure
from engine.protocol.messages import Beat, Failed, Message, read_message

if TYPE_CHECKING:
    from engine.connect.agent_process import AgentProcess

#: Seconds of silence after which an agent counts as stalled; agents send a beat every 3 seconds.
SILENCE_SECONDS = 45.0
#: Seconds that an agent may take to introduce itself.
HELLO_SECONDS = CONNECT_SECONDS * 2 + 5.0
#: Messages of an agent that may wait for the worker; then the agent waits. The source may finish
#: its scan before the target's host has let the worker in.
WAITING_MESSAGES = 32
#: And bytes of messages; one message may be larger.
WAITING_BYTES = 32 << 20
#: Bytes that are kept of the output before an agent's first message.
_NOISE = 8192
#: What a text begins with that is in place of a frame, whose length has zeros.
_TEXT = bytes(range(32, 127)) + b"\t\r\n"


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
        self._silent_since = time.monotonic()
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

    def silence(self, now: float) -> float:
        """Return the seconds since the last message; negative while one waits for the worker."""
        return now - self._silent_since

    def reset_silence(self) -> None:
        """Measure the silence from now on: the worker itself was stopped."""
        self._silent_since = time.monotonic()

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

    def dispose(self) -> None:
        """Wait for the thread, and close the stream."""
        if self.thread.ident is not None:  # Else no thread could be started.
            self.thread.join(timeout=2.0)
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
        self._silent_since = time.monotonic()
        message = read_message(body)
        if isinstance(message, Beat):
            if not message.sibling_lives:
                self._sibling_died()
            return
        self._wait_for_room(len(body))
        self._put(message)

    def _wait_for_room(self, size: int) -> None:
        with self._room:
            self._silent_since = math.inf  # While the message waits, the worker is the slow one.
            self._room.wait_for(lambda: self._is_closed or self._has_room(size))
            self._silent_since = time.monotonic()
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
            byte = self.stream.read(1)
            if not byte:
                self.noise = came
                return False
            came = (came + byte)[-_NOISE:]
        return True


def check_silence(agent: AgentProcess, now: float) -> None:
    """Raises HostUnreachable or Stalled if the agent has been silent for too long."""
    if agent.child.is_closed:
        return
    silent = agent.listener.silence(now)
    if not agent.greeted and silent > HELLO_SECONDS:
        raise errors.HostUnreachable(f"{agent.place} did not answer in {HELLO_SECONDS:.0f} s")
    if agent.greeted and silent > SILENCE_SECONDS:
        raise errors.Stalled(f"{agent.place} has been silent for {silent:.0f} s")


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
