"""The machine of a portal of the kind *this machine*: noted, kept, and given a new name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models.functions import Now
from django.test import Client

from portals.endpoints import endpoint_for, endpoint_to_test, freeze, thawed
from portals.errors import MachineAlive, MachineNotAlive, OtherMachine
from portals.machines import (
    KEPT_DAYS,
    machine_rename,
    machine_seen,
    machines_alive,
    why_not,
)
from portals.models import Machine, Portal
from portals.services import (
    portal_confirm_root,
    portal_create,
    portal_record_root,
    portal_test,
    portal_update,
    root_of,
)
from tests.factories import PortalFactory

PORTALS = "/api/portals/"
LAB: dict[str, Any] = {"name": "lab", "kind": "local", "root_path": "/srv"}
SSH: dict[str, Any] = {"name": "srvtrf", "kind": "ssh", "host": "srvtrf", "root_path": "/srv"}


@pytest.fixture(autouse=True)
def _here(settings: Any) -> None:
    """The web server's machine."""
    settings.KETTER_MACHINE = "web-1"


def alive(*names: str) -> None:
    """Workers of these machines are alive."""
    for name in names:
        machine_seen(name=name)


def silent(name: str, seconds: float = 61) -> None:
    """A worker of this machine was last seen so many seconds ago."""
    machine_seen(name=name)
    Machine.objects.filter(name=name).update(seen_at=Now() - timedelta(seconds=seconds))


@pytest.fixture
def elsewhere(db: None, tmp_path: Path) -> Portal:
    """A portal on another machine, with a folder of the same path here."""
    return portal_create(name="lab", kind="local", root_path=str(tmp_path), machine="lab-1")


@pytest.mark.parametrize(
    ("workers", "machine"),
    [([], "web-1"), (["lab-1"], "lab-1"), (["lab-1", "lab-2"], "web-1")],
    ids=["none", "one", "several"],
)
def test_a_portal_made_without_a_machine_gets_the_only_one_alive_or_else_this_one(
    db: None, workers: list[str], machine: str
) -> None:
    alive(*workers)
    assert portal_create(**LAB).machine == machine


def test_a_portal_made_with_a_machine_keeps_it_whoever_is_alive(db: None) -> None:
    alive("lab-1")
    assert portal_create(**LAB, machine="lab-2").machine == "lab-2"


@pytest.mark.parametrize("machine", ["-x", ".x", "a b", "a/b", "x\n", "x" * 65])
def test_a_portal_with_an_odd_name_of_a_machine_is_refused(db: None, machine: str) -> None:
    with pytest.raises(ValidationError) as refused:
        portal_create(**LAB, machine=machine)
    assert set(refused.value.message_dict) == {"machine"}


def test_a_portal_behind_ssh_has_no_machine(db: None) -> None:
    assert portal_create(**SSH).machine == ""
    with pytest.raises(ValidationError) as refused:
        portal_create(**{**SSH, "name": "other"}, machine="lab-1")
    assert set(refused.value.message_dict) == {"machine"}


def test_a_portal_that_changes_its_kind_gets_a_machine_or_loses_it(db: None) -> None:
    portal = portal_create(**SSH)
    assert portal_update(portal, kind="local", host="").machine == "web-1"
    assert portal_update(portal, kind="ssh", host="srvtrf").machine == ""


def test_a_machine_counts_as_alive_until_its_workers_are_silent_for_a_minute(db: None) -> None:
    alive("lab-1")
    silent("lab-2", seconds=59)
    silent("lab-3", seconds=61)
    assert machines_alive() == {"lab-1", "lab-2"}


def test_a_machine_of_long_ago_is_forgotten_unless_a_portal_is_on_it(db: None) -> None:
    portal_create(**LAB, machine="lab-1")
    long_ago = timedelta(days=KEPT_DAYS, seconds=1).total_seconds()
    for name in ("lab-1", "lab-2"):
        alive(name)
    Machine.objects.update(seen_at=Now() - timedelta(seconds=long_ago))
    alive("lab-3")
    assert set(Machine.objects.values_list("name", flat=True)) == {"lab-1", "lab-3"}


# --- Only its own machine uses a portal ---------------------------------------


