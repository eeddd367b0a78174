"""A helper joins somebody else's transfer, or says why it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

import engine
from engine import Endpoint
from engine.loans import Location


def request(tmp_path: Path) -> engine.Request:
    """A transfer from a to b."""
    there, back = (Endpoint(str(tmp_path), name) for name in "ab")
    return engine.Request(there, back, "test")


def test_a_helper_refuses_a_source_other_than_the_transfers(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    location = Location("a", "b", (), "another machine", (1, 2), "another machine")
    with pytest.raises(engine.BadRequest, match="than the transfer's source"):
        engine.Helper(request(tmp_path), location, "h1", engine.SilentObserver())


def test_a_helper_refuses_a_target_on_another_machine(tmp_path: Path) -> None:
    """Locks, and what is durable, hold on one machine."""
    (tmp_path / "a").mkdir()
    found = (tmp_path / "a").stat()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    location = Location("a", "b", (), boot, (found.st_dev, found.st_ino), "another machine")
    with pytest.raises(engine.BadRequest, match="on another machine than"):
        engine.Helper(request(tmp_path), location, "h1", engine.SilentObserver())


def test_a_helper_creates_nothing_when_the_transfer_has_no_target_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    found = (tmp_path / "a").stat()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    location = Location("a", "b", (), boot, (found.st_dev, found.st_ino), boot)
    with pytest.raises(engine.EngineError, match="No such file"):
        engine.Helper(request(tmp_path), location, "h1", engine.SilentObserver())
    assert not (tmp_path / "b").exists()
