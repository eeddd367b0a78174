"""What worked outside the laboratory, and has to go on working: the PASS lines of a search there.

The search is the one of issue 14; `tests/filesystems/findings.py` names each case with its tests.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig.command import cli, finish
from tests.rig.project import PROJECT
from tests.rig.trees import build_small, snapshot


def run(*words: str | Path) -> tuple[int, str, str]:
    """Run the command line."""
    return finish(cli(*words))


def in_shell(script: str, *words: str | Path) -> tuple[int, str, str]:
    """Run the command line after a shell script, in that shell."""
    line = shlex.join([sys.executable, "-m", "engine.cli", *map(str, words)])
    process = subprocess.Popen(
        ["bash", "-c", f"{script}{line}"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    return finish(process)


def test_a_file_beyond_the_largest_allowed_is_named_and_the_rest_is_delivered(
    tmp_path: Path,
) -> None:
    """Case 41: `ulimit -f`, in KiB; on FAT it is 4 GiB."""
    build_small(tmp_path / "a", 10)
    (tmp_path / "a" / "tape.mov").write_bytes(os.urandom(3 << 20))

    status, out, _ = in_shell(
        "ulimit -f 2048; ", "--from", tmp_path / "a", "--to", tmp_path / "b", "--json"
    )

    assert status == 3
    failures = json.loads(out)["failures"]
    assert [one["path"] for one in failures] == ["tape.mov"]
    assert "File too large" in failures[0]["message"]
    assert len(list((tmp_path / "b").rglob("*.dpx"))) == 10
    assert not (tmp_path / "b" / "tape.mov").exists()


def test_five_thousand_excludes_leave_out_what_they_name(tmp_path: Path) -> None:
    """Case 43."""
    (tmp_path / "a").mkdir()
    for number in range(500):
        (tmp_path / "a" / f"f{number:04}").write_bytes(b"x")
    words = [word for number in range(100, 5100) for word in ("--exclude", f"f{number:04}")]

    status, _, err = run("--from", tmp_path / "a", "--to", tmp_path / "b", *words)

    assert (status, err) == (0, "")
    assert sorted(os.listdir(tmp_path / "b")) == [f"f{number:04}" for number in range(100)]


def test_one_file_and_a_target_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "clip").write_bytes(b"new")
    (tmp_path / "there").write_bytes(b"old one")
    refused = run("--from", tmp_path / "clip", "--to", tmp_path / "there")
    folder = run("--from", tmp_path, "--to", tmp_path / "there")
    replaced = run(
        "--from", tmp_path / "clip", "--to", tmp_path / "there", "--on-conflict", "overwrite"
    )

    assert (refused[0], refused[2].split(":")[0]) == (1, "TARGET_EXISTS")
    assert folder[0] in (1, 2)
    assert replaced[0] == 0
    assert (tmp_path / "there").read_bytes() == b"new"


@pytest.mark.parametrize("to", ["folder", "nothing", "itself"])
def test_a_target_that_is_a_symlink(tmp_path: Path, to: str) -> None:
    build_small(tmp_path / "a", 3)
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    link.symlink_to({"folder": "folder", "nothing": "none", "itself": "link"}[to])

    status, _, err = run("--from", tmp_path / "a", "--to", link)

    assert link.is_symlink()
    if to == "itself":
        assert status != 0
        assert "Traceback" not in err
    else:
        assert (status, snapshot(link.resolve())) == (0, snapshot(tmp_path / "a"))


def test_a_name_that_no_file_system_takes_is_a_sentence(tmp_path: Path) -> None:
    build_small(tmp_path / "a", 3)

    status, _, err = run("--from", tmp_path / "a", "--to", tmp_path / ("x" * 300))

    assert (status, "Traceback" in err, err.count("\n")) == (1, False, 1)
    assert "File name too long" in err


def test_a_source_beyond_the_longest_path_is_a_sentence(tmp_path: Path) -> None:
    status, _, err = run("--from", tmp_path / "/".join(["x" * 250] * 20), "--to", tmp_path / "b")

    assert status in (1, 2)
    assert "Traceback" not in err
    assert len(err) < 6000


def test_a_file_named_as_a_folder(tmp_path: Path) -> None:
    """`f/` for a file `f`."""
    (tmp_path / "f").write_bytes(b"frames")

    status, _, err = run("--from", f"{tmp_path}/f/", "--to", f"{tmp_path}/b/")

    assert "Traceback" not in err
    assert status in (0, 1, 2)
    assert (tmp_path / "f").read_bytes() == b"frames"


def test_json_names_of_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(os.fsencode(tmp_path / "a") + b"/odd\xff\n\x1b[2J")

    status, out, _ = run("--from", tmp_path / "a", "--to", tmp_path / "b", "--json")

    assert status == 3
    (failure,) = json.loads(out)["failures"]
    assert failure["path"].isprintable()


def test_only_empty_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(40):
        (tmp_path / "a" / f"{number}").touch()

    status, _, err = run("--from", tmp_path / "a", "--to", tmp_path / "b", "--mode", "move")

    assert (status, err) == (0, "")
    assert len(os.listdir(tmp_path / "b")) == 40
    assert os.listdir(tmp_path / "a") == []


def test_closed_stdin(tmp_path: Path) -> None:
    build_small(tmp_path / "a", 3)

    status, _, err = in_shell("exec <&-; ", "--from", tmp_path / "a", "--to", tmp_path / "b")

    assert (status, err) == (0, "")
    assert snapshot(tmp_path / "b") == snapshot(tmp_path / "a")
