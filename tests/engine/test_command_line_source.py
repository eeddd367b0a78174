"""What a command says of its source before it begins: links, write-protection, long paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.rig.command import cli, finish


def test_a_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_DIRECTORY)
    for level in range(140):
        name = f"{level:03}" + "x" * 247
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)

    source = tmp_path / ("000" + "x" * 247)
    status, out, err = finish(cli("--from", source, "--to", tmp_path / "b"))

    assert (status, err) == (3, "")
    assert out.count("(NAME_TOO_LONG)") == 1
    assert "is too long a path (NAME_TOO_LONG)" in out
    assert out.splitlines()[-1].startswith("PARTIAL: 13")
    status, out, _ = finish(cli("--from", source, "--to", tmp_path / "c", "--exclude", "*130xxx*"))
    assert status == 0, out


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_symlink_as_the_source_of_a_move_is_refused(tmp_path: Path, kind: str, dry: bool) -> None:
    real = tmp_path / "real"
    (real if kind == "folder" else real.parent).mkdir(exist_ok=True)
    (real / "clip" if kind == "folder" else real).write_bytes(b"frames")
    (tmp_path / "link").symlink_to("real")
    words = ["--from", tmp_path / "link", "--mode", "move", *(["--dry-run"] if dry else [])]

    status, _, err = finish(cli(*words, "--to", f"{tmp_path}/b/"))

    assert status == 2
    assert err.startswith(f"BAD_REQUEST: {tmp_path}/link is a symlink to {real}: a move")
    assert ("end the path with /" in err) == (kind == "folder")
    assert not (tmp_path / "b").exists()
    assert (tmp_path / "link" / "clip" if kind == "folder" else tmp_path / "link").exists()


def test_what_a_linked_folder_holds_is_moved_where_the_path_ends_with_a_slash(
    tmp_path: Path,
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "clip").write_bytes(b"frames")
    (tmp_path / "link").symlink_to("real")

    status, _, err = finish(
        cli("--from", f"{tmp_path}/link/", "--to", tmp_path / "b", "--mode", "move")
    )

    assert (status, err) == (0, "")
    assert os.listdir(tmp_path / "b") == ["clip"]
    assert os.listdir(tmp_path / "real") == []


@pytest.mark.parametrize("through", ["above", "copy"])
def test_a_symlink_above_the_source_or_of_a_copy_is_followed(tmp_path: Path, through: str) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "real" / "inner" / "clip").write_bytes(b"frames")
    (tmp_path / "link").symlink_to("real")
    source = tmp_path / "link" / "inner" if through == "above" else tmp_path / "link"
    words = ["--mode", "move"] if through == "above" else []

    status, _, err = finish(cli("--from", source, "--to", tmp_path / "b", *words))

    assert (status, err) == (0, "")
    assert [path.read_bytes() for path in (tmp_path / "b").rglob("clip")] == [b"frames"]
