"""What the rq workers run."""

from __future__ import annotations

import logging

import engine
from jobs.bridge import failure, finish, transfer, worker_name
from jobs.errors import Orphaned, StaleJob
from jobs.services import job_claim, job_lost

logger = logging.getLogger(__name__)


def run_job(job_id: str) -> None:
    """Claim the job, run the engine, record how it ended."""
    job = job_claim(job_id, worker=worker_name())
    if job is None:
        return  # Delivered twice, or cancelled while it waited.
    try:
        finish(job, transfer(job))
    except Orphaned as stop:
        job_lost(job, reason=str(stop))
    except (engine.Replaced, StaleJob) as stop:
        logger.warning("Job %s was given to another worker: %s", job_id, stop)
    except Exception as bug:
        finish(job, failure("INTERNAL", f"A bug stopped this job ({type(bug).__name__}: {bug})."))
        raise  # rq keeps the traceback.
