"""The permissions of the API: Django's model permissions, for reading, too."""

from __future__ import annotations

from rest_framework.permissions import DjangoModelPermissions
from rest_framework.request import Request
from rest_framework.views import APIView

VIEW = ["%(app_label)s.view_%(model_name)s"]


class ModelPermissions(DjangoModelPermissions):
    """Like the stock class, but reading needs the view permission too.

    A viewset's `action_permissions` maps each action other than create, update
    and delete to its permission.
    """

    perms_map = DjangoModelPermissions.perms_map | dict.fromkeys(("GET", "HEAD", "OPTIONS"), VIEW)

    def has_permission(self, request: Request, view: APIView) -> bool:
        """True if the user has the permission of the action, or else of the method."""
        named = getattr(view, "action_permissions", {}).get(getattr(view, "action", None))
        if named is None:
            return bool(super().has_permission(request, view))
        return bool(request.user and request.user.has_perm(named))
