"""`manage.py up`: everything from nothing, kept running, and gone when told."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time

import pytest

from tests.rig.project import PROJECT
from tests.rig.waiting import wait_until
from tests.site.helpers import gone, healthy


def test_the_first_start_of_up_creates_an_admin_and_keys(installation):
    assert re.search(r"created the user admin with the password \S{16} ", installation.first_words)
    secrets = installation.home / "var/secrets.env"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600


def test_the_first_start_of_up_keeps_the_name_of_its_machine_for_its_portals(installation):
    kept = installation.home / "var/machine"
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\n", kept.read_text())
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    name = kept.read_text()
    try:
        kept.write_text("lab-1\n")
        up = installation.start()
        wait_until(lambda: healthy(installation), seconds=60)
        assert "lab-1." in (installation.home / "var/log/worker-1.log").read_text()
        up.terminate()
        assert up.wait(30) == 0
        assert kept.read_text() == "lab-1\n"
    finally:
        kept.write_text(name)


def test_up_keeps_its_logs_and_notes_closed_to_other_users(installation):
    for name in ("log", "run"):
        folder = installation.home / "var" / name
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    logs = list((installation.home / "var/log").iterdir())
    assert len(logs) >= 4
    assert {stat.S_IMODE(log.stat().st_mode) for log in logs} == {0o600}


def test_up_runs_once_restarts_crashed_children_and_ends_them_all_on_ctrl_c(installation):
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
    wait_until(lambda: len(installation.children()) == 6 and healthy(installation), seconds=60)
    said = installation.output.read_text()
    assert "worker-1 ended (status -9), starts again in 0.5 s" in said
    assert "postgres ended (status -9), starts again in 0.5 s" in said

    children = installation.children()
    up.send_signal(signal.SIGINT)
    assert up.wait(15) == 0
    assert [pid for pid in children if not gone(pid)] == []
    assert not noted.exists()


def test_up_leaves_no_process_when_it_is_killed_and_can_start_again(installation):
    up = installation.start()
    children = installation.children()
    up.kill()
    up.wait()
    if sys.platform == "linux":
        wait_until(lambda: all(gone(pid) for pid in children), seconds=40)
    up = installation.start()
    assert all(gone(pid) for pid in children)
    assert "password" not in installation.output.read_text()
    up.terminate()
    assert up.wait(15) == 0


def test_up_restarts_a_worker_that_was_ready_each_time_it_dies(installation):
    up = installation.start()
    wait_until(lambda: healthy(installation), seconds=60)
    time.sleep(1)  # The supervisor looks five times a second.
    for _ in range(4):
        known = installation.children()
        os.kill(known[-1], signal.SIGKILL)
        wait_until(lambda: installation.children() != known, seconds=60)  # noqa: B023  (called at once)
    assert up.poll() is None
    up.terminate()
    assert up.wait(30) == 0


@pytest.mark.parametrize(
    ("bind", "sentence"),
    [("nonsense", "not of the form HOST:PORT"), ("127.0.0.1:1x", "not of the form HOST:PORT")],
)
def test_up_refuses_a_malformed_bind_address(bind, sentence):
    from django.core.management import CommandError

    from ketter_site.management.commands import up

    with pytest.raises(CommandError, match=sentence):
        up._listen(bind)


@pytest.mark.parametrize(
    ("bind", "allowed_hosts", "debug", "sentence"),
    [
        *(
            (bind, None, None, f"--bind {bind} lets other machines in")
            for bind in ("0.0.0.0:8000", ":8000", "[::]:8000", "192.0.2.1:80", "lab:80")
        ),
        (
            *(None, ["localhost", "ketter.example"], None),
            "KETTER_ALLOWED_HOSTS names ketter.example: leave it out",
        ),
        (None, ["localhost"], "false", "KETTER_DEBUG is off"),
    ],
)
def test_up_dev_refuses_what_lets_other_machines_in_or_switches_debug_off(
    settings, monkeypatch, bind, allowed_hosts, debug, sentence
):
    from django.core.management import CommandError

    from ketter_site.management.commands import up

    if allowed_hosts is not None:
        settings.ALLOWED_HOSTS = allowed_hosts
    if debug is not None:
        monkeypatch.setenv("KETTER_DEBUG", debug)
    with pytest.raises(CommandError, match=re.escape(sentence)):
        up._check_dev(bind)


@pytest.mark.parametrize("bind", [None, "127.0.0.1:0", "[::1]:8000", "localhost:8000"])
def test_up_dev_accepts_an_address_of_this_machine_alone(bind, settings):
    from ketter_site.management.commands import up

    settings.ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
    up._check_dev(bind)


def test_up_picks_a_free_port_only_when_no_address_is_given(monkeypatch):
    from django.core.management import CommandError

    from ketter_site.management.commands import up

    with up._listen("127.0.0.1:0") as taken:
        address = up._url(taken).removeprefix("http://")
        with pytest.raises(CommandError, match=f"--bind {address}: Address already in use"):
            up._listen(address)
        monkeypatch.setattr(up, "DEFAULT_BIND", address)
        with up._listen(None) as other:
            assert up._url(other) != up._url(taken)
