"""A transfer from a to b on this machine, and what lies around it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Request, SilentObserver
from tests.rig.hard_tree import remove_hard
from tests.rig.transfers import Run, endpoint


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
def tree(tmp_path: Path) -> Path:
    """A source with one file, a target folder with another user's folder, and a canary."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "report").write_bytes(b"report")
    (tmp_path / "b" / "private").mkdir(parents=True)
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary" / "file").write_bytes(b"canary")
    os.utime(tmp_path / "canary" / "file", ns=(5, 5))
    return tmp_path


@pytest.fixture
def leave_no_hard_tree(tmp_path: Path) -> Iterator[None]:
    """Remove what pytest could not, or not soon enough."""
    yield
    for name in ("a", "b", "c", "extracted"):
        remove_hard(tmp_path / name)
