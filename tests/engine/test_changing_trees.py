"""Trees that others change meanwhile, and what is kept of folders and names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Mode, SilentObserver
from engine.proof import reporter
from engine.proof.manifest import read as read_manifest
from tests.rig.observers import Meddler
from tests.rig.planted_code import Plant
from tests.rig.transfers import Run
from tests.rig.trees import build_small, snapshot


def test_folders_above_an_included_file_keep_their_mode_and_time(tmp_path: Path, run: Run) -> None:
    for name in ("kept/below/a.mov", "other/b.tmp"):
        (tmp_path / "a" / name).parent.mkdir(parents=True)
        (tmp_path / "a" / name).write_bytes(b"frames")
    for folder, mode in (("kept/below", 0o751), ("kept", 0o755)):
        os.chmod(tmp_path / "a" / folder, mode)
        os.utime(tmp_path / "a" / folder, ns=(7, 7))

    run(filters=(("include", "*.mov"),))

    found = snapshot(tmp_path / "b")
    assert set(found) == {b"kept", b"kept/below", b"kept/below/a.mov"}
    assert [(found[name].mode, found[name].mtime_ns) for name in (b"kept", b"kept/below")] == [
        (0o755, 7),
        (0o751, 7),
    ]


def test_a_move_does_not_empty_a_source_folder_that_was_renamed_meanwhile(
    tmp_path: Path, run: Run
) -> None:
    (tmp_path / "a" / "reel").mkdir(parents=True)
    (tmp_path / "a" / "reel" / "clip").write_bytes(b"frames")

    def rescue() -> None:
        (tmp_path / "a" / "reel").rename(tmp_path / "rescued")

    run(Meddler(engine.Phase.REMOVE_SOURCE, rescue), mode=Mode.MOVE)

    assert (tmp_path / "rescued" / "clip").read_bytes() == b"frames"


def test_a_source_folder_that_became_a_file_is_reported_and_stays(tmp_path: Path, run: Run) -> None:
    build_small(tmp_path / "a", 5)
    (tmp_path / "a" / "empty").mkdir()

    def replace() -> None:
        (tmp_path / "a" / "empty").rmdir()
        (tmp_path / "a" / "empty").write_bytes(b"new")

    report = run(Meddler(engine.Phase.TRANSFER, replace), mode=Mode.MOVE)

    assert [(f.path, f.code) for f in report.failures] == [("empty", "SOURCE_CHANGED")]
    assert (tmp_path / "a" / "empty").read_bytes() == b"new"
    assert not (tmp_path / "b" / "empty").exists()


@pytest.mark.parametrize("streams", [1, 3])
def test_reported_progress_never_decreases_during_readback(
    tmp_path: Path, run: Run, streams: int
) -> None:
    (tmp_path / "a").mkdir()
    for number, size in enumerate((40, 30, 70)):
        (tmp_path / "a" / f"large{number}").write_bytes(os.urandom(size << 20))
    seen: list[int] = []

    class Watch(SilentObserver):
        def progress(self, progress: engine.Progress) -> None:
            assert progress.bytes_done <= progress.bytes_total
            seen.append(progress.bytes_done)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reporter, "PROGRESS_SECONDS", 0.0)
        run(Watch(), verify=engine.Verify.READBACK, streams=streams)

    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    assert seen[-1] == 140 << 20


def test_folders_of_other_users_give_one_common_warning(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    for number in range(9):
        (tmp_path / "a" / f"folder{number}").mkdir(parents=True)
    plant("""
def _not_ours():
    import os
    fchmod = os.fchmod
    def refuse(fd, mode):
        if "/b/folder" in os.readlink("/proc/self/fd/%d" % fd):
            raise PermissionError(errno.EPERM, "not ours")
        fchmod(fd, mode)
    os.fchmod = refuse
_not_ours()
""")
    said: list[str] = []

    class Watch(SilentObserver):
        def event(self, level: str, code: str, message: str, data: dict[str, Any]) -> None:
            said.append(f"{code} {data['number']} {message}")

    assert run(Watch()).status == "done"

    assert len(said) == 1
    assert said[0].startswith("FOLDER_NOT_FINISHED 9 9 folders did not take")
    assert "folder8: Operation not permitted" in said[0]


def test_names_travel_as_bytes_whatever_the_locale_of_a_host(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(tmp_path / "en_US.ISO-8859-1")],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("no locale can be made here")
    monkeypatch.setenv("LOCPATH", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "en_US.ISO-8859-1")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "prise-é.mov").write_bytes(b"frames")
    seen: list[str] = []

    class Watch(SilentObserver):
        wants_manifests = True

        def parcel(self, parcel: engine.ParcelReport) -> None:
            if parcel.manifest:
                seen.extend(record["path"] for record in read_manifest(parcel.manifest))

    run(Watch())

    assert seen[0] == "prise-é.mov"
