"""Who asks for something to be done with a job."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.http import HttpRequest
from rest_framework.request import Request


def asker(request: HttpRequest | Request) -> User:
    """The user behind a request whose rights were checked, so that there is one."""
    user = request.user
    assert isinstance(user, User)
    return user
