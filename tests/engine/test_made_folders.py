"""The folders made on the way to a target: removed if this transfer made them, and no others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.agent.target.staging import made_folders
from engine.agent.target.staging.folder import Staging
from engine.agent.target.staging.made_folders import Made
from tests.rig.needs import needs_root

STRANGER = 64123
NAME = ".ketter-test.part"


def test_a_recorded_folder_that_is_now_reached_by_a_symlink_is_not_removed(tmp_path: Path) -> None:
    """`made` is a name; between noting and removing it may come to mean another folder."""
    (tmp_path / "real" / "here" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")

    made_folders.remove([Made(f"{tmp_path}/link/here/b")], f"{tmp_path}/link/here/b")

    assert (tmp_path / "real" / "here" / "b").is_dir()


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, list[Made]]:
    """A folder that was made for a transfer, and the note of it."""
    staging_folder = tmp_path / "s"
    staging_folder.mkdir(mode=0o700)
    folder = tmp_path / "made"
    folder.mkdir()
    fd = os.open(staging_folder, os.O_RDONLY)
    try:
        made_folders.write(fd, [str(folder)])
        return folder, made_folders.read(fd)
    finally:
        os.close(fd)


def test_a_made_folder_is_removed_while_it_is_empty(made: tuple[Path, list[Made]]) -> None:
    folder, note = made

    made_folders.remove(note, str(folder))

    assert not folder.exists()


def test_another_folder_in_place_of_a_made_one_is_not_removed(
    made: tuple[Path, list[Made]],
) -> None:
    folder, note = made
    folder.rename(folder.with_name("moved"))
    folder.mkdir()

    made_folders.remove(note, str(folder))

    assert folder.is_dir()


@needs_root
def test_a_folder_of_another_user_with_the_number_of_a_made_one_is_not_removed(
    made: tuple[Path, list[Made]],
) -> None:
    """File systems give the number of a removed folder to the next one."""
    folder, note = made
    os.chown(folder, STRANGER, STRANGER)

    made_folders.remove(note, str(folder))

    assert folder.is_dir()


@needs_root
def test_a_folder_that_another_user_puts_in_place_at_once_is_not_noted(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir(mode=0o700)
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", STRANGER, STRANGER)
    fd = os.open(tmp_path / "s", os.O_RDONLY)
    try:
        made_folders.write(fd, [f"{tmp_path}/theirs", f"{tmp_path}/gone"])
        assert made_folders.read(fd) == []
    finally:
        os.close(fd)


def test_a_folder_swapped_for_the_staging_folder_is_not_removed(tmp_path: Path) -> None:
    """Where others may write they rename ours away while it is removed."""
    (tmp_path / "b").mkdir()
    target = os.open(tmp_path / "b", os.O_RDONLY)
    folder = Staging(target, "test", 1, "this machine")
    try:
        folder.prepare([])
        unlink, place = os.unlink, tmp_path / "b" / NAME

        def swap(name: str, **more: int) -> None:
            unlink(name, **more)
            if name == "gate":
                place.rename(tmp_path / "b" / "moved")
                place.mkdir()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "unlink", swap)
            folder.remove()
    finally:
        folder._let_go()
        os.close(target)

    assert place.is_dir()
