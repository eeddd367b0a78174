"""One envelope for every error of the API, and pages that are never too long."""

from __future__ import annotations

from http import HTTPStatus
from typing import ClassVar

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404
from rest_framework import exceptions

from ketter_site.api import exception_handler
from tests.factories import PortalFactory


class Conflict(Exception):
    """An error of an app, as the apps define theirs."""

    code = "CONFLICT"
    status_code = HTTPStatus.CONFLICT
    extra: ClassVar = {"job": 7}


@pytest.mark.parametrize(
    ("error", "status", "code", "message"),
    [
        (Http404(), 404, "NOT_FOUND", "Not found."),
        (PermissionDenied(), 403, "PERMISSION_DENIED", "You do not have permission"),
        (exceptions.NotAuthenticated(), 401, "NOT_AUTHENTICATED", "Authentication credentials"),
        (exceptions.ParseError(), 400, "PARSE_ERROR", "Malformed request."),
        (ValidationError("Too long."), 400, "INVALID", "Too long."),
        (ValidationError({"name": ["Taken."]}), 400, "INVALID", "name: Taken."),
        (exceptions.ValidationError(["Odd."]), 400, "INVALID", "Odd."),
        (exceptions.ValidationError({"a": [{"b": ["Odd."]}]}), 400, "INVALID", "b: Odd."),
        (exceptions.ValidationError({"a": []}), 400, "INVALID", "a: Bad Request"),
        (Conflict("Already running."), 409, "CONFLICT", "Already running."),
    ],
)
def test_the_api_answers_every_expected_error_in_the_same_format(error, status, code, message):
    answer = exception_handler(error, {})
    assert answer is not None
    assert answer.status_code == status
    assert set(answer.data) == {"code", "message", "extra"}
    assert answer.data["code"] == code
    assert answer.data["message"].startswith(message)


def test_an_error_answer_contains_the_extra_data_of_the_error():
    assert exception_handler(Conflict("x"), {}).data["extra"] == {"job": 7}
    error = ValidationError({"name": ["Taken."]})
    assert exception_handler(error, {}).data["extra"] == {"fields": {"name": ["Taken."]}}


def test_the_exception_handler_does_not_handle_bugs():
    assert exception_handler(KeyError("x"), {}) is None


@pytest.mark.parametrize(
    ("request_to", "signed_in", "status", "code"),
    [
        ({"path": "/api/nothing/"}, False, 404, "NOT_FOUND"),
        ({"path": "/api/jobs/", "headers": {"host": "foreign.example"}}, False, 400, "BAD_REQUEST"),
        ({"path": "/api/jobs/"}, False, 401, "NOT_AUTHENTICATED"),
        ({"path": "/api/portals/?page=99"}, True, 404, "NOT_FOUND"),
    ],
    ids=["unknown path", "foreign host", "no user signed in", "page beyond the last"],
)
def test_the_api_uses_the_error_format_wherever_it_refuses_a_request(
    api, alice, request_to, signed_in, status, code
):
    answer = api(alice if signed_in else None).get(**request_to)
    assert answer.status_code == status
    assert set(answer.json()) == {"code", "message", "extra"}
    assert answer.json()["code"] == code


def test_a_bug_in_an_api_view_is_answered_in_the_error_format_without_details(
    client, alice, monkeypatch
):
    monkeypatch.setattr("portals.api.views.PortalViewSet.get_queryset", lambda view: 1 / 0)
    client.force_login(alice)
    client.raise_request_exception = False
    answer = client.get("/api/portals/")
    assert answer.status_code == 500
    assert answer.json()["code"] == "INTERNAL"
    assert "division" not in answer.content.decode()


def test_a_missing_page_outside_the_api_is_answered_with_html(client):
    answer = client.get("/nothing/")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/html")


def test_the_api_splits_long_lists_into_pages(api, alice):
    for number in range(3):
        PortalFactory(name=f"portal-{number}")
    page = api(alice).get("/api/portals/?page_size=2").json()
    assert page["count"] == 3
    assert len(page["results"]) == 2
    assert page["next"]


@pytest.mark.parametrize("address", ["/api/jobs", "/api/portals"])
def test_a_missing_last_slash_never_turns_a_post_into_a_get(api, alice, address):
    client = api(alice)
    refused = client.post(address, {}, format="json")
    assert refused.status_code == 404
    assert f"{address}/" in refused.json()["message"]
    shown = client.get(f"{address}?page=1")
    assert (shown.status_code, shown["Location"]) == (301, f"{address}/?page=1")
