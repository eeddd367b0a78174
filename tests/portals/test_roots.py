"""Where a portal's root really is: recorded once, then changed by a person only."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client
from django.urls import reverse

from portals.endpoints import endpoint_for, endpoint_to_test, freeze, thawed
from portals.findings import portal_look
from portals.models import Portal
from portals.roots import kept, real_path, shown
from portals.services import (
    portal_confirm_root,
    portal_create,
    portal_record_root,
    portal_test,
    portal_update,
    root_of,
)

Maker = Callable[..., Portal]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that a portal's root is, and another one beside it."""
    (tmp_path / "root").mkdir()
    (tmp_path / "other").mkdir()
    return tmp_path / "root"


@pytest.fixture
def portal(db: None, root: Path) -> Portal:
    return portal_create(name="lab", kind="local", root_path=str(root))


def swap(root: Path) -> Path:
    """Put another folder in the root's place; returns it."""
    root.rename(root.with_name("root-2"))
    root.symlink_to(root.with_name("other"))
    return root.with_name("other")


def recorded(portal: Portal) -> str:
    portal.refresh_from_db()
    return portal.real_root


@pytest.mark.parametrize("kind", ["local", "ssh"])
def test_a_connection_test_records_the_real_root_once_and_reports_a_later_move(
    portal: Portal, root: Path, ssh_portal: Maker, kind: str
) -> None:
    if kind == "ssh":
        portal = ssh_portal(root_path=str(root))
    assert portal.real_root == ""
    assert portal_test(portal).code == "OK"
    assert recorded(portal) == str(root)
    other = swap(root)

    for _ in range(2):
        finding = portal_test(portal)
        assert (finding.health, finding.code) == ("failing", "ROOT_MOVED")
        assert finding.moved_to == str(other)
        assert f"should be {root}, as recorded, but it is {other}." in finding.message
        assert recorded(portal) == str(root)
    assert portal.health == "failing"

    portal_confirm_root(portal, real_root=finding.moved_to)
    assert (recorded(portal), portal.health) == (str(other), "unknown")
    assert portal.root_confirmed_at is not None
    assert portal_test(portal).code == "OK"


def test_a_root_that_is_a_symlink_is_recorded_as_its_target(portal, root: Path) -> None:
    other = swap(root)
    assert portal_test(portal).code == "OK"
    assert recorded(portal) == str(other)


@pytest.mark.parametrize("there", ["nothing", "a file"])
def test_a_connection_test_that_finds_no_folder_records_no_real_root(
    portal, root: Path, there: str
) -> None:
    root.rmdir()
    if there == "a file":
        root.write_text("")
    assert portal_test(portal).health == "failing"
    assert recorded(portal) == ""


@pytest.mark.parametrize("name", [b"d\xff", b"hex:2f", "ü\n\x1b".encode(), b"back\\xff"])
def test_a_real_root_with_an_unusual_name_is_recorded_and_compared_byte_for_byte(
    portal, root: Path, name: bytes
) -> None:
    odd = os.path.join(os.fsencode(root.parent), name)
    os.mkdir(odd)
    root.rmdir()
    root.symlink_to(os.fsdecode(odd))

    assert portal_test(portal).code == "OK"
    real = real_path(recorded(portal))
    assert os.fsencode(real) == odd
    assert endpoint_for(portal, "").real_root == real
    assert shown(portal.real_root).isprintable()
    assert portal_test(portal).code == "OK"


def test_a_stored_real_root_is_unambiguous_and_a_malformed_one_is_refused() -> None:
    assert kept(os.fsdecode(b"/d\xff")) == "hex:2f64ff"
    assert kept("/d\\xff") == "/d\\xff"
    for text in ("hex:2f61", "relative", "hex:", "hex:6", "/a\0", "hex:64ff", "/\udcff", "/\ud800"):
        with pytest.raises(ValueError):  # noqa: PT011 - Python says it in many ways.
            real_path(text)


