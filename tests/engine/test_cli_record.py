"""The command line's record of what was proven, in the user's state folder."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import engine
from engine import Phase
from engine.cli import __main__ as command
from engine.cli import proof_record
from engine.types import Request
from tests.rig import spoiled_records
from tests.rig.command import agents_of, cli, finish, running
from tests.rig.interrupted import MIB, Held, build_many, forge, staged, staging, whole
from tests.rig.records import reading_again
from tests.rig.transfers import endpoint
from tests.rig.trees import assert_equal_trees
from tests.rig.waiting import wait_until

FORGED = "reel_0/0/00000.dpx"
FILES = 20
#: The exit status after a lost connection.
LOST = 5

Asked = dict[str, list[str]]
Main = Callable[..., int]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the record is; written at once."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(proof_record, "WRITE_EVERY", 0.0)
    return tmp_path / "state" / "ketter"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """What both ends are asked to read again from here on."""
    with reading_again(monkeypatch) as asked:
        yield asked


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Main:
    """Run the command in this process; with `lost_at` it loses the connection in that phase."""

    def run(*more: str, lost_at: Phase | None = None) -> int:
        def phase(_: object, now: Phase) -> None:
            if now is lost_at:
                raise engine.ConnectionLost("the line was cut")

        monkeypatch.setattr(command._PlainObserver, "phase", phase)
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        return command.main(["--from", f"{tmp_path}/a", "--to", f"{tmp_path}/b", *more])

    return run


@pytest.fixture
def interrupted(tmp_path: Path, state: Path, main: Main) -> Path:
    """The record of a copy whose connection was lost when all was staged."""
    build_many(tmp_path / "a", FILES, 4 << 10)
    assert main(lost_at=Phase.PUBLISH) == LOST
    (record,) = state.iterdir()
    return record


def test_a_resumed_command_neither_reads_nor_sends_again_what_is_on_its_record(
    tmp_path: Path, interrupted: Path, main: Main, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    held = Held(tmp_path / "b")
    capsys.readouterr()

    assert main("--resume") == 0

    assert asked == {"hash": [], "check": []}
    assert len(held.kept(tmp_path / "b")) == FILES
    assert capsys.readouterr().err == ""


def test_a_resumed_command_sends_again_what_another_program_forged(
    tmp_path: Path, interrupted: Path, main: Main, asked: Asked
) -> None:
    forge(staging(tmp_path / "b")[0], only={FORGED})

    assert main("--resume") == 0

    assert asked == {"hash": [FORGED], "check": [FORGED]}
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))


def test_a_record_is_closed_to_other_users_and_goes_when_the_transfer_is_done(
    interrupted: Path, main: Main
) -> None:
    assert stat.S_IMODE(interrupted.stat().st_mode) == 0o600
    assert stat.S_IMODE(interrupted.parent.stat().st_mode) == 0o700

    assert main("--resume") == 0

    assert list(interrupted.parent.iterdir()) == []


# -- a record that is of no use ------------------------------------------------------


def all_goes_well_without_a_record(root: Path, main: Main, asked: Asked) -> None:
    forge(staging(root / "b")[0], only={FORGED})
    held = Held(root / "b")

    assert main("--resume") == 0

    assert_equal_trees(whole(root / "a"), whole(root / "b"))
    assert len(asked["hash"]) == len(asked["check"]) >= FILES
    assert held.kept(root / "b") == set(asked["check"]) & {
        path for path in asked["check"] if path.endswith(".dpx") and path != FORGED
    }


@pytest.mark.parametrize("spoil", spoiled_records.SPOILED)
def test_after_a_spoiled_record_all_is_read_again_and_no_more_is_sent(
    tmp_path: Path,
    interrupted: Path,
    main: Main,
    asked: Asked,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
) -> None:
    spoil(interrupted)
    capsys.readouterr()

    all_goes_well_without_a_record(tmp_path, main, asked)

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("spoil", spoiled_records.REFUSED)
def test_a_record_that_others_may_have_written_is_not_used_and_a_warning_says_so(
    tmp_path: Path,
    interrupted: Path,
    main: Main,
    asked: Asked,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
) -> None:
    spoil(interrupted)
    capsys.readouterr()

    all_goes_well_without_a_record(tmp_path, main, asked)

    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: what had arrived is read again at both ends")
    assert warning.endswith("(NO_RECORD)")


def test_without_a_home_there_is_no_record_and_no_complaint(
    tmp_path: Path,
    main: Main,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    build_many(tmp_path / "a", FILES, 4 << 10)
    monkeypatch.setattr(proof_record, "WRITE_EVERY", 0.0)
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)

    assert main() == 0

    assert capsys.readouterr().err == ""
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))


def test_without_xdg_state_home_the_record_is_below_the_home(
    tmp_path: Path, main: Main, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_many(tmp_path / "a", FILES, 4 << 10)
    (tmp_path / "home").mkdir()
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert main(lost_at=Phase.PUBLISH) == LOST

    assert len(list((tmp_path / "home/.local/state/ketter").iterdir())) == 1


def test_a_full_disk_costs_the_record_and_not_the_transfer(
    tmp_path: Path, main: Main, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_many(tmp_path / "a", FILES, 4 << 10)
    write = os.write

    def full(fd: int, data: bytes) -> int:
        in_state = os.readlink(f"/proc/self/fd/{fd}").startswith(str(state))
        return write(fd, data[: len(data) // 2] if in_state else data)

    monkeypatch.setattr(os, "write", full)
    assert main(lost_at=Phase.PUBLISH) == LOST
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(state.parent))

    assert main("--resume") == 0

    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))


def test_what_is_added_behind_a_cut_off_record_can_be_read(
    interrupted: Path, main: Main, asked: Asked
) -> None:
    os.truncate(interrupted, interrupted.stat().st_size - 1)
    assert main("--resume", lost_at=Phase.PUBLISH) == LOST
    assert asked["check"]
    for paths in asked.values():
        paths.clear()

    assert main("--resume") == 0

    assert asked == {"hash": [], "check": []}


# -- when there is one -----------------------------------------------------------------


def test_a_transfer_of_less_than_a_second_does_not_touch_the_state_folder(
    tmp_path: Path, main: Main, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof_record, "WRITE_EVERY", 3600.0)
    build_many(tmp_path / "a", FILES, 4 << 10)

    assert main() == 0

    assert not state.parent.exists()


@pytest.mark.parametrize("more", [["--dry-run"], ["--dry-run", "--resume"]])
def test_a_dry_run_leaves_the_record(interrupted: Path, main: Main, more: list[str]) -> None:
    before = interrupted.read_bytes()

    assert main(*more) == 0

    assert interrupted.read_bytes() == before


def test_a_run_that_is_refused_leaves_the_record_of_the_one_beside_it(
    tmp_path: Path, interrupted: Path, main: Main
) -> None:
    before = interrupted.read_bytes()
    (tmp_path / "a").rename(tmp_path / "elsewhere")

    assert main("--resume") == 1

    assert interrupted.read_bytes() == before


def test_a_run_without_resume_begins_a_new_record(
    tmp_path: Path, interrupted: Path, main: Main
) -> None:
    before = interrupted.stat().st_ino, interrupted.stat().st_size

    assert main(lost_at=Phase.PUBLISH) == LOST

    after = interrupted.stat()
    assert (after.st_ino, after.st_size) != before
    assert after.st_size == before[1]


def test_a_record_does_not_grow_with_each_resumed_run(interrupted: Path, main: Main) -> None:
    before = interrupted.stat().st_size

    for _ in range(2):
        assert main("--resume", lost_at=Phase.PUBLISH) == LOST

    assert interrupted.stat().st_size == before


def test_records_of_transfers_that_were_given_up_are_swept(
    tmp_path: Path, interrupted: Path, main: Main
) -> None:
    old, others = interrupted.with_name("cli-old-one"), interrupted.with_name("notes")
    recent = interrupted.with_name("cli-recent-one")
    long_ago = time.time() - proof_record.KEPT_SECONDS - 60
    for path in (old, others, recent):
        path.touch()
    for path in (old, others):
        os.utime(path, (long_ago, long_ago))

    assert main("--resume") == 0

    assert sorted(interrupted.parent.iterdir()) == sorted([recent, others])


def test_transfers_between_other_places_have_other_records() -> None:
    """Relative paths give one transfer id in all folders."""
    names = set()
    for place in ("/one/b", "/two/b"):
        request = Request(endpoint("/a"), endpoint(place), "cli-0123")
        names.add(proof_record.RecordFile(request)._name)

    assert len(names) == 2


@pytest.mark.slow
@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["first", "resumed"])
def test_a_killed_command_leaves_a_record_that_a_resumed_one_believes(
    tmp_path: Path, state: Path, main: Main, asked: Asked, resume: list[str]
) -> None:
    build_many(tmp_path / "a", 1600)  # 50 MiB
    line = ["--from", tmp_path / "a", "--to", tmp_path / "b", "--bwlimit", "12M"]
    process = cli(*line, *resume)
    wait_until(lambda: staged(tmp_path / "b") >= 30 * MIB)
    agents = agents_of(process.pid)
    process.kill()
    process.communicate(timeout=20)
    wait_until(lambda: not any(map(running, agents)))
    forge(staging(tmp_path / "b")[0], only={FORGED})
    (record,) = state.iterdir()

    assert main("--resume") == 0

    assert FORGED in asked["check"]
    # The last second, and the parcels under way, at most.
    assert len(asked["check"]) < 900
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))
    assert not record.exists()


def test_a_command_that_draws_a_progress_bar_has_a_record_too(
    tmp_path: Path, interrupted: Path, main: Main, monkeypatch: pytest.MonkeyPatch, asked: Asked
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    assert main("--resume") == 0

    assert asked == {"hash": [], "check": []}


def test_a_command_without_resume_ends_as_before_if_its_record_cannot_be_made(
    tmp_path: Path, state: Path
) -> None:
    build_many(tmp_path / "a", FILES, 4 << 10)
    state.parent.write_text("a file")

    assert finish(cli("--from", tmp_path / "a", "--to", tmp_path / "b"))[0] == 0
