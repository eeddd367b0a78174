"""What another user has put where the staging folder goes: it is not used, and nothing hangs."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import engine
from engine import Mode
from engine.cli.arguments import request, transfer_parser
from tests.rig.command import cli, finish
from tests.rig.interrupted import build_many, staged, staging
from tests.rig.needs import needs_root
from tests.rig.observers import Stop
from tests.rig.transfers import Run, endpoint

STRANGER = 64123
NAME = ".ketter-test.part"
#: Seconds in which a refusal has to come, on a busy machine.
SOON = 30.0


Fill = Callable[[Path], None]


def empty(folder: Path) -> None:
    pass


def pipes(folder: Path) -> None:
    for name in ("fence", "made", "times", "gate", "journal", "a1.lock", "fence.new"):
        os.mkfifo(folder / name, 0o666)


def links(folder: Path) -> None:
    for name in ("fence", "made", "times", "gate", "journal", "a1.lock", "fence.new"):
        (folder / name).symlink_to("../../precious")


def notes(folder: Path) -> None:
    (folder / "made").write_text(json.dumps([str(folder.parent.parent / "foreign"), "/root"]))
    (folder / "fence").write_text("zzz")


CONTENT = [empty, pipes, links, notes]


def plant(target: Path, fill: Fill, owner: int, mode: int) -> Path:
    """Put a folder of the staging folder's name there, as another user may."""
    target.mkdir(exist_ok=True)
    folder = target / NAME
    folder.mkdir()
    fill(folder)
    for path in (*folder.iterdir(), folder):
        os.chown(path, owner, owner, follow_symlinks=False)
    folder.chmod(mode)
    return folder


def seen(folder: Path) -> list[tuple[str, int, int]]:
    """What stands there, with modes and owners."""
    found = [folder, *sorted(folder.rglob("*"))]
    return [(str(path), path.lstat().st_mode, path.lstat().st_uid) for path in found]


