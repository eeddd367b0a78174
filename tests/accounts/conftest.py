"""A transfer to or from a far account, and what it has to come to."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import engine
from engine import Endpoint, EngineError, Request
from tests.accounts.outcomes import Outcome
from tests.rig.sshd import descendants
from tests.rig.trees import MTIME, assert_equal_trees, build_small, snapshot
from tests.rig.waiting import wait_until
from tests.servers import processes_beside

#: Seconds in which a refusal has to come, of which the worker waits 35 for an agent.
REFUSED_IN = 40.0


def build(root: Path) -> None:
    """A tree with more names than one piece of a shared stream holds, and a large file."""
    build_small(root, files=120)
    (root / "Größe und 映画").mkdir()
    large = root / "Größe und 映画" / "large.bin"
    large.write_bytes(os.urandom(1 << 20) * 5)
    os.utime(large, ns=(MTIME, MTIME))


def judge(
    source: Endpoint, target: Endpoint, at: tuple[Path, Path], outcome: Outcome, far: int = -1
) -> None:
    """Run a copy and compare what it comes to with its row; nothing of it stays behind.

    Only below `far`, the process of the far host, jobs of a profile may stay.
    """
    before, began = processes_beside(), time.monotonic()
    tree = snapshot(at[0])
    request = Request(source=source, target=target, transfer_id=uuid.uuid4().hex)
    if not outcome.code:
        report = engine.run(request)
        assert report.status == "done", report.failures
        assert_equal_trees(tree, at[1])
    else:
        with pytest.raises(EngineError) as caught:
            engine.run(request)
        assert time.monotonic() - began < REFUSED_IN
        said = str(caught.value)
        assert caught.value.code == outcome.code, said
        assert re.search(outcome.words, said), said
        assert "\n" not in said
        assert len(said) < 500
        assert not at[1].exists() or caught.value.kept
    wait_until(lambda: processes_beside() <= before | set(descendants(far)), 5)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the engine's private files go; none of them may stay."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert os.listdir(folder) == []


Judge = Callable[..., None]
