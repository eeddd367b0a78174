"""Killed or stopped half-way, and gone on with by the same command and --resume."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.rig.command import agents_of, cli, finish, running
from tests.rig.interrupted import (
    LOST_OF_A_FILE,
    MIB,
    Held,
    build_large,
    build_many,
    staged,
    staging,
    whole,
)
from tests.rig.lanes import nightly
from tests.rig.trees import Entry, assert_equal_trees, snapshot
from tests.rig.waiting import wait_until

#: A first parcel of small files; they grow only after 16 of them.
PARCEL = 4 * MIB


def command(root: Path, *more: str) -> list[str | Path]:
    return ["--from", root / "a", "--to", root / "b", "--json", *more]


def killed(root: Path, arrived: int, rate: str, *more: str) -> int:
    """Start a transfer and kill its worker when so many bytes have arrived; return how many had."""
    process = cli(*command(root, "--bwlimit", rate, *more))
    wait_until(lambda: staged(root / "b") >= arrived)
    agents = agents_of(process.pid)
    process.kill()
    process.communicate(timeout=20)
    wait_until(lambda: not any(map(running, agents)))
    found = staged(root / "b")
    assert os.listdir(root / "b") == [folder.name for folder in staging(root / "b")]
    return found


def resumed(root: Path, *more: str) -> dict[str, Any]:
    """Go on with it, and the report of that."""
    status, out, err = finish(cli(*command(root, "--resume", *more)))
    assert (status, err) == (0, ""), out
    report: dict[str, Any] = json.loads(out)
    assert report["status"] == "done"
    assert staging(root / "b") == []
    return report


def undisturbed(root: Path) -> dict[bytes, Entry]:
    """What a transfer makes of it that nobody disturbs."""
    status, _, err = finish(cli("--from", root / "a", "--to", root / "c"))
    assert (status, err) == (0, "")
    return whole(root / "c")


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["1", "4"])
@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_resumed_transfer_does_not_send_proven_files_again(
    tmp_path: Path, mode: str, streams: str
) -> None:
    build_many(tmp_path / "a", 1600)  # 50 MiB
    expected, before = undisturbed(tmp_path), whole(tmp_path / "a")
    arrived = killed(tmp_path, 30 * MIB, "20M", "--mode", mode, "--streams", streams)
    assert whole(tmp_path / "a") == before
    held = Held(tmp_path / "b")

    report = resumed(tmp_path, "--mode", mode, "--streams", streams)

    assert_equal_trees(expected, whole(tmp_path / "b"))
    # Under way on each stream: one parcel that is being settled, one that comes in.
    least = arrived - 2 * int(streams) * PARCEL - PARCEL
    link = len("reel_0/0")  # It takes no block of the disk.
    assert least <= report["bytes_resumed"] <= arrived + link
    kept = held.kept(tmp_path / "b")
    # And the link, if its parcel was proven by then.
    assert report["bytes_resumed"] - len(kept) * (32 << 10) in (0, link)
    assert report["files_resumed"] >= len(kept)
    assert report["plan"]["bytes"] == 1600 * (32 << 10) + 8 - report["bytes_resumed"]
    assert report["files"] == 1601
    assert (os.listdir(tmp_path / "a") == []) is (mode == "move")


@pytest.mark.slow
@pytest.mark.parametrize("streams", [nightly("1"), "4"])
@pytest.mark.parametrize("verify", ["stream", "readback"])
def test_a_killed_transfer_loses_at_most_64_mib_of_a_large_file(
    tmp_path: Path, streams: str, verify: str
) -> None:
    build_large(tmp_path / "a" / "large.mov", 200 * MIB)
    build_large(tmp_path / "a" / "small.mov", 5 * MIB)
    (tmp_path / "a" / "large.mov").chmod(0o640)
    expected = undisturbed(tmp_path)
    arrived = killed(tmp_path, 130 * MIB, "60M", "--streams", streams, "--verify", verify)
    held = Held(tmp_path / "b")

    report = resumed(tmp_path, "--streams", streams, "--verify", verify)

    assert_equal_trees(expected, whole(tmp_path / "b"))
    assert arrived - LOST_OF_A_FILE <= report["bytes_resumed"] <= arrived
    assert held.kept(tmp_path / "b") == {"large.mov", "small.mov"}
    assert (report["files"], report["bytes"]) == (2, 205 * MIB)


@pytest.mark.slow
@pytest.mark.parametrize("streams", [("1", "4"), ("4", "1")])
def test_a_large_file_is_resumed_over_another_number_of_streams(
    tmp_path: Path, streams: tuple[str, str]
) -> None:
    build_large(tmp_path / "a" / "large.mov", 200 * MIB)
    expected = undisturbed(tmp_path)
    arrived = killed(tmp_path, 130 * MIB, "60M", "--streams", streams[0])

    report = resumed(tmp_path, "--streams", streams[1])

    assert_equal_trees(expected, whole(tmp_path / "b"))
    assert arrived - LOST_OF_A_FILE <= report["bytes_resumed"] <= arrived


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip.mov", "other.mov"])
def test_a_single_large_file_is_resumed_whatever_its_target_name(tmp_path: Path, name: str) -> None:
    build_large(tmp_path / "a" / "clip.mov", 100 * MIB)
    line = ["--from", tmp_path / "a" / "clip.mov", "--to", tmp_path / "b" / name, "--json"]
    process = cli(*line, "--bwlimit", "40M")
    wait_until(lambda: staged(tmp_path / "b") >= 70 * MIB)
    process.kill()
    process.communicate(timeout=20)

    status, out, _ = finish(cli(*line, "--resume"))

    assert (status, os.listdir(tmp_path / "b")) == (0, [name])
    assert list(snapshot(tmp_path / "b").values()) == list(snapshot(tmp_path / "a").values())
    assert json.loads(out)["bytes_resumed"] >= 70 * MIB - LOST_OF_A_FILE


@pytest.mark.slow
def test_a_move_that_was_killed_four_times_completes_when_resumed(tmp_path: Path) -> None:
    build_many(tmp_path / "a", 800)  # 25 MiB
    build_large(tmp_path / "a" / "large.mov", 100 * MIB)
    expected = undisturbed(tmp_path)

    for arrived in (12, 40, 75, 105):
        found = killed(tmp_path, arrived * MIB, "30M", "--mode", "move", "--resume")
        assert found < 125 * MIB

    report = resumed(tmp_path, "--mode", "move")
    assert_equal_trees(expected, whole(tmp_path / "b"))
    assert report["bytes_resumed"] >= (105 * MIB) - LOST_OF_A_FILE
    assert os.listdir(tmp_path / "a") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_with_resume_keeps_what_has_arrived_when_a_signal_stops_it(
    tmp_path: Path, number: int
) -> None:
    build_many(tmp_path / "a", 800)
    process = cli(*command(tmp_path, "--resume", "--bwlimit", "10M"))
    wait_until(lambda: staged(tmp_path / "b") > 12 * MIB)
    process.send_signal(number)

    status, out, _ = finish(process)

    error = json.loads(out)
    assert (status, error["code"], error["kept"]) == (130, "INTERRUPTED", True)
    assert resumed(tmp_path)["bytes_resumed"] >= PARCEL
    assert_equal_trees(tmp_path / "a", tmp_path / "b")


def test_the_error_of_a_lost_agent_says_how_to_resume(tmp_path: Path) -> None:
    build_many(tmp_path / "a", 800)
    process = cli("--from", tmp_path / "a", "--to", tmp_path / "b", "--bwlimit", "10M")
    wait_until(lambda: staged(tmp_path / "b") > 12 * MIB)
    os.kill(agents_of(process.pid)[0], signal.SIGKILL)

    status, _, err = finish(process)

    assert status == 1
    assert err.startswith("AGENT_LOST: ")
    assert "run the same command with --resume to go on" in err
    status, out, _ = finish(cli("--from", tmp_path / "a", "--to", tmp_path / "b", "--resume"))
    assert status == 0
    assert "bytes had arrived before" in out


def test_a_run_with_resume_works_when_nothing_has_arrived_before(tmp_path: Path) -> None:
    build_many(tmp_path / "a", 20)

    assert resumed(tmp_path)["bytes_resumed"] == 0
    assert_equal_trees(tmp_path / "a", tmp_path / "b")
    assert resumed(tmp_path)["files_skipped"] == 21


def test_a_dry_run_with_resume_changes_nothing(tmp_path: Path) -> None:
    build_many(tmp_path / "a", 800)
    killed(tmp_path, 12 * MIB, "10M")
    before = whole(tmp_path)

    status, out, _ = finish(cli(*command(tmp_path, "--resume", "--dry-run")))

    assert (status, json.loads(out)["plan"]["files"]) == (0, 801)
    assert whole(tmp_path) == before
