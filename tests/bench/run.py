"""One command, run and timed, with a limit to how long it may take."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.bench.machine import PROJECT
from tests.rig.sshd import Sshd, end_tree

#: As on a machine where nobody has told Python otherwise: it keeps what it has compiled.
ENVIRONMENT = {name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"}
#: Of the benchmark's own: Ketter keeps records of ssh's client, and of what was proven, there.
for name in ("cache", "state"):
    folder = tempfile.mkdtemp(prefix=f"ketter-bench-{name}-")
    ENVIRONMENT[f"XDG_{name.upper()}_HOME"] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
#: Seconds to wait for the far ends of a tool that was stopped.
ENDING_SECONDS = 20.0


class State(StrEnum):
    """How a run ended."""

    DONE = "done"
    STOPPED = "stopped"  # It took longer than the limit.
    FAILED = "failed"
    WRONG = "wrong"  # It said that all was well, and it was not.


@dataclass
class Ended:
    """How a command ended; `note` says why it was not well, in its own words."""

    state: State
    seconds: float
    output: str
    note: str = ""


def timed(command: list[str], limit: float, folder: Path = PROJECT) -> Ended:
    """Run a command in a folder to its end, or stop it and all it started at the limit."""
    stopped = threading.Event()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as said:
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=said,
            start_new_session=True,
        )

        def stop() -> None:
            stopped.set()
            end_tree(process.pid)

        # Not wait(timeout): that looks every 50 ms, as long as some of what is measured takes.
        alarm = threading.Timer(limit, stop)
        alarm.start()
        try:
            status = process.wait()
            seconds = time.monotonic() - began
        except BaseException:
            end_tree(process.pid)
            raise
        finally:
            alarm.cancel()
            alarm.join()
        output.seek(0)
        said.seek(0)
        ended = Ended(State.DONE, seconds, output.read().decode("utf-8", "replace"))
        words = " ".join((said.read().decode("utf-8", "replace") or ended.output).split())
    if stopped.is_set():
        ended.state = State.STOPPED
    elif status != 0:
        ended.state, ended.note = State.FAILED, f"status {status}: {words[-200:]}"
    return ended


def wait_for_far_ends(server: Sshd) -> None:
    """Return once nothing runs at the server any more, with or without its consent."""
    until = time.monotonic() + ENDING_SECONDS
    while sessions := server.sessions():
        if time.monotonic() > until:
            for pid in sessions:
                end_tree(pid)
        time.sleep(0.1)
