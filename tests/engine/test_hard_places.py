"""Targets and sources that behave badly: what is lost there, and who is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Endpoint, Mode, OnConflict, Request, SilentObserver, Strategy, bundle
from tests.rig.trees import build_small, snapshot

Run = Callable[..., engine.Report]
Plant = Callable[[str], None]


def endpoint(path: Path | str) -> Endpoint:
    return Endpoint("/", str(path).lstrip("/"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Transfer tmp_path/a to tmp_path/b unless told otherwise."""

    def transfer(observer: SilentObserver | None = None, **options: Any) -> engine.Report:
        options = {
            "source": endpoint(tmp_path / "a"),
            "target": endpoint(tmp_path / "b"),
            "transfer_id": "test",
            **options,
        }
        return engine.run(Request(**options), observer)

    return transfer


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Run some Python in every agent before anything else: a host that behaves oddly."""

    def plant_in_agents(text: str) -> None:
        read_text = Path.read_text

        def with_prelude(path: Path, *args: Any) -> str:
            found = read_text(path, *args)
            if path.name != "wire.py" or path.parent.name != "agent":
                return found
            return found.replace("import errno\n", "import errno\n" + text, 1)

        monkeypatch.setattr(Path, "read_text", with_prelude)
        bundle.program.cache_clear()

    yield plant_in_agents
    monkeypatch.undo()
    bundle.program.cache_clear()


#: Below a folder called b names are one whatever their case, as on a Mac.
FOLDING = """
def _fold_names():
    import os
    def folded(call, at, *keys):
        def with_folded_name(*args, **kwargs):
            fds = [kwargs[key] for key in keys if kwargs.get(key) is not None]
            args = list(args)
            for place, fd in zip(at, fds):
                name = args[place]
                if "/b" in os.readlink("/proc/self/fd/%d" % fd) and name[:1] != ".":
                    args[place] = name.lower()
            return call(*args, **kwargs)
        return with_folded_name
    for name in ("open", "mkdir", "unlink", "stat", "rmdir", "utime"):
        setattr(os, name, folded(getattr(os, name), [0], "dir_fd"))
    os.rename = folded(os.rename, [0, 1], "src_dir_fd", "dst_dir_fd")
_fold_names()
"""


@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
def test_a_name_that_folds_into_another_loses_neither(
    tmp_path: Path, run: Run, plant: Plant, strategy: Strategy
) -> None:
    (tmp_path / "a").mkdir()
    for name in ("Clip.mov", "clip.mov", "other.mov"):
        (tmp_path / "a" / name).write_bytes(name.encode())
    plant(FOLDING)

    report = run(mode=Mode.MOVE, strategy=strategy)

    assert [(f.path, report.status) for f in report.failures] == [("clip.mov", "partial")]
    assert os.listdir(tmp_path / "a") == ["clip.mov"]
    assert (tmp_path / "b" / "clip.mov").read_bytes() == b"Clip.mov"


class Meddler(SilentObserver):
    """Does something when a phase begins."""

    def __init__(self, when: engine.Phase, what: Callable[[], object]) -> None:
        self.when, self.what = when, what

    def phase(self, phase: engine.Phase) -> None:
        if phase is self.when:
            self.what()


@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
def test_a_folder_that_vanishes_costs_only_itself(
    tmp_path: Path, run: Run, strategy: Strategy
) -> None:
    build_small(tmp_path / "a", 20)
    (tmp_path / "a" / "gone").mkdir()
    (tmp_path / "a" / "gone" / "clip").write_bytes(b"frames")

    vanish = Meddler(engine.Phase.TRANSFER, lambda: shutil.rmtree(tmp_path / "a" / "gone"))
    report = run(vanish, mode=Mode.MOVE, strategy=strategy)

    assert (report.status, report.files, report.files_removed) == ("partial", 20, 20)
    assert sorted(f.path for f in report.failures) == ["gone", "gone/clip"]
    assert {f.code for f in report.failures} == {"VANISHED"}


#: A file system with short names, as encrypted ones have.
SHORT_NAMES = """
def _short_names():
    import os
    def limited(call):
        def with_limit(name, *args, **kwargs):
            fd = kwargs.get("dir_fd")
            if fd is not None and "/b" in os.readlink("/proc/self/fd/%d" % fd) and len(name) > 100:
                raise OSError(errno.ENAMETOOLONG, "File name too long", name)
            return call(name, *args, **kwargs)
        return with_limit
    for name in ("open", "mkdir", "unlink", "stat"):
        setattr(os, name, limited(getattr(os, name)))
_short_names()
"""


@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
def test_a_name_the_target_cannot_hold_costs_only_itself(
    tmp_path: Path, run: Run, plant: Plant, strategy: Strategy
) -> None:
    build_small(tmp_path / "a", 20)
    (tmp_path / "a" / ("n" * 120)).write_bytes(b"frames")
    (tmp_path / "a" / ("f" * 120)).mkdir()
    (tmp_path / "a" / ("f" * 120) / "clip").write_bytes(b"frames")
    plant(SHORT_NAMES)

    report = run(mode=Mode.MOVE, strategy=strategy)

    assert (report.status, report.files, report.files_removed) == ("partial", 20, 20)
    assert {f.code for f in report.failures} == {"NAME_TOO_LONG"}
    assert sorted(f.path[0] for f in report.failures) == ["f", "f", "n"]


def test_what_disappears_from_the_staging_folder_stops_the_move(tmp_path: Path, run: Run) -> None:
    build_small(tmp_path / "a", 20)
    before = snapshot(tmp_path / "a")

    def lose() -> None:
        staged = tmp_path / "b" / ".ketter-test.part" / "a1"
        next(path for path in staged.rglob("*") if path.is_file()).unlink()

    with pytest.raises(engine.VerifyFailed, match="20 files were proven, but 19"):
        run(Meddler(engine.Phase.PUBLISH, lose), mode=Mode.MOVE)

    assert snapshot(tmp_path / "a") == before
    assert not (tmp_path / "b").exists()


def test_a_file_that_appears_while_publishing_is_not_replaced(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in ("one", "two"):
        (tmp_path / "a" / name).write_bytes(b"ours")
    plant(f"""
def _intrude():
    import os
    rename = os.rename
    def rename_and_intrude(source, target, **kwargs):
        rename(source, target, **kwargs)
        if target == "one":
            with open({str(tmp_path / "b" / "two")!r}, "w") as file:
                file.write("theirs")
    os.rename = rename_and_intrude
_intrude()
""")

    with pytest.raises(engine.TargetExists, match="two"):
        run(mode=Mode.MOVE, on_conflict=OnConflict.FAIL)

    assert (tmp_path / "b" / "two").read_bytes() == b"theirs"
    assert sorted(os.listdir(tmp_path / "a")) == ["one", "two"]
