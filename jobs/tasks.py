"""What the rq workers run."""

from __future__ import annotations

import logging
from functools import partial

from django.db import InterfaceError, OperationalError

import engine
from jobs.attempts import job_claim, job_hand_back, job_lost
from jobs.bridge import (
    clear_after_end,
    end_of_bug,
    end_of_outage,
    finish,
    insist,
    transfer,
    worker_name,
)
from jobs.errors import HandedBack, Orphaned, StaleJob
from jobs.helping import help_out
from jobs.models import Job

logger = logging.getLogger(__name__)


def run_job(rung_for: str) -> None:
    """Claim the job whose turn it is, run the engine, record how it ended.

    A ring says that a job waits; which one comes first, the database says. With
    none to begin, a running one is helped that lends parcels.
    """
    job = job_claim(worker=worker_name())
    if job is None:
        # Delivered twice, cancelled meanwhile, or nothing may begin yet.
        logger.debug("Rung for job %s: no job may begin", rung_for)
        help_out(worker=worker_name())
        return
    _run(job)


def clear_one(*, worker: str) -> None:
    """Clear away what a cancelled job left, if one waits for that."""
    job = job_claim(worker=worker, cancelled_only=True)
    if job is not None:
        _run(job)


def _run(job: Job) -> None:
    try:
        _attempt(job)
    except (engine.Replaced, StaleJob) as stop:
        logger.warning("Job %s was given to another worker: %s", job.pk, stop)
        clear_after_end(job)


def _attempt(job: Job) -> None:
    """Run one attempt; raises `Replaced` or `StaleJob` when it is not ours to end any more."""
    try:
        finish(job, transfer(job))
    except HandedBack:
        insist(job, partial(job_hand_back, job))
    except Orphaned as stop:
        insist(job, partial(job_lost, job, reason=str(stop)))
    except (engine.Replaced, StaleJob):
        raise
    except (OperationalError, InterfaceError) as error:
        # Amid a transfer it is put up with; this was before one began, or after.
        finish(job, end_of_outage(error))
    except Exception as bug:
        finish(job, end_of_bug(job, bug))
        raise  # rq keeps the traceback.
