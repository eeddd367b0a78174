"""`manage.py up`: everything from nothing, kept running, and gone when told."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys

import pytest

from tests.conftest import PROJECT
from tests.site.conftest import gone, healthy, wait


def test_it_makes_an_admin_and_keys_at_the_first_start(installation):
    assert re.search(r"created the user admin with the password \S{16} ", installation.first_words)
    secrets = installation.home / "var/secrets.env"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600


def test_it_runs_once_and_replaces_what_crashes_and_ends_all_on_ctrl_c(installation):
    up = installation.start()
    noted = installation.home / "var/run/web.url"
    assert noted.read_text() == installation.url
    second = subprocess.run(
        [sys.executable, "manage.py", "up"],
        cwd=PROJECT,
        env=installation.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert f"Ketter already runs here, as process {up.pid}." in second.stderr

    postgres, *_others, worker = installation.children()
    for pid in (worker, postgres):
        os.kill(pid, signal.SIGKILL)
    wait(lambda: len(installation.children()) == 6 and healthy(installation))
    said = installation.output.read_text()
    assert "worker-1 ended (status -9), again in 0.5 s" in said
    assert "postgres ended (status -9), again in 0.5 s" in said

    children = installation.children()
    up.send_signal(signal.SIGINT)
    assert up.wait(15) == 0
    assert [pid for pid in children if not gone(pid)] == []
    assert not noted.exists()


def test_it_leaves_nothing_running_when_it_is_killed_and_starts_again(installation):
    up = installation.start()
    children = installation.children()
    up.kill()
    up.wait()
    if sys.platform == "linux":
        wait(lambda: all(gone(pid) for pid in children), seconds=40)
    up = installation.start()
    assert all(gone(pid) for pid in children)
    assert "password" not in installation.output.read_text()
    up.terminate()
    assert up.wait(15) == 0


@pytest.mark.parametrize(
    ("bind", "sentence"),
    [("nonsense", "not of the form HOST:PORT"), ("127.0.0.1:1x", "not of the form HOST:PORT")],
)
def test_it_refuses_an_address_that_is_none(bind, sentence):
    from django.core.management import CommandError

    from ketter_site.management.commands import up

    with pytest.raises(CommandError, match=sentence):
        up._listen(bind)


def test_it_takes_a_free_port_only_where_none_was_asked_for(monkeypatch):
    from django.core.management import CommandError

    from ketter_site.management.commands import up

    with up._listen("127.0.0.1:0") as taken:
        address = up._url(taken).removeprefix("http://")
        with pytest.raises(CommandError, match=f"--bind {address}: Address already in use"):
            up._listen(address)
        monkeypatch.setattr(up, "DEFAULT_BIND", address)
        with up._listen(None) as other:
            assert up._url(other) != up._url(taken)
