"""Locks on files of the staging folder, and checks that a name still leads to an open file."""

from __future__ import annotations

import fcntl
import os
import time

from engine.agent.target.ownership import open_plain
from engine.agent.wire import AgentError

#: Flags to open a file that holds nothing: a lock, or a request.
LOCK_FILE = os.O_RDWR | os.O_CREAT


def open_lock(folder: int, whose: str) -> int:
    """Open the lock file of an attempt ("2"), or of a helper in an attempt ("2-label")."""
    return open_plain(folder, f"a{whose}.lock", LOCK_FILE)


def request_end(folder: int, whose: str) -> None:
    """Ask the agents that share a lock to end."""
    os.close(open_plain(folder, f"a{whose}.end", LOCK_FILE))


def lock(fd: int, patience: float, how: int = fcntl.LOCK_EX) -> bool:
    """Lock a file against other agents; False if one holds it for `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
        time.sleep(0.05)


def is_there(folder: int, name: str) -> bool:
    """True if a folder has an entry of that name, of any kind."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def leads_to(folder: int, name: str, fd: int) -> bool:
    """True if the name still leads to the open file."""
    try:
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))


def busy() -> AgentError:
    """The error for a second run of a transfer while the first one still runs."""
    return AgentError("TARGET_BUSY", "another run of this transfer is at work at the target")
