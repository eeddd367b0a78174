"""`--manifest`: it is written when there is something to prove, and names what stands there."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.rig.command import cli, finish
from tests.rig.trees import build_small, snapshot


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A tree `a`, delivered to `b`, with its manifest `m`."""
    build_small(tmp_path / "a", 8)
    (tmp_path / "a/f1").write_text("one")
    assert run(tmp_path, "b")[0] == 0
    return tmp_path


def run(place: Path, to: str, *more: str, source: str = "a") -> tuple[int, str, str]:
    words = ("--from", f"{place}/{source}", "--to", f"{place}/{to}", "--manifest", f"{place}/m")
    return finish(cli(*words, *more))


def verify(place: Path, at: str) -> tuple[int, str, str]:
    return finish(cli("verify", "--manifest", place / "m", "--at", place / at))


def paths(manifest: Path) -> set[str]:
    return {json.loads(line)["path"] for line in manifest.read_text().splitlines()}


def test_a_run_that_proves_nothing_leaves_the_old_manifest(place: Path) -> None:
    before = (place / "m").read_bytes()
    assert paths(place / "m") >= {"f1"}

    assert run(place, "b2", "--dry-run")[0] == 0
    assert run(place, "b", source="none")[0] == 1
    status, _, err = run(place, "b")

    assert (status, (place / "m").read_bytes()) == (0, before)
    assert "9 entries were there already, and nothing was proven" in err
    assert "(MANIFEST_LEFT)" in err
    assert sorted(os.listdir(place)) == ["a", "b", "m"]


def test_a_failed_run_leaves_the_old_manifest(place: Path) -> None:
    before = (place / "m").read_bytes()
    (place / "a/f1").write_text("new one")

    status, _, err = run(place, "b")

    assert (status, err.split(":")[0]) == (1, "TARGET_EXISTS")
    assert (place / "m").read_bytes() == before
    assert sorted(os.listdir(place)) == ["a", "b", "m"]


def test_a_manifest_of_a_part_says_so(place: Path) -> None:
    (place / "a/f2").write_text("two")

    status, _, err = run(place, "b")

    assert status == 0
    assert "9 entries were there already; the manifest" in err
    assert "f2" in paths(place / "m")
    assert "f1" not in paths(place / "m")
    assert verify(place, "b")[0] == 0


def test_entries_that_were_there_and_are_proven_are_in_the_manifest(place: Path) -> None:
    (place / "m").unlink()

    status, _, err = run(place, "b", "--mode", "move")

    assert (status, err) == (0, "")
    assert not list((place / "a").rglob("*.dpx"))
    assert len(paths(place / "m")) >= 9
    status, out, _ = verify(place, "b")
    assert (status, out[:4]) == (0, "SAME")


@pytest.mark.parametrize("name", ["none/m", "a", "link", ""])
def test_a_path_that_cannot_be_written_is_refused_before_anything_is_sent(
    place: Path, name: str
) -> None:
    (place / "link").symlink_to("f")
    before = snapshot(place)

    words = ("--from", place / "a", "--to", place / "c", "--manifest", f"{place}/{name}")
    status, _, err = finish(cli(*words))

    assert (status, err.split(":")[0]) == (2, "BAD_REQUEST")
    assert snapshot(place) == before


@pytest.mark.parametrize("strategy", ["auto", "archive"])
def test_the_manifest_names_the_second_name_of_keep_both(place: Path, strategy: str) -> None:
    target = "b" if strategy == "auto" else "z/x.zip"
    (place / "z").mkdir()
    (place / "z/x.zip").write_text("another")
    (place / "a/f1").write_text("new one")

    status, _, err = run(place, target, "--on-conflict", "keep-both", "--strategy", strategy)

    assert status == 0, err
    second = "f1 (2)" if strategy == "auto" else "x (2).zip"
    assert second in paths(place / "m")
    status, out, _ = verify(place, os.path.dirname(target) or "b")
    assert (status, out[:4]) == (0, "SAME"), out


def test_a_renamed_single_file_is_named_as_it_stands_there(place: Path) -> None:
    assert run(place, "c/renamed", source="a/f1")[0] == 0

    assert paths(place / "m") == {"renamed"}
    status, out, _ = verify(place, "c")
    assert (status, out[:4]) == (0, "SAME"), out


def test_an_archive_is_verified_as_the_file_that_it_is(place: Path) -> None:
    assert run(place, "d/x.zip", "--strategy", "archive")[0] == 0

    lines = [json.loads(line) for line in (place / "m").read_text().splitlines()]
    assert (lines[0]["path"], lines[0]["size"]) == ("x.zip", (place / "d/x.zip").stat().st_size)
    assert {line["archive"] for line in lines[1:]} == {"x.zip"}
    assert {"f1"} < {line["path"] for line in lines[1:]}
    assert verify(place, "d")[0] == 0

    with open(place / "d/x.zip", "r+b") as archive:
        archive.write(b"?")
    status, out, _ = verify(place, "d")
    assert (status, "x.zip differs" in out) == (4, True)

    (place / "m").write_text("".join(json.dumps(line) + "\n" for line in lines[1:]))
    status, _, err = verify(place, "d")
    assert (status, "unpack the archive" in err) == (2, True)


def test_a_full_disk_behind_the_manifest_does_not_end_a_move(place: Path) -> None:
    words = ("--from", place / "a", "--to", place / "c", "--mode", "move")
    status, _, err = finish(cli(*words, "--manifest", "/dev/full"))

    assert status == 0, err
    assert "the manifest /dev/full could not be written: No space left on device" in err
    assert (place / "c/f1").read_text() == "one"
    assert not (place / "a/f1").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="an immutable file: this needs root")
def test_what_could_not_be_published_is_not_in_the_manifest(place: Path) -> None:
    (place / "a/f1").write_text("new one")
    (place / "a/f2").write_text("two")
    subprocess.run(["chattr", "+i", place / "b/f1"], check=True)
    try:
        status, _, err = run(place, "b", "--on-conflict", "overwrite")
    finally:
        subprocess.run(["chattr", "-i", place / "b/f1"], check=True)

    assert status == 3, err
    assert "f2" in paths(place / "m")
    assert "f1" not in paths(place / "m")
    assert verify(place, "b")[0] == 0
