"""Those who do the work: the rq workers, and the reaper that ticks inside them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import django_rq
from django.conf import settings
from rq import Worker
from rq.suspension import is_suspended
from rq.worker import BaseWorker

from dku.findings import Finding, Verdict
from jobs.queue import QUEUE
from jobs.reaper import last_tick

#: Workers are heard, and tick, every KETTER_REAPER_SECONDS; a busy machine may miss a few.
MISSES = 4
START_WORKER = "Start one: `python manage.py rqworker` (`python manage.py up` starts one as well)."


def _age(worker: BaseWorker) -> float:
    """Seconds since the worker was last heard."""
    heard = worker.last_heartbeat
    if heard is None:
        return float("inf")
    if heard.tzinfo is None:
        heard = heard.replace(tzinfo=UTC)
    return max(0.0, (datetime.now(UTC) - heard).total_seconds())


def silence_allowed() -> float:
    """Seconds of silence after which a worker or a reaper is taken for dead."""
    return float(max(settings.KETTER_LEASE_SECONDS, MISSES * settings.KETTER_REAPER_SECONDS))


def _process_gone(worker: BaseWorker) -> bool:
    """Whether the worker ran on this machine and has no process any more.

    After a `kill -9` its name stays in Redis for minutes: the process table knows earlier.
    """
    if worker.hostname != socket.gethostname() or not worker.pid:
        return False
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # It lives, as another user's.
    return False


def is_alive(worker: BaseWorker) -> bool:
    """Whether a worker serves the queue of jobs and was heard not long ago."""
    serves = QUEUE in worker.queue_names()
    return serves and _age(worker) <= silence_allowed() and not _process_gone(worker)


def alive() -> list[BaseWorker]:
    """The workers that can take a job."""
    return [worker for worker in _all() if is_alive(worker)]


def _all() -> Sequence[BaseWorker]:
    return Worker.all(connection=django_rq.get_connection(QUEUE))


def _line(worker: BaseWorker) -> str:
    """One worker in words."""
    if _process_gone(worker):
        state = "its process is gone"
    elif is_alive(worker):
        state = worker.get_state()
    else:
        state = "silent"
    return (
        f"{worker.name} (pid {worker.pid} on {worker.hostname}): {state}, "
        f"heard {_age(worker):.0f} s ago"
    )


def workers() -> Finding:
    """How many workers can take a job, what they do, and when they were last heard."""
    known = _all()
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
            "The workers were told to take no jobs.",
            "Let them go on: `python manage.py rqresume`.",
            details,
            measured,
        )
    value = f"{len(living)} alive ({', '.join(states)}), heard {max(ages):.0f} s ago"
    if len(living) < len(known):
        return Finding(
            Verdict.WARN,
            value,
            f"{len(known) - len(living)} of {len(known)} workers have gone silent.",
            "Look into their logs; a worker that was killed leaves this list by itself in minutes.",
            details,
            measured,
        )
    return Finding(Verdict.PASS, value, "Workers wait for jobs.", "", details, measured)


def reaper() -> Finding:
    """How long ago the reaper, which saves the jobs of lost workers, last looked."""
    mark = last_tick()
    if mark is None:
        return Finding(
            Verdict.FAIL,
            "never",
            "The reaper has not ticked: jobs of lost workers would wait for ever.",
            f"It ticks inside the worker. {START_WORKER}",
        )
    age = round(max(0.0, time.time() - mark), 1)
    measured = {"age_s": age, "every_s": settings.KETTER_REAPER_SECONDS}
    value = f"ticked {age} s ago"
    if age > silence_allowed():
        return Finding(
            Verdict.FAIL,
            value,
            f"The reaper should tick every {settings.KETTER_REAPER_SECONDS} s.",
            f"It ticks inside the worker. {START_WORKER}",
            measured=measured,
        )
    return Finding(Verdict.PASS, value, "The reaper watches over the jobs.", measured=measured)
