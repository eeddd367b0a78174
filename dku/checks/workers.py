"""Checks of the rq workers, and of the reaper that runs inside them."""

from __future__ import annotations

import os
import socket
import time
from datetime import UTC, datetime

import django_rq
from django.conf import settings
from rq.suspension import is_suspended
from rq.worker import BaseWorker

from dku.findings import Finding, Verdict
from jobs.queueing.notify import QUEUE
from jobs.queueing.notify import workers as registered
from jobs.queueing.reaper import last_tick

#: A worker reports, and its reaper runs, every KETTER_REAPER_SECONDS; a busy machine may miss
#: so many of these.
MISSES = 4
START_WORKER = "Start one: `python3 manage.py rqworker` (`python3 manage.py up` starts one, too)."


def _age(worker: BaseWorker) -> float:
    """Seconds since the worker last reported; an entry of the future is as wrong as an old one."""
    reported = worker.last_heartbeat
    if reported is None:
        return float("inf")
    if reported.tzinfo is None:
        reported = reported.replace(tzinfo=UTC)
    return abs((datetime.now(UTC) - reported).total_seconds())


def silence_allowed() -> float:
    """Seconds without a report after which a worker or a reaper counts as dead."""
    return float(max(settings.KETTER_LEASE_SECONDS, MISSES * settings.KETTER_REAPER_SECONDS))


def _process_gone(worker: BaseWorker) -> bool:
    """True if the worker ran on this machine and has no process any more.

    After a `kill -9` its name stays in Redis for minutes; the process table knows earlier.
    """
    if worker.hostname != socket.gethostname() or not worker.pid:
        return False
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # The process lives, and belongs to another user.
    return False


def is_alive(worker: BaseWorker) -> bool:
    """True if the worker serves the queue of jobs and has reported not long ago."""
    serves = QUEUE in worker.queue_names()
    return serves and _age(worker) <= silence_allowed() and not _process_gone(worker)


def alive() -> list[BaseWorker]:
    """The workers that can take a job."""
    return [worker for worker in registered() if is_alive(worker)]


def _line(worker: BaseWorker) -> str:
    """One line about a worker."""
    if _process_gone(worker):
        state = "its process is gone"
    elif is_alive(worker):
        state = worker.get_state()
    else:
        state = "silent"
    return (
        f"{worker.name} (pid {worker.pid} on {worker.hostname}): {state}, "
        f"reported {_age(worker):.0f} s ago"
    )


def workers() -> Finding:
    """Check how many workers can take a job, what they do, and when they last reported."""
    known = registered()
    living = [worker for worker in known if is_alive(worker)]
    ages = [round(_age(worker), 1) for worker in living]
    states = [worker.get_state() for worker in living]
    measured = {"alive": len(living), "known": len(known), "ages_s": ages, "states": states}
    details = tuple(map(_line, known))
    if not living:
        return Finding(Verdict.FAIL, "none", "No worker is alive.", START_WORKER, details, measured)
    if is_suspended(django_rq.get_connection(QUEUE)):
        return Finding(
            Verdict.FAIL,
            f"{len(living)} suspended",
            "The workers are suspended: they take no jobs.",
            "Resume them: `python3 manage.py rqresume`.",
            details,
            measured,
        )
    value = f"{len(living)} alive ({', '.join(states)}), reported {max(ages):.0f} s ago"
    if len(living) < len(known):
        return Finding(
            Verdict.WARN,
            value,
            f"{len(known) - len(living)} of {len(known)} workers report no more.",
            "Read their logs; a worker that was killed leaves this list by itself in minutes.",
            details,
            measured,
        )
    return Finding(Verdict.PASS, value, "Workers wait for jobs.", "", details, measured)


def reaper() -> Finding:
    """Check when the reaper, which recovers the jobs of lost workers, last ran."""
    mark = last_tick()
    if mark is None:
        return Finding(
            Verdict.FAIL,
            "never",
            "The reaper has never run: jobs of lost workers would wait for ever.",
            f"It runs inside the worker. {START_WORKER}",
        )
    age = round(abs(time.time() - mark), 1)  # A mark of the future is as wrong as an old one.
    measured = {"age_s": age, "every_s": settings.KETTER_REAPER_SECONDS}
    value = f"ran {age} s ago"
    if age > silence_allowed():
        return Finding(
            Verdict.FAIL,
            value,
            f"The reaper should run every {settings.KETTER_REAPER_SECONDS} s, but ran {age} s ago.",
            f"It runs inside the worker. {START_WORKER}",
            measured=measured,
        )
    return Finding(Verdict.PASS, value, "The reaper runs as it should.", measured=measured)
