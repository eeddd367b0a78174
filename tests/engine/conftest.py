"""A transfer from a to b on this machine, and hosts that behave oddly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Endpoint, Request, SilentObserver, bundle

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
def plant(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    """Run some Python in every agent before anything else: a host that behaves oddly."""

    def plant_in_agents(text: str) -> None:
        source_of = bundle.source_of

        def with_prelude(name: str) -> bytes:
            found = source_of(name)
            if name != "wire":
                return found
            return found.replace(b"import errno\n", b"import errno\n" + text.encode(), 1)

        monkeypatch.setattr(bundle, "source_of", with_prelude)
        bundle.program.cache_clear()

    yield plant_in_agents
    monkeypatch.undo()
    bundle.program.cache_clear()


class Meddler(SilentObserver):
    """Does something when a phase begins."""

    def __init__(self, when: engine.Phase, what: Callable[[], object]) -> None:
        self.when, self.what = when, what

    def phase(self, phase: engine.Phase) -> None:
        if phase is self.when:
            self.what()
