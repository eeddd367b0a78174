"""The pages around the apps: docs, schema, home."""

from __future__ import annotations

import re

import pytest

from ketter_site import __version__


@pytest.fixture
def browser(client, alice):
    """A browser in which alice is logged in."""
    client.force_login(alice)
    return client


@pytest.mark.parametrize("path", ["/api/docs/", "/admin/"])
def test_it_loads_nothing_from_another_host(browser, path):
    page = browser.get(path).content.decode()
    loaded = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?((?:https?:)?//[^"')\s]+)""", page)
    assert loaded == []


def test_it_describes_every_endpoint_of_the_api(browser):
    schema = browser.get("/api/schema/?format=json").json()
    for path in ("portals", "jobs", "jobs/{id}", "jobs/{id}/events", "jobs/{id}/cancel"):
        assert f"/api/{path}/" in schema["paths"]
    assert schema["info"]["version"] == __version__


def test_it_leads_from_the_root_to_the_admin(client):
    assert client.get("/").headers["Location"] == "/admin/"
