"""`manage.py create_token`: the way into the API."""

from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command
from rest_framework.test import APIClient


def create_token(*arguments: str) -> str:
    """What the command prints."""
    out = io.StringIO()
    call_command("create_token", *arguments, stdout=out)
    return out.getvalue().strip()


def test_create_token_prints_a_token_that_opens_the_api(alice):
    token = create_token("alice")
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    assert client.get("/api/jobs/").status_code == 200


def test_create_token_stores_no_readable_token_and_sets_no_expiry(alice):
    from knox.models import AuthToken

    token = create_token("alice")
    row = AuthToken.objects.get()
    assert token not in {str(value) for value in vars(row).values()}
    assert row.expiry is None


def test_create_token_with_expires_makes_a_token_that_expires(alice):
    from knox.models import AuthToken

    create_token("alice", "--expires", "2")
    row = AuthToken.objects.get()
    assert (row.expiry - row.created).days in {1, 2}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nobody-here"], "There is no user nobody-here; make it in the admin."),
        (["alice", "--expires", "0"], "--expires is 0; it takes a number of days, 1 or more."),
    ],
)
def test_create_token_explains_an_unknown_user_and_an_invalid_expiry(alice, arguments, sentence):
    with pytest.raises(CommandError, match=sentence):
        create_token(*arguments)
