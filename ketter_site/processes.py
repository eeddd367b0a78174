"""Child processes that end with their parent, or at the latest when the next one starts."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

LOG_MAX_BYTES = 16 * 1024 * 1024

Process = subprocess.Popen[bytes]


class StartFailed(Exception):
    """A program did not come up; the message says why."""


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    run_as: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    when_orphaned: signal.Signals = signal.SIGTERM,
) -> Process:
    """Start a program in a session of its own, its output appended to `log`.

    Where the kernel can (Linux), it sends the program `when_orphaned` when this
    process dies, in whichever way. `run_as` is a `setpriv` command line.
    """
    _rotate(log)
    with log.open("ab") as output:
        return subprocess.Popen(
            [*with_parent(when_orphaned, run_as), *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=True,
        )


def with_parent(when_orphaned: signal.Signals, run_as: Sequence[str] = ()) -> list[str]:
    """What to put before a command so that it gets a signal when this process dies."""
    if not _can_follow_parent():
        return [*run_as]
    return [*(run_as or ["setpriv"]), f"--pdeathsig={when_orphaned.name[3:]}"]


def end(
    process: Process, first: signal.Signals, *, seconds: float = 5, repeat: bool = False
) -> None:
    """Ask a child to end, once more if `repeat`, then kill it with all of its session."""
    for _ in range(2 if repeat else 1):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            process.send_signal(first)
            process.wait(seconds)
            return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there with all of its text or not at all, whoever reads or dies."""
    unfinished = path.with_name(f"{path.name}.new")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a log, to show why a program did not start."""
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-count:])


class Ledger:
    """The file that remembers which processes a supervisor started.

    Should it be killed on a system that does not end orphans by itself, the
    next supervisor finds them here and ends them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, str] = {}

    def add(self, pid: int) -> None:
        """Remember a process together with its start time, as numbers come round again."""
        self.entries[str(pid)] = _started_at(pid)
        write_whole(self.path, json.dumps(self.entries))

    def end_leftovers(self) -> list[int]:
        """End what an earlier supervisor left behind, and say which processes those were."""
        if not self.path.exists():
            return []
        try:
            known: dict[str, str] = json.loads(self.path.read_text("utf-8"))
        except ValueError:  # Cut off, as an older version could leave it: nothing to go by.
            known = {}
        left = [
            int(pid) for pid, start in known.items() if start and _started_at(int(pid)) == start
        ]
        # SIGINT is Postgres' fast shutdown; all the others end on it too.
        for signal_number, seconds in ((signal.SIGINT, 8), (signal.SIGKILL, 2)):
            alive = [pid for pid in left if _started_at(pid) == known[str(pid)]]
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal_number)
            _wait_until_gone(alive, known, seconds)
        self.path.unlink()
        return left


def _wait_until_gone(pids: Sequence[int], known: Mapping[str, str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(_started_at(pid) == known[str(pid)] for pid in pids):
            return
        time.sleep(0.1)


def _started_at(pid: int) -> str:
    """When a process started, in the system's own words; empty when there is none."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        except OSError:
            return ""
        state, *fields = stat.rpartition(")")[2].split()
        return "" if state == "Z" else fields[18]
    found = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


@functools.cache
def _can_follow_parent() -> bool:
    """Whether `setpriv --pdeathsig` is there: Linux with util-linux 2.33 or newer."""
    if sys.platform != "linux" or not shutil.which("setpriv"):
        return False
    usage = subprocess.run(["setpriv", "--help"], capture_output=True, text=True, check=False)
    return "--pdeathsig" in usage.stdout


def _rotate(log: Path) -> None:
    """Keep one old log when the present one has grown large."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))
