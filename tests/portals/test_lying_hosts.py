"""What a host says about itself when a portal is tested: one line for a person, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from dku.checks.places import portals
from portals.models import Portal
from portals.services import portal_create, portal_test
from tests.rig.lying import Lie, lying, reply_to, twist

#: A field of the reply, as Python.
LIES = {
    "a NUL in the host's name": 'done["host"] = "a\\0b"',
    "half a letter in it": 'done["host"] = "\\ud800x"',
    "a long name": 'done["host"] = "A" * 3_000_000',
    "escape codes in it": 'done["host"] = "\\x1b[2J\\r\\nDONE: all good\\u202e"',
    "a NUL in the path": 'done["real"] = "/a\\0"',
    "bytes in the path": 'done["real"] = "/\\udcff"',
    "a long path": 'done["real"] = done["root"] = "/" + "\\x1b" * 32_000',
    "no number": 'done["free"] = "<b>"',
    "no numbers": 'done["free"] = float("nan")',
    "a huge number": 'done["free"] = 10**400',
    "other kinds": 'done["kind"] = 5',
    "no place": 'done["ancestor_ids"] = []',
    "many places": 'done["ancestor_ids"] = [[1, 2]] * 90_000',
    "many exposed folders": 'done["exposed"] = ["/a"] * 90_000',
    "long exposed folders": 'done["exposed"] = ["/" + "\\x1b" * 30_000] * 5',
    "escape codes in exposed folders": 'done["exposed"] = ["/\\x1b[2J\\r\\n"]',
}
#: Characters, at most, of what a person reads about one test, and of the answer of the API.
LINE, ANSWER = 4000, 50_000


@pytest.fixture
def lie(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lie]:
    """Hosts that lie."""
    with lying(monkeypatch) as lie:
        yield lie


@pytest.fixture
def local(db: None, tmp_path: Any) -> Portal:
    """A portal whose agent will lie."""
    return portal_create(name="lab", kind="local", root_path=str(tmp_path))


def said(lie: Lie, name: str) -> None:
    lie(inspect=reply_to("inspect", LIES[name]))


@pytest.mark.parametrize("name", LIES)
def test_what_a_host_says_of_itself_is_a_printable_line_or_refused(
    local: Portal, lie: Lie, name: str
) -> None:
    said(lie, name)

    finding = portal_test(local)

    assert finding.message.isprintable()
    assert len(finding.message) <= LINE


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["a long path", "long exposed folders", "escape codes in it"])
def test_what_a_host_says_of_itself_is_short_and_printable_on_every_way(
    local: Portal, lie: Lie, name: str, alice: User, api: Any, client: Client
) -> None:
    """By DKU, by the admin's page and list, by the API."""
    said(lie, name)

    found = portals()

    for text in (found.value, found.sentence, *found.details, str(found.measured)):
        assert text.replace("\n", " ").isprintable()
        assert len(text) <= ANSWER
    answer = api(alice).get("/api/portals/")
    assert answer.status_code == 200
    assert len(answer.content) <= ANSWER
    client.force_login(alice)
    page = client.post(f"/admin/portals/portal/{local.pk}/connection/", {"verb": "test"})
    assert page.status_code == 200
    assert "\x1b" not in page.content.decode()
    assert len(page.content) <= 3 * ANSWER
    assert client.get("/admin/portals/portal/").status_code == 200


def test_what_a_hosts_python_says_of_itself_is_a_printable_line(local: Portal, lie: Lie) -> None:
    lie(
        inspect=twist(
            '"hello" in body',
            'body["python"] = "\\x1b[2J" * 5000; body["system"] = "<script>\\r\\n"',
        )
    )

    finding = portal_test(local)

    assert finding.message.isprintable()
    assert len(finding.message) <= LINE
