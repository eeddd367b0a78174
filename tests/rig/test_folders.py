"""Tests' folders are in memory only where that can hold them and all they are for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.rig import folders
from tests.rig.facts import xattr_support as real
from tests.rig.folders import available, in_memory


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said about the room."""
    monkeypatch.setattr(folders, "NEEDED_BYTES", -folders.SPARE_BYTES)


def test_a_memory_folder_is_used_only_if_it_keeps_extended_attributes(
    roomy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "acl_support", lambda folder: True)
    for able in (True, False):
        monkeypatch.setattr(folders, "xattr_support", lambda folder, able=able: able)
        assert in_memory(tmp_path) == (tmp_path if able else None)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("setfacl", "taken"), [("/usr/bin/setfacl", False), (None, True)])
def test_a_memory_folder_without_access_lists_is_used_only_where_setfacl_is_missing(
    roomy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setfacl: str | None, taken: bool
) -> None:
    """Without setfacl the whole suite ran on the disk, and took twice as long."""
    monkeypatch.setattr(folders, "xattr_support", lambda folder: True)
    monkeypatch.setattr(folders, "acl_support", lambda folder: False)
    monkeypatch.setattr(folders.shutil, "which", lambda program: setfacl)
    assert in_memory(tmp_path) == (tmp_path if taken else None)


def test_a_memory_folder_that_does_not_exist_is_not_used(roomy: None, tmp_path: Path) -> None:
    assert in_memory(tmp_path / "none") is None


def test_a_memory_folder_with_too_little_room_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(folders, "NEEDED_BYTES", 1 << 60)
    assert in_memory(tmp_path) is None


def test_available_memory_comes_from_proc_meminfo_or_is_zero() -> None:
    told = Path("/proc/meminfo").exists()
    assert (available() > 1 << 20) if told else (available() == 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_memory_folder_is_used_by_a_user_who_does_not_own_it(
    roomy: None, on_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /dev/shm is root's; and by another run, whose traces are there at the same time."""
    monkeypatch.setattr(folders, "xattr_support", lambda folder: real(folder) or True)
    monkeypatch.setattr(folders, "acl_support", lambda folder: True)
    on_disk.chmod(0o1777)
    (on_disk / "probe").touch(mode=0o600)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            status = 0 if in_memory(on_disk) == on_disk else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.listdir(on_disk) == ["probe"]
