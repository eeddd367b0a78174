"""Failpoints in real workers: who is killed, frozen or told to end, and at which point.

Nothing of it is in the product: `install` puts an observer around the engine's
that strikes where a job's idempotency key says so, "point:deed" and whatever
else makes the key unique, once a job: in the first attempt that comes to the point.
"""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest import mock

from engine.connect.child import CHECK_SECONDS
from engine.types import ParcelReport, ParcelState, Phase, Progress
from jobs import tasks
from jobs.models import Job, ParcelLease
from jobs.running import execution, helper
from jobs.running.helper import HelperObserver
from jobs.running.observer import ASK_EVERY, JobObserver
from jobs.running.shutdown import shutdown_requested
from jobs.services import job_cancel
from tests.rig.sshd import descendants

#: Where a phase begins; "verify": the first parcel is proven; "finish": the engine is done,
#: and the database does not know.
POINTS = ("preflight", "scan", "transfer", "verify", "publish", "cleanup", "remove_source")
FINISH = "finish"
VICTIMS = ("worker", "sender", "receiver", "sshd")
#: Seconds that a process gets to appear that is to be killed.
PATIENCE = 10.0
#: Seconds in which the end of a far process is noticed on this machine, however busy it is.
NOTICED_SECONDS = 0.5
#: What a crew's log says of a worker: with its process id, and when by the monotonic clock.
TOLD, ENDED = "told to end: worker", "ended: worker"
_HEX = re.compile(r'fromhex\("([0-9a-f]+)"\)')

Deed = Callable[[Job], object]


def install() -> None:
    """Have jobs struck whose keys name a failpoint; for the life of this process."""
    mock.patch.object(execution, "JobObserver", StruckObserver).start()
    mock.patch.object(tasks, "finish", _struck_finish).start()
    mock.patch.object(helper, "HelperObserver", StruckHelper).start()


class StruckObserver(JobObserver):
    """A job's observer that lets it come to a point, and strikes there once."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._strike = Strike(job)

    def phase(self, phase: Phase) -> None:
        """Strike where a phase begins, once the row says so if it ever does."""
        super().phase(phase)
        self._strike.at(phase.value)

    def parcel(self, parcel: ParcelReport) -> None:
        """Strike when the first parcel is proven."""
        super().parcel(parcel)
        if parcel.state is ParcelState.VERIFIED:
            self._strike.at("verify")


class StruckHelper(HelperObserver):
    """A helper that is struck at its first parcel: the first helper of the job only."""

    def __init__(self, row: ParcelLease) -> None:
        super().__init__(row)
        self._strike = Strike(row.job)

    def progress(self, progress: Progress) -> None:
        """Strike amid a parcel."""
        super().progress(progress)
        mark = os.environ.get("KETTER_FAULTS_GATE", "")
        if mark and not os.path.exists(f"{mark}.struck"):
            with open(f"{mark}.struck", "w"):
                pass
            self._strike.at("helping")


#: Where a strike leaves its mark; "" for the temporary folder, which is a crew's own.
MARKS = ""


class Strike:
    """What is to be done to a job, and where; done once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._point, _, deed = job.idempotency_key.partition(":")
        self._deed = deed.partition(":")[0]
        # Its crew's own: on a busy machine an attempt may be lost before it comes to the point.
        self._mark = Path(MARKS or tempfile.gettempdir(), f"struck-{job.pk}-{self._point}")

    def at(self, point: str) -> None:
        """The job has come to that point."""
        if point == self._point and not self._mark.exists():
            self._mark.touch()
            DEEDS[self._deed](self._job)


def _struck_finish(job: Job, end: Any) -> None:
    Strike(job).at(FINISH)
    execution.finish(job, end)


def _kill_worker(_job: Job) -> None:
    """As the kernel does when memory runs out: first who watches, then who works."""
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _freeze_worker(_job: Job) -> None:
    os.kill(os.getppid(), signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)


