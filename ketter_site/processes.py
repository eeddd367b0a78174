"""Child processes that end with their parent, or at the latest when the next parent starts."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

LOG_MAX_BYTES = 16 * 1024 * 1024

Process = subprocess.Popen[bytes]


#: The variables that a server may see, beside LC_…: none of them is a key or an address.
_SMALL = ("PATH", "HOME", "TMPDIR", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "LOCPATH")


def small_environment() -> dict[str, str]:
    """The environment of a program that needs none of Ketter's keys, URLs and settings.

    Other programs of a server's user, and SQL of its superuser, can read its environment.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name in _SMALL or name.startswith("LC_")
    }


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

    On Linux the kernel sends the program the signal `when_orphaned` when this
    process dies, however it dies. `run_as` is a `setpriv` command line.
    """
    _rotate(log)
    with open_log(log) as output:
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
    """The words before a command that make it get a signal when this process dies."""
    if not _can_follow_parent():
        return [*run_as]
    return [*(run_as or ["setpriv"]), f"--pdeathsig={when_orphaned.name[3:]}"]


def end(
    process: Process, first: signal.Signals, *, seconds: float = 5, repeat: bool = False
) -> None:
    """Send a child the signal `first`, twice if `repeat`; then kill it with its whole session.

    After each signal the child has `seconds` to end.
    """
    for _ in range(2 if repeat else 1):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            process.send_signal(first)
            process.wait(seconds)
            return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write_whole(path: Path, text: str) -> None:
    """Write a file atomically: a reader, or a crash, finds all of its text or none.

    It follows no symlink: others may write to the folder of a file that a person has named.
    """
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)  # A process was killed while it wrote.
    with unfinished.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a log, to show why a program did not start."""
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-count:])


class Ledger:
    """The file that records which processes a supervisor started.

    If the supervisor is killed on a system that does not end orphans, the next
    supervisor finds them here and ends them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, str] = {}

    def add(self, pid: int) -> None:
        """Record a process with its start time, because the system uses process ids again."""
        self.entries[str(pid)] = _started_at(pid)
        write_whole(self.path, json.dumps(self.entries))

    def end_leftovers(self) -> list[int]:
        """End the processes that an earlier supervisor left behind; return their ids."""
        if not self.path.exists():
            return []
        try:
            known: dict[str, str] = json.loads(self.path.read_text("utf-8"))
        except ValueError:  # Cut off, as an older version could leave it: it names no process.
            known = {}
        left = [
            int(pid) for pid, start in known.items() if start and _started_at(int(pid)) == start
        ]
        # SIGINT is Postgres' fast shutdown; all other children end on it, too.
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
    """When a process started, as the system writes it; empty if there is no such process."""
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
    """True if this machine has `setpriv --pdeathsig`: Linux with util-linux 2.33 or newer."""
    if sys.platform != "linux" or not shutil.which("setpriv"):
        return False
    usage = subprocess.run(
        ["setpriv", "--help"], capture_output=True, text=True, check=False, env=small_environment()
    )
    return "--pdeathsig" in usage.stdout


def open_log(log: Path) -> BinaryIO:
    """Open a log to append to, for this user alone: it has the names of files and of jobs.

    A device is opened as it is, as /dev/null. Raises StartFailed for a symlink, a pipe, a folder, a
    file of another user or with a second name, and if the system refuses it.
    """
    how = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        # O_NONBLOCK: a pipe that nothing reads raises ENXIO, it does not wait.
        fd = os.open(log, how | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and (found.st_uid, found.st_nlink) == (os.geteuid(), 1):
            os.fchmod(fd, 0o600)
        elif not stat.S_ISCHR(found.st_mode):
            os.close(fd)
            raise OSError(errno.EPERM, "it is no plain file of this user, or has a second name")
        os.set_blocking(fd, True)
        return os.fdopen(fd, "ab")
    except OSError as error:
        reason = "it is a symlink" if error.errno == errno.ELOOP else error.strerror
        raise StartFailed(
            f"the log {log} cannot be written ({reason}): expected a plain file of this user; "
            "find out who made what lies there, move it away, then start Ketter again"
        ) from error


def _rotate(log: Path) -> None:
    """Rename a log of more than LOG_MAX_BYTES to NAME.1, in place of the older one."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))
