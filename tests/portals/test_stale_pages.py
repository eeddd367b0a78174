"""A page that was opened before a change, and is sent after it, undoes nothing."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from portals.forms import ABOUT
from portals.machines import machine_rename, machine_seen
from portals.models import Credential, Portal
from portals.services import (
    credential_create,
    credential_update,
    portal_create,
    portal_record_root,
    portal_update,
    root_of,
)
from portals.stale import as_opened
from tests.portals.helpers import HOST_KEY

CHANGE = "/admin/portals/portal/{}/change/"
CONNECTION = "/admin/portals/portal/{}/connection/"
CREDENTIAL = "/admin/portals/credential/{}/change/"


@pytest.fixture
def browser(alice: User, client: Client) -> Client:
    """A browser of a person who may change portals."""
    client.force_login(alice)
    return client


@pytest.fixture
def portal(db: None) -> Portal:
    """A portal on machine lab-1."""
    return portal_create(name="lab", kind="local", root_path="/srv", machine="lab-1")


def opened(browser: Client, url: str) -> dict[str, Any]:
    """What a browser sends if a person opens a page and presses "Save"."""
    response = browser.get(url)
    initial = response.context["adminform"].form.initial
    form = {name: "" if value is None else value for name, value in initial.items()}
    hidden = re.search(r'name="as_opened" value="([^"]*)"', response.content.decode())
    assert hidden
    assert unescape(hidden[1]) == form["as_opened"]
    return form


def text_of(answer: Any) -> str:
    """A page as a person reads it."""
    assert answer.status_code == 200
    return unescape(answer.content.decode())


def test_an_old_form_does_not_undo_that_a_machine_was_renamed(
    browser: Client, portal: Portal
) -> None:
    url = CHANGE.format(portal.pk)
    form = opened(browser, url)
    machine_seen(name="lab-2")
    machine_rename(portal=portal, to="lab-2")
    assert browser.post(url, {**form, "max_jobs": "3"}).status_code == 302
    portal.refresh_from_db()
    assert (portal.machine, portal.former_machines, portal.max_jobs) == ("lab-2", "lab-1", 3)
    assert "as_opened" not in LogEntry.objects.get().change_message


@pytest.mark.parametrize("mine", [{"machine": "lab-9"}, {"root_path": "/other"}])
def test_an_old_form_that_would_mix_two_places_is_refused_and_says_what_to_do(
    browser: Client, portal: Portal, mine: dict[str, str]
) -> None:
    url = CHANGE.format(portal.pk)
    form = opened(browser, url)
    machine_seen(name="lab-2")
    machine_rename(portal=portal, to="lab-2")
    for _ in range(2):  # The page with that sentence is as old.
        text = text_of(browser.post(url, {**form, **mine}))
        assert "“machine” was “lab-1”; it is “lab-2” now. Open the page again" in text
    portal.refresh_from_db()
    assert (portal.machine, portal.former_machines) == ("lab-2", "lab-1")
    assert portal.root_path == "/srv"
    assert browser.post(url, {**opened(browser, url), **mine}).status_code == 302


@pytest.mark.parametrize(
    "change",
    [
        {"root_path": "/other"},
        {"max_streams": 7},
        {"state": "disabled"},
        {"machine": "lab-7"},
        {"kind": "ssh", "host": "nas", "username": "bob"},
    ],
)
def test_an_old_form_does_not_undo_what_another_person_has_saved(
    browser: Client, portal: Portal, change: dict[str, Any]
) -> None:
    url = CHANGE.format(portal.pk)
    form = opened(browser, url)
    portal_update(portal, **change)
    before = Portal.objects.values().get()
    assert browser.post(url, {**form, "bandwidth_limit": "5"}).status_code == 302
    now = Portal.objects.values().get()
    assert now == {**before, "bandwidth_limit": 5, "updated_at": now["updated_at"]}


@pytest.mark.parametrize(
    ("theirs", "mine", "sentence"),
    [
        ({"max_streams": 7}, {"max_streams": "8"}, "“streams at once” was “4”; it is “7” now"),
        ({"state": "disabled"}, {"state": "other"}, "“state” was “active”; it is “disabled” now"),
        (
            {"kind": "ssh", "host": "nas"},
            {"root_path": "/other"},
            "“kind” was “this machine”; it is “a host behind SSH” now",
        ),
        ({"kind": "ssh", "host": "nas"}, {"root_path": "/other"}, "“host” was empty; it is “nas”"),
    ],
)
def test_the_second_of_two_people_who_change_the_same_field_reads_what_it_was_and_is(
    browser: Client,
    portal: Portal,
    theirs: dict[str, Any],
    mine: dict[str, str],
    sentence: str,
) -> None:
    url = CHANGE.format(portal.pk)
    form = opened(browser, url)
    portal_update(portal, **theirs)
    before = Portal.objects.values().get()
    assert sentence in text_of(browser.post(url, {**form, **mine}))
    assert Portal.objects.values().get() == before


def test_an_old_form_names_the_credential_and_not_its_number(
    browser: Client, transactional_db: None
) -> None:
    one, two = (credential_create(name=name, kind="agent") for name in ("one", "two"))
    portal = portal_create(name="nas", kind="ssh", host="nas", root_path="/", credential=one)
    url = CHANGE.format(portal.pk)
    form = opened(browser, url)
    portal_update(portal, credential=two)
    text = text_of(browser.post(url, {**form, "username": "bob"}))
    assert "“credential” was “one”; it is “two” now" in text


def test_two_people_who_make_the_same_change_are_no_trouble(
    browser: Client, portal: Portal
) -> None:
    url = CHANGE.format(portal.pk)
    form = {**opened(browser, url), "max_jobs": "3"}
    for _ in range(2):
        assert browser.post(url, form).status_code == 302
    portal.refresh_from_db()
    assert portal.max_jobs == 3


def test_a_result_of_a_test_makes_no_form_old(browser: Client, portal: Portal) -> None:
    url = CHANGE.format(portal.pk)
    form = opened(browser, url)
    Portal.objects.update(health="ok", health_message="Fine.")
    portal_record_root(portal, real_root="/srv", root=root_of(portal))
    assert browser.post(url, form).status_code == 302


@pytest.mark.parametrize(
    "damaged",
    [
        "nonsense",
        "[1]",
        "3",
        "{}",
        '{"former_machines": ""}',
        pytest.param("[" * 200_000, id="deep"),
    ],
)
def test_a_form_whose_opened_values_are_damaged_saves_nothing(
    browser: Client, portal: Portal, damaged: str
) -> None:
    url = CHANGE.format(portal.pk)
    form = {**opened(browser, url), "as_opened": damaged, "max_jobs": "3"}
    assert "cannot be read: open it again" in text_of(browser.post(url, form))
    portal.refresh_from_db()
    assert portal.max_jobs == 0


def test_an_old_form_of_a_credential_does_not_undo_another_key_file(
    browser: Client, db: None
) -> None:
    credential = credential_create(name="key", kind="key_file", key_path="/old")
    url = CREDENTIAL.format(credential.pk)
    form = opened(browser, url)
    credential_update(credential, key_path="/new")
    text = text_of(browser.post(url, {**form, "key_path": "/mine"}))
    assert "“key file” was “/old”; it is “/new” now" in text
    assert browser.post(url, {**form, "name": "renamed"}).status_code == 302
    assert Credential.objects.values_list("name", "key_path").get() == ("renamed", "/new")


def test_no_page_of_a_person_who_may_only_look_has_the_hidden_field(
    oscar: User, client: Client, portal: Portal
) -> None:
    client.force_login(oscar)
    credential = credential_create(name="key", kind="agent")
    for url in (CHANGE.format(portal.pk), CREDENTIAL.format(credential.pk)):
        answer = client.get(url)
        assert "as_opened" not in answer.content.decode() or answer.status_code == 403


# --- Confirmations -------------------------------------------------------------


def offered(browser: Client, url: str, verb: str) -> dict[str, str]:
    """What a browser sends if a person ticks the box of a form on the connection page."""
    text = browser.get(url).content.decode()
    return {**_hidden(text, verb), "known": "on"}


def _hidden(text: str, verb: str) -> dict[str, str]:
    (form,) = [part for part in text.split("<form")[1:] if f'value="{verb}"' in part]
    fields = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form.split("</form")[0])
    return {**{name: unescape(value) for name, value in fields}, "verb": verb}


def test_the_new_name_of_one_machine_is_not_given_to_another_one(
    browser: Client, portal: Portal
) -> None:
    """A page about lab-1 renamed lab-3, which the portal had been given to meanwhile."""
    machine_seen(name="lab-2")
    url = CONNECTION.format(portal.pk)
    form = offered(browser, url, "rename_machine")
    portal_update(portal, machine="lab-3")
    text = text_of(browser.post(url, form))
    assert "“machine” was “lab-1”; it is “lab-3” now. Open the page again" in text
    portal.refresh_from_db()
    assert (portal.machine, portal.former_machines) == ("lab-3", "")
    form = offered(browser, url, "rename_machine")
    assert browser.post(url, form).status_code == 302
    portal.refresh_from_db()
    assert portal.machine == "lab-2"


@pytest.mark.parametrize(
    ("verb", "about"),
    [
        ("pin", {"host_key": HOST_KEY, "compared": "on"}),
        ("confirm_root", {"real_root": "/mnt/raid", "known": "on"}),
    ],
)
def test_a_key_or_root_of_one_host_is_not_confirmed_for_another_one(
    browser: Client, db: None, verb: str, about: dict[str, str]
) -> None:
    portal = portal_create(name="nas", kind="ssh", host="old", root_path="/srv")
    form = {"verb": verb, **about, "as_opened": as_opened(portal, ABOUT)}
    portal_update(portal, host="new")
    url = CONNECTION.format(portal.pk)
    assert "“host” was “old”; it is “new” now" in text_of(browser.post(url, form))
    portal.refresh_from_db()
    assert (portal.host_key, portal.real_root) == ("", "")
    form["as_opened"] = as_opened(portal, ABOUT)
    assert browser.post(url, form).status_code == 302
