"""What a run costs: processor seconds of all its processes, and what others took meanwhile."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench.run import ENDING_SECONDS
from tests.rig.sshd import Sshd, end_tree

_TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_CHILD_SUBREAPER = 36


class Machine(NamedTuple):
    """Processor seconds since the machine's start: of everything on it, and those that its host
    gave to other machines."""

    busy: float
    stolen: float


class Meter:
    """Counts user and system time of everything that has ended below this process.

    What a run leaves behind becomes this process's child when its parent ends,
    and is counted as it is reaped. Sessions are counted by sshd, which lives on,
    so its own account is added. Away from Linux only that is counted
    which a command has waited for.
    """

    def __init__(self, server: Sshd | None) -> None:
        self._server = server
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._staying = set(_children())

    def spent(self) -> float:
        """Processor seconds so far, once all that a run has left behind has ended."""
        for pid in set(_children()) - self._staying:
            _reap(pid)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        of_sessions = _with_children(self._server.pid) if self._server else 0.0
        return used.ru_utime + used.ru_stime + of_sessions


def machine() -> Machine:
    """The machine's own account; zeros where it keeps none."""
    path = Path("/proc/stat")
    if not path.exists():
        return Machine(0.0, 0.0)
    user, nice, system, _idle, _waiting, hard, soft, stolen, *_ = map(
        int, path.read_text("ascii").partition("\n")[0].split()[1:]
    )
    return Machine((user + nice + system + hard + soft) / _TICKS, stolen / _TICKS)


def _reap(pid: int) -> None:
    """Wait for a child; one that does not end by itself is ended."""
    until = time.monotonic() + ENDING_SECONDS
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > until:
            end_tree(pid)
        time.sleep(0.01)


def _children() -> list[int]:
    """The children of this process's threads."""
    found: list[int] = []
    if sys.platform == "linux":
        for thread in os.listdir("/proc/self/task"):
            path = Path(f"/proc/self/task/{thread}/children")
            found += map(int, path.read_text("ascii").split() if path.exists() else [])
    return found


def _with_children(pid: int) -> float:
    """Processor seconds of a process and of its children that have ended, to 10 ms."""
    path = Path(f"/proc/{pid}/stat")
    if not path.exists():
        return 0.0
    fields = path.read_text("utf-8", "replace").rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS
