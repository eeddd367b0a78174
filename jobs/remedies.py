"""What a person has to do before a job can go on: one thing for each kind of error."""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

_ANYTHING = _("Look into it, then resume the job.")
_HINTS: dict[str, Promise] = {
    "AGENT_FAILED": _(
        "Look into the host's Python, memory and disk, and report this text if it comes again; "
        "then resume the job."
    ),
    "AUTH_FAILED": _("Correct the portal's user name or credential, then resume the job."),
    "CANNOT_DECRYPT": _(
        "Enter the credential's secret again, or bring its key back into KETTER_FIELD_KEYS, "
        "then resume the job."
    ),
    "DELIVERED_GONE": _(
        "What is left at the source was in that archive. Cancel the job and decide by hand; or "
        "bring the archive back, then resume the job."
    ),
    "DISK_ERROR": _("Look into that disk or file system, then resume the job."),
    "HOST_KEY_CHANGED": _(
        "Find out whether the host's key was replaced on purpose; if so, test the portal, compare "
        "the fingerprint and pin it, then resume the job."
    ),
    "HOST_KEY_UNKNOWN": _(
        "Test the portal, compare the fingerprint with the host's own and pin it, then resume "
        "the job."
    ),
    "INTERNAL": _(
        "The worker's log has the details; please report them. What has arrived stays: resume the "
        "job after an upgrade, or cancel it."
    ),
    "NO_PYTHON": _("Install Python 3.8 or newer on the host, then resume the job."),
    "NO_SPACE": _("Make room at the target, then resume the job."),
    "PERMISSION_DENIED": _("Let the portal's user read or write there, then resume the job."),
    "PORTAL_DISABLED": _("Enable the portal, then resume the job."),
    "ROOT_MISSING": _("Make or mount the portal's root folder, then resume the job."),
    "WORKER_LOST": _(
        "Find out what ends the workers (their memory, say), then resume the job, or cancel it."
    ),
}


def hint_for(code: str) -> str:
    """The one thing to do about an error that needs a person."""
    return str(_HINTS.get(code, _ANYTHING))
