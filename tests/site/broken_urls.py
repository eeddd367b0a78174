"""Ketter's addresses, and some that break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NoReturn

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from rest_framework.permissions import AllowAny
from rest_framework.views import APIView

from ketter_site.urls import handler400, handler404, handler500
from ketter_site.urls import urlpatterns as _urlpatterns

__all__ = ["handler400", "handler404", "handler500"]


class Broken(Exception):
    """A bug."""


def breaking(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable:
    """A middleware with a bug that one address meets."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path == "/broken/middleware/":
            raise Broken("in the middleware")
        return get_response(request)

    return middleware


def in_view(request: HttpRequest) -> NoReturn:
    """A page with a bug."""
    raise Broken("in the view")


class InApi(APIView):
    """An endpoint of the API with a bug."""

    permission_classes = [AllowAny]

    def get(self, request: HttpRequest) -> NoReturn:
        """Break."""
        raise Broken("in the api")


def in_stream(request: HttpRequest) -> StreamingHttpResponse:
    """A page that breaks when half of it is sent."""

    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise Broken("in the stream")

    return StreamingHttpResponse(pieces())


def on_commit(request: HttpRequest) -> HttpResponse:
    """A page whose work after the commit breaks: what a full Redis does to a launch."""

    def after() -> NoReturn:
        raise Broken("after the commit")

    with transaction.atomic():
        transaction.on_commit(after, robust=True)
    return HttpResponse("ok")


@csrf_exempt
def with_secret(request: HttpRequest) -> NoReturn:
    """A page with a bug whose message repeats what was posted."""
    raise Broken(f"cannot use {request.POST['secret']}")


def in_database(request: HttpRequest) -> HttpResponse:
    """A page that a constraint of the database refuses, with the whole row in its message."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMP TABLE t (secret text CHECK (secret = '')); "
            "INSERT INTO t VALUES ('hunter2-hunter2')"
        )
    return HttpResponse("ok")


urlpatterns = [
    path("broken/view/", in_view),
    path("api/broken/", InApi.as_view()),
    path("broken/stream/", in_stream),
    path("broken/commit/", on_commit),
    path("broken/secret/", with_secret),
    path("broken/database/", in_database),
    *_urlpatterns,
]
