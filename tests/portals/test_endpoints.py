"""From a row to an endpoint: the one place where secrets are opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.fernet import Fernet

from engine.types import Endpoint
from portals.endpoints import endpoint_for, endpoint_to_test, freeze, ssh_address, thawed
from portals.errors import CannotDecrypt, HostKeyNotPinned, PortalDisabled, PortalMoved
from portals.models import Portal
from portals.services import (
    credential_create,
    credential_set_secret,
    credential_update,
    portal_create,
    portal_update,
)
from tests.portals.helpers import HOST_KEY, SECRET


def portal_without_host(**changes: Any) -> Portal:
    """Make a portal behind SSH on a host that does not exist; nothing connects to it."""
    fields: dict[str, Any] = {
        "name": "srvtrf",
        "kind": "ssh",
        "host": "srvtrf",
        "port": 2222,
        "username": "oscar",
        "root_path": "/srv",
        "host_key": HOST_KEY,
    }
    return portal_create(**{**fields, **changes})


def test_endpoint_for_a_local_portal_has_the_root_and_no_ssh_address(db) -> None:
    local = portal_create(name="lab", kind="local", root_path="/srv")
    assert endpoint_for(local, "in/") == Endpoint(root="/srv", path="in/", ssh=None)


def test_endpoint_for_passes_each_kind_of_credential_in_its_own_field(db, private_key: str) -> None:
    kinds = {
        "password": ({"secret": SECRET}, {"password": SECRET}),
        "private_key": ({"secret": private_key}, {"private_key": private_key}),
        "key_file": ({"key_path": "/k"}, {"identity_file": "/k"}),
        "agent": ({}, {}),
    }
    portal = portal_without_host()
    for kind, (given, expected) in kinds.items():
        portal_update(portal, credential=credential_create(name=kind, kind=kind, **given))
        ssh = endpoint_for(portal, "").ssh
        assert ssh is not None
        ways = ("password", "private_key", "identity_file")
        assert {way: getattr(ssh, way) for way in ways if getattr(ssh, way)} == expected
        assert (ssh.host, ssh.port, ssh.username) == ("srvtrf", 2222, "oscar")
        assert ssh.host_key == HOST_KEY


@pytest.mark.parametrize("named", [[], ["KRB5CCNAME"]])
def test_only_a_credential_of_the_ssh_agent_passes_its_socket(
    db, settings, private_key: str, named: list[str]
) -> None:
    settings.KETTER_SSH_ENV = named
    agent = credential_create(name="agent", kind="agent")
    stored = credential_create(name="stored", kind="private_key", secret=private_key)
    expected = ((None, ()), (stored, ()), (agent, ("SSH_AUTH_SOCK",)))
    for number, (credential, more) in enumerate(expected):
        ssh = endpoint_for(portal_without_host(name=f"to-{number}", credential=credential), "").ssh
        assert ssh is not None
        assert ssh.passes == (*named, *more)


def test_endpoint_for_refuses_an_ssh_portal_without_a_pinned_host_key(db) -> None:
    with pytest.raises(HostKeyNotPinned, match="“srvtrf” is not pinned") as caught:
        endpoint_for(portal_without_host(host_key=""), "")
    assert caught.value.code == "HOST_KEY_UNKNOWN"


def test_a_disabled_portal_has_an_endpoint_for_a_test_but_not_for_jobs(db) -> None:
    portal = portal_without_host(state="disabled")
    with pytest.raises(PortalDisabled, match="“srvtrf” is disabled"):
        endpoint_for(portal, "")
    assert endpoint_to_test(portal).root == "/srv"


def test_endpoint_for_names_the_credential_that_no_key_decrypts(db, settings) -> None:
    credential = credential_create(name="vault", kind="password", secret=SECRET)
    settings.FIELD_KEYS = [Fernet.generate_key().decode()]
    with pytest.raises(CannotDecrypt, match=r"“vault”.*KETTER_FIELD_KEYS"):
        endpoint_for(portal_without_host(credential=credential), "")


@pytest.fixture
def begun(db) -> tuple[Portal, dict[str, Any]]:
    """A portal with a password, and what a job that began with it keeps."""
    credential = credential_create(name="old", kind="password", secret=SECRET)
    portal = portal_without_host(credential=credential)
    return portal, freeze(portal)


def replace_credential(portal: Portal) -> None:
    """Give the portal another credential."""
    new = credential_create(name="new", kind="password", secret="of the new host")
    portal_update(portal, credential=new)


def replace_secret(portal: Portal) -> None:
    """Put another secret into the portal's credential."""
    assert portal.credential
    credential_set_secret(portal.credential, secret="of the new host")
    portal.refresh_from_db()


