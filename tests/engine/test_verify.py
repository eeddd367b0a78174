"""`verify`: a manifest that a transfer wrote, held against the target as it is now."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest

from engine.cli import __main__ as command_line
from engine.connect.ssh import SshClient
from engine.errors import AuthFailed, BadRequest
from engine.proof import manifest_file
from engine.types import SshAccess
from tests.rig.project import PROJECT
from tests.rig.sshd import Sshd
from tests.rig.trees import build_mixed, build_small


def cli(*words: str | Path) -> tuple[int, dict[str, Any]]:
    line = [sys.executable, "-m", "engine.cli", *map(str, words), "--json"]
    done = subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else {"error": done.stderr}


@pytest.fixture
def delivered(tmp_path: Path) -> Path:
    """A tree that was delivered to b, and its manifest m."""
    build_mixed(tmp_path / "a")
    words = ("--from", tmp_path / "a", "--to", tmp_path / "b", "--manifest", tmp_path / "m")
    assert cli(*words)[0] == 0
    return tmp_path


def test_verify_reports_a_delivered_tree_as_the_same(delivered: Path) -> None:
    status, verdict = cli("verify", "--manifest", delivered / "m", "--at", delivered / "b")

    entries = len((delivered / "m").read_text().splitlines())
    assert (status, verdict["status"], verdict["different"]) == (0, "same", 0)
    assert verdict["entries"] == entries > 15


def test_verify_reports_missing_and_different_files(delivered: Path) -> None:
    spoilt, gone = delivered / "b" / "large.mov", delivered / "b" / "tool.sh"
    times = spoilt.stat().st_mtime_ns
    with spoilt.open("r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(spoilt, ns=(times, times))
    gone.unlink()

    status, verdict = cli("verify", "--manifest", delivered / "m", "--at", delivered / "b")

    found = {row["path"]: row["code"] for row in verdict["differences"]}
    assert status == 4
    assert found == {"large.mov": "CHECKSUM_MISMATCH", "tool.sh": "VANISHED"}


def test_verify_reads_a_target_behind_ssh(delivered: Path, sshd: Sshd) -> None:
    status, verdict = cli(
        "verify", "--manifest", delivered / "m",
        "--at", f"ssh://{sshd.username}@{sshd.host}:{sshd.port}{delivered / 'b'}",
        "--ssh-config", sshd.ssh_config, "--known-hosts", sshd.known_hosts,
        "--identity", sshd.identity_file,
    )  # fmt: skip

    assert (status, verdict["status"]) == (0, "same")


def line(**changed: Any) -> str:
    """A line of a manifest that is whole, and a line in which one field is odd."""
    record = {"path": "x", "kind": "f", "size": 1, "sha256": "0" * 64}
    return "".join(json.dumps(found) + "\n" for found in (record, {**record, **changed}))


def line_of(path: str) -> bytes:
    """A line of a manifest."""
    return line(path=path).splitlines()[1].encode() + b"\n"


@pytest.mark.parametrize(
    "text",
    [
        "no manifest\n",
        '{"path": "../out", "kind": "f", "size": 1, "sha256": ""}\n',
        '{"path": "x", "kind": "device", "size": 1, "sha256": ""}\n',
        '{"path": "x"}\n',
        "[" * 100_000 + "\n",
        '{"a":' * 100_000 + "\n",
        "[]\n",
        "null\n",
        line(size=99999999999999999999999999),
        line(size=1 << 63),
        line(size=-1),
        line(size=1.5),
        line(size=True),
        line(size="1"),
        line(size=None),
        line(path=""),
        line(path=5),
        line(path="/etc/passwd"),
        line(path="a//b"),
        line(path="a\0b"),
        line(path="\ud800"),
        line(path="x" * 40_000),
        line(path=["a"]),
        line(kind="F"),
        line(kind=None),
        line(kind=["f"]),
        line(sha256="0" * 63),
        line(sha256="g" * 64),
        line(sha256=5),
        line(sha256=None),
        "\n",
        " " * (2 << 20),
        "y" * (9 << 20) + "\n",
    ],
    ids=lambda text: f"{text[:60]!r} {len(text)}",
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_malformed_manifest_is_refused_in_a_sentence(
    tmp_path: Path, text: str, packed: bool
) -> None:
    data = text.encode()
    (tmp_path / "m").write_bytes(zlib.compress(data) if packed else data)

    with pytest.raises(BadRequest, match=r"/m is not a Ketter manifest: .*line") as caught:
        list(manifest_file.read(tmp_path / "m"))

    assert len(str(caught.value)) < 500 + len(str(tmp_path))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        zlib.compress(b""),
        zlib.compress(b"")[:-1],
        zlib.compress(line_of("x"))[:-4],
        zlib.compress(line_of("x")) + b"more",
        b"\x78 is no zlib",
        bytes(100_000),
        b"\xff\xfe\x00",
    ],
    ids=range(8),
)
def test_an_empty_or_damaged_manifest_is_refused_in_a_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m").write_bytes(data)

    with pytest.raises(BadRequest, match="/m is not a Ketter manifest: "):
        list(manifest_file.read(tmp_path / "m"))


@pytest.mark.parametrize("packed", [False, True])
def test_a_manifest_of_any_size_is_read_a_line_at_a_time(tmp_path: Path, packed: bool) -> None:
    data = line_of("folder/file") * 200_000
    (tmp_path / "m").write_bytes(zlib.compress(data) if packed else data)
    tracemalloc.start()
    try:
        assert sum(1 for _ in manifest_file.read(tmp_path / "m")) == 200_000
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["missing", "folder"])
def test_a_manifest_that_cannot_be_read_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()

    with pytest.raises(BadRequest, match=f"/{name} is not a Ketter manifest: [NI]"):
        list(manifest_file.read(tmp_path / name))


def test_verify_refuses_a_malformed_manifest_as_a_bad_request(delivered: Path) -> None:
    (delivered / "m").write_text(line(size=1 << 63))

    status, verdict = cli("verify", "--manifest", delivered / "m", "--at", delivered / "b")

    assert (status, verdict["code"]) == (2, "BAD_REQUEST")


def test_a_manifest_is_not_written_through_a_symlink(tmp_path: Path) -> None:
    build_mixed(tmp_path / "a")
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "m").symlink_to("precious")

    status, result = cli(
        "--from", tmp_path / "a", "--to", tmp_path / "b", "--manifest", tmp_path / "m"
    )

    assert (status, result["code"]) == (2, "BAD_REQUEST")
    assert "is a symlink" in result["message"]
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "b").exists()


def test_a_manifest_that_is_swapped_meanwhile_is_not_opened_again(tmp_path: Path) -> None:
    build_small(tmp_path / "a", 3000)
    words = ("--from", tmp_path / "a", "--to", tmp_path / "b", "--manifest", tmp_path / "m")
    line = [sys.executable, "-m", "engine.cli", *map(str, words), "--bwlimit", "8M"]
    with subprocess.Popen(line, cwd=PROJECT, stdout=subprocess.PIPE) as process:
        while not (tmp_path / "m").exists():
            time.sleep(0.01)
        (tmp_path / "m").rename(tmp_path / "opened")
        (tmp_path / "precious").write_text("precious")
        (tmp_path / "m").symlink_to("precious")
        process.communicate(timeout=60)

    assert process.returncode == 0
    assert (tmp_path / "precious").read_text() == "precious"
    assert len((tmp_path / "opened").read_text().splitlines()) >= 3000
    assert stat.S_IMODE((tmp_path / "opened").stat().st_mode) == 0o600


def devices(folder: Path) -> dict[str, str]:
    """What is no plain file, each with the words for it."""
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to(folder / "fifo")
    (folder / "folder").mkdir()
    return {
        str(folder / "fifo"): "a pipe",
        str(folder / "link"): "a pipe",
        "/dev/zero": "a device",
        "/dev/tty": "",  # Without a terminal it cannot be opened.
        str(folder / "folder"): "",
    }


def test_a_manifest_that_is_a_pipe_or_a_device_is_refused_and_not_waited_for(
    tmp_path: Path,
) -> None:
    """It was opened, which waits until a program writes to the pipe: for ever."""
    for path, kind in devices(tmp_path).items():
        began = time.monotonic()
        with pytest.raises(BadRequest) as refused:
            list(manifest_file.read(Path(path)))
        assert time.monotonic() < began + 1
        if kind:
            words = f"{path} is not a Ketter manifest: it is {kind}; name a plain file"
            assert str(refused.value) == words


@pytest.mark.parametrize("option", ["--manifest", "--ssh-config", "--identity", "--known-hosts"])
def test_the_command_line_names_what_a_file_is_that_is_no_plain_one(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It said that there was no such file."""
    devices(tmp_path)
    plain = tmp_path / "plain"
    plain.touch()
    for name, words in {"fifo": "is a pipe", "folder": "is a folder", "none": "no file"}.items():
        files = {"--manifest": plain, option: tmp_path / name}
        given = [str(word) for pair in files.items() for word in pair]
        with pytest.raises(SystemExit) as ended:
            command_line.main(["verify", "--at", "ssh://h/b", *given])
        assert ended.value.code == 2
        assert words in capsys.readouterr().err


def test_a_key_file_that_is_a_pipe_is_refused_before_ssh_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")
    client = SshClient(SshAccess("h", identity_file=str(tmp_path / "key")))
    try:
        with pytest.raises(AuthFailed, match=r"the key file for h: .*/key is a pipe; name a plain"):
            client.command("true")
    finally:
        client.files.remove()
