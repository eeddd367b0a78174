"""One Ketter in a var folder at a time: the lock that `up` holds, and the demo while it builds."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ketter_site.env import VAR_DIR, private_folder
from ketter_site.processes import StartFailed

RUN_DIR = VAR_DIR / "run"
#: The state that an ending `up` writes beside its process id, and how long it may take to end.
ENDS = "ends"
ENDING_SECONDS = 60
NOTE_BYTES = 32


class AlreadyRuns(StartFailed):
    """Another Ketter runs in this var folder; the message says which and what to do."""


@contextmanager
def only_one(say: Callable[[str], None]) -> Iterator[int]:
    """Hold the lock of the var folder; yields its file descriptor.

    Waits for a Ketter that is ending. Raises AlreadyRuns if another one runs on.
    """
    private_folder(RUN_DIR)
    lock = os.open(RUN_DIR / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(lock, say)
        _note(lock)
        yield lock
    finally:
        os.close(lock)


def note_end(lock: int) -> None:
    """Record in the lock's file that its holder is ending, so that others wait for it."""
    _note(lock, ENDS)


def _take(lock: int, say: Callable[[str], None]) -> None:
    """Take the lock; print one line if that means waiting."""
    deadline = time.monotonic() + ENDING_SECONDS
    waits = False
    while not _taken(lock):
        pid, _space, state = os.pread(lock, NOTE_BYTES, 0).decode().strip().partition(" ")
        if state != ENDS or time.monotonic() > deadline:
            raise AlreadyRuns(
                f"Ketter already runs here, as process {pid}. End it first (kill {pid}), "
                "or use another var folder (KETTER_VAR_DIR)."
            )
        if not waits:
            say(f"waiting for the Ketter that is ending here, process {pid}")
            waits = True
        time.sleep(0.1)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _note(lock: int, state: str = "") -> None:
    """Write the process that has the lock, and its state, into the lock's file, in one write."""
    os.pwrite(lock, f"{os.getpid()} {state}".ljust(NOTE_BYTES - 1).encode() + b"\n", 0)
