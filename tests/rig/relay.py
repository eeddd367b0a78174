"""A TCP relay that misbehaves on demand: put it in front of a port and spoil the line.

Every knob is an attribute or a method, may be turned at any time from the
test's thread, and acts on the connections that stand as well as on new ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import Enum

CHUNK = 64 * 1024
QUEUE_CHUNKS = 1024  # What a long line may hold under way: 64 MiB.
TICK = 0.01


class Way(Enum):
    """A direction through the relay, seen from the one who connects."""

    UP = "to the server"
    DOWN = "back to the client"


@dataclass(eq=False)
class _Lane:
    """One direction of one connection."""

    way: Way
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    passed: int = 0
    held: bool = False
    #: (when it may leave, what) with an empty chunk for the end of the stream.
    line: asyncio.Queue[tuple[float, bytes]] = field(
        default_factory=lambda: asyncio.Queue(QUEUE_CHUNKS)
    )


class Relay:
    """Forwards 127.0.0.1:`port` to a target, as badly as asked.

    `delay` is in seconds per direction, `rate` in bytes per second per
    direction and connection (0 for no limit). While `stalled` nothing moves,
    but connections stay up and new ones are accepted.
    """

    host = "127.0.0.1"

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.port = 0
        self.delay = 0.0
        self.rate = 0
        self.stalled = False
        self.flips: dict[Way, int] = {}
        self.passed = {Way.UP: 0, Way.DOWN: 0}
        self._lanes: set[_Lane] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)

    def start(self) -> Relay:
        """Listen; the port is known when this returns."""
        self._thread.start()
        self._run(self._listen())
        return self

    def stop(self) -> None:
        """Stop listening, break what stands, end the thread."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Relay:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def drop(self) -> None:
        """Break every connection with a reset, on both sides."""
        self._run(self._drop())

    def hold(self, held: bool = True) -> None:
        """Let nothing pass on the connections that stand, or all that waited; new ones go on."""
        self._run(self._hold(held))

    def half_close(self, way: Way) -> None:
        """End the stream in one direction of every connection; the other goes on."""
        self._run(self._half_close(way))

    def flip(self, way: Way, offset: int) -> None:
        """Invert one byte, counted from the start of each connection, when it comes by."""
        self.flips[way] = offset

    def _run(self, work: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        lanes = {_Lane(Way.UP, reader, far_writer), _Lane(Way.DOWN, far_reader, writer)}
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self._lanes |= lanes
        try:
            await asyncio.gather(
                *(work(lane) for lane in lanes for work in (self._read, self._write))
            )
        finally:
            self._lanes -= lanes
            self._tasks.discard(task)
            for one in (writer, far_writer):
                one.close()
                with contextlib.suppress(OSError):
                    await one.wait_closed()

    async def _read(self, lane: _Lane) -> None:
        chunk = b"start"
        while chunk:
            try:
                chunk = await lane.reader.read(CHUNK)
            except OSError:
                await self._until_it_moves(lane)
                _reset(lane.writer)
                return
            spoiled = self._spoil(lane, chunk)
            lane.passed += len(chunk)
            await lane.line.put((time.monotonic() + self.delay, spoiled))

    async def _write(self, lane: _Lane) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, chunk = await lane.line.get()
                await asyncio.sleep(due - time.monotonic())
                await self._until_it_moves(lane)
                if not chunk:
                    break
                lane.writer.write(chunk)
                await lane.writer.drain()
                self.passed[lane.way] += len(chunk)
                if self.rate:
                    await asyncio.sleep(len(chunk) / self.rate)
            if lane.writer.can_write_eof():
                lane.writer.write_eof()

    async def _until_it_moves(self, lane: _Lane) -> None:
        while self.stalled or lane.held:
            await asyncio.sleep(TICK)

    def _spoil(self, lane: _Lane, chunk: bytes) -> bytes:
        at = self.flips.get(lane.way, -1) - lane.passed
        if not 0 <= at < len(chunk):
            return chunk
        return chunk[:at] + bytes([chunk[at] ^ 0xFF]) + chunk[at + 1 :]

    async def _drop(self) -> None:
        for lane in self._lanes:
            _reset(lane.writer)

    async def _hold(self, held: bool) -> None:
        for lane in self._lanes:
            lane.held = held

    async def _half_close(self, way: Way) -> None:
        for lane in self._lanes:
            if lane.way is way:
                lane.writer.write_eof()

    async def _end(self) -> None:
        self._server.close()
        await self._drop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection so that the peer sees a reset, not an end."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
