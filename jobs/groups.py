"""The rights that Ketter's two groups of users have on jobs."""

from __future__ import annotations

from typing import Any

from django.apps import apps as installed_apps
from django.apps.registry import Apps

from portals.groups import OPERATORS, VIEWERS, group_grant

VIEW = ("jobs.view_job", "jobs.view_jobevent", "jobs.view_jobparcel")
#: Launching and relaunching need `add_job`; cancelling, pausing and resuming `change_job`.
OPERATE = ("jobs.add_job", "jobs.change_job")


def jobs_granted(*, using: str, apps: Apps = installed_apps, **_signal: Any) -> None:
    """Let viewers see jobs, and operators also launch, stop and relaunch them (post_migrate)."""
    group_grant(VIEWERS, VIEW, using=using, apps=apps)
    group_grant(OPERATORS, [*VIEW, *OPERATE], using=using, apps=apps)
