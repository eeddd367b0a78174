"""Portals and credentials in the admin, through its real pages."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client

from portals.crypto import decrypt
from portals.models import Credential, Portal
from portals.services import credential_create, portal_create
from tests.factories import JobFactory, PortalFactory
from tests.portals.helpers import FINGERPRINT, HOST_KEY, SECRET

PORTALS = "/admin/portals/portal/"
CREDENTIALS = "/admin/portals/credential/"
FORM = {
    "name": "srvtrf",
    "kind": "ssh",
    "host": "srvtrf",
    "port": "22",
    "username": "oscar",
    "credential": "",
    "root_path": "/srv/",
    "max_streams": "4",
    "max_jobs": "0",
    "bandwidth_limit": "0",
    "state": "active",
    "host_key": "",
}


@pytest.fixture
def as_alice(alice, client: Client) -> Client:
    """A browser with alice logged in."""
    client.force_login(alice)
    return client


def page(answer) -> str:
    """The text of a page that came out well."""
    assert answer.status_code == 200
    return answer.content.decode()


def test_the_portal_form_creates_a_portal_and_drops_the_host_key_of_a_changed_host(
    as_alice: Client,
) -> None:
    assert as_alice.post(f"{PORTALS}add/", {**FORM, "host_key": HOST_KEY}).status_code == 302
    portal = Portal.objects.get()
    assert (portal.root_path, portal.host_key) == ("/srv", HOST_KEY)
    url = f"{PORTALS}{portal.pk}/change/"
    assert FINGERPRINT in page(as_alice.get(url))
    changed = {**FORM, "host_key": HOST_KEY, "max_streams": "8"}
    assert as_alice.post(url, changed).status_code == 302
    portal.refresh_from_db()
    assert (portal.max_streams, portal.host_key) == (8, HOST_KEY)
    assert as_alice.post(url, {**changed, "host": "other"}).status_code == 302
    portal.refresh_from_db()
    assert (portal.host, portal.host_key) == ("other", "")
    assert LogEntry.objects.count() == 3
    assert "srvtrf" in page(as_alice.get(PORTALS))


def test_the_portal_form_clears_the_ssh_fields_when_the_kind_becomes_local(
    as_alice: Client,
) -> None:
    portal = portal_create(name="srvtrf", kind="ssh", host="h", root_path="/", host_key=HOST_KEY)
    form = {**FORM, "kind": "local", "host": "-nonsense", "host_key": HOST_KEY}
    url = f"{PORTALS}{portal.pk}/change/"
    assert as_alice.post(url, form).status_code == 302
    portal.refresh_from_db()
    assert (portal.kind, portal.host, portal.username, portal.host_key) == ("local", "", "", "")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"host": ""}, "A portal behind SSH needs a host."),
        ({"host": "-oProxyCommand=id"}, "A host is a name like"),
        ({"username": "-l"}, "A user name holds"),
        ({"root_path": "/srv/../etc"}, "The root folder has a .. in it"),
        ({"host_key": "nonsense"}, "A host key is one line"),
    ],
)
def test_the_portal_form_explains_an_invalid_value_and_saves_nothing(
    as_alice: Client, change: dict, sentence: str
) -> None:
    assert sentence in page(as_alice.post(f"{PORTALS}add/", {**FORM, **change}))
    assert not Portal.objects.exists()


def test_the_portal_admin_refuses_to_delete_a_portal_that_a_job_uses(as_alice: Client) -> None:
    job = JobFactory.create()
    url = f"{PORTALS}{job.source_portal_id}/delete/"
    assert "would require deleting the following protected" in page(as_alice.get(url))
    as_alice.post(url, {"post": "yes"})
    assert Portal.objects.filter(pk=job.source_portal_id).exists()


def test_the_credential_form_stores_a_password_that_no_admin_page_shows(as_alice: Client) -> None:
    form = {"name": "pass", "kind": "password", "password": f" {SECRET} ", "key_path": ""}
    assert as_alice.post(f"{CREDENTIALS}add/", form).status_code == 302
    credential = Credential.objects.get()
    assert decrypt(credential.secret, of=credential.row) == f" {SECRET} "
    url = f"{CREDENTIALS}{credential.pk}/change/"
    renamed = {"name": "renamed", "kind": "password", "password": "", "key_path": ""}
    assert as_alice.post(url, renamed).status_code == 302
    pages = [
        page(as_alice.get(u)) for u in (url, CREDENTIALS, f"{CREDENTIALS}{credential.pk}/history/")
    ]
    credential.refresh_from_db()
    assert (credential.name, decrypt(credential.secret, of=credential.row)) == (
        "renamed",
        f" {SECRET} ",
    )
    for text in pages:
        assert SECRET not in text
        assert credential.secret not in text
    as_alice.post(url, {**renamed, "password": "another"})
    credential.refresh_from_db()
    assert decrypt(credential.secret, of=credential.row) == "another"


def test_the_credential_form_stores_a_private_key_pasted_with_windows_line_ends(
    as_alice: Client, private_key: str
) -> None:
    pasted = private_key.replace("\n", "\r\n")
    form = {"name": "key", "kind": "private_key", "private_key": pasted, "key_path": ""}
    assert as_alice.post(f"{CREDENTIALS}add/", form).status_code == 302
    assert decrypt(Credential.objects.get().secret, of=Credential.objects.get().row) == private_key


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"kind": "password", "password": ""}, "Enter the password."),
        ({"kind": "private_key", "private_key": SECRET}, "This is not a private key"),
        ({"kind": "key_file", "key_path": ""}, "Enter the absolute path of the key file."),
        ({"kind": "password", "password": SECRET, "name": "two words"}, "valid “slug”"),
    ],
)
def test_the_credential_form_refuses_invalid_input_without_repeating_the_secret(
    as_alice: Client, form: dict, sentence: str
) -> None:
    text = page(as_alice.post(f"{CREDENTIALS}add/", {"name": "c", "key_path": "", **form}))
    assert sentence in text
    assert SECRET not in text
    assert not Credential.objects.exists()


def test_the_credential_form_does_not_change_the_kind_of_a_credential(as_alice: Client) -> None:
    credential = credential_create(name="c", kind="agent")
    form = {"name": "c", "kind": "password", "password": SECRET, "key_path": ""}
    as_alice.post(f"{CREDENTIALS}{credential.pk}/change/", form)
    credential.refresh_from_db()
    assert (credential.kind, credential.secret) == ("agent", "")


def test_viewers_see_portals_and_credentials_but_no_secrets_and_no_connection_page(
    vera, client: Client
) -> None:
    client.force_login(vera)
    portal = PortalFactory.create()
    credential = credential_create(name="pass", kind="password", secret=SECRET)
    assert portal.name in page(client.get(PORTALS))
    assert portal.root_path in page(client.get(f"{PORTALS}{portal.pk}/change/"))
    text = page(client.get(f"{CREDENTIALS}{credential.pk}/change/"))
    assert 'name="password"' not in text
    assert 'name="private_key"' not in text
    assert credential.secret not in text
    connection = f"{PORTALS}{portal.pk}/connection/"
    assert connection not in page(client.get(PORTALS))
    assert client.get(connection).status_code == 403
    assert client.post(connection, {"verb": "test"}).status_code == 403
    assert client.post(f"{PORTALS}add/", FORM).status_code == 403


def test_operators_can_test_a_connection_but_cannot_pin_a_host_key(oscar, client: Client) -> None:
    client.force_login(oscar)
    portal = portal_create(name="srvtrf", kind="ssh", host="srvtrf", root_path="/")
    connection = f"{PORTALS}{portal.pk}/connection/"
    assert "Test now" in page(client.get(connection))
    pin = {"verb": "pin", "host_key": HOST_KEY, "compared": "on"}
    assert client.post(connection, pin).status_code == 403
    portal.refresh_from_db()
    assert portal.host_key == ""


def test_the_connection_page_pins_a_host_key_only_if_its_fingerprint_was_compared(
    as_alice: Client,
) -> None:
    portal = portal_create(name="srvtrf", kind="ssh", host="srvtrf", root_path="/")
    url = f"{PORTALS}{portal.pk}/connection/"
    text = page(as_alice.post(url, {"verb": "pin", "host_key": HOST_KEY}))
    assert "Compare the fingerprint first" in text
    assert FINGERPRINT in text
    page(as_alice.post(url, {"verb": "pin", "host_key": "nonsense", "compared": "on"}))
    page(as_alice.post(url, {"verb": "pin"}))
    portal.refresh_from_db()
    assert portal.host_key == ""
    done = as_alice.post(url, {"verb": "pin", "host_key": HOST_KEY, "compared": "on"}, follow=True)
    assert f"{FINGERPRINT} is pinned to “srvtrf”" in page(done)
    portal.refresh_from_db()
    assert portal.host_key == HOST_KEY
    assert FINGERPRINT in LogEntry.objects.get().change_message


def test_the_connection_page_of_an_unknown_portal_answers_404(as_alice: Client) -> None:
    assert as_alice.get(f"{PORTALS}999/connection/").status_code == 404


def test_the_connection_page_answers_404_without_the_view_permission(oscar, client: Client) -> None:
    oscar.groups.clear()
    oscar.user_permissions.add(Permission.objects.get(codename="test_portal"))
    client.force_login(oscar)
    assert client.get(f"{PORTALS}{PortalFactory.create().pk}/connection/").status_code == 404
