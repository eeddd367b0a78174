"""Validates a job before it is launched: one set of rules for the API, the form and relaunches."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import TextChoices
from django.utils.translation import gettext as _

from engine import BadRequest, check_filters
from engine.transfer import archive_is_at_risk
from engine.types import OPTIONS
from jobs.choices import CHOICES, JobMode, JobSymlinks
from jobs.errors import Problem
from jobs.models import Job
from jobs.paths import overlap_problem, path_problem, place_of, tidy
from jobs.queueing.eligibility import holder_of, target_of
from jobs.queueing.machines import machines_problem
from jobs.text import is_storable
from portals.models import Portal, PortalState

#: The columns that a user sets at the launch; Ketter sets all others.
ORDER_FIELDS = (
    "mode",
    "source_portal",
    "source_path",
    "target_portal",
    "target_path",
    *(option.name for option in OPTIONS),
    "include",
    "exclude",
    "bandwidth_limit",
    "priority",
    "max_tries",
)

MAX_PATTERNS, MAX_PATTERN, MAX_KEY = 200, 1024, 128
#: The least and the greatest value of a number; `bandwidth_limit` is in bytes per second.
RANGES = {
    **{option.name: (0, option.most) for option in OPTIONS if option.kind is int},
    "bandwidth_limit": (0, 1 << 50),
    "priority": (-1000, 1000),
    "max_tries": (1, 1000),
}


def shorten_paths(job: Job) -> None:
    """Shorten the paths of a job that is not launched yet."""
    job.source_path = tidy(job.source_path)
    job.target_path = tidy(job.target_path)


def problems_of(job: Job) -> dict[str, Problem]:
    """Return the errors of a job that is not launched yet, by field; empty if it is valid."""
    found = {
        name: _choice_problem(getattr(job, name), choices) for name, choices in CHOICES.items()
    }
    for side in ("source", "target"):
        found[f"{side}_portal"] = _portal_problem(getattr(job, f"{side}_portal"))
        found[f"{side}_path"] = path_problem(getattr(job, f"{side}_path"))
    if not found["source_path"] and not found["target_path"]:
        found["target_path"] = overlap_problem(
            place_of(job.source_portal, job.source_path),
            place_of(job.target_portal, job.target_path),
        )
    if not found["target_portal"]:
        found["target_portal"] = machines_problem(job)
    found["include"] = _patterns_problem(job.include)
    found["exclude"] = _patterns_problem(job.exclude)
    if archive_is_at_risk(job.mode, job.strategy, job.on_conflict):
        found["on_conflict"] = Problem(
            "INVALID",
            _(
                "A move that delivers one archive cannot overwrite: if it stopped half-way, the "
                "next attempt would replace the whole archive with one of the remaining files."
            ),
        )
    if job.mode == JobMode.MOVE and job.symlinks == JobSymlinks.FOLLOW:
        found["symlinks"] = Problem(
            "INVALID",
            _(
                "A move cannot follow symbolic links: Ketter removes at the source only what it "
                "has proven at the target."
            ),
        )
    for name in RANGES:
        found[name] = _range_problem(name, getattr(job, name))
    found["idempotency_key"] = _key_problem(job.idempotency_key)
    return {name: problem for name, problem in found.items() if problem}


def _choice_problem(value: str, choices: type[TextChoices]) -> Problem | None:
    if value in choices.values:
        return None
    known = ", ".join(repr(str(choice)) for choice in choices.values)
    return Problem(
        "INVALID", _("%(value)r is not one of %(known)s.") % {"value": value, "known": known}
    )


def _portal_problem(portal: Portal) -> Problem | None:
    if portal.state == PortalState.ACTIVE:
        return None
    return Problem(
        "PORTAL_DISABLED",
        _("Portal %s is disabled: enable it, or choose another one.") % portal.name,
    )


def _patterns_problem(patterns: Any) -> Problem | None:
    if len(patterns) > MAX_PATTERNS:
        return Problem(
            "INVALID", _("The list has too many patterns: %d are allowed.") % MAX_PATTERNS
        )
    for pattern in patterns:
        if not isinstance(pattern, str) or not 0 < len(pattern) <= MAX_PATTERN:
            return Problem(
                "INVALID", _("A pattern must be a text of 1 to %d characters.") % MAX_PATTERN
            )
        if not is_storable(pattern):
            return Problem("INVALID", _("A pattern must be valid text without NUL."))
        try:
            check_filters([("exclude", pattern)])
        except BadRequest as error:
            return Problem("INVALID", str(error))
    return None


def busy_problem(job: Job) -> Problem | None:
    """Return why KETTER_BUSY_TARGET=refuse forbids the job: a live one writes there; or None."""
    if settings.KETTER_BUSY_TARGET != "refuse":
        return None
    other = holder_of(target_of(job))
    if other is None:
        return None
    return Problem("TARGET_BUSY", _("Job %s writes to the same place and has not ended.") % other)


def _range_problem(name: str, value: Any) -> Problem | None:
    least, most = RANGES[name]
    if isinstance(value, int) and least <= value <= most:
        return None
    message = _("The value must be between %(least)d and %(most)d.") % {
        "least": least,
        "most": most,
    }
    return Problem("INVALID", message)


def _key_problem(key: str) -> Problem | None:
    if len(key) <= MAX_KEY and key.isascii() and (key.isprintable() or not key):
        return None
    message = _("An idempotency key must have at most %d printable ASCII characters.") % MAX_KEY
    return Problem("INVALID", message)
