"""Makes the end of an attempt from the engine's report or error: status, event and columns."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _

import engine
from engine.errors import NEEDS_PERSON, TRANSIENT
from engine.proof.reporter import NAMED_FAILURES
from jobs.models import EventLevel, Job
from jobs.remedies import remedy_for
from jobs.states import LIVE, Status
from portals.errors import PortalError
from portals.models import Portal

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class End:
    """The end of an attempt, with the arguments of `job_move`.

    `advanced` is for RETRY_WAIT: whether the attempt made progress. `at` is the portal where a
    person has to mend something.
    """

    status: Status
    code: str
    message: str
    level: str = EventLevel.INFO
    data: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    advanced: bool = False
    at: Portal | None = None


def end_after_error(job: Job, error: engine.EngineError | PortalError, *, advanced: bool) -> End:
    """Return the end that follows an error: another try later, a wait for a person, or FAILED."""
    if error.retry == TRANSIENT:
        return End(Status.RETRY_WAIT, error.code, str(error), advanced=advanced)
    if error.retry == NEEDS_PERSON:
        at = None
        if isinstance(error, engine.EngineError) and error.of_target is not None:
            at = job.target_portal if error.of_target else job.source_portal
        message = f"{_as_sentence(str(error))} {remedy_for(error.code)}"
        if at and isinstance(error, engine.RootMoved):
            words = {"portal": at.name, "error": error}
            message = _("Portal “%(portal)s”: %(error)s.") % words + f" {remedy_for(error.code)}"
        columns = {"error_code": error.code, "error_message": message}
        return End(
            Status.NEEDS_ATTENTION, error.code, message, EventLevel.ERROR, columns=columns, at=at
        )
    return failure(error.code, str(error))


def keeps_staging(end: End) -> bool:
    """Whether the data at the target stays there for a later attempt."""
    if end.code == "NO_SPACE" and not settings.KETTER_KEEP_WHEN_FULL:
        return False
    return end.status in LIVE


def with_leftovers(end: End) -> End:
    """Add a sentence to the end if data of the job stays at the target (`data["left"]`)."""
    if "left" not in end.data:
        return end
    end = replace(end, message=f"{end.message} {end.data['left']}")
    if end.status is Status.CANCELLED:
        end = replace(end, code="STAGING_LEFT", level=EventLevel.WARNING)
    return end


def failure(code: str, message: str) -> End:
    """Return the end of a job that failed."""
    columns = {"error_code": code, "error_message": message}
    return End(Status.FAILED, code, message, EventLevel.ERROR, columns=columns)


def end_of_outage(error: Exception) -> End:
    """Return the end of an attempt that could not start, or end, while the database was away."""
    logger.warning("The database was away: %s", error)
    return End(Status.RETRY_WAIT, "DATABASE_AWAY", _("The database was away for a moment."))


def end_of_bug(job: Job, bug: Exception) -> End:
    """Return the end that follows a bug in Ketter: a wait for a person; the data stays.

    A cancelled job ends instead: it would meet the same bug again and again.
    """
    message = _("A bug in Ketter stopped this job (%s).") % f"{type(bug).__name__}: {bug}"
    if job.cancel_requested_at:
        message += " " + _("Its data may still be in a hidden folder at the target.")
        return End(Status.CANCELLED, "STAGING_LEFT", message, EventLevel.ERROR)
    message = f"{message} {remedy_for('INTERNAL')}"
    columns = {"error_code": "INTERNAL", "error_message": message}
    return End(Status.NEEDS_ATTENTION, "INTERNAL", message, EventLevel.ERROR, columns=columns)


def _as_sentence(text: str) -> str:
    """Return an error's text with a full stop: the engine's texts may be part of a longer line."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def end_of(report: engine.Report) -> End:
    """Return the end of a job whose transfer finished, DONE or PARTIAL."""
    moved = _("Moved %(files)d files, %(size)s in %(s).1f s (%(rate)s/s), verified: %(verify)s.")
    copied = _("Copied %(files)d files, %(size)s in %(s).1f s (%(rate)s/s), verified: %(verify)s.")
    message = (moved if report.mode is engine.Mode.MOVE else copied) % {
        "files": report.files,
        "size": filesizeformat(report.bytes),
        "s": report.seconds,
        "rate": filesizeformat(report.rate),
        "verify": report.verify,
    }
    data = {
        "files": report.files,
        "bytes": report.bytes,
        "rate": round(report.rate),
        "seconds": round(report.seconds, 3),
        "verify": report.verify,
        "mode": report.mode,
        "files_skipped": report.files_skipped,
        "files_removed": report.files_removed,
        "parcels": report.parcels,
    }
    columns: dict[str, Any] = {
        "files_done": report.files,
        "bytes_done": report.bytes,
        "files_skipped": report.files_skipped,
    }
    failures = [failure._asdict() for failure in report.failures[:NAMED_FAILURES]]
    return end_with(message, data, columns, report.failures_total, failures)


def end_with(
    message: str,
    data: dict[str, Any],
    columns: dict[str, Any],
    failures_total: int = 0,
    failures: Sequence[dict[str, str]] = (),
) -> End:
    """Return the end of a finished transfer: DONE, or PARTIAL if entries were not delivered."""
    columns = {**columns, "files_failed": failures_total}
    if not failures_total:
        return End(Status.DONE, "DONE", message, data=data, columns=columns)
    data = {**data, "failures_total": failures_total, "failures": list(failures)}
    if failures:
        why = _("%(n)d entries could not be delivered; the first is %(path)s: %(message)s") % {
            "n": failures_total,
            "path": failures[0]["path"],
            "message": failures[0]["message"],
        }
    else:
        why = _("%d entries could not be delivered") % failures_total
    columns |= {"error_code": "PARTIAL", "error_message": why}
    return End(Status.PARTIAL, "PARTIAL", f"{message} {why}", EventLevel.WARNING, data, columns)
