"""The command line where its output goes nowhere, and where signals come twice."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.rig.command import agents_of, cli, finish, running
from tests.rig.interrupted import build_large
from tests.rig.project import PROJECT
from tests.rig.trees import build_small, snapshot
from tests.rig.waiting import wait_until


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A tree `a` that makes the engine warn: the other name of a file is outside of it."""
    build_small(tmp_path / "a", 20)
    os.link(next((tmp_path / "a").rglob("*.dpx")), tmp_path / "other-name")
    return tmp_path


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "to",
    [
        "2>/dev/full",
        "2>&-",
        ">/dev/full",
        ">&-",
        "<&- >&- 2>&-",
        "> >(exec >&- <&-)",
        "2> >(exec >&- <&-)",
        "&> >(exec >&- <&-)",
    ],
)
def test_a_move_is_done_whatever_becomes_of_its_output(place: Path, to: str, as_json: bool) -> None:
    words = [sys.executable, "-m", "engine.cli", "--from", f"{place}/a", "--to", f"{place}/b"]
    words += ["--mode", "move", *(["--json"] if as_json else [])]

    done = subprocess.run(
        ["bash", "-c", f"{shlex.join(words)} {to}"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert list((place / "a").rglob("*.dpx")) == []
    assert len(list((place / "b").rglob("*.dpx"))) == 20
    if to == ">/dev/full":
        assert done.stderr.splitlines()[-1].startswith("the result could not be written: ")


@pytest.mark.parametrize("pause", [0.02, 0.2])
def test_a_second_signal_does_not_cut_off_the_clean_up(tmp_path: Path, pause: float) -> None:
    build_small(tmp_path / "a", 2000)
    build_large(tmp_path / "a" / "large.mov", 64 << 20)
    before = snapshot(tmp_path / "a")
    process = cli("--from", tmp_path / "a", "--to", tmp_path / "b", "--bwlimit", "20M")
    wait_until(lambda: len(list(tmp_path.glob("b/.ketter-*/a1/*"))) > 0)
    time.sleep(0.5)
    agents = agents_of(process.pid)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        time.sleep(pause)
    status, _, err = finish(process)

    assert status == 130
    assert "CANCELLED: stopped by a signal or by Ctrl-C" in err
    assert "Traceback" not in err
    assert not (tmp_path / "b").exists(), err
    assert snapshot(tmp_path / "a") == before
    wait_until(lambda: not any(map(running, agents)))