@pytest.mark.parametrize("machine", ["lab-1", ""])
def test_no_process_of_another_machine_gets_an_endpoint_of_a_portal(machine: str) -> None:
    portal = Portal(**LAB, machine=machine)
    for endpoint in (lambda: endpoint_for(portal, "day1"), lambda: endpoint_to_test(portal)):
        with pytest.raises(OtherMachine) as refused:
            endpoint()
        assert "“lab”" in str(refused.value)
        assert machine in str(refused.value)
    portal.machine = "web-1"
    assert endpoint_for(portal, "day1").root == "/srv"


def test_a_connection_test_does_not_look_into_a_folder_of_this_machine_for_another_ones_portal(
    elsewhere: Portal, transactional_db: None
) -> None:
    Portal.objects.update(health="ok", health_message="Fine.")
    finding = portal_test(elsewhere)
    assert (finding.code, finding.health, finding.probe) == ("OTHER_MACHINE", "ok", None)
    assert "is on machine “lab-1”, and this is “web-1”" in finding.message
    assert "run `manage.py dku` there" in finding.message
    elsewhere.refresh_from_db()
    assert (elsewhere.health_message, elsewhere.checked_at, elsewhere.real_root) == (
        *("Fine.", None, ""),
    )


def test_another_machine_clears_what_was_found_about_the_root(elsewhere: Portal) -> None:
    portal_confirm_root(elsewhere, real_root="/mnt/raid")
    Portal.objects.update(health="ok", former_machines="lab-0")
    portal = portal_update(elsewhere, machine="lab-2")
    assert (portal.real_root, portal.root_confirmed_at, portal.health) == ("", None, "unknown")
    assert portal.former_machines == "lab-0 lab-1 |"


@pytest.mark.parametrize("to", ["lab-3", "lab-1"])
def test_a_job_begun_under_an_old_name_stays_at_the_renamed_machine_after_an_edit(
    elsewhere: Portal, to: str
) -> None:
    """Another machine may have got the old name since: its folder is another one."""
    frozen = freeze(elsewhere)
    machine_seen(name="lab-2")
    machine_rename(portal=elsewhere, to="lab-2")
    begun_later = freeze(Portal.objects.get())
    portal = portal_update(elsewhere, machine=to)
    assert [thawed(portal, then).machine for then in (frozen, begun_later)] == ["lab-2", "lab-2"]
    assert thawed(portal, freeze(portal)).machine == to
    assert portal_record_root(portal, real_root="/new", root=root_of(portal)) == "/new"


# --- A job that has begun ------------------------------------------------------


def test_a_job_that_has_begun_stays_at_the_machine_where_it_began(elsewhere: Portal) -> None:
    Portal.objects.update(real_root="/mnt/raid")
    elsewhere.refresh_from_db()
    frozen = freeze(elsewhere)
    portal = portal_update(elsewhere, machine="lab-2")
    assert thawed(portal, frozen).machine == "lab-1"
    assert thawed(portal, frozen).real_root == "/mnt/raid"
    assert portal_record_root(portal, real_root="/other", root=frozen) == ""
    portal.refresh_from_db()
    assert portal.real_root == ""


@pytest.mark.parametrize("begun_at", ["", "/mnt/raid"])
def test_a_root_confirmed_on_another_machine_does_not_count_for_a_begun_job(
    elsewhere: Portal, begun_at: str
) -> None:
    Portal.objects.update(real_root=begun_at)
    elsewhere.refresh_from_db()
    frozen = freeze(elsewhere)
    portal = portal_update(elsewhere, machine="lab-2")
    portal_confirm_root(portal, real_root="/mnt/other")
    assert thawed(portal, frozen).real_root == begun_at


def test_a_job_of_a_version_without_machines_follows_its_portal(elsewhere: Portal) -> None:
    frozen = freeze(elsewhere)
    del frozen["machine"]
    assert thawed(elsewhere, frozen).machine == "lab-1"
    assert portal_record_root(elsewhere, real_root="/srv", root=frozen) == "/srv"


def test_a_job_that_has_begun_goes_on_under_the_new_name_of_its_machine(elsewhere: Portal) -> None:
    Portal.objects.update(real_root="/mnt/raid")
    elsewhere.refresh_from_db()
    begun = freeze(elsewhere)
    for name in ("lab-2", "lab-3"):
        alive(name)
        machine_rename(portal=elsewhere, to=name)
        elsewhere.refresh_from_db()
        then = thawed(elsewhere, begun)
        assert (then.machine, then.real_root) == (name, "/mnt/raid")
        silent(name)


