"""The mode of a file that the target had already: a move brings it up to date, a copy by policy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import engine
from engine import Mode, OnConflict
from tests.engine.plain import PLAIN, ROOT, give_to_another, mode
from tests.rig.observers import Listener
from tests.rig.planted_code import Plant
from tests.rig.transfers import Run
from tests.rig.trees import put


def build(tmp_path: Path) -> tuple[Path, Path]:
    """A file that is the same at both ends, but for its mode, and one that is to be sent."""
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        put(folder / "x/tool", "the same")
    put(a / "new")
    (a / "x/tool").chmod(0o755)
    (b / "x/tool").chmod(0o644)
    return a, b


@pytest.mark.parametrize("policy", OnConflict, ids=str)
@pytest.mark.parametrize("something", [True, False], ids=["something to send", "nothing"])
def test_a_move_gives_the_mode_of_the_source(
    tmp_path: Path, run: Run, policy: OnConflict, something: bool
) -> None:
    a, b = build(tmp_path)
    if not something:
        (a / "new").unlink()

    report = run(mode=Mode.MOVE, on_conflict=policy)

    assert (report.status, report.files_removed) == ("done", 1 + something)
    assert mode(b / "x/tool") == 0o755


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("policy", OnConflict, ids=str)
def test_the_policy_of_a_copy_decides_about_the_mode(
    tmp_path: Path, run: Run, policy: OnConflict, checksum: bool
) -> None:
    _, b = build(tmp_path)

    report = run(on_conflict=policy, checksum=checksum)

    assert (report.status, report.files, report.files_skipped) == ("done", 1, 1)
    assert mode(b / "x/tool") == (0o755 if policy is OnConflict.OVERWRITE else 0o644)


def test_a_dry_run_changes_no_mode(tmp_path: Path) -> None:
    a, b = build(tmp_path)
    ends = {"source": engine.Endpoint(root=str(a)), "target": engine.Endpoint(root=str(b))}

    engine.dry_run(engine.Request(transfer_id="t", mode=Mode.MOVE, **ends))

    assert mode(b / "x/tool") == 0o644


def test_a_second_name_of_a_file_gets_the_mode_where_both_are_kept(
    tmp_path: Path, run: Run
) -> None:
    _, b = build(tmp_path)
    put(b / "x/tool", "another, longer")
    put(b / "x/tool (2)", "the same")
    (b / "x/tool").chmod(0o600)

    run(mode=Mode.MOVE, on_conflict=OnConflict.KEEP_BOTH)

    assert (mode(b / "x/tool"), mode(b / "x/tool (2)")) == (0o600, 0o755)


@ROOT
def test_a_file_that_cannot_take_its_mode_is_named(tmp_path: Path, run: Run, plant: Plant) -> None:
    _, b = build(tmp_path)
    give_to_another(b / "x/tool")
    os.link(b / "x/tool", b / "elsewhere")
    plant(PLAIN)
    seen = Listener()

    report = run(seen, mode=Mode.MOVE)

    assert report.status == "done"
    (sentence,) = [text for code, text, _ in seen.events if code == "MODE_NOT_SET"]
    assert sentence.startswith("1 files that the target had kept another mode: x/tool")
    assert mode(b / "x/tool") == 0o644
