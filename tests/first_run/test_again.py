"""The minutes after the first: again, beside another, after a kill, with something broken."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.first_run.clones import (
    ORDINARY,
    SMALL,
    Clone,
    assert_done,
    assert_nothing_left,
    assert_says,
    clone_to,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("first_run")]


@pytest.fixture
def port_8000() -> Iterator[None]:
    """Port 8000 is taken, by this test if by nothing else."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8000))
            taken.listen()
        except OSError:
            pass  # Another one has it, which is as good.
        yield


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """What a demo says up to a line."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if re.search(pattern, line):
            return said
    pytest.fail(f"no line with {pattern}:\n{said}")


def test_the_second_demo_uses_another_port_when_port_8000_is_taken(first, port_8000):
    clone, _done = first
    done = clone.demo()
    assert_done(clone, done)
    assert "making .venv" not in done.stdout
    assert "password" not in done.stdout
    found = re.search(r"127.0.0.1:8000 is taken: Ketter listens at (\S+) instead", done.stdout)
    assert found is not None
    assert f"The admin is at {found[1]}/admin/" in done.stdout
    assert not found[1].endswith(":8000")


def test_two_clones_run_their_demos_at_once_at_different_addresses(clone_of):
    one, other = clone_of("one", ordinary=True), clone_of("other", ordinary=True)
    running = one.popen("bash", "deploy/demo.sh", *SMALL)
    said = read_until(running, "The admin is at")
    done = other.demo()
    assert_done(other, done)
    first, second = (re.search(r"The admin is at (\S+)", text)[1] for text in (said, done.stdout))
    assert first != second
    # Another program of this machine may have had the port when the first one began.
    if ":8000/" in first:
        assert "127.0.0.1:8000 is taken: Ketter listens at http://127.0.0.1:" in done.stdout

    same = one.demo()
    assert_says(same, "Ketter already runs here, as process", "End it first (kill ")
    running.send_signal(signal.SIGINT)
    rest, _ = running.communicate(timeout=60)
    assert running.returncode == 0, said + rest
    assert_nothing_left(one)


def test_the_demo_succeeds_after_earlier_demos_were_killed_half_way(clone_of):
    clone = clone_of("killed", ordinary=True)
    large = ["--exit", "--files", "60", "--large-mib", "96"]
    demo = clone.popen("bash", "deploy/demo.sh", *large)
    read_until(demo, "demo-lab -> demo-srvtrf")
    demo.kill()
    demo.communicate()
    # At once: the killed demo's Ketter is still ending its processes.
    demo = clone.popen("bash", "deploy/demo.sh", *large)
    read_until(demo, "demo-lab -> demo-srvtrf")
    up = json.loads((clone.folder / "var/demo/ready.json").read_text())["pid"]
    os.kill(up, signal.SIGKILL)
    said, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1, said
    assert "FAILED: " in said
    assert "Traceback" not in said
    assert_done(clone, clone.demo())


def test_a_half_made_venv_is_removed_and_made_again(ordinary_home, venv, python_for_all):
    """Half a .venv is not taken for a whole one, whatever the kill has cut off."""
    clone = clone_to(ordinary_home / "half", user=ORDINARY)
    clone.env["PYTHON"] = str((venv / "bin/python").resolve())
    killed = (
        'mkdir .venv; echo $$ >"$UNFINISHED"; "$PYTHON" -m venv --without-pip .venv; kill -9 $$'
    )
    done = clone.run("bash", "-euc", f". deploy/_lib.sh; {killed}")
    assert done.returncode == -signal.SIGKILL, done.stdout
    script = ". deploy/_lib.sh; make_venv() { ls -A .; exit 7; }; need_venv base"
    done = clone.run("bash", "-euc", script)
    assert done.returncode == 7, done.stdout
    assert ".venv" not in done.stdout.splitlines()


def sabotaged(clone: Clone, name: str) -> Clone:
    """A clone with a module that cannot be loaded."""
    path = clone.folder / name
    path.write_text(path.read_text() + '\nraise ImportError("no such codec")\n')
    return clone


@pytest.mark.parametrize(
    ("part", "module"),
    [
        ("worker-1", "jobs/management/commands/rqworker.py"),
        pytest.param("web", "ketter_site/wsgi.py", marks=pytest.mark.nightly),
    ],
)
def test_the_demo_shows_the_end_of_the_log_of_a_process_that_never_starts(clone_of, part, module):
    clone = sabotaged(clone_of(f"broken {part}", ordinary=True), module)
    before = time.monotonic()
    done = clone.demo()
    assert done.returncode == 1, done.stdout
    assert f"{part} ended 3 times and was never ready: repair the error at" in done.stdout
    assert f"at the end of {clone.folder}" in done.stdout
    assert "no such codec" in done.stdout
    assert "FAILED: Ketter" in done.stdout
    assert time.monotonic() - before < 120
    assert_nothing_left(clone)
