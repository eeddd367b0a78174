"""Whatever ends in a 5xx leaves its traceback in the log that the text names, and no secret."""

from __future__ import annotations

import http.client
import json
import logging
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from ketter_site import health
from ketter_site.logs import without_secrets
from tests.rig.waiting import wait_until
from tests.site.helpers import Installation

#: In one process, with one installation.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("logs")]

BROKEN = {
    "/broken/view/": "in the view",
    "/api/broken/": "in the api",
    "/broken/middleware/": "in the middleware",
    "/broken/stream/": "in the stream",
    "/broken/commit/": "after the commit",
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A Ketter under `up` with pages that break: its address and its web server's log."""
    installation = Installation(tmp_path_factory.mktemp("b"))
    installation.env["DJANGO_SETTINGS_MODULE"] = "tests.site.broken_settings"
    try:
        installation.start()
        yield installation.url, installation.home / "var" / "log" / "web.log"
    finally:
        installation.stop()


def get(url: str, data: bytes | None = None) -> tuple[int, bytes]:
    """The status and the body of an answer."""
    try:
        with urllib.request.urlopen(url, data, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("address", BROKEN)
def test_a_bug_leaves_its_traceback_in_the_web_servers_log(
    broken: tuple[str, Path], address: str
) -> None:
    url, log = broken
    before = log.stat().st_size
    with suppress(http.client.IncompleteRead):  # A stream that breaks off is cut.
        status, body = get(url + address)
        if address == "/api/broken/":
            assert status == 500
            assert "the web server's log has the traceback" in json.loads(body)["message"]

    def said() -> str:
        return log.read_bytes()[before:].decode()

    wait_until(lambda: f"Broken: {BROKEN[address]}" in said(), seconds=60)
    assert said().count("Traceback (most recent call last)") == 1
    assert "broken_urls.py" in said()


def test_a_request_that_csrf_refuses_is_logged(broken: tuple[str, Path]) -> None:
    url, log = broken
    assert get(f"{url}/admin/login/", b"username=x")[0] == 403
    wait_until(
        lambda: "Forbidden (CSRF cookie not set.): /admin/login/" in log.read_text(), seconds=60
    )


@pytest.mark.parametrize(
    "secret",
    [
        Fernet(Fernet.generate_key()).encrypt(b"x").decode(),
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5v\nbmUAAAA",
        "Token 0123456789abcdef0123456789abcdef",
        "postgresql://ketter:hunter2-hunter2@db/ketter",
        "pbkdf2_sha256$1000000$c2FsdA$aGFzaGhhc2hoYXNo",
    ],
    ids=["stored secret", "private key", "token", "database", "password hash"],
)
def test_a_secret_in_an_errors_message_does_not_reach_the_log(
    broken: tuple[str, Path], secret: str
) -> None:
    url, log = broken
    form = urllib.parse.urlencode({"secret": secret}).encode()
    before = log.stat().st_size
    assert get(f"{url}/broken/secret/", form)[0] == 500
    wait_until(lambda: b"Broken: cannot use" in log.read_bytes()[before:], seconds=60)
    said = log.read_bytes()[before:].decode()
    assert "[hidden]" in said
    for word in secret.replace("\n", " ").split()[-1:]:
        assert word not in said


def test_the_log_hides_the_values_that_the_database_refuses(broken: tuple[str, Path]) -> None:
    url, log = broken
    assert get(f"{url}/broken/database/")[0] == 500
    wait_until(lambda: "Failing row contains [hidden]" in log.read_text(), seconds=60)
    assert "hunter2-hunter2" not in log.read_text()


def test_without_secrets_hides_the_keys_of_the_installation(settings) -> None:
    keys = [settings.SECRET_KEY, *settings.FIELD_KEYS]

    assert without_secrets(f"a {' '.join(keys)} b") == f"a {' '.join('[hidden]' for _ in keys)} b"


def test_a_failing_health_check_is_logged_once_until_it_recovers(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_check() -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(health, "_logged", {})
    with caplog.at_level(logging.ERROR, "ketter_site.health"):
        said = [health._outcome("some", broken_check) for _ in range(3)]
        health._outcome("some", lambda: None)
        health._outcome("some", broken_check)

    assert said == ["failing: RuntimeError"] * 3
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
