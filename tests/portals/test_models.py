"""What the database itself refuses, and the sentence an operator reads instead."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError

from portals.crypto import encrypt
from portals.models import Credential, Portal
from portals.services import credential_create, portal_create
from tests.portals.helpers import HOST_KEY

LOCAL: dict[str, Any] = {"name": "lab", "kind": "local", "root_path": "/srv"}
SSH: dict[str, Any] = {"name": "srvtrf", "kind": "ssh", "host": "srvtrf", "root_path": "/srv"}


@pytest.mark.parametrize(
    ("constraint", "fields"),
    [
        ("portal_host_iff_ssh", {**LOCAL, "host": "h"}),
        ("portal_host_iff_ssh", {**SSH, "host": ""}),
        ("portal_host_iff_ssh", {**LOCAL, "kind": "ftp"}),
        ("portal_credential_only_ssh", {**LOCAL, "credential": "agent"}),
        ("portal_machine_only_local", {**SSH, "machine": "lab-1"}),
        ("portal_machine_plain", {**LOCAL, "machine": "-x"}),
        ("portal_machine_plain", {**LOCAL, "machine": "a b"}),
        ("portal_root_absolute", {**LOCAL, "root_path": "srv"}),
        ("portal_root_normalised", {**LOCAL, "root_path": "/srv/"}),
        ("portal_root_normalised", {**LOCAL, "root_path": "/srv/.."}),
        ("portal_root_normalised", {**LOCAL, "root_path": "/srv/./a"}),
        ("portal_root_normalised", {**LOCAL, "root_path": "//srv"}),
        ("portal_host_plain", {**SSH, "host": "-oProxyCommand=id"}),
        ("portal_host_plain", {**SSH, "host": "a b"}),
        ("portal_username_plain", {**SSH, "username": "-l"}),
        ("portal_username_plain", {**SSH, "username": "a;id"}),
        ("portal_port_range", {**SSH, "port": 0}),
        ("portal_port_range", {**SSH, "port": 65536}),
        ("portal_streams_range", {**LOCAL, "max_streams": 33}),
        ("portal_state_known", {**LOCAL, "state": "gone"}),
        ("portal_health_known", {**LOCAL, "health": "fine"}),
        ("portals_name_09d74109_uniq|portals_name_key", {**LOCAL, "name": "taken"}),
    ],
)
def test_the_database_refuses_an_invalid_portal(
    db, constraint: str, fields: dict[str, Any]
) -> None:
    Portal.objects.create(name="taken", kind="local", root_path="/")
    if "credential" in fields:
        fields = {**fields, "credential": credential_create(name="agent", kind="agent")}
    with pytest.raises(IntegrityError, match=constraint):
        Portal.objects.create(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {**LOCAL, "root_path": "/"},
        {**LOCAL, "root_path": "/srv/.hidden/..a"},
        {**SSH, "host": "fe80::1%eth0", "username": "LAB\\oscar"},
    ],
)
def test_the_database_accepts_an_unusual_but_valid_portal(db, fields: dict[str, Any]) -> None:
    Portal.objects.create(**fields)


@pytest.mark.parametrize(
    ("constraint", "fields"),
    [
        ("credential_kind_known", {"kind": "magic"}),
        ("credential_secret_iff_kind_holds_one", {"kind": "password"}),
        ("credential_secret_iff_kind_holds_one", {"kind": "agent", "secret": "x"}),
        ("credential_key_path_iff_key_file", {"kind": "key_file"}),
        ("credential_key_path_iff_key_file", {"kind": "key_file", "key_path": "k"}),
        ("credential_key_path_iff_key_file", {"kind": "agent", "key_path": "/k"}),
    ],
)
def test_the_database_refuses_an_invalid_credential(
    db, constraint: str, fields: dict[str, str]
) -> None:
    secret = encrypt(fields["secret"], of="a row") if "secret" in fields else ""
    with pytest.raises(IntegrityError, match=constraint):
        Credential.objects.create(name="c", **{**fields, "secret": secret})


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("host", {**SSH, "host": ""}),
        ("host", {**SSH, "host": "-oProxyCommand=id"}),
        ("host", {**LOCAL, "host": "h"}),
        ("username", {**LOCAL, "username": "oscar"}),
        ("host_key", {**LOCAL, "host_key": HOST_KEY}),
        ("host_key", {**SSH, "host_key": "no key"}),
        ("username", {**SSH, "username": "-l"}),
        ("root_path", {**SSH, "root_path": "srv"}),
        ("root_path", {**SSH, "root_path": "/srv/../etc"}),
        ("port", {**SSH, "port": 0}),
        ("max_streams", {**SSH, "max_streams": 0}),
        ("name", {**SSH, "name": "two words"}),
        ("kind", {**SSH, "kind": "ftp"}),
        ("state", {**SSH, "state": "gone"}),
    ],
)
def test_portal_create_names_the_invalid_field_and_saves_nothing(
    db, field: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError) as caught:
        portal_create(**fields)
    assert field in caught.value.message_dict
    assert not Portal.objects.exists()


def test_portal_create_normalises_the_root_path_and_the_host_key(db) -> None:
    portal = portal_create(**{**SSH, "root_path": "//srv//media/", "host_key": f"{HOST_KEY} me"})
    portal.refresh_from_db()
    assert (portal.root_path, portal.host_key) == ("/srv/media", HOST_KEY)
