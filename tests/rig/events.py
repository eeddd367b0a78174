"""What a job's events say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.models import Job


def codes(job: Job) -> list[str]:
    """The codes of a job's events, in order."""
    return list(job.events.order_by("seq").values_list("code", flat=True))
