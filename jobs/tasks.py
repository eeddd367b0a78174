"""The functions that a worker runs in a work-horse, its child process."""

from __future__ import annotations

import logging
from functools import partial

import engine
from jobs.errors import AWAY, HandedBack, Orphaned, StaleJob
from jobs.models import Job
from jobs.queueing.attempts import job_claim, job_hand_back, job_lost
from jobs.queueing.clearing import clearing_take
from jobs.queueing.elsewhere import pass_on_elsewhere
from jobs.running.execution import (
    clear_after_cancel,
    clear_after_end,
    finish,
    transfer,
    write_end,
)
from jobs.running.helper import help_out
from jobs.running.outcome import end_of_bug, end_of_outage
from jobs.running.request import worker_name

logger = logging.getLogger(__name__)


def run_job(woken_for: str) -> None:
    """Claim the next eligible job, run the engine, record how the attempt ended.

    A wake-up carries the id of a waiting job, but the database decides which job starts next.
    If no job may start here, this worker passes the wake-up on if it is for another machine, and
    helps a running job that lends parcels.
    """
    job = job_claim(worker=worker_name())
    if job is None:
        # The wake-up came twice, the job was cancelled meanwhile, or every queued job must wait.
        logger.debug("Woken for job %s: no job may start", woken_for)
        pass_on_elsewhere(woken_for)
        help_out(worker=worker_name())
        return
    _run(job)


def clear_one(*, worker: str) -> None:
    """Remove the data of a cancelled job that is queued, or whose clean-up has lost its worker."""
    job = job_claim(worker=worker, cancelled_only=True)
    if job is not None:
        _run(job)
    elif job := clearing_take():
        logger.info("Job %s: clears away what it has left at the target", job.pk)
        clear_after_cancel(job)


def _run(job: Job) -> None:
    try:
        _attempt(job)
    except (engine.Replaced, StaleJob) as stop:
        logger.warning("Job %s was given to another worker: %s", job.pk, stop)
        clear_after_end(job)


def _attempt(job: Job) -> None:
    """Run one attempt. Raises Replaced or StaleJob if another worker has the job by now."""
    try:
        end = transfer(job)
        finish(job, end)
    except HandedBack:
        write_end(job, partial(job_hand_back, job))
    except Orphaned as stop:
        write_end(job, partial(job_lost, job, reason=str(stop)))
    except (engine.Replaced, StaleJob):
        raise
    except AWAY as error:
        # During a transfer `JobObserver` waits an outage out; this one came before or after it.
        finish(job, end_of_outage(error))
    except Exception as bug:
        finish(job, end_of_bug(job, bug))
        raise  # rq keeps the traceback.
    else:
        clear_after_cancel(job)
