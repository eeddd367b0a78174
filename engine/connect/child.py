"""Child: a process on this machine, an agent or an ssh: its input, its signals, its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from typing import BinaryIO, cast

from engine.agent import wire

#: Seconds between two calls of a transfer's checkpoint.
CHECK_SECONDS = 0.25
#: Bytes of an enlarged pipe: what Linux lets any user have.
_PIPE_BYTES = 1 << 20


class Child:
    """One process in its own session, and the pipe to its standard input.

    `idle` is called several times a second while a write waits; it may raise.
    """

    def __init__(self, idle: Callable[[], None]) -> None:
        self._idle = idle
        self.process: subprocess.Popen[bytes] | None = None
        self._read_end, self.stdin = os.pipe()
        #: True once the input is closed: nothing more is written to the process.
        self.is_closed = False
        #: True if all goes in pieces from now on: what others write there may come between.
        self.is_shared = False
        #: Asks if others than this worker and an agent write to the pipe.
        self.is_disturbed: Callable[[], bool] = lambda: False

    def start(self, line: list[str], env: dict[str, str], stdout: int | None) -> BinaryIO:
        """Start the process, and return its standard error.

        Without `stdout`, the process's standard output is discarded.
        """
        try:
            self.process = subprocess.Popen(
                line,
                stdin=self._read_end,
                stdout=subprocess.DEVNULL if stdout is None else stdout,
                stderr=subprocess.PIPE,
                env=env,
                # Ctrl-C in a terminal reaches only the worker, which ends the agents itself.
                start_new_session=True,
            )
        finally:
            self._close_read_end()
        assert self.process.stderr is not None
        return cast("BinaryIO", self.process.stderr)

    @property
    def status(self) -> int | None:
        """The exit status; None while the process runs, or if it never started."""
        return self.process.returncode if self.process else None

    def write(self, data: bytes) -> None:
        """Write to the process; never block for more than CHECK_SECONDS at a time."""
        if self.is_shared:
            for piece in wire.cut(data):
                self._write(piece)
        else:
            self._write(data)

    def write_at_once(self, data: bytes) -> None:
        """Write data in one piece, if the pipe has room: what others write there comes not between.

        Where the pipe cannot be enlarged (another system than Linux), it goes as other data does.
        """
        if self.is_closed:
            return
        with contextlib.suppress(OSError):  # This user has too many large pipes.
            fcntl.fcntl(self.stdin, getattr(fcntl, "F_SETPIPE_SZ", 1031), _PIPE_BYTES)
        with contextlib.suppress(OSError):
            room = fcntl.fcntl(self.stdin, getattr(fcntl, "F_GETPIPE_SZ", 1032))
            (waiting,) = struct.unpack("i", fcntl.ioctl(self.stdin, termios.FIONREAD, bytes(4)))
            if len(data) + waiting <= room // 2:  # So it does not block.
                data = data[os.write(self.stdin, data) :]
        self._write(data)

    def _write(self, data: bytes) -> None:
        if self.is_closed:
            return
        view = memoryview(data)
        # Not select: it cannot take the high descriptors of a process with many open files.
        writable = select.poll()
        writable.register(self.stdin, select.POLLOUT)
        while view:
            # A pipe that poll reports as writable takes PIPE_BUF bytes at once.
            if not writable.poll(CHECK_SECONDS * 1000):
                self._idle()
                if self.is_closed:
                    return
                continue
            try:
                view = view[os.write(self.stdin, view[: select.PIPE_BUF]) :]
            except BrokenPipeError:
                return  # The process has ended; `Inbox` reports why when its messages end.

    def close_input(self) -> None:
        """Close the process's input; an agent then ends by itself."""
        self.is_closed = True
        self._close_read_end()
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def send_signal(self, how: signal.Signals | None) -> None:
        """Send a signal to the process and those it started; None sends nothing."""
        if how is not None and self.process and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, how)

    def has_ended(self, until: float) -> bool:
        """Wait for the process until `until` (monotonic clock, seconds); true if it ended."""
        if self.process:
            try:
                self.process.wait(timeout=max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                return False
        return True

    def _close_read_end(self) -> None:
        if self._read_end >= 0:
            os.close(self._read_end)
            self._read_end = -1
