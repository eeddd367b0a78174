"""README's commands, as written, on a machine with `python3` alone and nothing activated."""

from __future__ import annotations

import re
import signal
import subprocess

import pytest

from tests.first_run.clones import assert_nothing_left, assert_says, clone_to, ready
from tests.rig.project import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("first_run")]
README = (PROJECT / "README.md").read_text("utf-8")


def test_readme_calls_python_only_as_python3():
    before, block, after = README.split("```")
    commands = re.findall(r"`([^`]+)`", before + after) + block.splitlines()
    pythons = {word for line in commands for word in line.split() if word.startswith("python")}
    assert pythons == {"python3"}


def test_the_commands_of_readme_run_in_the_venv_without_activation(clone_of):
    clone = clone_of("commands", ordinary=True)
    for command in (
        "manage.py up",
        "manage.py rqworker",
        "manage.py create_token",
        "manage.py dku",
    ):
        assert f"`python3 {command}" in README
    up = clone.popen("python3", "manage.py", "up", "--bind", "127.0.0.1:0", "--ready-file", "ready")
    assert ready(clone, up)["pid"] == up.pid
    token = clone.run("python3", "manage.py", "create_token", "admin")
    assert re.fullmatch(r"\S{32,}\n", token.stdout), token.stdout
    worker = clone.run("python3", "manage.py", "rqworker", "--burst")
    assert worker.returncode == 0, worker.stdout
    healthy = clone.run("python3", f"{clone.folder}/manage.py", "dku", before=["env", "-C", "/"])
    assert healthy.returncode in {0, 1}, healthy.stdout
    assert "Traceback" not in healthy.stdout
    up.send_signal(signal.SIGINT)
    said, _ = up.communicate(timeout=60)
    assert up.returncode == 0, said
    assert_nothing_left(clone)


def test_the_engine_alone_needs_no_package(place):
    clone = clone_to(place / "engine only")
    source = clone.folder / "docs"
    done = clone.run("python3", "-S", "-m", "engine.cli", "--from", str(source), "--to", "a/copy")
    assert done.returncode == 0, done.stdout
    subprocess.run(["diff", "-r", str(source), str(clone.folder / "a/copy")], check=True)


def test_manage_py_says_how_to_make_a_venv_where_there_is_none(place):
    clone = clone_to(place / "no venv")
    done = clone.run("python3", "-S", "manage.py", "up")
    assert_says(done, "has no django", "bash deploy/demo.sh makes a .venv")
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    "python",
    [
        '#!/bin/sh\necho handed over >&2\nexec python3 -S "$@"\n',
        "not a program",
    ],
    ids=["leads back", "is no program"],
)
def test_manage_py_does_not_loop_when_the_python_of_the_venv_is_unusable(place, python):
    clone = clone_to(place / f"false venv {len(python)}")
    program = clone.folder / ".venv/bin/python"
    program.parent.mkdir(parents=True)
    program.write_text(python)
    program.chmod(0o755)
    done = clone.run("python3", "-S", "manage.py", "help")
    assert_says(done, "bash deploy/demo.sh")
    assert done.stdout.count("handed over") <= 1


@pytest.mark.nightly
@pytest.mark.parametrize("where", ["closed home", "opt", "ordinary", "spaces"])
def test_the_fast_lane_passes_in_a_fresh_clone(clone_of, closed_home, place, where):
    """In a clone with the tests' own requirements, installed for real."""
    names = {"opt": "opt", "closed home": "fast", "ordinary": "fast", "spaces": "my clips/fast"}
    if "fast" not in (PROJECT / "deploy/test.sh").read_text("utf-8"):
        pytest.fail("deploy/test.sh knows no lane `fast`")
    ordinary = where in {"ordinary", "spaces"}
    parent = closed_home if where == "closed home" else None
    clone = clone_of(names[where], ordinary=ordinary, parent=parent)
    subprocess.run(["rm", "-rf", str(clone.folder / ".venv")], check=True)
    process = clone.popen("bash", "deploy/test.sh", "fast")
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said[-6000:]
    assert re.search(r"\d+ passed", said)
    assert " failed" not in said
