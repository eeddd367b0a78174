"""Read-only folders: after a death at any step, of other users, and what cannot be replaced."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Mode, OnConflict
from engine.phases import Transfer
from tests.engine.plain import PLAIN, ROOT, give_to_another, mode
from tests.rig.interrupted import staging, whole
from tests.rig.lanes import nightly
from tests.rig.planted_code import DYING, Plant
from tests.rig.project import PROJECT
from tests.rig.transfers import Run, endpoint
from tests.rig.trees import Entry, put

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="agents of an ordinary user: Linux")


@pytest.fixture(autouse=True)
def _plain_agents(plant: Plant) -> None:
    plant(PLAIN)


def timeless(root: Path) -> dict[bytes, Entry]:
    """A tree without its folders' times, which an interrupted removal has changed."""
    return {
        name: entry._replace(mtime_ns=0) if entry.kind == "folder" else entry
        for name, entry in whole(root).items()
    }


def build_shut(place: Path) -> None:
    """Two nested folders and the top at the target are shut; at the source, two of these."""
    put(place / "a/old/er/f.mov")
    put(place / "a/top.mov")
    put(place / "b/old/er/theirs")
    for path in ("a/old/er", "a/old", "b/old/er", "b/old", "b"):
        os.utime(place / path, ns=(9, 9))
    for path in ("b/old/er", "b/old", "b", "a/old", "a"):
        (place / path).chmod(0o511 if path in ("b", "b/old/er") else 0o555)


@pytest.mark.slow
@pytest.mark.parametrize("mode_of_transfer", [nightly(Mode.COPY), Mode.MOVE])
@pytest.mark.parametrize("resume", [nightly(False), True])
def test_the_next_run_restores_read_only_modes_after_agents_died_at_any_step(
    tmp_path: Path, run: Run, plant: Plant, mode_of_transfer: Mode, resume: bool
) -> None:
    deaths = 0
    options: dict[str, Any] = {"mode": mode_of_transfer, "on_conflict": OnConflict.OVERWRITE}
    build_shut(tmp_path / "whole")
    source, target = engine.Endpoint(str(tmp_path / "whole"), "a"), tmp_path / "whole"
    run(source=source, target=engine.Endpoint(str(target), "b"), **options)
    wanted = timeless(tmp_path / "whole/b"), timeless(tmp_path / "whole/a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transfer, "_abandon", lambda *_: None)  # The worker dies as well.
        for step in count(1 + resume, 2):
            place = tmp_path / str(step)
            build_shut(place)
            text = DYING.replace("LOG", repr(str(place / "log")))
            plant(PLAIN + text.replace("DEADLY", str(step)))
            ends = {
                "source": engine.Endpoint(str(place), "a"),
                "target": engine.Endpoint(str(place), "b"),
            }
            try:
                run(**ends, **options)
            except engine.AgentLost:
                deaths += 1
            else:
                break

            report = run(attempt=2, resume=resume, **ends, **options)

            assert report.status == "done"
            for found, before in zip((place / "b", place / "a"), wanted, strict=True):
                assert timeless(found) == before, step
    assert deaths > 12


# -- what cannot take its place is named, and the rest is delivered -------------


@ROOT
@pytest.mark.parametrize(
    "what",
    ["folder of another", "sticky", "setgid of a group that is not ours", "immutable", "append"],
)
def test_a_file_that_cannot_be_replaced_stays_and_all_others_are_moved(
    on_disk: Path, run: Run, plant: Plant, what: str
) -> None:
    a, b = on_disk / "a", on_disk / "b"
    for number in range(1, 6):
        put(a / f"f{number}/f", "ours", 9)
        put(b / f"f{number}/f", "theirs", 1)
    odd, attribute = b / "f3", ""
    if what == "folder of another":
        give_to_another(odd)
    elif what == "sticky":
        odd.chmod(0o1777)
        give_to_another(odd)
        give_to_another(odd / "f")
    elif what.startswith("setgid"):
        os.chown(odd, 0, 12345)
        odd.chmod(0o2555)
    else:
        attribute = what[0]
        if subprocess.run(["chattr", f"+{attribute}", odd / "f"], check=False).returncode:
            pytest.skip("the file system of temporary files has no such attribute")
    before = timeless(odd)
    try:
        report = run(
            source=endpoint(a), target=endpoint(b), on_conflict=OnConflict.OVERWRITE,
            mode=Mode.MOVE,
        )  # fmt: skip

        named = [(failure.path, failure.code) for failure in report.failures]
        assert named == [("f3/f", "PERMISSION_DENIED")]
        assert (report.status, report.files, report.files_removed) == ("partial", 4, 4)
        assert timeless(odd) == before
        assert [path.parent.name for path in a.glob("*/f")] == ["f3"]
        assert {path.read_text() for path in b.glob("f[1245]/f")} == {"ours"}
        assert staging(b) == []
    finally:
        if attribute:
            subprocess.run(["chattr", f"-{attribute}", odd / "f"], check=True)


@ROOT
def test_a_file_is_delivered_below_a_folder_that_another_user_owns(
    tmp_path: Path, run: Run
) -> None:
    put(tmp_path / "a/x/y/f")
    (tmp_path / "b/x/y").mkdir(parents=True)
    give_to_another(tmp_path / "b/x")

    report = run()

    assert (tmp_path / "b/x/y/f").read_text() == "content"
    assert report.files == 1


# -- for a real other user -----------------------------------------------------


@ROOT
def test_an_ordinary_user_moves_a_tree_into_read_only_folders_by_the_command_line(
    tmp_path: Path,
) -> None:
    """With an account of its own, and a Python that it may run."""
    plain = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    probe = "import subprocess, sys, engine.cli; subprocess.run([sys.executable, '-V'], check=True)"
    for python in (sys.executable, "/usr/bin/python3", None):
        if python is None or not shutil.which("setpriv"):
            pytest.skip("another user cannot read this checkout, or has no Python from 3.11 on")
        tried = [*plain, python, "-c", probe]
        if not subprocess.run(tried, cwd=PROJECT, capture_output=True, check=False).returncode:
            break
    here = tmp_path / "his"
    put(here / "a/mod/f")
    put(here / "b/mod/old")
    (here / "b/mod").chmod(0o555)
    (here / "b").chmod(0o555)
    (here / "a/mod").chmod(0o555)
    here.chmod(0o755)
    for above in here.parents:  # pytest's own, as many as there are.
        if not above.stat().st_mode & 0o077:
            above.chmod(0o711)
    for path in (here, *here.rglob("*")):
        os.chown(path, 65534, 65534)

    done = subprocess.run(
        [*plain, python, "-m", "engine.cli", "--mode=move", "--from", "a", "--to", "b"],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(os.listdir(here / "b/mod")) == ["f", "old"]
    assert (mode(here / "b/mod"), mode(here / "b"), os.listdir(here / "a")) == (0o555, 0o555, [])


def test_agents_without_capabilities_are_stopped_by_folder_modes(tmp_path: Path, run: Run) -> None:
    """Without the mend's own help: else the tests above would show nothing."""
    put(tmp_path / "a/f")
    (tmp_path / "a").chmod(0)
    try:
        with pytest.raises(engine.PermissionDenied):
            run()
    finally:
        (tmp_path / "a").chmod(0o755)
