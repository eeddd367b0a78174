"""Writes to portals and credentials."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from portals.crypto import decrypt
from portals.errors import CredentialInUse, PortalInUse
from portals.models import Credential, Portal, PortalHealth
from portals.services import (
    credential_create,
    credential_delete,
    credential_set_secret,
    credential_update,
    portal_create,
    portal_delete,
    portal_pin_host_key,
    portal_update,
)
from tests.factories import JobFactory
from tests.portals.helpers import HOST_KEY, SECRET, make_private_key


@pytest.fixture
def credential(db) -> Credential:
    """A password."""
    return credential_create(name="pass", kind="password", secret=SECRET)


@pytest.fixture
def portal(credential: Credential) -> Portal:
    """A portal behind SSH that uses it and was tested and found well."""
    portal = portal_create(
        name="srvtrf",
        kind="ssh",
        host="srvtrf",
        root_path="/srv",
        credential=credential,
        host_key=HOST_KEY,
    )
    found = {"health": "ok", "health_message": "Fine.", "capabilities": {"python": "3.11"}}
    Portal.objects.filter(pk=portal.pk).update(**found, checked_at=timezone.now())
    portal.refresh_from_db()
    return portal


@pytest.mark.parametrize(
    ("change", "pinned"),
    [
        ({"host": "other"}, ""),
        ({"port": 2222}, ""),
        ({"host": "other", "host_key": HOST_KEY}, HOST_KEY),  # It comes with the new address.
        ({"username": "oscar"}, HOST_KEY),
        ({"root_path": "/a"}, HOST_KEY),
        ({"credential": None}, HOST_KEY),
    ],
)
def test_a_new_address_clears_health_and_pinned_key_a_new_login_or_root_the_health_only(
    portal: Portal, change: dict, pinned: str
) -> None:
    portal_update(portal, **change)
    assert (portal.host_key, portal.health) == (pinned, PortalHealth.UNKNOWN)
    portal.refresh_from_db()
    assert portal.host_key == pinned
    assert (portal.health, portal.health_message) == (PortalHealth.UNKNOWN, "")
    assert (portal.capabilities, portal.checked_at) == ({}, None)


def test_a_portal_update_that_does_not_affect_the_connection_keeps_the_health(
    portal: Portal,
) -> None:
    portal_update(portal, name="renamed", max_streams=8, state="disabled", root_path="/srv/")
    portal.refresh_from_db()
    assert (portal.name, portal.health, portal.host_key) == ("renamed", "ok", HOST_KEY)


def test_portal_update_of_a_stale_object_does_not_undo_another_change(portal: Portal) -> None:
    stale = Portal.objects.get(pk=portal.pk)
    portal_update(portal, max_streams=9)
    portal_update(stale, name="renamed")
    assert Portal.objects.get(pk=portal.pk).max_streams == 9


def test_an_ssh_portal_becomes_local_only_when_its_ssh_fields_are_emptied(portal: Portal) -> None:
    with pytest.raises(ValidationError, match="leave it empty"):
        portal_update(portal, kind="local")
    portal_update(portal, kind="local", host="", username="", credential=None)
    assert (portal.kind, portal.host_key) == ("local", "")


def test_portal_pin_host_key_stores_the_key_without_its_comment(portal: Portal) -> None:
    portal_pin_host_key(portal, line=f"{HOST_KEY} comment")
    portal.refresh_from_db()
    assert portal.host_key == HOST_KEY


def test_portal_pin_host_key_refuses_a_local_portal(db) -> None:
    local = portal_create(name="lab", kind="local", root_path="/srv")
    with pytest.raises(ValidationError, match="no host key"):
        portal_pin_host_key(local, line=HOST_KEY)


def test_portal_delete_refuses_a_portal_that_a_job_uses(db) -> None:
    job = JobFactory.create()
    with pytest.raises(PortalInUse, match="disable it instead"):
        portal_delete(job.source_portal)
    portal_delete(portal_create(name="free", kind="local", root_path="/srv"))
    assert not Portal.objects.filter(name="free").exists()


def test_credential_delete_refuses_a_credential_that_a_portal_uses(
    portal: Portal, credential: Credential
) -> None:
    with pytest.raises(CredentialInUse, match="Portals use the credential"):
        credential_delete(credential)
    portal_update(portal, credential=None)
    credential_delete(credential)
    assert not Credential.objects.exists()


def test_credential_create_encrypts_passwords_and_private_keys(db, private_key: str) -> None:
    password = credential_create(name="p", kind="password", secret=f" {SECRET} ")
    key = credential_create(name="k", kind="private_key", secret=private_key)
    assert SECRET not in password.secret
    assert decrypt(password.secret, of=password.row) == f" {SECRET} "
    assert decrypt(key.secret, of=key.row) == private_key


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("secret", {"kind": "password"}),
        ("secret", {"kind": "private_key", "secret": SECRET}),
        ("secret", {"kind": "agent", "secret": SECRET}),
        ("secret", {"kind": "key_file", "key_path": "/k", "secret": SECRET}),
        ("key_path", {"kind": "key_file"}),
        ("key_path", {"kind": "key_file", "key_path": "k"}),
        ("key_path", {"kind": "password", "secret": SECRET, "key_path": "/k"}),
        ("kind", {"kind": "magic", "secret": SECRET}),
    ],
)
def test_credential_create_refuses_values_that_do_not_fit_the_kind(
    db, field: str, given: dict
) -> None:
    with pytest.raises(ValidationError) as caught:
        credential_create(name="c", **given)
    assert field in caught.value.message_dict
    assert SECRET not in str(caught.value)
    assert not Credential.objects.exists()


def test_credential_create_refuses_a_key_with_a_passphrase_without_repeating_it(
    db, tmp_path: Path
) -> None:
    locked = make_private_key(tmp_path / "locked", passphrase="open sesame")
    with pytest.raises(ValidationError, match="protected by a passphrase") as caught:
        credential_create(name="c", kind="private_key", secret=locked)
    assert locked.splitlines()[1] not in str(caught.value)


def test_credential_set_secret_replaces_the_secret_and_clears_the_health_of_its_portals(
    portal: Portal, credential: Credential
) -> None:
    credential_set_secret(credential, secret="another")
    portal.refresh_from_db()
    credential.refresh_from_db()
    assert decrypt(credential.secret, of=credential.row) == "another"
    assert portal.health == PortalHealth.UNKNOWN


def test_credential_update_keeps_the_secret_when_none_is_given(
    portal: Portal, credential: Credential
) -> None:
    before = credential.secret
    credential_update(credential, name="renamed", key_path="", secret="")
    portal.refresh_from_db()
    credential.refresh_from_db()
    assert (credential.name, credential.secret) == ("renamed", before)
    assert portal.health == PortalHealth.OK


def test_credential_set_secret_refuses_a_kind_that_stores_no_secret(db) -> None:
    agent = credential_create(name="a", kind="agent")
    with pytest.raises(ValidationError, match="stores no secret"):
        credential_set_secret(agent, secret=SECRET)


def test_credential_update_changes_the_path_of_a_key_file(db) -> None:
    credential = credential_create(name="k", kind="key_file", key_path="/k/one")
    credential_update(credential, key_path="/k/two")
    credential.refresh_from_db()
    assert credential.key_path == "/k/two"
