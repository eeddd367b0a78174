"""`manage.py up --dev`: a developer's change is served without another start."""

from __future__ import annotations

import signal
import time
import urllib.error
import urllib.request

import pytest

from tests.first_run.clones import assert_nothing_left, ready

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("first_run")]

UP = ("python3", "manage.py", "up", "--dev", "--bind", "127.0.0.1:0", "--ready-file", "ready")


def page(url: str) -> str:
    """The text of a page, of an error's page too; empty while the web server reloads."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError:
        return ""


def test_up_dev_serves_a_changed_module_and_shows_debug_pages(clone_of):
    clone = clone_of("dev", ordinary=True)
    up = clone.popen(*UP)
    url = ready(clone, up)["url"]
    assert "Ketter online" in page(f"{url}/status/")
    assert "DEBUG = True" in page(f"{url}/nowhere/")

    module = clone.folder / "ketter_site/health.py"
    # gunicorn compares a module's time with the one it saw in its pass before, one pass a second.
    # The first request has just imported the module: saved once, it may be new already when
    # gunicorn sees it first. A developer saves later than that; the test saves until it is served.
    changed = module.read_text().replace("Ketter online", "Ketter changed")
    deadline = time.monotonic() + 30
    while "Ketter changed" not in page(f"{url}/status/"):
        assert time.monotonic() < deadline, (clone.folder / "var/log/web.log").read_text()
        module.write_text(changed)
        time.sleep(2)

    up.send_signal(signal.SIGINT)
    said, _ = up.communicate(timeout=60)
    assert up.returncode == 0, said
    assert "web ended" not in said
    assert_nothing_left(clone)