def test_a_portal_given_to_another_machine_takes_no_begun_job_along_by_a_later_new_name(
    elsewhere: Portal,
) -> None:
    begun = freeze(elsewhere)
    portal = portal_update(elsewhere, machine="lab-2")
    alive("lab-3")
    machine_rename(portal=portal, to="lab-3")
    portal.refresh_from_db()
    assert (portal.machine, thawed(portal, begun).machine) == ("lab-3", "lab-1")


def test_a_portal_that_was_behind_ssh_for_a_while_keeps_its_jobs_at_the_machine_where_they_began(
    elsewhere: Portal,
) -> None:
    """The earlier names were lost: such a job was bound to the old name, which another may have."""
    begun = freeze(elsewhere)
    alive("lab-2")
    machine_rename(portal=elsewhere, to="lab-2")
    portal = portal_update(Portal.objects.get(), kind="ssh", host="nas")
    assert (portal.machine, portal.former_machines) == ("", "lab-1 lab-2 |")
    assert thawed(portal, begun).machine == "lab-2"
    portal = portal_update(portal, kind="local", host="", machine="lab-3")
    assert thawed(portal, begun).machine == "lab-2"
    assert thawed(portal, freeze(portal)).machine == "lab-3"
    silent("lab-2")
    alive("lab-4")
    machine_rename(portal=portal, to="lab-4")
    assert thawed(Portal.objects.get(), begun).machine == "lab-2"


# --- This machine was renamed --------------------------------------------------


def test_a_new_name_counts_for_all_portals_of_the_machine(elsewhere: Portal) -> None:
    PortalFactory.create(name="lab-too", machine="lab-1")
    PortalFactory.create(name="other", machine="lab-9")
    alive("lab-2")
    assert machine_rename(portal=elsewhere, to="lab-2") == 2
    machines = dict(Portal.objects.values_list("name", "machine"))
    assert machines == {"lab": "lab-2", "lab-too": "lab-2", "other": "lab-9"}


def test_a_machine_with_workers_under_its_old_name_has_no_new_one(elsewhere: Portal) -> None:
    alive("lab-1", "lab-2")
    with pytest.raises(MachineAlive, match="“lab-1” has workers under that name"):
        machine_rename(portal=elsewhere, to="lab-2")
    elsewhere.refresh_from_db()
    assert elsewhere.machine == "lab-1"


def test_a_machine_without_workers_is_no_new_name(elsewhere: Portal) -> None:
    silent("lab-2")
    with pytest.raises(MachineNotAlive, match="“lab-2” is alive: start one there first"):
        machine_rename(portal=elsewhere, to="lab-2")


@pytest.mark.parametrize(
    ("machine", "workers", "words"),
    [
        ("lab-1", ["lab-1", "lab-2"], None),
        ("lab-1", [], "Waits for a worker on machine “lab-1”, where portal “lab” is"),
        ("lab-1", ["a", "b"], "Waits for a worker on machine “lab-1”, where portal “lab” is"),
        ("lab-1", ["lab-2"], "If “lab-2” is that machine under a new name, confirm it"),
        ("", ["lab-2"], "a worker notes it"),
        ("", ["a", "b"], "several have workers (a, b): enter the one that has its root folder"),
    ],
)
def test_the_sentence_about_a_machine_without_workers_says_what_to_do(
    machine: str, workers: list[str], words: str | None
) -> None:
    sentence = why_not(Portal(**LAB, machine=machine), workers)
    assert words in sentence if words else sentence == ""


# --- API and admin -------------------------------------------------------------


def test_the_api_shows_sets_checks_and_filters_by_the_machine(
    alice: User, api: Callable[..., Any]
) -> None:
    client = api(alice)
    made = client.post(PORTALS, {**LAB, "machine": "lab-1"})
    assert (made.status_code, made.json()["machine"]) == (201, "lab-1")
    url = f"{PORTALS}{made.json()['id']}/"
    assert client.patch(url, {"machine": "lab-2"}).json()["machine"] == "lab-2"
    refused = client.patch(url, {"machine": "a b"})
    assert (refused.status_code, list(refused.json()["extra"]["fields"])) == (400, ["machine"])
    assert client.get(f"{PORTALS}?machine=lab-2").json()["count"] == 1
    assert client.get(f"{PORTALS}?machine=lab-1").json()["count"] == 0


