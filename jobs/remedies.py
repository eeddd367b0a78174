"""The one thing that a person has to do before a job can go on, by the error's code."""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

_ANYTHING = _("Find and mend the cause, then resume the job.")
_REMEDIES: dict[str, Promise] = {
    "AGENT_FAILED": _(
        "Check the host's Python, memory and disk. If this text comes again, report it. Then "
        "resume the job."
    ),
    "AUTH_FAILED": _("Correct the portal's user name or credential, then resume the job."),
    "CANNOT_DECRYPT": _(
        "Enter the credential's secret again, or put its old key back into KETTER_FIELD_KEYS, "
        "then resume the job."
    ),
    "DELIVERED_GONE": _(
        "The files that are left at the source were in that archive, too. Cancel the job and "
        "decide by hand; or put the archive back, then resume the job."
    ),
    "DISK_ERROR": _("Check that disk or file system, then resume the job."),
    "HOST_KEY_CHANGED": _(
        "Ask the host's administrator whether its key was replaced on purpose. If so, test the "
        "portal, compare the fingerprint and pin it, then resume the job."
    ),
    "HOST_KEY_UNKNOWN": _(
        "Test the portal, compare the fingerprint with the host's own and pin it, then resume "
        "the job."
    ),
    "INTERNAL": _(
        "The worker's log has the details; please report them. The data that has arrived stays: "
        "resume the job after an upgrade, or cancel it."
    ),
    "NO_PYTHON": _("Install Python 3.8 or newer on the host, then resume the job."),
    "NO_SPACE": _("Make room at the target, then resume the job."),
    "PERMISSION_DENIED": _(
        "Give the portal's user the right to read or write there, then resume the job."
    ),
    "PORTAL_DISABLED": _("Enable the portal, then resume the job."),
    "PORTAL_MOVED": _(
        "Cancel the job and launch it again for the new address; or give the portal its old "
        "address and credential back, then resume the job."
    ),
    "ROOT_MISSING": _("Mount or make the portal's root folder, then resume the job."),
    "ROOT_MOVED": _(
        "Ketter uses nothing in the new place. Find out who moved the folder. If the new "
        "place is right, test the portal and confirm it there, then resume the job."
    ),
    "SHELL_FAILED": _(
        "Let that account run programs: give it a login shell that does, a profile that reads no "
        "input, and a password that has not expired; then resume the job."
    ),
    "SECRET_OF_ANOTHER_ROW": _(
        "Find out who changed the database, enter the credential's secret again, then resume "
        "the job."
    ),
    "STAGING_NOT_OURS": _(
        "Find out who made that folder, let no other user write into the target folder, move the "
        "folder away, then resume the job."
    ),
    "WORKER_LOST": _(
        "Find out what ends the workers (memory that runs out, for example), then resume the job, "
        "or cancel it."
    ),
}


def remedy_for(code: str) -> str:
    """Return the one thing to do about an error that needs a person."""
    return str(_REMEDIES.get(code, _ANYTHING))
