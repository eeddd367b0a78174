"""Both agents die just after any one change they make; the next run mends it."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

import pytest

import engine
from engine import Mode, OnConflict
from engine.phases import Transfer
from tests.rig.lanes import nightly
from tests.rig.planted_code import DYING, Plant
from tests.rig.transfers import Run
from tests.rig.trees import Entry, assert_equal_trees, snapshot


def build(root: Path) -> None:
    """Files, a link and folders, some of which the target has already."""
    (root / "a" / "old" / "new").mkdir(parents=True)
    (root / "a" / "only").mkdir()
    for name in ("old/one", "old/new/two", "only/three", "four"):
        (root / "a" / name).write_bytes(name.encode())
    (root / "a" / "old" / "link").symlink_to("one")
    os.chmod(root / "a" / "only", 0o751)
    for folder in ("old/new", "old", "only"):
        os.utime(root / "a" / folder, ns=(9, 9))
    (root / "b" / "old").mkdir(parents=True)
    (root / "b" / "four").write_bytes(b"other")


def without_folder_times(root: Path) -> dict[bytes, Entry]:
    """A snapshot; a half-done removal has changed the times of the source's folders already."""
    found = snapshot(root)
    return {
        name: entry._replace(mtime_ns=0) if entry.kind == "folder" else entry
        for name, entry in found.items()
    }


@pytest.mark.parametrize("resume", [nightly(False), True])
@pytest.mark.parametrize("policy", [OnConflict.OVERWRITE, nightly(OnConflict.KEEP_BOTH)])
def test_the_next_run_completes_a_move_whose_agents_died_at_any_step(
    tmp_path: Path, run: Run, plant: Plant, policy: OnConflict, resume: bool
) -> None:
    """Between any two: together the four cases die after every step."""
    deaths = 0
    first = 1 + resume + 2 * (policy is OnConflict.KEEP_BOTH)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transfer, "_abandon", lambda *_: None)  # The worker dies as well.
        for step in range(first, 100, 4):
            place = tmp_path / str(step)
            build(place)
            before = without_folder_times(place / "a")
            text = DYING.replace("LOG", repr(str(place / "log")))
            plant(text.replace("DEADLY", str(step)))
            options = {
                "source": engine.Endpoint(str(place), "a"),
                "target": engine.Endpoint(str(place), "b"),
                "mode": Mode.MOVE,
                "on_conflict": policy,
            }
            try:
                run(**options)
            except engine.AgentLost:
                deaths += 1
            else:
                break
            found = [*(place / "a").rglob("*"), *(place / "b").rglob("*")]
            contents = {path.read_bytes() for path in found if path.is_file()}
            assert contents >= {b"old/one", b"old/new/two", b"only/three", b"four"}

            report = run(attempt=1 + step // 8 % 2, resume=resume, **options)

            assert report.status == "done"
            assert os.listdir(place / "a") == []
            if policy is OnConflict.KEEP_BOTH:
                assert (place / "b" / "four").read_bytes() == b"other"
                os.replace(place / "b" / "four (2)", place / "b" / "four")
            assert_equal_trees(before, without_folder_times(place / "b"))
    assert deaths > 6


@pytest.mark.slow
@pytest.mark.parametrize("mode", [nightly(Mode.COPY), Mode.MOVE])
def test_a_resumed_run_completes_the_target_folder_after_agents_died_at_any_step(
    tmp_path: Path, run: Run, plant: Plant, mode: Mode
) -> None:
    """Its time may be lost, where the staging folder is gone from it and it has not got it yet."""
    untimely = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transfer, "_abandon", lambda *_: None)  # The worker dies as well.
        # Up to the third step the folder is made, and nothing of ours is in it; then data comes.
        for step in count(12):
            place = tmp_path / str(step)
            (place / "a" / "folder").mkdir(parents=True)
            (place / "a" / "folder" / "file").write_bytes(b"content")
            os.chmod(place / "a", 0o711)
            os.utime(place / "a", ns=(9, 9))
            text = DYING.replace("LOG", repr(str(place / "log")))
            plant(text.replace("DEADLY", str(step)))
            options = {
                "source": engine.Endpoint(str(place), "a"),
                "target": engine.Endpoint(str(place), "b"),
                "mode": mode,
            }
            try:
                run(**options)
            except engine.AgentLost:
                pass
            else:
                break

            report = run(attempt=2, resume=True, **options)

            assert report.status == "done"
            assert (place / "b" / "folder" / "file").read_bytes() == b"content"
            assert oct((place / "b").stat().st_mode) == oct(0o40711), step
            untimely += (place / "b").stat().st_mtime_ns != 9
            assert {path.name for path in (place / "b").iterdir()} == {"folder"}, step
    assert step > 20
    assert untimely <= 4
