"""From a row to an endpoint: the one place where secrets are opened."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.fernet import Fernet

from engine.types import Endpoint
from portals.endpoints import endpoint_for, endpoint_to_test, ssh_address
from portals.errors import CannotDecrypt, HostKeyNotPinned, PortalDisabled
from portals.models import Portal
from portals.services import credential_create, portal_create, portal_update
from tests.portals.conftest import HOST_KEY, SECRET


def ssh_portal(**changes: Any) -> Portal:
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


def test_it_makes_a_local_endpoint(db) -> None:
    local = portal_create(name="lab", kind="local", root_path="/srv")
    assert endpoint_for(local, "in/") == Endpoint(root="/srv", path="in/", ssh=None)


def test_it_hands_each_kind_of_credential_over_in_its_own_way(db, private_key: str) -> None:
    kinds = {
        "password": ({"secret": SECRET}, {"password": SECRET}),
        "private_key": ({"secret": private_key}, {"private_key": private_key}),
        "key_file": ({"key_path": "/k"}, {"identity_file": "/k"}),
        "agent": ({}, {}),
    }
    portal = ssh_portal()
    for kind, (given, expected) in kinds.items():
        portal_update(portal, credential=credential_create(name=kind, kind=kind, **given))
        ssh = endpoint_for(portal, "").ssh
        assert ssh is not None
        ways = ("password", "private_key", "identity_file")
        assert {way: getattr(ssh, way) for way in ways if getattr(ssh, way)} == expected
        assert (ssh.host, ssh.port, ssh.username) == ("srvtrf", 2222, "oscar")
        assert ssh.host_key == HOST_KEY


def test_it_refuses_a_portal_without_a_pinned_key(db) -> None:
    with pytest.raises(HostKeyNotPinned, match="“srvtrf” is not pinned") as caught:
        endpoint_for(ssh_portal(host_key=""), "")
    assert caught.value.code == "HOST_KEY_UNKNOWN"


def test_it_refuses_a_disabled_portal_for_jobs_but_not_for_a_test(db) -> None:
    portal = ssh_portal(state="disabled")
    with pytest.raises(PortalDisabled, match="“srvtrf” is disabled"):
        endpoint_for(portal, "")
    assert endpoint_to_test(portal).root == "/srv"


def test_it_names_the_credential_that_no_key_opens(db, settings) -> None:
    credential = credential_create(name="vault", kind="password", secret=SECRET)
    settings.FIELD_KEYS = [Fernet.generate_key().decode()]
    with pytest.raises(CannotDecrypt, match=r"“vault”.*KETTER_FIELD_KEYS"):
        endpoint_for(ssh_portal(credential=credential), "")


def test_it_shows_no_secret_in_a_repr_and_none_in_a_bare_address(db, private_key: str) -> None:
    for kind, secret in {"password": SECRET, "private_key": private_key}.items():
        credential = credential_create(name=kind, kind=kind, secret=secret)
        portal = ssh_portal(name=kind, credential=credential)
        assert secret not in repr(endpoint_for(portal, ""))
        bare = ssh_address(portal)
        assert (bare.password, bare.private_key, bare.identity_file) == ("", "", "")
