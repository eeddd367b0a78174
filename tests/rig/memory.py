"""How much memory the processes of a transfer took at most, by the part they play."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

EVERY_SECONDS = 0.05
SENDER, RECEIVER = "agent that reads", "agent that writes"
TOGETHER = "all together"


class Watch:
    """Looks at everything below this process, except what was there before.

    `peaks` are bytes by role: the kernel's own high-water mark of each
    process, so that only what a process takes in its very last moment can be
    missed; and under `TOGETHER` the largest sum at one look. Empty where
    there is no /proc.
    """

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self._before = {pid for pid, _ in _below(os.getpid(), "")}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        if os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.ident:
            self._thread.join()

    def _look_on(self) -> None:
        while not self._ended.wait(EVERY_SECONDS):
            self._look()

    def _look(self) -> None:
        together = 0
        for pid, role in _below(os.getpid(), ""):
            if pid not in self._before and role:
                highest, now = _memory(pid)
                together += now
                self.peaks[role] = max(self.peaks.get(role, 0), highest)
        if together:
            self.peaks[TOGETHER] = max(self.peaks.get(TOGETHER, 0), together)


def _below(pid: int, role: str) -> Iterator[tuple[int, str]]:
    """Every descendant with its role, parents before children."""
    for child in _children(pid):
        part = _role(child, role)
        yield child, part
        yield from _below(child, part)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    except OSError:
        pass  # It has ended meanwhile.
    return found


def _role(pid: int, parent: str) -> str:
    """The part a process plays; empty while it still is a copy of us and about to become one."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    name = os.path.basename(line[0]).decode("utf-8", "replace")
    if line == _OURS or not name:
        return ""
    if parent in (SENDER, RECEIVER):
        return parent
    if b"engine.cli" in line:
        return "command line"
    if name.startswith("sshd"):
        return "sshd"
    if name.startswith("python") and b"-c" in line:
        # At this end the agent that reads writes into a pipe; the other one has nothing to say.
        writes = parent == "sshd" or not _link(pid, 1).startswith("pipe:")
        return RECEIVER if writes else SENDER
    return name


def _link(pid: int, number: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{number}")
    except OSError:
        return ""


def _memory(pid: int) -> tuple[int, int]:
    """The most a process ever had, and what it has now, in bytes."""
    found = {}
    try:
        for line in Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines():
            if line.startswith(("VmHWM:", "VmRSS:")):
                found[line[:5]] = int(line.split()[1]) * 1024
    except OSError:
        pass  # It has ended meanwhile.
    return found.get("VmHWM", 0), found.get("VmRSS", 0)


def _own_command() -> list[bytes]:
    path = Path("/proc/self/cmdline")
    return path.read_bytes().split(b"\0") if path.exists() else []


_OURS = _own_command()
