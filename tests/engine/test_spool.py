"""The spool of a plan: what it keeps, and how much of the temporary folder it takes."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from engine.errors import HostTrouble
from engine.parcels import spool
from engine.parcels.spool import Spool

pytestmark = pytest.mark.fast


def free_bytes(patch: pytest.MonkeyPatch, blocks: int, free: int) -> None:
    """Let the temporary folder report so much free space."""
    found = SimpleNamespace(f_blocks=blocks, f_bavail=free, f_frsize=1)
    patch.setattr(os, "fstatvfs", lambda fd: found)


def test_a_spool_returns_its_blocks_from_memory_and_from_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 100)
    kept = Spool()
    blocks = [(bytes([number]) * 30, kept.add(bytes([number]) * 30)) for number in range(20)]

    assert all(kept.get(block) == data for data, block in blocks)
    kept.close()


@pytest.mark.parametrize("size", [1, 1000])
def test_a_spool_takes_half_of_the_free_space_at_most(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A host that lists entries without end does not fill the worker's temporary folder."""
    monkeypatch.setattr(spool, "IN_MEMORY", 100)
    free_bytes(monkeypatch, blocks=1 << 30, free=20_000)
    kept = Spool()
    for _ in range(10_000 // size):
        kept.add(b"x" * size)

    with pytest.raises(HostTrouble, match=r"more than 10,000 bytes.*TMPDIR.*without end"):
        kept.add(b"x" * size)
    kept.close()


def test_a_spool_has_no_limit_where_the_space_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 100)
    free_bytes(monkeypatch, blocks=0, free=0)
    kept = Spool()

    assert kept.get(kept.add(b"x" * 100_000)) == b"x" * 100_000
    kept.close()
