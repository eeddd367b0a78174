"""What a person or a program asks for when launching a job, and whether it can be done."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import TextChoices
from django.utils.translation import gettext as _

from engine import BadRequest, check_filters
from engine.transfer import archive_is_at_risk
from jobs.errors import Problem
from jobs.models import CHOICES, Job
from jobs.places import overlap_problem, path_problem, place_of, tidy
from jobs.text import is_storable
from jobs.turns import holder_of, target_of
from portals.models import Portal, PortalState

#: The columns a launcher decides; all others are the job's own.
ORDER_FIELDS = (
    "mode",
    "source_portal",
    "source_path",
    "target_portal",
    "target_path",
    "strategy",
    "verify",
    "on_conflict",
    "include",
    "exclude",
    "streams",
    "bandwidth_limit",
    "priority",
    "max_tries",
)

MAX_STREAMS, MAX_PATTERNS, MAX_PATTERN, MAX_KEY = 32, 200, 1024, 128
#: From the least to the most that can be asked for.
RANGES = {
    "streams": (0, MAX_STREAMS),
    "bandwidth_limit": (0, 1 << 50),
    "priority": (-1000, 1000),
    "max_tries": (1, 1000),
}


def tidy_order(order: Job) -> None:
    """Bring the paths of a job not yet launched into their shortest form."""
    order.source_path = tidy(order.source_path)
    order.target_path = tidy(order.target_path)


def problems_of(order: Job) -> dict[str, Problem]:
    """Everything that is wrong with a job not yet launched, by field; nothing if it can be."""
    found = {
        name: _choice_problem(getattr(order, name), choices) for name, choices in CHOICES.items()
    }
    for side in ("source", "target"):
        found[f"{side}_portal"] = _portal_problem(getattr(order, f"{side}_portal"))
        found[f"{side}_path"] = path_problem(getattr(order, f"{side}_path"))
    if not found["source_path"] and not found["target_path"]:
        found["target_path"] = overlap_problem(
            place_of(order.source_portal, order.source_path),
            place_of(order.target_portal, order.target_path),
        )
    found["include"] = _patterns_problem(order.include)
    found["exclude"] = _patterns_problem(order.exclude)
    if archive_is_at_risk(order.mode, order.strategy, order.on_conflict):
        found["on_conflict"] = Problem(
            "INVALID",
            _(
                "A move into an archive cannot overwrite: stopped half-way, the next attempt would "
                "replace the whole archive by one of what is left."
            ),
        )
    for name in RANGES:
        found[name] = _range_problem(name, getattr(order, name))
    found["idempotency_key"] = _key_problem(order.idempotency_key)
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
    return Problem("PORTAL_DISABLED", _("Portal %s is disabled.") % portal.name)


def _patterns_problem(patterns: Any) -> Problem | None:
    if len(patterns) > MAX_PATTERNS:
        return Problem("INVALID", _("There can be at most %d patterns.") % MAX_PATTERNS)
    for pattern in patterns:
        if not isinstance(pattern, str) or not 0 < len(pattern) <= MAX_PATTERN:
            return Problem("INVALID", _("A pattern is a text of 1 to %d characters.") % MAX_PATTERN)
        if not is_storable(pattern):
            return Problem("INVALID", _("A pattern must be valid text without NUL."))
        try:
            check_filters([("exclude", pattern)])
        except BadRequest as error:
            return Problem("INVALID", str(error))
    return None


def busy_problem(order: Job) -> Problem | None:
    """Why a job may not be launched beside those that are live, where they are to be refused."""
    if settings.KETTER_BUSY_TARGET != "refuse":
        return None
    other = holder_of(target_of(order))
    if other is None:
        return None
    return Problem("TARGET_BUSY", _("Job %s writes to the same place and has not ended.") % other)


def _range_problem(name: str, value: Any) -> Problem | None:
    least, most = RANGES[name]
    if isinstance(value, int) and least <= value <= most:
        return None
    message = _("The value is between %(least)d and %(most)d.") % {"least": least, "most": most}
    return Problem("INVALID", message)


def _key_problem(key: str) -> Problem | None:
    if len(key) <= MAX_KEY and key.isascii() and (key.isprintable() or not key):
        return None
    message = _("An idempotency key has at most %d printable ASCII characters.") % MAX_KEY
    return Problem("INVALID", message)
