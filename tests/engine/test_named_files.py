"""Files that a person names for output, in a folder where another user plants and swaps entries."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import BadRequest
from engine.named_files import create

pytestmark = pytest.mark.fast

NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
@pytest.mark.parametrize("before", [None, 0o644, 0o666])
def test_a_named_file_is_readable_by_its_owner_alone(
    tmp_path: Path, umask: int, before: int | None
) -> None:
    path = tmp_path / "größe 1.jsonl"
    if before is not None:
        path.write_text("earlier, and longer than what comes")
        path.chmod(before)
    previous = os.umask(umask)
    try:
        with create(str(path)) as file:
            file.write(b"names")
    finally:
        os.umask(previous)

    assert (path.read_bytes(), mode_of(path)) == (b"names", 0o600)


def test_a_file_that_is_replaced_keeps_its_content_under_other_names(tmp_path: Path) -> None:
    """Also another user's file: names are not written into what that user can read."""
    planted, reader = tmp_path / "m", tmp_path / "reader"
    planted.write_text("planted")
    os.link(planted, reader)

    with create(str(planted)) as file:
        file.write(b"names")

    assert (reader.read_text(), planted.read_text()) == ("planted", "names")


@pytest.mark.parametrize("there", [True, False])
def test_a_symlink_is_refused_and_its_target_is_untouched(tmp_path: Path, there: bool) -> None:
    precious = tmp_path / "precious"
    if there:
        precious.write_text("precious")
    (tmp_path / "m").symlink_to(precious)

    with pytest.raises(BadRequest, match="is a symlink; name the file itself"):
        create(str(tmp_path / "m"))

    assert precious.exists() == there
    assert not there or precious.read_text() == "precious"


def link_folders(tmp_path: Path) -> Path:
    """Make a file, and a path to it through two symlinks: one to the other."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/m").write_text("precious")
    (tmp_path / "out").symlink_to("on/./way")
    (tmp_path / "on").mkdir()
    (tmp_path / "on/way").symlink_to(tmp_path / "kept")
    return tmp_path / "out" / "m"


@root_only
@pytest.mark.parametrize("planted", ["out", "on/way"])
def test_another_users_symlink_on_the_way_is_refused_and_the_file_behind_it_stays(
    tmp_path: Path, planted: str
) -> None:
    path = link_folders(tmp_path)
    os.chown(tmp_path / planted, NOBODY, NOBODY, follow_symlinks=False)

    with pytest.raises(BadRequest, match="leads through a symlink of another user"):
        create(str(path))

    assert (tmp_path / "kept/m").read_text() == "precious"


def test_this_users_symlinks_on_the_way_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = link_folders(tmp_path)
    monkeypatch.chdir(tmp_path / "on")
    for named in (path, Path("../out/../kept/m")):
        with create(str(named)) as file:
            file.write(b"names")

    assert (tmp_path / "kept/m").read_text() == "names"


def test_a_loop_of_symlinks_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")

    with pytest.raises(BadRequest, match="is a loop"):
        create(str(tmp_path / "loop" / "m"))


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Path.mkdir, "is a folder; name a file in it"),
        (os.mkfifo, "cannot be written"),
        (make_socket, "cannot be written"),
    ],
)
def test_a_path_that_is_no_file_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], None], why: str
) -> None:
    make(tmp_path / "m")

    with pytest.raises(BadRequest, match=why):
        create(str(tmp_path / "m"))


@pytest.mark.parametrize("path", ["", "missing/m", "a\0b", "x" * 300, "missing/", ".", "a/.."])
def test_a_path_that_cannot_be_made_is_refused_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadRequest, match="cannot be written"):
        create(path)


def test_a_pipe_that_a_program_reads_gets_the_names(tmp_path: Path) -> None:
    pipe, got = tmp_path / "m", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    while True:
        try:
            with create(str(pipe)) as file:
                file.write(b"names" * 100_000)
            break
        except BadRequest:
            continue  # The reader has not opened it yet.
    reader.join(timeout=20)

    assert got == [b"names" * 100_000]


@root_only
def test_a_pipe_of_another_user_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "m"
    os.mkfifo(pipe, 0o666)
    os.chown(pipe, NOBODY, NOBODY)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(BadRequest, match="belongs to another user; name another file"):
            create(str(pipe))
        assert os.read(reader, 10) == b""
    finally:
        os.close(reader)


def test_devices_and_streams_of_the_process_are_written_as_they_are() -> None:
    with create("/dev/null") as file:
        file.write(b"names")
    text = "from engine.named_files import create; create('/dev/stdout').write(b'names')"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, check=True)
    assert done.stdout == b"names"
