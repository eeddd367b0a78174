"""A far line on one machine: a TCP relay that holds every byte back for a while.

    python delay.py --to HOST:PORT [--delay 0.025]

It prints the port it listens on at 127.0.0.1 and ends when its stdin does, so
that it cannot outlive the one who started it. `--delay` is in seconds per
direction; a round trip costs twice that. Order is kept, nothing is lost, and
a direction that holds 32 MiB takes nothing more until some of it has left.

It is a process of its own and one loop over non-blocking sockets, so that it
takes as little as possible from what is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator

READ_BYTES = 512 * 1024
HELD_BYTES = 32 * 1024 * 1024
#: Less than this is not worth an own call of send.
SENT_TOGETHER = 16


class Lane:
    """One direction of one connection: what came in waits until it is due."""

    def __init__(self, reader: socket.socket, writer: socket.socket) -> None:
        self.reader = reader
        self.writer = writer
        self.line: deque[tuple[float, memoryview]] = deque()
        self.held = 0
        self.read_all = False
        self.blocked = False
        self.done = False

    @property
    def wants_input(self) -> bool:
        """Whether it has room for more."""
        return not self.read_all and not self.done and self.held < HELD_BYTES

    def read(self, delay: float) -> None:
        """Take in what is there; its end waits in line like everything else."""
        try:
            chunk = self.reader.recv(READ_BYTES)
        except BlockingIOError:
            return
        self.read_all = not chunk
        self.held += len(chunk)
        self.line.append((time.monotonic() + delay, memoryview(chunk)))

    def write(self, now: float) -> None:
        """Let out what is due, as far as the other side takes it."""
        self.blocked = False
        while self.line and self.line[0][0] <= now:
            if not self.line[0][1]:
                self.done = True
                self.line.clear()
                with contextlib.suppress(OSError):  # The other side may have gone already.
                    self.writer.shutdown(socket.SHUT_WR)
                return
            if not self._send(now):
                self.blocked = True
                return

    def _send(self, now: float) -> bool:
        """Send the first few that are due; False if the other side takes no more for now."""
        batch: list[memoryview] = []
        for due, chunk in self.line:
            if due > now or not chunk or len(batch) == SENT_TOGETHER:
                break
            batch.append(chunk)
        try:
            sent = self.writer.sendmsg(batch)
        except BlockingIOError:
            return False
        self.held -= sent
        for chunk in batch:
            if sent < len(chunk):
                self.line[0] = (self.line[0][0], chunk[sent:])
                return False
            sent -= len(chunk)
            self.line.popleft()
        return True


class Delay:
    """All connections through the relay, in one loop."""

    def __init__(self, target: tuple[str, int], delay: float) -> None:
        self._target = target
        self._delay = delay
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._pairs: list[tuple[Lane, Lane]] = []
        self.port: int = self._listener.getsockname()[1]

    def run(self, until: int) -> None:
        """Carry until the file descriptor `until` becomes readable."""
        while True:
            reading = {lane.reader: lane for lane in self._lanes() if lane.wants_input}
            writing = {lane.writer: lane for lane in self._lanes() if lane.blocked}
            wait = self._wait(time.monotonic())
            awaited: list[int | socket.socket] = [until, self._listener, *reading]
            ready, free, _ = select.select(awaited, list(writing), [], wait)
            if until in ready:
                return
            if self._listener in ready:
                self._accept()
            for one in ready:
                if isinstance(one, socket.socket) and one in reading:
                    self._guarded(reading[one], reads=True)
            now = time.monotonic()
            for lane in list(self._lanes()):
                if lane.line and (not lane.blocked or lane.writer in free):
                    self._guarded(lane, now=now)
            self._forget_the_finished()

    def _lanes(self) -> Iterator[Lane]:
        for pair in self._pairs:
            yield from pair

    def _wait(self, now: float) -> float | None:
        """Seconds until the next chunk is due; None if nothing waits for its time."""
        dues = [lane.line[0][0] for lane in self._lanes() if lane.line and not lane.blocked]
        return max(0.0, min(dues) - now) if dues else None

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(self._target)
        except OSError:
            near.close()
            return
        for one in (near, far):
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs.append((Lane(near, far), Lane(far, near)))

    def _guarded(self, lane: Lane, reads: bool = False, now: float = 0.0) -> None:
        """Read or write; a broken connection is broken for both its directions."""
        try:
            if reads:
                lane.read(self._delay)
            else:
                lane.write(now)
        except OSError:
            for pair in self._pairs:
                if lane in pair:
                    for one in pair:
                        one.done = True
                        one.line.clear()

    def _forget_the_finished(self) -> None:
        for pair in [pair for pair in self._pairs if all(lane.done for lane in pair)]:
            self._pairs.remove(pair)
            pair[0].reader.close()
            pair[0].writer.close()


def main() -> None:
    """Listen, say where, carry until stdin ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--delay", type=float, default=0.025, help="seconds per direction")
    options = parser.parse_args()
    host, _, port = options.to.rpartition(":")
    relay = Delay((host, int(port)), options.delay)
    print(relay.port, flush=True)
    relay.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