@pytest.mark.parametrize(
    "change", [{"root_path": "/srv"}, {"kind": "ssh", "host": "nas"}, {"name": "x"}]
)
def test_a_new_root_path_or_kind_clears_the_real_root_and_a_new_name_keeps_it(
    portal, root: Path, change: dict[str, Any]
) -> None:
    portal_confirm_root(portal, real_root=str(root))
    portal_update(portal, **change)
    stays = "name" in change
    assert recorded(portal) == (str(root) if stays else "")
    assert (portal.root_confirmed_at is not None) is stays


def test_a_new_host_or_port_clears_the_real_root_and_a_new_login_keeps_it(
    ssh_portal: Maker,
) -> None:
    portal = ssh_portal()
    for change in ({"port": 2222}, {"host": "nas"}):
        portal_confirm_root(portal, real_root="/srv")
        portal_update(portal, **change)
        assert recorded(portal) == ""
    portal_confirm_root(portal, real_root="/srv")
    portal_update(portal, username="bob", credential=None)
    assert recorded(portal) == "/srv"


@pytest.mark.django_db
def test_portal_record_root_keeps_the_first_record_and_ignores_an_outdated_root(
    portal: Portal,
) -> None:
    before = root_of(portal)
    assert portal_record_root(portal, real_root="/a", root=before) == "/a"
    assert portal_record_root(portal, real_root="/b", root=before) == "/a"
    portal_update(portal, root_path="/elsewhere")
    assert portal_record_root(portal, real_root="/c", root=before) == ""
    assert recorded(portal) == ""


