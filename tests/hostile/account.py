"""A far account whose programs lie: a real sshd, and a `python3` of our own in its PATH.

`Account.tell` has the account's next agents run a program of lies (see `lies`). The account
is the user who runs the tests, so this rig needs no root.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.hostile import lies
from tests.rig.project import PROJECT
from tests.rig.sshd import SYSTEM_PATH, Sshd
from tests.rig.waiting import wait_until

#: Seconds in which any lie that does not hang must have an end, on a busy machine.
SOON = 20.0
#: Seconds in which SIGTERM ends a transfer whose host hangs.
CANCELLED_IN = 5.0
#: Memory that a lie may cost the worker, in KiB, above what an honest host costs: one message of
#: 24 MiB as it came, its blob beside it, and the blob once more as it is read.
MORE_MEMORY = 80 << 10


class Ended(NamedTuple):
    """How a command line ended: its status, what it said, its memory at most (KiB), seconds."""

    status: int
    said: str
    memory: int
    seconds: float


class Account(Sshd):
    """The sshd; logins find the lying `python3` first."""

    def _listen(self) -> None:
        folder = self.folder / "bin"
        if not folder.exists():
            folder.mkdir()
            real = shutil.which("python3", path=SYSTEM_PATH)
            assert real, "the system has no python3"
            lies.make_python(folder, real, str(self.folder / "lies.py"))
            self._path = f"{folder}:{SYSTEM_PATH}"
        super()._listen()

    @property
    def witness(self) -> Path:
        """The file that is there once a lie was told."""
        return self.folder / "witness"

    def tell(self, program: str) -> None:
        """Have agents here run this program of lies from now on."""
        self.honest()
        (self.folder / "lies.py").write_text(lies.prelude(str(self.witness)) + program)

    def tell_instead(self, program: str) -> None:
        """Run this program in place of any agent."""
        self.honest()
        (self.folder / "lies.py").write_text("# instead\n" + program)

    def honest(self) -> None:
        """Tell no lies any more."""
        for path in (self.folder / "lies.py", self.witness):
            path.unlink(missing_ok=True)

    def url(self, path: Path) -> str:
        """An address of a path here."""
        return f"ssh://{self.username}@{self.host}:{self.port}{path}"

    @property
    def access(self) -> list[str]:
        """What the command line needs to log in."""
        return ["--ssh-config", str(self.ssh_config)]


def run(
    words: Sequence[str],
    lied: Callable[[], bool],
    cancel_after: float | None = None,
    cancelled_in: float = CANCELLED_IN,
) -> Ended:
    """Run the command line to its end, which must come soon.

    With `cancel_after`, SIGTERM comes so many seconds after a lie was told, unless it has ended;
    then the end has to come within `cancelled_in` seconds.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.cli", *words],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    watch = _Memory(process.pid)
    watch.start()
    assert process.stdout
    limit = SOON
    try:
        if cancel_after is not None:
            wait_until(lambda: lied() or process.poll() is not None)
            time.sleep(cancel_after)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                limit = cancelled_in
        waiting = time.monotonic()
        output, _ = process.communicate(timeout=limit)
        said = output.decode("utf-8", "surrogateescape")
        wait_until(lambda: not of_session(process.pid), 10)
    finally:
        for pid in of_session(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    took = time.monotonic() - (waiting if cancel_after is not None else began)
    return Ended(process.returncode, said, watch.most, took)


class _Memory(threading.Thread):
    """Watches the most memory that a process has had; its last moment may be missed."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.most, self._pid = 0, pid

    def run(self) -> None:
        """Look until the process has ended."""
        while True:
            try:
                text = Path(f"/proc/{self._pid}/status").read_text()
                line = Path(f"/proc/{self._pid}/cmdline").read_bytes()
            except OSError:
                return
            found = re.search(r"VmHWM:\s+(\d+)", text)
            if not found:  # It is a zombie.
                return
            if b"engine.cli" in line and text.startswith("Name:\tpython"):
                self.most = max(self.most, int(found[1]))
            time.sleep(0.02)


def of_session(leader: int) -> list[int]:
    """What runs of a command line, its ssh and its agents on this machine."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            found.append(int(folder.name))
    return found
