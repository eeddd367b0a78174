"""The places that a command names: bytes, `..`, symlinks, addresses, and the transfer's id."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli import arguments
from tests.rig.command import cli, finish
from tests.rig.project import PROJECT


@pytest.fixture(scope="module")
def latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a locale whose encoding is ISO-8859-1."""
    folder = tmp_path_factory.mktemp("locales")
    name = "de_DE.ISO-8859-1"
    words = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", folder / name]
    subprocess.run(words, check=True, capture_output=True)
    return {"LOCPATH": str(folder), "LC_ALL": name}


def run(environment: dict[str, str], *words: str | Path) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", *words],
        cwd=PROJECT,
        env=os.environ | environment,
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


PLAIN = ({"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "ascii"})


@pytest.mark.parametrize("which", range(4))
def test_bytes_of_the_command_line_are_bytes_of_the_path(
    tmp_path: Path, latin: dict[str, str], which: int
) -> None:
    environment = [latin, *PLAIN][which]
    source, target = tmp_path / "süd", tmp_path / "nörd"
    source.mkdir()
    for name in ("süß.mov", "plain", os.fsdecode(b"latin\xe9")):
        (source / name).write_text(name.encode("utf-8", "replace").decode())
    odd = os.fsdecode(b"l\xe9?in*")
    words = ("--from", source, "--to", target, "--mode", "move", "--manifest", tmp_path / "mäni")

    status, out, err = run(environment, *words, "--exclude", "süß*", "--exclude", odd)

    assert (status, err) == (0, b""), out
    assert set(os.listdir(target)) == {"plain", os.fsdecode(b"latin\xe9")}
    assert os.listdir(source) == ["süß.mov"]
    assert set(os.listdir(tmp_path)) == {"süd", "nörd", "mäni"}
    assert run(environment, "verify", "--manifest", tmp_path / "mäni", "--at", target)[0] == 0


@pytest.mark.parametrize("which", range(4))
def test_what_cannot_be_printed_is_escaped(
    tmp_path: Path, latin: dict[str, str], which: int
) -> None:
    environment = [latin, *PLAIN][which]
    (tmp_path / "a").mkdir()
    (tmp_path / "a/f").write_text("f")
    os.mkfifo(tmp_path / "a/日本ü")

    status, out, err = run(environment, "--from", tmp_path / "a", "--to", tmp_path / "b")

    assert (status, err) == (3, b"")
    shown = b"\xfc" if which == 0 else b"\\xfc"
    assert b"failed: \\u65e5\\u672c" + shown in out
    assert (tmp_path / "b/f").exists()


def test_two_dots_after_a_symlink_lead_to_where_the_kernel_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far/in").mkdir(parents=True)
    (tmp_path / "far/x").write_text("the kernel's")
    (tmp_path / "x").write_text("the text's")
    (tmp_path / "link").symlink_to("far/in")

    words = ("--from", tmp_path / "link/../x", "--to", f"{tmp_path}/link/../../b/")
    assert finish(cli("--mode", "move", *words))[0] == 0
    assert (tmp_path / "b/x").read_text() == "the kernel's"
    assert (tmp_path / "x").exists()
    assert not (tmp_path / "far/x").exists()

    monkeypatch.chdir(tmp_path / "far")
    options = arguments.transfer_parser("", "").parse_args(["--from", "../link/..", "--to", "n/"])
    assert arguments.request(options).source.path == f"{tmp_path}/far"[1:]

    status, _, err = finish(cli("--from", tmp_path / "none/../x", "--to", tmp_path / "b"))
    assert (status, "none/..: No such file or directory" in err) == (2, True)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ssh://me:secret@host/p", "has a password"),
        ("ssh://me:secret@host:22/p", "has a password"),
        ("ssh://me:sec/ret@host/x", "is not of the form"),
        ("ssh://me:secret@host", "is not of the form"),
        ("ssh://me:sec@secret@host/p", "is not of the form"),
        ("ftp://me:secret@host/p", "is neither a path nor"),
        ("me:secret@host:/p", "looks like a path on another host"),
        ("ssh://host/~/x", "names no home folder"),
        ("ssh://host/~", "names no home folder"),
        ("ssh://host/~me/x", "names no home folder"),
        ("~/x", "the shell did not replace"),
        ("ssh://host:99999/x", "is a number from 1 to 65535"),
        ("ssh://host:0/x", "is a number from 1 to 65535"),
    ],
)
@pytest.mark.parametrize("end", ["--from", "--to"])
def test_an_address_that_cannot_be_meant_is_refused_and_no_secret_is_shown(
    tmp_path: Path, address: str, says: str, end: str
) -> None:
    other = "--to" if end == "--from" else "--from"
    for more in ((), ("--json",)):
        status, out, err = finish(cli(end, address, other, tmp_path, *more))

        assert status == 2
        assert says in out + err
        assert "sec" not in re.sub("a password", "", out + err)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("ssh://host/a%20b%2Fc", "a%20b%2Fc"),
        ("ssh://host/./~/x", "~/x"),
        ("ssh://host//x/./y/", "x/y/"),
    ],
)
def test_an_address_is_taken_as_it_stands(address: str, path: str) -> None:
    options = arguments.transfer_parser("", "").parse_args(["--from", address, "--to", "b"])

    assert arguments.request(options).source.path == path


def id_of(*words: str | Path) -> str:
    parsed = arguments.transfer_parser("", "").parse_args([*map(str, words)])
    return arguments.request(parsed).transfer_id


def test_two_folders_never_share_a_transfer_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = []
    for project in ("p1", "p2"):
        (tmp_path / project / "src").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / project)
        ids += [id_of("--from", "src", "--to", tmp_path / "b")]
        assert ids[-1] == id_of("--from", tmp_path / project / "src", "--to", "../b")
    ids.append(id_of("--from", "src", "--to", tmp_path / "c"))
    (tmp_path / "p2/src").rename(tmp_path / "p2/away")
    (tmp_path / "p2/src").mkdir()  # As another disk is mounted in its place.
    ids.append(id_of("--from", "src", "--to", tmp_path / "b"))
    ids += [id_of("--from", f"ssh://{host}/src", "--to", "b") for host in ("x", "me@x", "x:22")]

    assert len(set(ids)) == len(ids)


def test_two_machines_never_share_a_transfer_id(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--from", "/", "--to", "ssh://host/b")
    first = id_of(*words)
    real = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((real[0], "another", *real[2:])))

    assert id_of(*words) != first
