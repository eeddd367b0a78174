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
def test_the_api_docs_and_the_admin_load_nothing_from_another_host(browser, path):
    page = browser.get(path).content.decode()
    loaded = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?((?:https?:)?//[^"')\s]+)""", page)
    assert loaded == []


def test_the_api_schema_describes_the_portal_and_job_endpoints(browser):
    schema = browser.get("/api/schema/?format=json").json()
    for path in ("portals", "jobs", "jobs/{id}", "jobs/{id}/events", "jobs/{id}/cancel"):
        assert f"/api/{path}/" in schema["paths"]
    assert schema["info"]["version"] == __version__


def test_the_root_page_redirects_to_the_admin(client):
    assert client.get("/").headers["Location"] == "/admin/"