def remove_credential(portal: Portal) -> None:
    """Take the portal's credential away, for an address that needs none."""
    portal_update(portal, credential=None)


LOCAL = {"kind": "local", "host": "", "username": "", "host_key": "", "port": 22}


@pytest.mark.parametrize(
    ("change", "address"),
    [
        (replace_credential, {"host": "new-nas"}),
        (replace_credential, {"port": 22}),
        (replace_secret, {"host": "new-nas"}),
        (remove_credential, {"host": "new-nas"}),
        (remove_credential, LOCAL),
    ],
)
def test_the_credential_of_a_new_address_is_not_given_to_the_old_one(
    begun, change: Callable[[Portal], None], address: dict[str, Any]
) -> None:
    portal, frozen = begun
    change(portal)
    portal_update(portal, **address)

    with pytest.raises(PortalMoved, match="was at srvtrf, port 2222, when this job began"):
        endpoint_for(thawed(portal, frozen), "")


@pytest.mark.parametrize("kind", ["password", "private_key", "key_file", "agent"])
def test_no_kind_of_credential_of_a_new_address_is_used_at_the_old_one(
    begun, kind: str, private_key: str
) -> None:
    portal, frozen = begun
    held: dict[str, dict[str, str]] = {
        "password": {"secret": "of the new host"},
        "private_key": {"secret": private_key},
        "key_file": {"key_path": "/etc/keys/new"},
        "agent": {},
    }
    new = credential_create(name="new", kind=kind, **held[kind])
    portal_update(portal, host="new-nas", credential=new)

    with pytest.raises(PortalMoved):
        endpoint_for(thawed(portal, frozen), "")


def test_another_path_of_a_key_file_counts_as_another_credential(db) -> None:
    credential = credential_create(name="old", kind="key_file", key_path="/etc/keys/old")
    portal = portal_without_host(credential=credential)
    frozen = freeze(portal)
    credential_update(credential, key_path="/etc/keys/new")
    portal_update(portal, host="new-nas")
    portal.refresh_from_db()

    with pytest.raises(PortalMoved):
        endpoint_for(thawed(portal, frozen), "")


def test_the_credential_of_the_old_address_is_used_there_after_a_move(begun) -> None:
    portal, frozen = begun
    portal_update(portal, host="new-nas")
    ssh = endpoint_for(thawed(portal, frozen), "").ssh
    assert ssh is not None
    assert (ssh.host, ssh.password, ssh.host_key) == ("srvtrf", SECRET, HOST_KEY)


def test_a_repaired_credential_counts_at_the_same_address(begun) -> None:
    portal, frozen = begun
    replace_secret(portal)
    credential_update(portal.credential, name="renamed")
    ssh = endpoint_for(thawed(portal, frozen), "").ssh
    assert ssh is not None
    assert ssh.password == "of the new host"


def test_a_job_of_an_older_version_asks_once_its_portal_has_moved(begun) -> None:
    portal, frozen = begun
    del frozen["credential"]
    assert endpoint_for(thawed(portal, frozen), "").ssh
    portal_update(portal, host="new-nas")
    with pytest.raises(PortalMoved):
        endpoint_for(thawed(portal, frozen), "")


def test_the_endpoint_repr_and_the_bare_ssh_address_contain_no_secret(db, private_key: str) -> None:
    for kind, secret in {"password": SECRET, "private_key": private_key}.items():
        credential = credential_create(name=kind, kind=kind, secret=secret)
        portal = portal_without_host(name=kind, credential=credential)
        assert secret not in repr(endpoint_for(portal, ""))
        bare = ssh_address(portal)
        assert (bare.password, bare.private_key, bare.identity_file) == ("", "", "")
