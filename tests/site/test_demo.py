"""`deploy/demo.py`: the main job as a new user sees it, and its own check of the result."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from types import ModuleType

import pytest

from tests.rig.project import PROJECT


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    """The demo's own functions."""
    spec = importlib.util.spec_from_file_location("ketter_demo", PROJECT / "deploy" / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.xdist_group("first_run")  # One demo at a time has port 8000.
def test_the_demo_transfers_a_folder_and_stops_its_processes(installation):
    done = subprocess.run(
        [sys.executable, "deploy/demo.py", "--exit", "--files", "120", "--large-mib", "3"],
        cwd=PROJECT,
        env=installation.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = next(line for line in done.stdout.splitlines() if line.startswith("DONE"))
    assert last.startswith("DONE  121 files, 4.")
    assert last.endswith("/s, verified: readback")
    assert done.stdout.rstrip().endswith("stopped")


@pytest.fixture
def trees(demo, tmp_path, monkeypatch):
    """Two equal trees."""
    monkeypatch.setattr(demo, "DEMO_DIR", tmp_path)
    monkeypatch.setattr(demo, "LAB", tmp_path / "lab")
    monkeypatch.setattr(demo, "SRVTRF", tmp_path / "srvtrf")
    demo.make_source(60, 1)
    shutil.copytree(tmp_path / "lab", tmp_path / "copy", symlinks=True)
    return tmp_path / "lab", tmp_path / "copy"


def flip_a_byte(target):
    path = target / "camera A/clip.mov"
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def change_a_mode(target):
    (target / "camera A/clip.mov").chmod(0o600)


def change_a_time(target):
    os.utime(target / "camera A/clip.mov", ns=(0, 1))


def lose_an_empty_folder(target):
    (target / "empty folder").rmdir()


def add_a_hidden_file(target):
    (target / ".more").touch()


def test_the_comparison_of_the_demo_accepts_two_equal_trees(demo, trees):
    assert demo.compare(*trees) > 60


@pytest.mark.parametrize(
    "damage",
    [flip_a_byte, change_a_mode, change_a_time, lose_an_empty_folder, add_a_hidden_file],
)
def test_the_comparison_of_the_demo_fails_at_every_kind_of_difference(demo, trees, damage):
    damage(trees[1])
    with pytest.raises(demo.DemoFailed):
        demo.compare(*trees)


class JobThatEnds:
    """An API whose job has ended between the list and the order to cancel it, or not."""

    def __init__(self, failure: Exception, is_live: bool) -> None:
        self.failure = failure
        self.is_live = is_live

    def call(self, method: str, path: str) -> dict[str, bool]:
        if method == "POST":
            raise self.failure
        return {"is_live": self.is_live}


def test_the_demo_accepts_that_an_old_job_ended_before_it_was_cancelled(demo):
    demo.cancel(JobThatEnds(demo.DemoFailed("JOB_HAS_ENDED"), is_live=False), "1")
    with pytest.raises(demo.DemoFailed):
        demo.cancel(JobThatEnds(demo.DemoFailed("no right"), is_live=True), "1")
