"""The main job in full: launched over HTTP on LAB, run by a real worker, delivered to SRVTRF."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from jobs.models import Job
from portals.models import Credential, Portal
from portals.services import credential_create, portal_create
from tests.e2e.installation import MACHINE, Installation, token_of
from tests.rig.sshd import end_tree, make_key, public_line
from tests.rig.trees import assert_equal_trees, build_mixed, build_small, snapshot
from tests.rig.two_hosts import TwoHosts
from tests.rig.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def lab(place: str) -> Portal:
    """LAB's folder of this test."""
    return portal_create(name="lab", kind="local", root_path=f"/srv/{place}", machine=MACHINE)


def srvtrf(hosts: TwoHosts, place: str, **more: Any) -> Portal:
    """SRVTRF's folder of this test, with its host key pinned."""
    usual = {
        "name": "srvtrf",
        "kind": "ssh",
        "host": hosts.host,
        "username": hosts.username,
        "root_path": f"/srv/{place}",
        "host_key": hosts.host_key,
    }
    return portal_create(**{**usual, **more})


def login(hosts: TwoHosts, kind: str) -> Credential:
    """What opens SRVTRF: its password, a stored key or a key file."""
    secrets: dict[str, dict[str, str]] = {
        "password": {"secret": hosts.password},
        "private_key": {"secret": hosts.identity_file.read_text()},
        "key_file": {"key_path": str(hosts.identity_file)},
    }
    return credential_create(name="ketter-at-srvtrf", kind=kind, **secrets[kind])


@pytest.fixture
def day(two_hosts: TwoHosts, place: str) -> Path:
    """A day's rushes on LAB: one of everything, many small files, one larger file."""
    root = two_hosts.lab_root / place / "day_01"
    build_mixed(root)
    build_small(root / "frames", files=2000)
    return root


@pytest.mark.parametrize(("mode", "kind"), [("copy", "key_file"), ("move", "private_key")])
def test_a_job_launched_over_http_delivers_a_tree_from_lab_to_srvtrf(
    ketter: Installation,
    two_hosts: TwoHosts,
    place: str,
    lab: Portal,
    day: Path,
    tmp_path: Path,
    mode: str,
    kind: str,
) -> None:
    srvtrf(two_hosts, place, credential=login(two_hosts, kind))
    before = snapshot(day)
    ketter.worker()
    job = ketter.launch(
        source_portal="lab",
        source_path="day_01",
        target_portal="srvtrf",
        target_path="in/day_01",
        mode=mode,
    )
    job = ketter.wait(job, "done", "partial", "failed", "cancelled")
    assert job["status"] == "done", ketter.events(job)
    files = sum(entry.kind != "folder" for entry in before.values())
    assert (job["files_done"], job["files_total"]) == (files, files)
    assert job["bytes_done"] == sum(e.size + len(e.link) for e in before.values())
    codes = [event["code"] for event in ketter.events(job)]
    assert (codes[0], codes[-1]) == ("CREATED", "DONE")
    assert_equal_trees(before, two_hosts.srvtrf_root / place / "in" / "day_01")
    assert snapshot(day) == ({} if mode == "move" else before)
    assert debris(two_hosts.srvtrf_root / place) == []
    assert not (two_hosts.lab_root / place / "in").exists()
    assert_no_secret(ketter, two_hosts, job)
    assert os.listdir(tmp_path / "tmp") == []


def debris(root: Path) -> list[bytes]:
    """Staging folders that somebody left."""
    return [name for name in snapshot(root) if b".ketter-" in name]


def assert_no_secret(ketter: Installation, hosts: TwoHosts, job: dict[str, Any]) -> None:
    """Fail if a secret was said aloud by a process, an event or the API."""
    said = ketter.logs() + str(job) + str(ketter.events(job))
    for secret in (hosts.password, hosts.identity_file.read_text().splitlines()[1]):
        assert secret not in said


#: What becomes of a job after an error, where it does not need a person.
ENDS = {
    "HOST_UNREACHABLE": ("retry_wait", "warning"),
    "CONNECTION_REFUSED": ("retry_wait", "warning"),
    "SOURCE_MISSING": ("failed", "error"),
}


def test_a_job_that_cannot_run_names_its_error_and_touches_no_file(
    ketter: Installation, two_hosts: TwoHosts, place: str, lab: Portal, tmp_path: Path
) -> None:
    wrong = credential_create(name="wrong", kind="password", secret="not-it-4711")
    changes: dict[str, dict[str, Any]] = {
        "AUTH_FAILED": {"credential": wrong},
        "HOST_UNREACHABLE": {"host": two_hosts.dead_host},
        "CONNECTION_REFUSED": {"port": 23},
        "HOST_KEY_CHANGED": {"host_key": public_line(make_key(tmp_path / "another_host_key"))},
        "HOST_KEY_UNKNOWN": {"host_key": ""},
        "SOURCE_MISSING": {},
    }
    usual = credential_create(name="usual", kind="password", secret=two_hosts.password)
    source = two_hosts.lab_root / place / "day_01"
    build_small(source, files=20)
    before = snapshot(source)
    jobs = {}
    for code, change in changes.items():
        name = code.lower()
        srvtrf(two_hosts, place, **{"name": name, "credential": usual, **change})
        jobs[code] = ketter.launch(
            source_portal="lab",
            source_path="day_02" if code == "SOURCE_MISSING" else "day_01",
            target_portal=name,
            target_path=f"in/{name}",
            mode="move",
        )
    ketter.worker()
    for code, job in jobs.items():
        status, level = ENDS.get(code, ("needs_attention", "error"))
        end = ketter.wait(job, "done", "partial", "failed", "cancelled", status)
        assert (end["status"], end["error_code"]) == (status, code)
        last = [event for event in ketter.events(job) if event["code"] == code][-1]
        assert last["level"] == level
        assert last["message"].startswith(end["error_message"])
        assert_no_secret(ketter, two_hosts, end)
    assert_equal_trees(before, source)
    assert snapshot(two_hosts.srvtrf_root / place) == {}


