"""Who may do what with jobs over the API."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

#: What an action needs; looking is all that any other one does.
NEEDED = {"create": "jobs.add_job", "relaunch": "jobs.add_job", "cancel": "jobs.change_job"}


class JobPermission(BasePermission):
    """The same rights as in the admin: viewers look, operators launch, cancel and relaunch."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Whether this user holds the right that the action needs."""
        needed = NEEDED.get(view.action, "jobs.view_job")
        return bool(
            request.user and request.user.is_authenticated and request.user.has_perm(needed)
        )
