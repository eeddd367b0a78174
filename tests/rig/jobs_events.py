"""Adds events to a job; `tests.rig.events` reads them."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from jobs.events import Note, append
from jobs.models import Job, JobEvent


@transaction.atomic
def event_add(job: Job, **words: Any) -> JobEvent:
    """Add an event to a job."""
    return append(job, Note(**words))[0]
