"""Makes the engine's request from a job's row, with the secrets that it needs."""

from __future__ import annotations

import os

from django.conf import settings

import engine
from engine.types import OPTIONS
from jobs.models import Job
from jobs.queueing.attempts import bandwidth_share
from jobs.queueing.machines import portal_of
from portals.endpoints import endpoint_for
from portals.models import Portal


def worker_name() -> str:
    """Return the name under which this process claims jobs."""
    return os.environ.get("RQ_WORKER_ID") or f"{settings.KETTER_MACHINE}.{os.getpid()}"


def transfer_id(job: Job) -> str:
    """Return the id in the name of a job's staging folder: on record before the folder exists.

    It has a secret key, since other users may know the job's id. A job of a version without
    such keys has its id alone.
    """
    return f"{job.id.hex}-{job.staging_key}".rstrip("-")


def request_for(job: Job) -> engine.Request:
    """Return the engine's request for a job, with the secrets that it needs."""
    source, target = portals_of(job)
    limit = min(source.max_streams, target.max_streams)
    options = {option.name: option.value_of(getattr(job, option.name)) for option in OPTIONS}
    options["streams"] = min(job.streams, limit)
    return engine.Request(
        source=endpoint_for(source, job.source_path),
        target=endpoint_for(target, job.target_path),
        transfer_id=transfer_id(job),
        on_record=True,
        attempt=job.attempt,
        mode=engine.Mode(job.mode),
        # The last rule that matches decides: an excluded file is never sent.
        filters=(
            *(("include", pattern) for pattern in job.include),
            *(("exclude", pattern) for pattern in job.exclude),
        ),
        max_streams=limit,
        bwlimit=bandwidth_share(job),
        resume=True,
        **options,
    )


def portals_of(job: Job) -> tuple[Portal, Portal]:
    """Return both portals as they were when the job started."""
    return portal_of(job, "source"), portal_of(job, "target")
