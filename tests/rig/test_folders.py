"""Tests' folders are in memory only where that can hold them and all they are for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.rig import folders
from tests.rig.folders import available, in_memory


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said about the room."""
    monkeypatch.setattr(folders, "NEEDED_BYTES", -folders.SPARE_BYTES)


def test_a_folder_with_room_is_taken_if_it_keeps_attributes(
    roomy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "acl_support", lambda folder: True)
    for able in (True, False):
        monkeypatch.setattr(folders, "xattr_support", lambda folder, able=able: able)
        assert in_memory(tmp_path) == (tmp_path if able else None)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_not_taken(roomy: None, tmp_path: Path) -> None:
    assert in_memory(tmp_path / "none") is None


def test_too_little_room_is_too_little(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(folders, "NEEDED_BYTES", 1 << 60)
    assert in_memory(tmp_path) is None


def test_the_system_says_how_much_memory_there_is_or_none_counts_as_there() -> None:
    told = Path("/proc/meminfo").exists()
    assert (available() > 1 << 20) if told else (available() == 0)
