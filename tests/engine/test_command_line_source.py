"""What a command says of its source before it begins: links, write-protection, long paths."""

from __future__ import annotations

import os
from pathlib import Path

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
