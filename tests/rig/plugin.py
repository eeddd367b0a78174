"""The rig as pytest fixtures; loaded for the whole suite with `-p tests.rig.plugin`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.rig import two_hosts as rig
from tests.rig.folders import in_memory
from tests.rig.sshd import Sshd

if TYPE_CHECKING:
    from tests.rig.lying import Lie
    from tests.rig.planted_code import Plant

#: Where pytest makes the folder of all `tmp_path`s, unless it is told with --basetemp.
ROOT = "PYTEST_DEBUG_TEMPROOT"


def pytest_configure() -> None:
    """Have the tests' folders in memory, where that is possible and nobody has chosen."""
    if ROOT not in os.environ and (folder := in_memory()):
        os.environ[ROOT] = str(folder)


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A folder as `tmp_path`, but where temporary files are, for a test that needs a disk."""
    with tempfile.TemporaryDirectory(prefix="ketter-disk-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def sshd() -> Iterator[Sshd]:
    """A real sshd on loopback, shared by the run: do not change it."""
    with Sshd() as server:
        yield server


@pytest.fixture
def fresh_sshd() -> Iterator[Sshd]:
    """A real sshd of this test alone, to be changed at will."""
    with Sshd() as server:
        yield server


@pytest.fixture(scope="session")
def two_hosts() -> Iterator[rig.TwoHosts]:
    """LAB and SRVTRF, shared by the run: each test uses a folder of its own below /srv."""
    if reason := rig.missing():
        pytest.skip(reason)
    with rig.TwoHosts() as hosts:
        yield hosts


# Imported late: a plugin is loaded before coverage counts which lines of the engine run.


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    """Run some Python in every agent before anything else: a host that behaves oddly."""
    from tests.rig.planted_code import planting

    with planting(monkeypatch) as plant_in_agents:
        yield plant_in_agents


@pytest.fixture
def lie(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lie]:
    """Put some Python at the end of modules of the agents: a host that lies."""
    from tests.rig.lying import lying

    with lying(monkeypatch) as with_text:
        yield with_text
