"""The user who sends a request about a job."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.http import HttpRequest
from rest_framework.request import Request


def requesting_user(request: HttpRequest | Request) -> User:
    """Return the user of a request. Call it after the permission check: then there is one."""
    user = request.user
    assert isinstance(user, User)
    return user