def _freeze_all(job: Job) -> None:
    """A machine that stands still: the agents first, for we cannot do it afterwards."""
    for pid in _far_agent() + _near_agent():
        os.kill(pid, signal.SIGSTOP)
    _freeze_worker(job)


def _end_worker(job: Job) -> None:
    """A deployment; its log says whom it told, and when.

    The job stands still until its process has heard of it, and until it is time to look whether
    it was told: so it was told here, and is not over before it looks.
    """
    print(f"{TOLD} {os.getppid()} at {time.monotonic()} in {job.target_path}", flush=True)
    os.kill(os.getppid(), signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while not shutdown_requested():
        if time.monotonic() > deadline:
            raise AssertionError("the worker does not pass on that it was told to end")
        time.sleep(0.01)
    time.sleep(CHECK_SECONDS)


def _wait(_job: Job) -> None:
    """Say that we are there, and wait until the test lets us go on."""
    gate = os.environ["KETTER_FAULTS_GATE"]
    with open(f"{gate}.there", "w"):
        pass
    while not os.path.exists(gate):
        time.sleep(0.02)


def _cancel(job: Job) -> None:
    job_cancel(Job.objects.get(pk=job.pk), by=job.requested_by)
    time.sleep(ASK_EVERY * 2)  # It is asked for at the next checkpoint, and not in the same moment.


def lose_an_agent() -> None:
    """Kill one of the agents that this process has started on this machine."""
    _kill(_near_agent)


def _kill_sender(job: Job) -> None:
    _kill(_far_agent if job.source_portal.host else _near_agent)


def _kill_receiver(job: Job) -> None:
    _kill(_far_agent if job.target_portal.host else _near_agent)


def _kill_sshd(_job: Job) -> None:
    _kill(lambda: [pid for agent in _far_agent() for pid in _above(agent)])


DEEDS: dict[str, Deed] = {
    "worker": _kill_worker,
    "sender": _kill_sender,
    "receiver": _kill_receiver,
    "sshd": _kill_sshd,
    "freeze": _freeze_worker,
    "freeze_all": _freeze_all,
    "end": _end_worker,
    "wait": _wait,
    "cancel": _cancel,
}


def _kill(find: Callable[[], list[int]]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not (found := find()):
        if time.monotonic() > deadline:
            raise AssertionError("there is nobody to kill")
        time.sleep(0.01)
    ours = _living(descendants(os.getpid()))
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    # Until an end of it has come to this machine, on which the transfer could else be done first;
    # where others share the connection none comes.
    until = time.monotonic() + NOTICED_SECONDS
    while _living(ours) == ours and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(NOTICED_SECONDS / 10)


def _living(pids: Iterable[int]) -> list[int]:
    """Those processes that have not ended."""
    return [pid for pid in pids if _words(pid) != [""]]


def _near_agent() -> list[int]:
    """This run's first agent on this machine."""
    children = descendants(os.getpid())
    return [pid for pid in children if _words(pid)[1:3] == ["-I", "-S"]][:1]


def _far_agent() -> list[int]:
    """This run's first agent behind ssh: it has the text that our ssh asked for."""
    ours = set(descendants(os.getpid()))
    asked = [words[-1] for words in map(_words, sorted(ours)) if words[0] == "ssh"]
    texts = [found[1] for line in asked if (found := _HEX.search(line))]
    for pid in set(_pids()) - ours if texts else ():
        words = _words(pid)
        if "python3" in words[0] and texts[0] in words[-1]:
            return [pid]
    return []


def _above(pid: int) -> list[int]:
    """The processes of sshd that carry this session, from the nearest; not who listens."""
    found: list[int] = []
    while True:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            pid = int(file.read().rpartition(")")[2].split()[1])
        title = " ".join(_words(pid))
        if "sshd" not in title or "listener" in title or " -D" in title:
            return found
        found.append(pid)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _words(pid: int) -> list[str]:
    """A process's command line; one empty word if it has none."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\0").split("\0")
    except OSError:
        return [""]
