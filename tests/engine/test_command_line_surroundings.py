"""What the command line says of a place before it writes: missing folders, disks not mounted."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig.command import cli, finish
from tests.rig.needs import needs_root
from tests.rig.project import PROJECT
from tests.rig.trees import build_small, snapshot


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree."""
    build_small(tmp_path / "a", 4)
    return tmp_path / "a"


def run(*words: str | Path) -> tuple[int, str, str]:
    """Run the command line: its status, and both outputs."""
    process = cli(*words)
    return finish(process)


def in_namespace(script: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a mount namespace of its own, after a shell script."""
    line = shlex.join([sys.executable, "-m", "engine.cli", *map(str, words)])
    return subprocess.run(
        ["unshare", "-m", "sh", "-ec", f"{script}\n{line}"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_folders_that_are_made_above_the_target_are_named(source: Path, tmp_path: Path) -> None:
    first, last = tmp_path / "mnt nas", tmp_path / "mnt nas" / "day1"

    status, out, err = run("--from", source, "--to", last, "--json")

    assert status == 0
    assert json.loads(out)["folders_made"] == [str(first), str(last)]
    said = f"note: folders were made at the target: {first}, {last}"
    assert err.splitlines() == [said]


def test_the_targets_own_folder_is_worth_no_note(source: Path, tmp_path: Path) -> None:
    status, out, err = run("--from", source, "--to", tmp_path / "b", "--json")
    again = run("--from", source, "--to", tmp_path / "b", "--json")

    assert (status, err) == (0, "")
    assert json.loads(out)["folders_made"] == [str(tmp_path / "b")]
    assert json.loads(again[1])["folders_made"] == []


def test_a_path_deeper_than_a_reply_names_is_made(source: Path, tmp_path: Path) -> None:
    target = tmp_path.joinpath(*["deep"] * 60)

    status, out, _ = run("--from", source, "--to", target, "--json")

    assert status == 0
    assert json.loads(out)["folders_made"][0] == str(tmp_path / "deep")
    assert snapshot(target) == snapshot(source)


@pytest.mark.parametrize("of", ["folder", "file", "archive"])
@pytest.mark.parametrize("dry", [False, True])
def test_no_mkpath_refuses_a_target_whose_parent_is_missing(
    source: Path, tmp_path: Path, of: str, dry: bool
) -> None:
    one = next(path for path in source.rglob("*") if path.is_file())
    words = ["--from", one if of == "file" else source, "--no-mkpath"]
    words += ["--strategy", "archive"] if of == "archive" else []
    words += ["--dry-run"] if dry else []
    name = "x.zip" if of == "archive" else "x"

    status, _, err = run(*words, "--to", tmp_path / "none" / name)
    status_there, _, err_there = run(*words, "--to", tmp_path / name)

    assert status == 2
    assert err.startswith(f"BAD_REQUEST: {tmp_path}/none does not exist at the target")
    assert not (tmp_path / "none").exists()
    assert (status_there, err_there) == (0, "")


@needs_root
@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("mounted", [False, True])
def test_a_disk_of_fstab_that_is_not_mounted_is_named_before_anything_is_written(
    source: Path, tmp_path: Path, mounted: bool, dry: bool
) -> None:
    point = tmp_path / "mnt nas"
    point.mkdir()
    (tmp_path / "fstab").write_text(
        "# /dev/sda1 / ext4\n"
        f"UUID=0 / ext4 defaults 0 1\nUUID=1 {tmp_path}/mnt\\040nas ext4 noauto 0 2\n"
        "none none swap sw 0 0\nodd\n"
    )
    script = f"mount --bind {tmp_path}/fstab /etc/fstab"
    # A bind mount of the same file system: `os.path.ismount` does not see it.
    script += f"\nmount --bind {source} {shlex.quote(str(point))}" if mounted else ""
    words = ["--from", source, "--to", point / "show", *(["--dry-run"] if dry else [])]

    done = in_namespace(script, *words)

    said = [line for line in done.stderr.splitlines() if "NOT_MOUNTED" in line]
    if mounted:
        assert said == []
    else:
        assert (done.returncode, len(said)) == (0, 1)
        assert said[0].startswith(f"warning: {point} is in the target's /etc/fstab")


@needs_root
@pytest.mark.parametrize("dry", [False, True])
def test_a_move_from_a_write_protected_card_says_so_before_it_sends(
    source: Path, tmp_path: Path, dry: bool
) -> None:
    card = tmp_path / "card"
    card.mkdir()
    script = f"mount --bind {source} {card} && mount -o remount,bind,ro {card}"
    words = ["--from", card, "--to", tmp_path / "b", *(["--dry-run"] if dry else [])]

    moved = in_namespace(script, *words, "--mode", "move")
    copied = in_namespace(script, *words, "--on-conflict", "overwrite")

    first = f"warning: {card} is mounted read-only: its files are copied, but none can be removed"
    assert moved.stderr.splitlines()[0].startswith(first)
    assert moved.returncode == (0 if dry else 3)
    assert (copied.returncode, copied.stderr) == (0, "")
    assert len(os.listdir(source)) > 0
