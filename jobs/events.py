"""Writes the events of a job, in order, under the lock of the job's row."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Max
from django.utils import timezone

from jobs.models import EventLevel, Job, JobEvent
from jobs.text import sentence, storable


@dataclass(frozen=True)
class Note:
    """An event to write; `at` is the time when it happened, if that is not now."""

    code: str
    message: str
    level: str = EventLevel.INFO
    data: dict[str, Any] = field(default_factory=dict)
    at: datetime | None = None
    phase: str = ""


def append(job: Job, *notes: Note) -> list[JobEvent]:
    """Write events with the next numbers, under the lock of the job's row.

    Without the lock two writers could commit out of order, and a reader that resumes after
    the highest number it has seen would miss the event that is committed later.
    """
    if not notes:
        return []
    lock(job)
    last = JobEvent.objects.filter(job=job).aggregate(last=Max("seq"))["last"] or 0
    return JobEvent.objects.bulk_create(
        JobEvent(
            job=job,
            seq=seq,
            at=note.at or timezone.now(),
            level=note.level,
            code=note.code,
            phase=note.phase,
            attempt=job.attempt,
            message=sentence(note.message),
            data=storable(note.data),
        )
        for seq, note in enumerate(notes, last + 1)
    )


def lock(job: Job) -> None:
    """Lock the job's row until the transaction ends."""
    Job.objects.select_for_update(no_key=True).only("pk").get(pk=job.pk)
