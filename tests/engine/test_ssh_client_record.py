"""A client of OpenSSH that takes all options is put on record in the user's cache."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.connect import ssh_options
from tests.rig.old_ssh import UNKNOWN_IN_2015, old_client


@pytest.fixture(autouse=True)
def _ask_again() -> Iterator[None]:
    """What the client takes is asked once a process."""
    ssh_options._asked.cache_clear()
    yield
    ssh_options._asked.cache_clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of this user."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The questions to ssh of this test, by the options in them."""
    asked: list[tuple[str, ...]] = []
    works = ssh_options._works

    def counted(prefix: tuple[str, ...], *names: str) -> bool:
        asked.append(names)
        return works(prefix, *names)

    monkeypatch.setattr(ssh_options, "_works", counted)
    return asked


def fixed_of_a_new_process() -> dict[str, str]:
    """The fixed options as the next process gets them."""
    ssh_options._asked.cache_clear()
    return ssh_options.fixed()


def client_in_path(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Put a copy of this machine's client first in PATH."""
    copy = folder / "bin" / "ssh"
    copy.parent.mkdir(parents=True)
    shutil.copy(str(shutil.which("ssh")), copy)
    patch.setenv("PATH", f"{copy.parent}:{os.environ['PATH']}")
    return copy


def test_a_client_on_record_is_not_asked_again(
    cache: Path, questions: list[tuple[str, ...]]
) -> None:
    first = fixed_of_a_new_process()
    asked = len(questions)

    assert fixed_of_a_new_process() == first
    assert len(questions) == asked <= 2
    (record,) = (cache / "ketter").iterdir()
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert stat.S_IMODE(record.parent.stat().st_mode) == 0o700


def test_another_client_in_the_same_place_is_asked(
    cache: Path, questions: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_in_path(tmp_path, monkeypatch)
    times = client.stat()
    fixed_of_a_new_process()
    content = client.read_bytes()
    client.write_bytes(content)  # As large as before, and with its time.
    os.utime(client, ns=(times.st_atime_ns, times.st_mtime_ns))

    fixed_of_a_new_process()

    assert len(questions) == 2


def test_an_option_that_a_new_version_adds_is_asked_for(
    cache: Path, questions: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed_of_a_new_process()
    monkeypatch.setitem(ssh_options._NEWER, "NotAnOptionOfAnyClient", "no")

    assert "NotAnOptionOfAnyClient" not in fixed_of_a_new_process()
    assert len(questions) > 1


def test_a_client_that_is_a_script_or_lacks_an_option_is_asked_each_time(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = old_client(tmp_path, monkeypatch, UNKNOWN_IN_2015[:1])

    for _ in range(2):
        assert "KnownHostsCommand" not in fixed_of_a_new_process()

    assert not (cache / "ketter").exists()
    assert len(log.read_text().splitlines()) % 2 == 0


def test_a_client_in_a_folder_whose_name_is_no_utf_8_is_put_on_record(
    cache: Path, questions: list[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_in_path(tmp_path / os.fsdecode(b"\xff"), monkeypatch)
    for _ in range(2):
        assert "KnownHostsCommand" in fixed_of_a_new_process()
    assert len(questions) == 1


@pytest.mark.parametrize("plant", ["fifo", "link", "folder", "closed", "no home", "not ours"])
def test_a_cache_that_cannot_be_used_costs_a_question_and_nothing_else(
    plant: str,
    cache: Path,
    questions: list[tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = fixed_of_a_new_process()
    record = cache / "ketter" / "ssh-client"
    known = record.read_bytes()
    record.unlink()
    if plant == "fifo":
        os.mkfifo(record)
    elif plant == "link":
        (tmp_path / "elsewhere").write_bytes(known)
        record.symlink_to(tmp_path / "elsewhere")
    elif plant == "folder":
        record.mkdir()
    elif plant == "closed":
        shutil.rmtree(cache)
        cache.write_text("a file where the folder would be")
    elif plant == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.delenv("HOME")
    else:
        shutil.rmtree(record.parent)
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    questions.clear()

    assert fixed_of_a_new_process() == wanted

    assert len(questions) == 1
    assert plant != "not ours" or not record.parent.exists()
    assert plant != "link" or (tmp_path / "elsewhere").read_bytes() == known
