"""The rig as pytest fixtures; loaded for the whole suite with `-p tests.rig.plugin`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig import two_hosts as rig
from tests.rig.sshd import Sshd


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