@pytest.fixture
def around(tmp_path: Path) -> Path:
    """A source, and beside it what nobody may touch."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f1").write_text("genuine")
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "foreign").mkdir()
    return tmp_path


def is_untouched(around: Path) -> bool:
    return (around / "precious").read_text() == "precious" and (around / "foreign").is_dir()


@needs_root
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("resume", [False, True], ids=["fresh", "resume"])
@pytest.mark.parametrize("bits", [0o700, 0o777], ids=oct)
@pytest.mark.parametrize("fill", CONTENT, ids=lambda fill: fill.__name__)
def test_a_staging_folder_that_another_user_planted_is_refused(
    around: Path, run: Run, fill: Fill, bits: int, resume: bool, mode: Mode
) -> None:
    folder = plant(around / "b", fill, STRANGER, bits)
    before, began = seen(folder), time.monotonic()

    with pytest.raises(engine.StagingNotOurs, match=f"belongs to user {STRANGER}") as caught:
        run(resume=resume, mode=mode, attempt=2)

    assert caught.value.retry == "needs_person"
    assert "Move it away" in str(caught.value)
    assert time.monotonic() - began < SOON
    assert seen(folder) == before
    assert os.listdir(around / "b") == [NAME]
    assert (around / "a" / "f1").read_text() == "genuine"
    assert is_untouched(around)


@needs_root
@pytest.mark.parametrize("fill", CONTENT, ids=lambda fill: fill.__name__)
def test_discard_does_not_remove_a_staging_folder_that_another_user_planted(
    around: Path, fill: Fill
) -> None:
    folder = plant(around / "b", fill, STRANGER, 0o777)
    before = seen(folder)
    place = endpoint(around / "b")

    with pytest.raises(engine.StagingNotOurs):
        engine.discard(engine.Request(place, place, "test", 3))

    assert seen(folder) == before
    assert is_untouched(around)


@pytest.mark.parametrize("bits", [0o777, 0o755, 0o770, 0o701], ids=oct)
def test_a_staging_folder_that_other_users_may_enter_is_refused(
    around: Path, run: Run, bits: int
) -> None:
    folder = plant(around / "b", empty, os.geteuid(), bits)

    with pytest.raises(engine.StagingNotOurs, match=f"mode {bits:04o}"):
        run()

    assert folder.is_dir()


def a_file(path: Path) -> None:
    path.write_text("x")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link(path: Path) -> None:
    path.symlink_to("../foreign")


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [a_file, a_pipe, a_link, a_link_to_nothing])
@pytest.mark.parametrize("resume", [False, True], ids=["fresh", "resume"])
def test_a_file_pipe_or_link_in_place_of_the_staging_folder_is_refused(
    around: Path, run: Run, make: Fill, resume: bool
) -> None:
    (around / "b").mkdir()
    make(around / "b" / NAME)

    with pytest.raises(engine.StagingNotOurs, match="is no folder"):
        run(resume=resume)

    assert os.listdir(around / "b") == [NAME]
    assert is_untouched(around)


@pytest.mark.parametrize("name", ["fence", "made", "times", "gate", "journal", "a1.lock"])
@pytest.mark.parametrize("what", ["pipe", "link", "second name", "folder"])
def test_pipes_links_and_folders_in_place_of_staging_files_are_not_opened(
    around: Path, run: Run, name: str, what: str
) -> None:
    folder = plant(around / "b", empty, os.geteuid(), 0o700)
    place = folder / name
    if what == "pipe":
        os.mkfifo(place)
    elif what == "link":
        place.symlink_to("../../precious")
    elif what == "folder":
        place.mkdir()
    else:
        place.hardlink_to(around / "precious")
    (folder / "a1").mkdir()
    began = time.monotonic()

    with suppress(engine.StagingNotOurs):  # What is not wanted any more is made new instead.
        run(resume=True)

    assert time.monotonic() - began < SOON
    assert is_untouched(around)


NO_NUMBERS = ("zzz", "-1", "1.5", "[]", "9" * 30 + "x", "9" * 5000)
NO_FOLDERS = ("{", "{}", "[1]", "null", "[" * 5000, '["a", null]', "\\xff")


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        *(("fence", text, "holds no number") for text in NO_NUMBERS),
        *(("made", text, "made") for text in NO_FOLDERS),
    ],
    ids=lambda text: text[:9],
)
def test_a_malformed_fence_or_list_of_made_folders_is_reported(
    around: Path, run: Run, file: str, text: str, match: str
) -> None:
    folder = plant(around / "b", empty, os.geteuid(), 0o700)
    (folder / file).write_text(text)

    with pytest.raises(engine.StagingNotOurs, match=match):
        run()


@pytest.mark.parametrize(
    "line",
    ['["x", 1e999]', "[" * 100_000, '["\\ud800", 448]', '["x\\u0000", 1]', "[1, 2, 3]", '{"a": 1}'],
    ids=lambda line: line[:12],
)
def test_a_malformed_list_of_opened_folders_is_ignored(around: Path, run: Run, line: str) -> None:
    folder = plant(around / "b", empty, os.geteuid(), 0o700)
    (folder / NAME).mkdir()
    (folder / NAME).chmod(0o1700)
    (folder / "opened").write_text(line + "\n")

    assert run().files == 1

    assert os.listdir(around / "b") == ["f1"]


def test_discard_removes_recorded_folders_only_above_the_target(around: Path, run: Run) -> None:
    target = around / "made" / "here" / "b"
    target.mkdir(parents=True)
    folder = plant(target, empty, os.geteuid(), 0o700)
    names = [around / "foreign", around / "made", around / "made" / "here", target, target / "x"]
    (folder / "made").write_text(json.dumps([*map(str, names), "/", "", "relative", "../foreign"]))
    (target / "x").mkdir()
    (target / "x").rmdir()

    engine.discard(engine.Request(endpoint(target), endpoint(target), "test", 3))

    assert (around / "foreign").is_dir()
    assert not (around / "made").exists()


@needs_root
@pytest.mark.parametrize("name", ["fence", "made", "journal", "a1.lock"])
def test_a_file_of_another_user_in_the_staging_folder_is_refused(
    around: Path, run: Run, name: str
) -> None:
    folder = plant(around / "b", empty, os.geteuid(), 0o700)
    (folder / NAME).mkdir()
    (folder / NAME).chmod(0o1700)
    (folder / "a1").mkdir()
    (folder / "journal").touch()
    (folder / name).touch()
    os.chown(folder / name, STRANGER, STRANGER)

    with pytest.raises(engine.StagingNotOurs, match=f"belongs to user {STRANGER}"):
        run(resume=True)


@needs_root
def test_the_command_line_reports_a_planted_staging_folder_in_one_line(around: Path) -> None:
    target = around / "b"
    options = transfer_parser("", "").parse_args(["--from", f"{around}/a", "--to", str(target)])
    name = f".ketter-{request(options).transfer_id}.part"
    target.mkdir()
    folder = target / name
    folder.mkdir()
    pipes(folder)
    os.chown(folder, STRANGER, STRANGER)
    folder.chmod(0o777)

    status, _, said = finish(cli("--from", around / "a", "--to", target), seconds=SOON)

    assert status == 1
    assert said.startswith("STAGING_NOT_OURS: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said


@needs_root
@pytest.mark.parametrize("mode", Mode)
def test_a_staging_folder_that_another_user_put_in_its_place_is_not_resumed(
    tmp_path: Path, run: Run, mode: Mode
) -> None:
    """Where the target folder may be written to by others they can move our folder away."""
    build_many(tmp_path / "a", 60)
    stop = Stop(lambda: staged(tmp_path / "b") > 500_000)
    with pytest.raises(engine.Interrupted):
        run(stop, bwlimit=2_000_000, mode=mode)
    (genuine,) = staging(tmp_path / "b")
    genuine.rename(tmp_path / "b" / "moved-away")
    plant(tmp_path / "b", empty, STRANGER, 0o777)

    with pytest.raises(engine.StagingNotOurs):
        run(attempt=2, resume=True, mode=mode)

    assert len(list((tmp_path / "a").rglob("*.dpx"))) == 60


def test_the_staging_folder_and_its_files_are_closed_to_other_users(
    tmp_path: Path, run: Run
) -> None:
    build_many(tmp_path / "a", 60)
    modes: dict[str, int] = {}

    def look() -> bool:
        for folder in staging(tmp_path / "b"):
            for path in (folder, *folder.iterdir()):
                modes[path.name] = stat.S_IMODE(path.lstat().st_mode)
        return staged(tmp_path / "b") > 500_000

    with pytest.raises(engine.Interrupted):
        run(Stop(look), bwlimit=2_000_000)

    assert {"journal", "fence", "made", "a1", NAME} <= modes.keys()
    assert not [name for name, mode in modes.items() if mode & 0o077]
