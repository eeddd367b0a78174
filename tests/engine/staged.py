"""A staging folder in the test's hands: its tree, its journal, and what is made of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from engine.agent.target.journal import Journal
from engine.agent.target.resume import Survey
from engine.agent.tree import Tree
from engine.agent.wire import DIGEST, FILE, Entry, pack_entries, unpack_entries

MTIME = 1_600_000_000_123_456_789


class Place:
    """A staging folder without the rest: a tree, and a journal that is opened again and again."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self.root.mkdir()
        self.file = folder / "journal"
        self._folder = os.open(folder, os.O_RDONLY)
        self._journals: list[Journal] = []

    def open(self, machine: str = "boot 1") -> Journal:
        """The journal as an agent of that boot sees it."""
        journal = Journal(self._folder, machine)
        self._journals.append(journal)
        return journal

    def begin(self, attempt: int = 1, machine: str = "boot 1") -> Journal:
        """Begin an attempt."""
        journal = self.open(machine)
        journal.start(attempt)
        return journal

    def believed(self, machine: str = "boot 1") -> list[Any]:
        """What the records say that count, but for the beginnings of attempts."""
        return [
            body.get("parcel", body.get("void"))
            for _, body in self.open(machine).records()
            if "start" not in body and "durable" not in body
        ]

    def put(self, path: str, content: bytes = b"frames", mtime_ns: int = MTIME) -> Entry:
        """Write a staged file; the entry it was sent as."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        os.utime(file, ns=(mtime_ns, mtime_ns))
        return Entry(path, FILE, len(content), mtime_ns, 0o644, 7)

    def take_up(self, machine: str = "boot 1") -> tuple[list[str], list[dict[str, Any]]]:
        """The paths that are held, and the parts, as a survey tells them."""
        held: list[str] = []
        parts: list[dict[str, Any]] = []

        def tell(body: dict[str, Any], blob: bytes) -> None:
            if "parts" in body:
                parts.extend(body["parts"])
                return
            entries = unpack_entries(blob[: body["list"]])
            assert len(blob) == body["list"] + DIGEST * len(entries)
            held.extend(entry.path for entry in entries)

        tree = Tree(os.open(self.root, os.O_RDONLY))
        Survey(tree, self.open(machine)).take_up(tell)
        tree.close()
        return sorted(held), parts

    def left(self) -> list[str]:
        """What is in the tree."""
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*"))

    def close(self) -> None:
        os.close(self._folder)
        for journal in self._journals:
            journal.close()


def prove(journal: Journal, *entries: Entry, digest: bytes = b"d" * DIGEST) -> None:
    """Put down that entries have arrived."""
    packed = pack_entries(entries)
    journal.add({"parcel": 1, "list": len(packed)}, packed + digest * len(entries))