def test_a_connection_test_does_not_overwrite_a_real_root_that_a_job_recorded_first(
    portal: Portal, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(tested: Portal) -> Any:
        finding = portal_look(tested)
        portal_record_root(tested, real_root="/a/job/saw", root=root_of(tested))
        return finding

    monkeypatch.setattr("portals.services.portal_look", slow)
    finding = portal_test(portal)
    assert (finding.code, finding.moved_to) == ("ROOT_MOVED", str(root))
    assert recorded(portal) == "/a/job/saw"


@pytest.mark.parametrize("text", ["", "srv", "hex:zz", "hex:2f61", "/a\0b"])
def test_portal_confirm_root_refuses_a_malformed_real_root(portal: Portal, text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        portal_confirm_root(portal, real_root=text)
    assert "real_root" in caught.value.message_dict
    assert recorded(portal) == ""


# -- jobs that have begun ------------------------------------------------------


def test_a_started_job_keeps_its_real_root_until_a_person_confirms_another(
    portal: Portal, root: Path
) -> None:
    portal_record_root(portal, real_root=str(root), root=root_of(portal))
    portal.refresh_from_db()
    frozen = freeze(portal)
    assert endpoint_for(thawed(portal, frozen), "").real_root == str(root)
    assert endpoint_to_test(portal).real_root == ""

    # Away and back, and recorded anew: nobody has said that this is right.
    portal_update(portal, root_path="/elsewhere")
    assert endpoint_for(thawed(portal, frozen), "").real_root == str(root)
    portal_update(portal, root_path=str(root))
    portal_record_root(portal, real_root="/evil", root=root_of(portal))
    portal.refresh_from_db()
    assert endpoint_for(thawed(portal, frozen), "").real_root == str(root)

    portal_confirm_root(portal, real_root="/moved")
    assert endpoint_for(thawed(portal, frozen), "").real_root == "/moved"
    assert endpoint_for(thawed(portal, freeze(portal)), "").real_root == "/moved"


def test_a_job_started_without_a_recorded_real_root_uses_the_current_one(
    portal, root: Path
) -> None:
    frozen = {name: value for name, value in freeze(portal).items() if not name.startswith("r")}
    frozen["root_path"] = portal.root_path  # As jobs had it before there was a record.
    portal_test(portal)
    portal.refresh_from_db()
    assert endpoint_for(thawed(portal, frozen), "").real_root == str(root)
    portal_update(portal, root_path="/elsewhere")
    portal_record_root(portal, real_root="/elsewhere", root=root_of(portal))
    portal.refresh_from_db()
    assert endpoint_for(thawed(portal, frozen), "").real_root == ""


# -- pages and API ---------------------------------------------------------------


def test_the_api_shows_the_real_root_and_changes_it_only_through_confirm_root(
    alice, api, portal: Portal, root: Path
) -> None:
    url = f"/api/portals/{portal.pk}/"
    assert api(alice).patch(url, {"real_root": "/evil"}).json()["real_root"] == ""
    api(alice).post(f"{url}test/")
    other = swap(root)
    found = api(alice).post(f"{url}test/").json()
    assert (found["code"], found["moved_to"]) == ("ROOT_MOVED", str(other))
    assert found["portal"]["real_root"] == str(root)

    answer = api(alice).post(f"{url}confirm_root/", {"real_root": found["moved_to"]})
    assert (answer.status_code, answer.json()["real_root"]) == (200, str(other))
    assert answer.json()["root_confirmed_at"]
    for body in ({}, {"real_root": "x"}, {"real_root": "/" * 9000}):
        assert api(alice).post(f"{url}confirm_root/", body).status_code == 400
    assert recorded(portal) == str(other)


@pytest.mark.parametrize("who", ["vera", "oscar"])
def test_users_without_the_change_permission_cannot_confirm_a_moved_root(
    request, api, client: Client, portal: Portal, who: str
) -> None:
    user = request.getfixturevalue(who)
    answer = api(user).post(f"/api/portals/{portal.pk}/confirm_root/", {"real_root": "/x"})
    assert answer.status_code == 403
    client.force_login(user)
    url = reverse("admin:portals_portal_connection", args=[portal.pk])
    body = {"verb": "confirm_root", "real_root": "/x", "known": "on"}
    assert client.post(url, body).status_code == 403
    assert recorded(portal) == ""


def test_the_connection_page_shows_a_moved_root_and_asks_before_it_is_confirmed(
    alice, client: Client, portal, root: Path
) -> None:
    client.force_login(alice)
    url = reverse("admin:portals_portal_connection", args=[portal.pk])
    client.post(url, {"verb": "test"})
    other = swap(root)
    text = client.post(url, {"verb": "test"}).content.decode()
    assert "The root folder has moved" in text
    assert str(other) in text
    assert f'<code class="break-all">{root}</code>' in text

    body = {"verb": "confirm_root", "real_root": str(other)}
    assert "Find out who moved it first" in client.post(url, body).content.decode()
    assert recorded(portal) == str(root)
    client.post(url, {**body, "real_root": "nonsense", "known": "on"})
    client.post(url, {**body, "real_root": "hex:zz"})
    assert recorded(portal) == str(root)

    done = client.post(url, {**body, "known": "on"}, follow=True).content.decode()
    assert f"The root folder of “lab” is now {other}." in done
    assert recorded(portal) == str(other)
    history = reverse("admin:portals_portal_history", args=[portal.pk])
    assert str(other) in client.get(history).content.decode()
    change = reverse("admin:portals_portal_change", args=[portal.pk])
    assert str(other) in client.get(change).content.decode()


def test_an_operator_sees_that_the_root_moved_but_gets_no_button_to_confirm_it(
    oscar, client: Client, portal, root
) -> None:
    portal_test(portal)
    swap(root)
    client.force_login(oscar)
    url = reverse("admin:portals_portal_connection", args=[portal.pk])
    text = client.post(url, {"verb": "test"}).content.decode()
    assert "To confirm it, ask a user who may change portals." in text
    assert "Confirm this place" not in text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder to another user")
def test_a_connection_test_warns_when_other_users_can_replace_the_root_folder(
    portal, root: Path
) -> None:
    os.chown(root.parent, 4711, 0)
    finding = portal_test(portal)
    assert finding.code == "OK"
    assert "users other than root and the portal's user can put another folder" in finding.message
    assert str(root.parent) in finding.message
    portal.refresh_from_db()
    assert str(root.parent) in portal.capabilities["exposed"]
