"""`/api/portals/` and `/api/credentials/` as automation sees them."""

from __future__ import annotations

from typing import Any

import pytest

from portals.crypto import decrypt
from portals.models import Credential, Portal
from portals.services import credential_create, portal_create
from tests.factories import JobFactory, PortalFactory
from tests.portals.helpers import FINGERPRINT, HOST_KEY, SECRET

SSH: dict[str, Any] = {"name": "srvtrf", "kind": "ssh", "host": "srvtrf", "root_path": "/srv/"}


def envelope(answer, code: str, status: int) -> str:
    """The message of an error answer that has the right shape, code and status."""
    body = answer.json()
    assert (answer.status_code, set(body), body["code"]) == (
        status,
        {"code", "message", "extra"},
        code,
    ), body
    return body["message"]


def test_the_api_creates_changes_and_deletes_a_portal(alice, api) -> None:
    client = api(alice)
    credential_create(name="pass", kind="password", secret=SECRET)
    made = client.post("/api/portals/", {**SSH, "credential": "pass", "host_key": HOST_KEY})
    assert made.status_code == 201, made.json()
    assert made.json()["root_path"] == "/srv"
    assert made.json()["fingerprint"] == FINGERPRINT
    assert (made.json()["credential"], made.json()["health"]) == ("pass", "unknown")
    url = f"/api/portals/{made.json()['id']}/"
    changed = client.patch(url, {"host": "other"})
    assert (changed.status_code, changed.json()["host_key"]) == (200, "")
    assert client.get(url).json() == changed.json()
    assert client.delete(url).status_code == 204
    assert not Portal.objects.exists()


def test_the_api_ignores_a_patch_of_the_health_fields(alice, api) -> None:
    portal = PortalFactory.create()
    client = api(alice)
    client.patch(f"/api/portals/{portal.pk}/", {"health": "ok", "health_message": "Fine."})
    portal.refresh_from_db()
    assert (portal.health, portal.health_message) == ("unknown", "")


def test_the_portal_list_filters_searches_and_orders(alice, api) -> None:
    PortalFactory.create(name="lab", health="ok")
    portal_create(**SSH)
    client = api(alice)
    for query, names in {
        "": ["lab", "srvtrf"],
        "?kind=ssh": ["srvtrf"],
        "?kind=ssh&kind=local": ["lab", "srvtrf"],
        "?health=ok": ["lab"],
        "?search=TRF": ["srvtrf"],
        "?name=lab": ["lab"],
        "?host=SRVTRF": ["srvtrf"],
        "?ordering=-name": ["srvtrf", "lab"],
    }.items():
        rows = client.get(f"/api/portals/{query}").json()["results"]
        assert [row["name"] for row in rows] == names, query
    envelope(client.get("/api/portals/?kind=ftp"), "INVALID", 400)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"host": "-oProxyCommand=id"}, "host"),
        ({"host": ""}, "host"),
        ({"username": "-l"}, "username"),
        ({"root_path": "/srv/../etc"}, "root_path"),
        ({"root_path": "srv"}, "root_path"),
        ({"port": 0}, "port"),
        ({"credential": "nobody"}, "credential"),
        ({"host_key": f"{HOST_KEY}\n* {HOST_KEY}"}, "host_key"),
        ({"kind": "local"}, "host"),
        ({"name": "taken"}, "name"),
    ],
)
def test_the_api_names_the_invalid_field_of_a_new_portal(
    alice, api, change: dict, field: str
) -> None:
    PortalFactory.create(name="taken")
    answer = api(alice).post("/api/portals/", {**SSH, **change})
    assert envelope(answer, "INVALID", 400).startswith(f"{field}: ")
    assert field in answer.json()["extra"]["fields"]


def test_the_api_refuses_to_delete_a_portal_or_a_credential_in_use(alice, api) -> None:
    job = JobFactory.create()
    client = api(alice)
    answer = client.delete(f"/api/portals/{job.source_portal_id}/")
    assert "disable it instead" in envelope(answer, "PORTAL_IN_USE", 409)
    credential = credential_create(name="pass", kind="password", secret=SECRET)
    portal_create(**SSH, credential=credential)
    answer = client.delete(f"/api/credentials/{credential.pk}/")
    assert "Portals use the credential “pass”" in envelope(answer, "CREDENTIAL_IN_USE", 409)


