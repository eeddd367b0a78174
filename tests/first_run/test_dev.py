"""`manage.py up --dev`: a developer's change is served without another start."""

from __future__ import annotations

import re
import signal
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.first_run.clones import assert_nothing_left, ready

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("first_run")]

UP = ("python3", "manage.py", "up", "--dev", "--bind", "127.0.0.1:0", "--ready-file", "ready")


class Browser:
    """Pages of one web server, as one person sees them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor()
        )

    def page(self, path: str, form: dict[str, str] | None = None) -> str:
        """The text of a page, of an error's page too; empty while the web server reloads."""
        data = urllib.parse.urlencode(form).encode() if form else None
        try:
            with self._opener.open(self._url + path, data, timeout=10) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError:
            return ""

    def log_in(self, password: str) -> None:
        """Log in to the admin as the user that `up` has created."""
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.page("/admin/login/"))
        assert token
        form = {"csrfmiddlewaretoken": token[1], "username": "admin", "password": password}
        self.page("/admin/login/", form)


def save_until_served(path: Path, old: str, new: str, served: Callable[[], str]) -> None:
    """Change a text of a file, as an editor does, until the web server serves the new one.

    gunicorn compares a file's time with the one it saw in its pass before, one pass a second.
    The first request has just read the file: saved once, it may be new already when gunicorn
    sees it first. A developer saves later than that.
    """
    changed = path.read_text().replace(old, new)
    deadline = time.monotonic() + 30
    while new.strip('"') not in served():
        assert time.monotonic() < deadline, f"{path.name} was saved, and is not served"
        path.write_text(changed)
        time.sleep(2)


def test_up_dev_serves_a_changed_module_or_template_and_shows_debug_pages(clone_of):
    clone = clone_of("dev", ordinary=True)
    up = clone.popen(*UP)
    browser = Browser(ready(clone, up)["url"])
    password = next(filter(None, (re.search(r"the password (\S+)", line) for line in up.stdout)))
    assert "Ketter online" in browser.page("/status/")
    assert "DEBUG = True" in browser.page("/nowhere/")
    browser.log_in(password[1])
    assert "Launch" in browser.page("/admin/jobs/job/add/")

    health = clone.folder / "ketter_site/health.py"
    save_until_served(health, "Ketter online", "Ketter changed", lambda: browser.page("/status/"))
    launch = clone.folder / "jobs/templates/admin/jobs/job/launch.html"
    save_until_served(
        launch, '"Launch"', '"Lift off"', lambda: browser.page("/admin/jobs/job/add/")
    )

    up.send_signal(signal.SIGINT)
    said, _ = up.communicate(timeout=60)
    assert up.returncode == 0, said
    assert "web ended" not in said
    assert_nothing_left(clone)
