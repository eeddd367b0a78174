"""Observers that keep what a transfer says, disturb it, or stop it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import engine
from engine import SilentObserver


class Listener(SilentObserver):
    """Keeps the events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def event(self, level: str, code: str, message: str, data: dict[str, Any]) -> None:
        self.events.append((code, message, data))


class Meddler(SilentObserver):
    """Does something when a phase begins."""

    def __init__(self, when: engine.Phase, what: Callable[[], object]) -> None:
        self.when, self.what = when, what

    def phase(self, phase: engine.Phase) -> None:
        if phase is self.when:
            self.what()


class Disturber(SilentObserver):
    """Does something once, as soon as it is time."""

    def __init__(self, due: Callable[[], object], act: Callable[[], object]) -> None:
        self._due, self._act = due, act
        self.done = False

    def checkpoint(self) -> None:
        if not self.done and self._due():
            self.done = True
            self._act()


class Stop(SilentObserver):
    """Stops a transfer to be gone on with, as soon as it is time."""

    def __init__(self, due: Callable[[], bool]) -> None:
        self._due = due

    def checkpoint(self) -> None:
        if self._due():
            raise engine.Interrupted("enough for today")
