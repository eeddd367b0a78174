"""Shared by all API endpoints: the pages of lists and the form of errors."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, PermissionDenied, ValidationError
from django.http import (
    Http404,
    HttpRequest,
    HttpResponseBase,
    HttpResponsePermanentRedirect,
    JsonResponse,
)
from django.utils.translation import gettext as _
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.pagination import PageNumberPagination
from rest_framework.response import Response
from rest_framework.serializers import as_serializer_error
from rest_framework.views import exception_handler as rest_exception_handler


class Pagination(PageNumberPagination):
    """Pages of 50 entries; a request may ask for others with `page_size`, up to 500."""

    page_size_query_param = "page_size"
    max_page_size = 500


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Answer every expected error with `{code, message, extra}`; a bug stays a 500.

    Expected errors are those of REST framework, Django's own (not found, forbidden,
    not valid), and every error with a `code` and a `status_code`.
    """
    error = _as_api_error(error)
    if not isinstance(error, exceptions.APIException):
        status = getattr(error, "status_code", None)
        if status is None or not hasattr(error, "code"):
            return None
        extra = getattr(error, "extra", {})
        return Response(_envelope(error.code, str(error), **extra), status=status)
    response = rest_exception_handler(error, context)
    if response is not None:
        response.data = _rest_envelope(error)
    return response


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Django's handler400: a request refused before any view runs, for example for its host."""
    if not _is_api(request):
        return defaults.bad_request(request, exception)
    message = _(
        "The request cannot be understood, or names a host that is not in KETTER_ALLOWED_HOSTS."
    )
    return JsonResponse(_envelope("BAD_REQUEST", message), status=400)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Django's handler404: an address that no view answers."""
    if not _is_api(request):
        return defaults.page_not_found(request, exception)
    message = _("The API has no such address; /api/docs/ lists all of them.")
    return JsonResponse(_envelope("NOT_FOUND", message), status=404)


@csrf_exempt
def without_slash(request: HttpRequest) -> HttpResponseBase:
    """Redirect a GET whose API address lacks its last slash; answer 404 to other methods.

    A redirected POST would arrive as a GET without its body: its job would not be launched.
    """
    if request.method in ("GET", "HEAD"):
        query = f"?{request.META['QUERY_STRING']}" if request.META.get("QUERY_STRING") else ""
        return HttpResponsePermanentRedirect(f"{request.path}/{query}")
    message = _("Addresses of the API end with a slash: %s/") % request.path
    return JsonResponse(_envelope("NOT_FOUND", message), status=404)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Django's handler500: a bug; the log has the traceback."""
    if not _is_api(request):
        return defaults.server_error(request)
    message = _("A bug in Ketter stopped this request; the web server's log has the traceback.")
    return JsonResponse(_envelope("INTERNAL", message), status=500)


def _is_api(request: HttpRequest) -> bool:
    return request.path_info.startswith("/api/")


def _as_api_error(error: Exception) -> Exception:
    """The error of REST framework for an error that Django raises."""
    if isinstance(error, Http404):
        return exceptions.NotFound()
    if isinstance(error, PermissionDenied):
        return exceptions.PermissionDenied()
    if isinstance(error, ValidationError):
        return exceptions.ValidationError(as_serializer_error(error))
    return error


def _rest_envelope(error: exceptions.APIException) -> dict[str, Any]:
    detail = error.detail
    if isinstance(detail, exceptions.ErrorDetail):
        return _envelope((detail.code or "error").upper(), str(detail))
    if isinstance(detail, list):
        detail = {NON_FIELD_ERRORS: detail}
    return _envelope("INVALID", _first_sentence(detail), fields=detail)


def _first_sentence(detail: Any, where: str = "") -> str:
    """The first message in a tree of validation messages, with the field it is about."""
    if isinstance(detail, dict) and detail:
        name, inner = next(iter(detail.items()))
        general = name in {NON_FIELD_ERRORS, "non_field_errors"}
        return _first_sentence(inner, where if general else str(name))
    if isinstance(detail, list) and detail:
        return _first_sentence(detail[0], where)
    text = str(detail) if detail else HTTPStatus.BAD_REQUEST.phrase
    return f"{where}: {text}" if where else text


def _envelope(code: str, message: str, **extra: Any) -> dict[str, Any]:
    return {"code": code, "message": message, "extra": extra}
