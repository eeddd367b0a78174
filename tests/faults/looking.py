"""Eyes for the tests of what must never be, not even for a moment, and of what nobody may read."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest


class Looking(threading.Thread):
    """Looks again and again while something runs; what it must not see fails the test."""

    def __init__(self, look: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._look, self._over = look, threading.Event()
        self._wrong: AssertionError | None = None
        self.times = 0

    def run(self) -> None:
        """Look until it is over."""
        try:
            while not self._over.wait(0.001):
                self._look()
                self.times += 1
        except AssertionError as error:
            self._wrong = error

    def __enter__(self) -> Looking:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        if self._wrong:
            raise self._wrong


class Reads:
    """Whether anything in a tree is read or changed, by what the file system notes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.forget()
        next(root.rglob("*.dpx")).read_bytes()
        if self._facts() == self._before:
            pytest.skip("this file system does not note when a file is read")
        self.forget()

    def forget(self) -> None:
        """Have everything look as if it had not been read for long."""
        self._paths = sorted([self._root, *self._root.rglob("*")])
        for path in self._paths:
            os.utime(path, ns=(1, path.lstat().st_mtime_ns), follow_symlinks=False)
        self._before = self._facts()

    def _facts(self) -> dict[Path, os.stat_result]:
        return {path: path.lstat() for path in self._paths if path.exists()}

    def assert_none(self) -> None:
        """Nothing was read, changed, added or removed."""
        now = self._facts()
        touched = [path for path in self._paths if now.get(path) != self._before[path]]
        assert not touched
