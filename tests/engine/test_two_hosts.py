"""The engine between two hosts that share no folder: what one sees as /srv the other does not."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.rig.trees import assert_equal_trees, build_mixed, snapshot
from tests.rig.two_hosts import UID, TwoHosts

#: Runs on LAB: one transfer, told in JSON, answered in JSON.
RUN = """
import json, sys, engine
told = json.loads(sys.argv[1])
def place(path, ssh):
    return engine.Endpoint("/srv", path, engine.SshAccess(**ssh) if ssh else None)
try:
    report = engine.run(engine.Request(
        source=place(*told["source"]), target=place(*told["target"]),
        transfer_id=told["id"], mode=engine.Mode(told["mode"]),
    ))
    print(json.dumps({"status": report.status, "failures": [str(f) for f in report.failures]}))
except engine.EngineError as error:
    print(json.dumps({"status": error.code, "message": str(error)}))
"""


@pytest.fixture
def place(two_hosts: TwoHosts) -> Iterator[str]:
    """The name of a folder of this test's own, on both hosts."""
    name = f"engine-{uuid.uuid4().hex[:8]}"
    for root in (two_hosts.lab_root, two_hosts.srvtrf_root):
        (root / name).mkdir()
        os.chown(root / name, UID, UID)
    yield name
    leftovers = [n for n in snapshot(two_hosts.srvtrf_root / name) if b".ketter-" in n]
    assert leftovers == []


def access(hosts: TwoHosts, **more: Any) -> dict[str, Any]:
    """How LAB reaches SRVTRF."""
    return {"host": hosts.host, "username": hosts.username, "host_key": hosts.host_key, **more}


def run_in_lab(hosts: TwoHosts, source: Any, target: Any, mode: str = "copy") -> dict[str, Any]:
    """Run a transfer on LAB; with a place of its own for helper files, which must end up empty."""
    helpers = hosts.folder / f"tmp-{time.monotonic_ns()}"
    helpers.mkdir()
    home = hosts.folder / "home"  # For the record of ssh's client.
    home.mkdir(exist_ok=True)
    told = {"source": source, "target": target, "id": "two-hosts", "mode": mode}
    answer = hosts.run_in_lab(
        [sys.executable, "-W", "error", "-c", RUN, json.dumps(told)],
        env={"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(helpers)},
    )
    assert answer.returncode == 0, answer.stderr
    assert os.listdir(helpers) == []
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


@pytest.mark.parametrize("mode", ["copy", "move"])
@pytest.mark.parametrize("way", ["password", "key"])
def test_a_transfer_from_lab_to_srvtrf_arrives_exactly(
    two_hosts: TwoHosts, place: str, way: str, mode: str
) -> None:
    login = {
        "password": {"password": two_hosts.password},
        "key": {"identity_file": str(two_hosts.identity_file)},
    }[way]
    source, target = two_hosts.lab_root / place / "in", two_hosts.srvtrf_root / place / "out"
    build_mixed(source)
    before = snapshot(source)
    end = run_in_lab(
        two_hosts, [f"{place}/in", None], [f"{place}/out", access(two_hosts, **login)], mode
    )
    assert end == {"status": "done", "failures": []}
    assert_equal_trees(before, target)
    assert snapshot(source) == ({} if mode == "move" else before)
    assert not (two_hosts.lab_root / place / "out").exists()


def test_a_move_from_srvtrf_to_lab_arrives_exactly(two_hosts: TwoHosts, place: str) -> None:
    source, target = two_hosts.srvtrf_root / place / "in", two_hosts.lab_root / place / "out"
    build_mixed(source)
    for path in [source, *source.rglob("*")]:
        os.chown(path, UID, UID, follow_symlinks=False)
    before = snapshot(source)
    far = access(two_hosts, password=two_hosts.password)
    end = run_in_lab(two_hosts, [f"{place}/in", far], [f"{place}/out", None], "move")
    assert end == {"status": "done", "failures": []}
    assert_equal_trees(before, target)
    assert snapshot(source) == {}


def _wrong_password(hosts: TwoHosts) -> dict[str, Any]:
    return access(hosts, password="not-it-4711")


def _dead_host(hosts: TwoHosts) -> dict[str, Any]:
    return access(hosts, host=hosts.dead_host, password="any")


@pytest.mark.parametrize(
    ("login", "code"), [(_wrong_password, "AUTH_FAILED"), (_dead_host, "HOST_UNREACHABLE")]
)
def test_a_wrong_password_or_a_dead_host_is_reported_in_time_and_nothing_is_moved(
    two_hosts: TwoHosts, place: str, login: Callable[[TwoHosts], dict[str, Any]], code: str
) -> None:
    source = two_hosts.lab_root / place / "in"
    build_mixed(source, large_bytes=1000)
    before = snapshot(source)
    begun = time.monotonic()
    end = run_in_lab(two_hosts, [f"{place}/in", None], [f"{place}/out", login(two_hosts)], "move")
    assert end["status"] == code
    assert "\n" not in end["message"]
    assert "4711" not in end["message"]
    assert time.monotonic() - begun < 30
    assert_equal_trees(before, source)
    assert snapshot(two_hosts.srvtrf_root / place) == {}
