"""Closes django-rq's pages to all but superusers, and turns its errors into short answers.

The package asks for a staff login only, and on some addresses for a token. This module wraps
every address, so that an address that a new version brings is closed as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.urls import URLPattern, reverse
from django.utils.translation import gettext as _
from redis.exceptions import RedisError
from rq.exceptions import InvalidJobOperation, NoSuchJobError

logger = logging.getLogger(__name__)

#: The errors of its views for a missing entry, worker or scheduler, or for an invalid name.
NOT_THERE = (NoSuchJobError, IndexError, ValueError, AssertionError, ImproperlyConfigured)

View = Callable[..., HttpResponseBase]


def is_superuser(request: HttpRequest) -> bool:
    """True if an active superuser sends the request."""
    return bool(request.user.is_active and request.user.is_superuser)


def for_superusers(pattern: URLPattern) -> URLPattern:
    """The same address, closed to all but superusers."""
    return URLPattern(
        pattern.pattern, _closed(pattern.callback), pattern.default_args, pattern.name
    )


def is_of_queue(pattern: URLPattern) -> bool:
    """True if an address is django-rq's, or the list page.

    The admin's other addresses are for rows, and would read a table that does not exist.
    """
    module = str(getattr(pattern.callback, "__module__", ""))
    return module.startswith("django_rq.") or str(pattern.name).endswith("_changelist")


def _closed(view: View) -> View:
    @wraps(view)
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not is_superuser(request):
            if request.user.is_authenticated:
                raise PermissionDenied
            return redirect_to_login(request.get_full_path(), reverse("admin:login"))
        if request.method == "POST":
            logger.info("%s: POST %s", request.user, request.path)
        try:
            return view(request, *args, **kwargs)
        except NOT_THERE as error:
            logger.info("%s: the queue has no such entry: %r", request.path, error)
            raise Http404(_("The queue has no such entry.")) from error
        except InvalidJobOperation as error:
            return _plain(409, _("The queue cannot do that to this entry: %s") % error)
        except RedisError as error:
            logger.warning("%s: Redis does not answer, or refuses: %s", request.path, error)
            return _plain(503, _("Redis does not answer, or refuses; /health says why."))

    return wrapper


def _plain(status: int, sentence: str) -> HttpResponse:
    return HttpResponse(sentence, status=status, content_type="text/plain; charset=utf-8")