def test_the_api_renames_a_machine_for_those_who_may_change_portals(
    alice: User, oscar: User, api: Callable[..., Any], elsewhere: Portal
) -> None:
    url = f"{PORTALS}{elsewhere.pk}/rename_machine/"
    early = api(alice).post(url, {"machine": "lab-2"})
    assert (early.status_code, early.json()["code"]) == (409, "MACHINE_NOT_ALIVE")
    alive("lab-2")
    assert api(oscar).post(url, {"machine": "lab-2"}).status_code == 403
    assert api(alice).post(url, {"machine": "a b"}).status_code == 400
    done = api(alice).post(url, {"machine": "lab-2"})
    assert (done.status_code, done.json()["machine"]) == (200, "lab-2")
    elsewhere.refresh_from_db()
    assert elsewhere.machine == "lab-2"


def test_the_api_renames_no_machine_of_a_portal_behind_ssh(
    alice: User, api: Callable[..., Any]
) -> None:
    alive("lab-2")
    portal = portal_create(**SSH)
    answer = api(alice).post(f"{PORTALS}{portal.pk}/rename_machine/", {"machine": "lab-2"})
    assert answer.status_code == 400
    portal.refresh_from_db()
    assert portal.machine == ""


def connection(portal: Portal) -> str:
    return f"/admin/portals/portal/{portal.pk}/connection/"


@pytest.mark.parametrize(
    ("workers", "offered"),
    [(["lab-2"], True), ([], False), (["lab-1"], False), (["a", "b"], False)],
)
def test_the_connection_page_offers_the_new_name_only_if_one_other_machine_is_alive(
    alice: User, client: Client, elsewhere: Portal, workers: list[str], offered: bool
) -> None:
    client.force_login(alice)
    alive(*workers)
    text = client.get(connection(elsewhere)).content.decode()
    assert ('value="rename_machine"' in text) == offered
    assert "lab-1" in text


def test_the_connection_page_renames_a_machine_once_the_box_is_ticked(
    alice: User, client: Client, elsewhere: Portal
) -> None:
    client.force_login(alice)
    alive("lab-2")
    order = {"verb": "rename_machine", "machine": "lab-2"}
    assert b"Make sure that it is that machine" in client.post(connection(elsewhere), order).content
    elsewhere.refresh_from_db()
    assert elsewhere.machine == "lab-1"
    done = client.post(connection(elsewhere), {**order, "known": "on"}, follow=True)
    assert "“lab-1” is called “lab-2” now (portals: 1)." in done.content.decode()
    elsewhere.refresh_from_db()
    assert elsewhere.machine == "lab-2"
    assert "“lab-1” is called “lab-2” now" in LogEntry.objects.get().change_message


def test_an_operator_cannot_rename_a_machine(
    oscar: User, client: Client, elsewhere: Portal
) -> None:
    client.force_login(oscar)
    alive("lab-2")
    order = {"verb": "rename_machine", "machine": "lab-2", "known": "on"}
    assert 'value="rename_machine"' not in client.get(connection(elsewhere)).content.decode()
    assert client.post(connection(elsewhere), order).status_code == 403
    elsewhere.refresh_from_db()
    assert elsewhere.machine == "lab-1"


def test_the_portal_form_changes_the_machine_only_if_another_one_is_typed(
    alice: User, client: Client, elsewhere: Portal
) -> None:
    client.force_login(alice)
    url = f"/admin/portals/portal/{elsewhere.pk}/change/"
    shown = client.get(url).context["adminform"].form.initial
    form = {name: "" if shown[name] is None else shown[name] for name in shown}
    assert form["machine"] == "lab-1"
    assert client.post(url, {**form, "max_jobs": "3"}).status_code == 302
    elsewhere.refresh_from_db()
    assert (elsewhere.max_jobs, elsewhere.machine) == (3, "lab-1")
    assert client.post(url, {**form, "machine": "lab-2"}).status_code == 302
    elsewhere.refresh_from_db()
    assert elsewhere.machine == "lab-2"
    assert client.post(url, {**form, "kind": "ssh", "host": "srvtrf"}).status_code == 302
    elsewhere.refresh_from_db()
    assert (elsewhere.kind, elsewhere.machine) == ("ssh", "")