def test_new_portals_carry_jobs_both_ways_once_the_host_key_is_pinned(
    ketter: Installation, two_hosts: TwoHosts, place: str, alice: User, client: Client
) -> None:
    ketter.token = token_of(alice.username)
    register(ketter, two_hosts, place)
    build_mixed(two_hosts.lab_root / place / "day_01")
    before = snapshot(two_hosts.lab_root / place / "day_01")
    ketter.worker()
    client.force_login(alice)
    order = {
        "mode": "copy",
        "source_portal": Portal.objects.get(name="lab").pk,
        "source_path": "day_01",
        "target_portal": Portal.objects.get(name="srvtrf").pk,
        "target_path": "in",
        "strategy": "auto",
        "verify": "readback",
        "on_conflict": "fail",
        "symlinks": "keep",
        "hard_links": "copy",
        "streams": 2,
        "bandwidth_limit": 0,
        "priority": 0,
        "max_tries": 50,
    }
    answer = client.post("/admin/jobs/job/add/", order)
    assert answer.status_code == 302, answer.content.decode()
    there = ketter.wait({"id": Job.objects.get().pk}, "done", "partial", "failed")
    assert (there["status"], there["verify"]) == ("done", "readback"), ketter.events(there)
    assert_equal_trees(before, two_hosts.srvtrf_root / place / "in")
    job = ketter.launch(
        source_portal="srvtrf",
        source_path="in",
        target_portal="lab",
        target_path="back",
        mode="move",
    )
    back = ketter.wait(job, "done", "partial", "failed")
    assert back["status"] == "done", ketter.events(back)
    assert_equal_trees(before, two_hosts.lab_root / place / "back")
    assert snapshot(two_hosts.srvtrf_root / place / "in") == {}


def register(ketter: Installation, hosts: TwoHosts, place: str) -> None:
    """Make both portals over the API, from nothing to a connection test that is fine."""
    root = f"/srv/{place}"
    post = partial(ketter.call, "POST")
    login = {"name": "ketter", "kind": "password", "secret": hosts.password}
    status, credential = post("/api/credentials/", login)
    assert (status, "secret" in credential) == (201, False)
    assert post("/api/portals/", {"name": "lab", "kind": "local", "root_path": root})[0] == 201
    far = {"name": "srvtrf", "kind": "ssh", "host": hosts.host, "username": hosts.username}
    status, portal = post("/api/portals/", {**far, "root_path": root, "credential": "ketter"})
    assert status == 201, portal
    here = f"/api/portals/{portal['id']}"
    _, finding = post(f"{here}/test/")
    assert (finding["health"], finding["code"]) == ("failing", "HOST_KEY_UNKNOWN")
    assert finding["offer"]["host_key"] == hosts.host_key
    status, _ = post(f"{here}/pin_host_key/", {"host_key": finding["offer"]["host_key"]})
    assert status == 200
    _, finding = post(f"{here}/test/")
    assert (finding["health"], finding["code"]) == ("ok", "OK"), finding


def test_a_second_worker_completes_a_move_after_the_first_one_is_killed(
    ketter: Installation, two_hosts: TwoHosts, place: str, lab: Portal, tmp_path: Path
) -> None:
    srvtrf(two_hosts, place, credential=login(two_hosts, "password"))
    source = two_hosts.lab_root / place / "day_01"
    build_mixed(source, large_bytes=40 * 1024 * 1024)
    before = snapshot(source)
    soon = {"KETTER_LEASE_SECONDS": 4, "KETTER_REAPER_SECONDS": 1}
    victim = ketter.worker(**soon)
    target = two_hosts.srvtrf_root / place / "in"
    with two_hosts.slow_line(mbit=80):
        job = ketter.launch(
            source_portal="lab",
            source_path="day_01",
            target_portal="srvtrf",
            target_path="in",
            mode="move",
        )
        wait_until(lambda: bytes_below(target) > 8 * 1024 * 1024, seconds=30)
        end_tree(victim.pid)
        assert [name for name in snapshot(target) if not name.startswith(b".ketter-")] == []
        assert_equal_trees(before, source)
        left = [path.read_text() for path in (tmp_path / "tmp").rglob("*") if path.is_file()]
        assert two_hosts.password not in "".join(left)
    ketter.worker(**soon)
    job = ketter.wait(job, "done", "partial", "failed", "cancelled")
    assert (job["status"], job["attempt"]) == ("done", 2), ketter.events(job)
    assert "WORKER_LOST" in [event["code"] for event in ketter.events(job)]
    assert_equal_trees(before, target)
    assert snapshot(source) == {}
    assert debris(two_hosts.srvtrf_root / place) == []


def bytes_below(root: Path) -> int:
    """How much has come in below a folder by now, whatever it is called."""
    found = (os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names)
    return sum(os.lstat(path).st_size for path in found)
