"""Entries that fail by the thousand at the source: each is named, and the rest arrives."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import engine
from engine import Strategy
from tests.rig.observers import Meddler
from tests.rig.transfers import Run

FILES = 6000


@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
def test_a_vanished_folder_of_6000_files_is_counted_and_the_rest_arrives(
    tmp_path: Path, run: Run, strategy: Strategy
) -> None:
    folder = tmp_path / "a" / ("a folder with a rather long name " * 5)
    folder.mkdir(parents=True)
    for number in range(FILES):
        (folder / f"{number}").touch()
    (tmp_path / "a" / "stays").write_bytes(b"content")

    vanish = Meddler(engine.Phase.TRANSFER, lambda: shutil.rmtree(folder))
    report = run(vanish, strategy=strategy)

    assert (report.status, report.files) == ("partial", 1)
    assert report.failures_total == FILES + 1
    assert (tmp_path / "b" / "stays").read_bytes() == b"content"
