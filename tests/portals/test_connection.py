"""Testing a portal for real: a real sshd, real keys, and every way it goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
from tests.portals.conftest import HOST_KEY, SECRET
from tests.rig.sshd import Sshd, free_port

Maker = Callable[..., Portal]


def test_it_finds_a_folder_on_this_machine(db, tmp_path: Path) -> None:
    portal = portal_create(name="lab", kind="local", root_path=str(tmp_path))
    finding = portal_test(portal)
    assert (finding.health, finding.code, finding.offer) == ("ok", "OK", None)
    assert finding.message.startswith(f"{tmp_path} on this machine is ready: ")
    portal.refresh_from_db()
    assert (portal.health, portal.health_message) == ("ok", finding.message)
    assert portal.capabilities["free_bytes"] > 0
    assert portal.capabilities["realpath"] == str(tmp_path.resolve())
    assert portal.checked_at is not None


def test_it_finds_a_folder_behind_ssh(ssh_portal: Maker, tmp_path: Path) -> None:
    portal = ssh_portal()
    finding = portal_test(portal)
    assert (finding.health, finding.code) == ("ok", "OK")
    assert finding.message.startswith(f"{tmp_path} on 127.0.0.1 is ready: ")
    assert portal.capabilities["writable"] is True


def test_it_finds_a_key_file_of_the_worker(ssh_portal: Maker, sshd: Sshd) -> None:
    key_path = str(sshd.identity_file)
    credential = credential_create(name="file", kind="key_file", key_path=key_path)
    assert portal_test(ssh_portal(credential=credential)).code == "OK"


def test_it_says_that_the_root_is_missing_or_no_folder(ssh_portal: Maker, tmp_path: Path) -> None:
    portal = ssh_portal(root_path=str(tmp_path / "gone"))
    finding = portal_test(portal)
    assert (finding.health, finding.code) == ("failing", "ROOT_MISSING")
    assert finding.message == f"The root folder {tmp_path}/gone does not exist on 127.0.0.1."
    (tmp_path / "gone").write_text("a file")
    finding = portal_test(portal)
    assert (finding.health, finding.code) == ("failing", "ROOT_NOT_A_FOLDER")


def test_it_offers_an_unknown_host_key_and_trusts_nothing(ssh_portal: Maker, sshd: Sshd) -> None:
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


def test_it_sees_that_the_host_key_changed(ssh_portal: Maker, sshd: Sshd) -> None:
    portal = ssh_portal(host_key=HOST_KEY)
    finding = portal_test(portal)
    assert (finding.health, finding.code) == ("host_key_changed", "HOST_KEY_CHANGED")
    assert "shows another host key" in finding.message
    assert finding.offer is not None
    assert finding.offer.line == sshd.host_key
    portal.refresh_from_db()
    assert (portal.health, portal.host_key) == ("host_key_changed", HOST_KEY)


def test_it_says_that_the_credential_was_refused(ssh_portal: Maker, private_key: str) -> None:
    stranger = credential_create(name="stranger", kind="private_key", secret=private_key)
    finding = portal_test(ssh_portal(credential=stranger))
    assert (finding.health, finding.code) == ("failing", "AUTH_FAILED")
    assert finding.message == "127.0.0.1 refused the user name or the credential"


def test_it_says_that_the_password_was_refused(ssh_portal: Maker) -> None:
    wrong = credential_create(name="wrong", kind="password", secret=SECRET)
    finding = portal_test(ssh_portal(credential=wrong))
    assert (finding.health, finding.code) == ("failing", "AUTH_FAILED")
    assert SECRET not in finding.message


@pytest.mark.parametrize("pin", [HOST_KEY, ""])
def test_it_says_that_nothing_listens_there(ssh_portal: Maker, pin: str) -> None:
    finding = portal_test(ssh_portal(port=free_port(), host_key=pin))
    assert (finding.health, finding.code) == ("failing", "CONNECTION_REFUSED")
    assert "no SSH server" in finding.message


def test_it_says_that_the_host_has_no_name(ssh_portal: Maker) -> None:
    finding = portal_test(ssh_portal(host="no-such-host.invalid"))
    assert (finding.health, finding.code) == ("failing", "HOST_UNREACHABLE")


def test_it_says_that_the_secret_cannot_be_opened(ssh_portal: Maker, settings) -> None:
    portal = ssh_portal()
    settings.FIELD_KEYS = [Fernet.generate_key().decode()]
    finding = portal_test(portal)
    assert (finding.health, finding.code) == ("failing", "CANNOT_DECRYPT")


def test_it_forgets_what_it_saw_when_the_portal_fails(ssh_portal: Maker) -> None:
    portal = ssh_portal()
    portal_test(portal)
    Portal.objects.filter(pk=portal.pk).update(port=free_port())
    portal_test(portal)
    assert (portal.health, portal.capabilities) == ("failing", {})


def test_it_tests_a_disabled_portal_too(ssh_portal: Maker) -> None:
    assert portal_test(ssh_portal(state="disabled")).code == "OK"


def test_it_does_not_store_a_finding_about_a_portal_that_changed_meanwhile(
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
def test_it_holds_no_transaction_open_while_it_connects(
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


def test_it_tells_automation_what_it_found(
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


def test_it_leads_an_admin_from_an_unknown_key_to_a_good_connection(
    alice, client: Client, ssh_portal: Maker, sshd: Sshd, tmp_path: Path
) -> None:
    client.force_login(alice)
    portal = ssh_portal(host_key="")
    url = f"/admin/portals/portal/{portal.pk}/connection/"
    assert "was not tested" in client.get(url).content.decode()
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


def test_it_warns_an_admin_about_a_changed_key(alice, client: Client, ssh_portal: Maker) -> None:
    client.force_login(alice)
    url = f"/admin/portals/portal/{ssh_portal(host_key=HOST_KEY).pk}/connection/"
    text = client.post(url, {"verb": "test"}).content.decode()
    assert "HOST_KEY_CHANGED" in text
    assert "This is not the pinned key" in text


@pytest.mark.parametrize(
    ("changes", "code", "sentence"),
    [
        ({"credential": "stranger"}, "AUTH_FAILED", "refused the user name or the credential"),
        ({"port": "dead"}, "CONNECTION_REFUSED", "no SSH server"),
        ({"root_path": "/no/such/folder"}, "ROOT_MISSING", "/no/such/folder does not exist"),
    ],
)
def test_it_shows_an_admin_what_failed(
    alice, client: Client, ssh_portal: Maker, private_key: str, changes: dict, code, sentence
) -> None:
    client.force_login(alice)
    if "credential" in changes:
        stranger = credential_create(name="stranger", kind="private_key", secret=private_key)
        changes = {"credential": stranger}
    if "port" in changes:
        changes = {"port": free_port()}
    url = f"/admin/portals/portal/{ssh_portal(**changes).pk}/connection/"
    text = client.post(url, {"verb": "test"}).content.decode()
    assert code in text
    assert sentence in text
    assert "failing" in client.get("/admin/portals/portal/").content.decode()