def test_the_api_stores_secrets_and_no_answer_contains_them(alice, api) -> None:
    client = api(alice)
    body = {"name": "pass", "kind": "password", "secret": f" {SECRET} "}
    made = client.post("/api/credentials/", body)
    assert made.status_code == 201, made.json()
    row = Credential.objects.get()
    assert decrypt(row.secret, of=row.row) == f" {SECRET} "
    url = f"/api/credentials/{row.pk}/"
    kept = client.patch(url, {"name": "renamed", "secret": ""})
    changed = client.patch(url, {"secret": f"{SECRET}2"})
    answers = [made, kept, changed, client.get(url), client.get("/api/credentials/")]
    for answer in answers:
        assert SECRET not in answer.content.decode()
        assert row.secret not in answer.content.decode()
        assert b'"secret"' not in answer.content
    assert changed.json()["has_secret"] is True
    row.refresh_from_db()
    assert (row.name, decrypt(row.secret, of=row.row)) == ("renamed", f"{SECRET}2")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "password"}, "secret"),
        ({"kind": "private_key", "secret": SECRET}, "secret"),
        ({"kind": "agent", "secret": SECRET}, "secret"),
        ({"kind": "key_file", "key_path": "relative"}, "key_path"),
    ],
)
def test_the_api_refuses_an_invalid_credential_without_repeating_its_secret(
    alice, api, body: dict, field: str
) -> None:
    answer = api(alice).post("/api/credentials/", {"name": "c", **body})
    assert envelope(answer, "INVALID", 400).startswith(f"{field}: ")
    assert SECRET not in answer.content.decode()


def test_the_api_refuses_to_change_the_kind_of_a_credential(alice, api) -> None:
    row = credential_create(name="c", kind="agent")
    answer = api(alice).patch(f"/api/credentials/{row.pk}/", {"kind": "password", "secret": "x"})
    assert "make a new credential" in envelope(answer, "INVALID", 400)


def test_the_pin_host_key_endpoint_stores_the_key_and_answers_with_its_fingerprint(
    alice, api
) -> None:
    portal = portal_create(**SSH)
    url = f"/api/portals/{portal.pk}/pin_host_key/"
    answer = api(alice).post(url, {"host_key": f"{HOST_KEY} root@srvtrf"})
    assert answer.status_code == 200
    assert (answer.json()["host_key"], answer.json()["fingerprint"]) == (HOST_KEY, FINGERPRINT)
    assert envelope(api(alice).post(url, {"host_key": "x"}), "INVALID", 400)
    assert envelope(api(alice).post(url, {}), "INVALID", 400)


@pytest.mark.parametrize(
    ("method", "path", "may"),
    [
        ("get", "portals/", {"vera", "oscar"}),
        ("get", "portals/{portal}/", {"vera", "oscar"}),
        ("post", "portals/", set()),
        ("patch", "portals/{portal}/", set()),
        ("delete", "portals/{portal}/", set()),
        ("post", "portals/{portal}/test/", {"oscar"}),
        ("post", "portals/{portal}/pin_host_key/", set()),
        ("post", "portals/{portal}/confirm_root/", set()),
        ("get", "credentials/", {"vera", "oscar"}),
        ("post", "credentials/", set()),
        ("patch", "credentials/{credential}/", set()),
        ("delete", "credentials/{credential}/", set()),
    ],
)
def test_viewers_and_operators_can_call_only_the_endpoints_their_group_permits(
    vera, oscar, api, tmp_path, method: str, path: str, may: set[str]
) -> None:
    ids = {
        "portal": PortalFactory.create(root_path=str(tmp_path)).pk,
        "credential": credential_create(name="c", kind="agent").pk,
    }
    url = f"/api/{path.format(**ids)}"
    for user in (vera, oscar):
        answer = getattr(api(user), method)(url, {})
        if user.username in may:
            assert answer.status_code == 200
        else:
            envelope(answer, "PERMISSION_DENIED", 403)
    assert getattr(api(), method)(url, {}).status_code == 401


def test_the_portal_and_credential_lists_need_two_queries_at_any_length(
    alice, api, django_assert_num_queries
) -> None:
    for number in range(20):
        credential = credential_create(name=f"c{number}", kind="agent")
        portal_create(**{**SSH, "name": f"p{number}", "credential": credential})
    with django_assert_num_queries(2):  # How many, and these.
        api(alice).get("/api/portals/")
    with django_assert_num_queries(2):
        api(alice).get("/api/credentials/")
