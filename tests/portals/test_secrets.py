"""A secret shows nowhere: not in logs, not in reprs, not in the admin's history or the schema."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from django.contrib.admin.models import LogEntry
from django.core import serializers
from django.db import connection
from django.test import Client

from portals.models import Credential, Portal
from portals.services import credential_create, credential_set_secret, portal_test
from tests.portals.helpers import SECRET


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """All logging of all libraries, every SQL statement with its values included."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="django")  # It has a level of its own.
    connection.force_debug_cursor = True
    yield caplog
    connection.force_debug_cursor = False


def test_no_log_finding_or_history_entry_contains_a_secret(
    alice,
    api,
    client: Client,
    ssh_portal: Callable[..., Portal],
    everything_logged: pytest.LogCaptureFixture,
) -> None:
    body = {"name": "by-api", "kind": "password", "secret": SECRET}
    assert api(alice).post("/api/credentials/", body).status_code == 201
    client.force_login(alice)
    form = {"name": "by-hand", "kind": "password", "password": SECRET, "key_path": ""}
    assert client.post("/admin/portals/credential/add/", form).status_code == 302
    credential = Credential.objects.get(name="by-hand")
    credential_set_secret(credential, secret=f"{SECRET}!")
    portal = ssh_portal(credential=credential)
    finding = portal_test(portal)
    assert finding.code == "AUTH_FAILED"
    assert "INSERT INTO" in everything_logged.text  # Or nothing would be proven here.
    assert SECRET not in everything_logged.text
    assert SECRET not in repr(finding)
    portal.refresh_from_db()
    assert SECRET not in f"{portal.health_message}{portal.capabilities}"
    assert SECRET not in "".join(LogEntry.objects.values_list("change_message", flat=True))


def test_a_credential_contains_no_plain_secret_in_any_text_form(db, private_key: str) -> None:
    for kind, secret in {"password": SECRET, "private_key": private_key}.items():
        credential = credential_create(name=kind, kind=kind, secret=secret)
        dump = serializers.serialize("json", [credential])
        for text in (repr(credential), str(credential), str(vars(credential)), dump):
            assert secret not in text


def test_the_api_schema_marks_the_secret_of_a_credential_as_write_only(
    alice, client: Client
) -> None:
    client.force_login(alice)
    schema = client.get("/api/schema/?format=json").json()["components"]["schemas"]
    assert schema["Credential"]["properties"]["secret"]["writeOnly"] is True
    assert "secret" not in schema["Portal"]["properties"]
