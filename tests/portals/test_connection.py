"""Testing a portal for real: a real sshd, real keys, and every way it goes wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import transaction
from django.test import Client

import engine
from portals import services
from portals.endpoints import endpoint_for
from portals.errors import HostKeyNotPinned, PortalChanged
from portals.findings import portal_look
from portals.models import Portal, PortalHealth
from portals.services import (
    credential_create,
    portal_create,
    portal_pin_host_key,
    portal_test,
    portal_update,
)
from tests.portals.helpers import HOST_KEY, SECRET
from tests.rig.sshd import Sshd, free_port

Maker = Callable[..., Portal]
#: Takes the changes of a portal; returns them with real credentials and a port for their names.
Made = Callable[[dict[str, Any]], dict[str, Any]]

KEY_FILE, STRANGER, WRONG_PASSWORD = "key file", "stranger", "wrong password"
DEAD = "a port where nothing listens"
REFUSED = r"127\.0\.0\.1 refused the user name or the credential"


@pytest.fixture
def made(db: None, sshd: Sshd, private_key: str) -> Made:
    """Put a real credential and a free port into the changes of a portal, where they name one."""

    def make(changes: dict[str, Any]) -> dict[str, Any]:
        kinds: dict[str, dict[str, str]] = {
            KEY_FILE: {"kind": "key_file", "key_path": str(sshd.identity_file)},
            STRANGER: {"kind": "private_key", "secret": private_key},
            WRONG_PASSWORD: {"kind": "password", "secret": SECRET},
        }
        changes = dict(changes)
        if "credential" in changes:
            changes["credential"] = credential_create(name="c", **kinds[changes["credential"]])
        if "port" in changes:
            changes["port"] = free_port()
        return changes

    return make


def test_a_connection_test_finds_the_root_of_a_local_portal(db, tmp_path: Path) -> None:
    portal = portal_create(name="lab", kind="local", root_path=str(tmp_path))
    finding = portal_test(portal)
    assert (finding.health, finding.code, finding.offer) == ("ok", "OK", None)
    assert finding.message.startswith(f"{tmp_path} on this machine is ready: ")
    portal.refresh_from_db()
    assert (portal.health, portal.health_message) == ("ok", finding.message)
    assert portal.capabilities["free_bytes"] > 0
    assert portal.capabilities["realpath"] == str(tmp_path.resolve())
    assert portal.checked_at is not None


def test_a_connection_test_finds_the_root_of_an_ssh_portal(
    ssh_portal: Maker, tmp_path: Path
) -> None:
    portal = ssh_portal()
    finding = portal_test(portal)
    assert (finding.health, finding.code) == ("ok", "OK")
    assert finding.message.startswith(f"{tmp_path} on 127.0.0.1 is ready: ")
    assert portal.capabilities["writable"] is True


@pytest.mark.parametrize("changes", [{"credential": KEY_FILE}, {"state": "disabled"}])
def test_a_connection_test_succeeds_with_a_key_file_and_for_a_disabled_portal(
    ssh_portal: Maker, made: Made, changes: dict[str, Any]
) -> None:
    assert portal_test(ssh_portal(**made(changes))).code == "OK"


def test_a_connection_test_fails_when_the_root_is_missing_or_is_not_a_folder(
    ssh_portal: Maker, tmp_path: Path
) -> None:
    portal = ssh_portal(root_path=str(tmp_path / "gone"))
    finding = portal_test(portal)
    assert (finding.health, finding.code) == ("failing", "ROOT_MISSING")
    assert finding.message == f"The root folder {tmp_path}/gone does not exist on 127.0.0.1."
    (tmp_path / "gone").write_text("a file")
    finding = portal_test(portal)
    assert (finding.health, finding.code) == ("failing", "ROOT_NOT_A_FOLDER")


def test_a_connection_test_offers_an_unknown_host_key_without_trusting_it(
    ssh_portal: Maker, sshd: Sshd
) -> None:
    portal = ssh_portal(host_key="")
    finding = portal_test(portal)
    assert (finding.health, finding.code) == ("failing", "HOST_KEY_UNKNOWN")
    assert finding.offer is not None
    assert finding.offer.line == sshd.host_key
    assert finding.offer.fingerprint in finding.message
    portal.refresh_from_db()
    assert (portal.host_key, portal.health) == ("", PortalHealth.FAILING)
    with pytest.raises(HostKeyNotPinned):
        endpoint_for(portal, "")
    portal_pin_host_key(portal, line=finding.offer.line)
    assert portal_test(portal).code == "OK"


def test_a_connection_test_reports_a_changed_host_key_and_keeps_the_pinned_one(
    ssh_portal: Maker, sshd: Sshd
) -> None:
    portal = ssh_portal(host_key=HOST_KEY)
    finding = portal_test(portal)
    assert (finding.health, finding.code) == ("host_key_changed", "HOST_KEY_CHANGED")
    assert "shows another host key" in finding.message
    assert finding.offer is not None
    assert finding.offer.line == sshd.host_key
    portal.refresh_from_db()
    assert (portal.health, portal.host_key) == ("host_key_changed", HOST_KEY)


@pytest.mark.parametrize(
    ("changes", "code", "sentence"),
    [
        ({"credential": STRANGER}, "AUTH_FAILED", rf"\A{REFUSED}\Z"),
        ({"credential": WRONG_PASSWORD}, "AUTH_FAILED", REFUSED),
        ({"port": DEAD, "host_key": HOST_KEY}, "CONNECTION_REFUSED", "no SSH server"),
        ({"port": DEAD, "host_key": ""}, "CONNECTION_REFUSED", "no SSH server"),
        ({"host": "no-such-host.invalid"}, "HOST_UNREACHABLE", r"no-such-host\.invalid"),
    ],
)
def test_a_connection_test_reports_why_it_failed_and_repeats_no_secret(
    ssh_portal: Maker, made: Made, changes: dict[str, Any], code: str, sentence: str
) -> None:
    finding = portal_test(ssh_portal(**made(changes)))
    assert (finding.health, finding.code) == ("failing", code)
    assert re.search(sentence, finding.message)
    assert SECRET not in finding.message


def test_a_connection_test_reports_a_secret_that_cannot_be_decrypted(
    ssh_portal: Maker, settings
) -> None:
    portal = ssh_portal()
    settings.FIELD_KEYS = [Fernet.generate_key().decode()]
    finding = portal_test(portal)
    assert (finding.health, finding.code) == ("failing", "CANNOT_DECRYPT")


def test_a_failed_connection_test_clears_the_capabilities_of_the_portal(ssh_portal: Maker) -> None:
    portal = ssh_portal()
    portal_test(portal)
    Portal.objects.filter(pk=portal.pk).update(port=free_port())
    portal_test(portal)
    assert (portal.health, portal.capabilities) == ("failing", {})


def test_a_connection_test_stores_nothing_when_the_portal_changes_during_the_test(
    ssh_portal: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    portal = ssh_portal()

    def look_while_somebody_edits(row: Portal) -> object:
        finding = portal_look(row)
        portal_update(Portal.objects.get(pk=row.pk), username="other")
        return finding

    monkeypatch.setattr(services, "portal_look", look_while_somebody_edits)
    with pytest.raises(PortalChanged, match="test it again"):
        portal_test(portal)
    portal.refresh_from_db()
    assert (portal.health, portal.checked_at) == (PortalHealth.UNKNOWN, None)


@pytest.mark.django_db(transaction=True)
def test_a_connection_test_has_no_open_transaction_while_it_connects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def probe(endpoint: engine.Endpoint) -> engine.Probe:
        seen.append(transaction.get_connection().in_atomic_block)
        return real(endpoint)

    real = engine.probe
    monkeypatch.setattr(engine, "probe", probe)
    portal = portal_create(name="lab", kind="local", root_path=str(tmp_path))
    portal_test(portal)
    assert seen == [False]
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        portal_test(portal)
    assert seen == [False]


def test_the_portal_test_endpoint_answers_with_each_finding_and_the_offered_key(
    oscar, api, ssh_portal: Maker, sshd: Sshd, private_key: str
) -> None:
    portal = ssh_portal(host_key="")
    url = f"/api/portals/{portal.pk}/test/"
    answer = api(oscar).post(url)
    body = answer.json()
    assert (answer.status_code, body["health"], body["code"]) == (
        200,
        "failing",
        "HOST_KEY_UNKNOWN",
    )
    assert body["offer"]["host_key"] == sshd.host_key
    assert body["offer"]["fingerprint"] in body["message"]
    portal_pin_host_key(portal, line=HOST_KEY)
    assert api(oscar).post(url).json()["code"] == "HOST_KEY_CHANGED"
    portal_pin_host_key(portal, line=body["offer"]["host_key"])
    body = api(oscar).post(url).json()
    assert (body["code"], body["offer"], body["portal"]["health"]) == ("OK", None, "ok")
    assert body["portal"]["capabilities"]["is_dir"] is True
    stranger = credential_create(name="stranger", kind="private_key", secret=private_key)
    portal_update(portal, credential=stranger)
    assert api(oscar).post(url).json()["code"] == "AUTH_FAILED"
    portal_update(portal, port=free_port())
    assert api(oscar).post(url).json()["code"] == "CONNECTION_REFUSED"


def test_an_admin_can_pin_the_offered_host_key_and_then_the_connection_works(
    alice, client: Client, ssh_portal: Maker, sshd: Sshd, tmp_path: Path
) -> None:
    client.force_login(alice)
    portal = ssh_portal(host_key="")
    url = f"/admin/portals/portal/{portal.pk}/connection/"
    assert "has not been tested" in client.get(url).content.decode()
    text = client.post(url, {"verb": "test"}).content.decode()
    assert "HOST_KEY_UNKNOWN" in text
    assert "The host shows this key" in text
    assert "This is not the pinned key" not in text
    assert f'name="host_key" value="{sshd.host_key}"' in text
    client.post(url, {"verb": "pin", "host_key": sshd.host_key, "compared": "on"})
    text = client.post(url, {"verb": "test"}).content.decode()
    assert f"{tmp_path} on 127.0.0.1 is ready" in text
    assert "Free space" in text
    assert "The host shows this key" not in text


def test_the_connection_page_warns_about_a_changed_host_key(
    alice, client: Client, ssh_portal: Maker
) -> None:
    client.force_login(alice)
    url = f"/admin/portals/portal/{ssh_portal(host_key=HOST_KEY).pk}/connection/"
    text = client.post(url, {"verb": "test"}).content.decode()
    assert "HOST_KEY_CHANGED" in text
    assert "This is not the pinned key" in text


@pytest.mark.parametrize(
    ("changes", "code", "sentence"),
    [
        ({"credential": STRANGER}, "AUTH_FAILED", "refused the user name or the credential"),
        ({"port": DEAD}, "CONNECTION_REFUSED", "no SSH server"),
        ({"root_path": "/no/such/folder"}, "ROOT_MISSING", "/no/such/folder does not exist"),
    ],
)
def test_the_connection_page_shows_why_a_test_failed(
    alice, client: Client, ssh_portal: Maker, made: Made, changes: dict[str, Any], code, sentence
) -> None:
    client.force_login(alice)
    url = f"/admin/portals/portal/{ssh_portal(**made(changes)).pk}/connection/"
    text = client.post(url, {"verb": "test"}).content.decode()
    assert code in text
    assert sentence in text
    assert "failing" in client.get("/admin/portals/portal/").content.decode()
