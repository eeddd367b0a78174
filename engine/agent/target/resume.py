"""Taking up what an earlier attempt left in the staging tree, as far as the journal proves it."""

from __future__ import annotations

import os
import stat
from typing import Any, Callable

from engine.agent.journal import Journal
from engine.agent.tree import Tree, entry_of, remove_tree
from engine.agent.wire import FILE, FOLDER, TWIN, Entry, pack_entries

#: Told of what is there: a message and its blob.
Tell = Callable[[dict[str, Any], bytes], None]


class Survey:
    """One look through a staging tree and its journal.

    Memory: some 70 bytes for each entry that was proven.
    """

    def __init__(self, staging: Tree, journal: Journal) -> None:
        self._staging, self._journal = staging, journal
        self._kept: set[int] = set()
        self._void: set[int] = set()
        self._parts: dict[str, dict[str, Any]] = {}

    def take_up(self, tell: Tell) -> None:
        """Tell of all that is there and proven; remove everything else.

        `{"held": n}` comes for each parcel, its blob the list of entries and
        their digests (`list` is the list's size); then `{"parts": […]}` with
        what is proven of files that are not whole: `file` (path, size, time,
        inode), and `upto` with its `digest`, or `slices` (place, size, digest).
        """
        places = [at for at, body in self._journal.records() if "durable" not in body]
        for at in reversed(places):  # What was said later holds.
            body = self._journal.record(at)
            if "void" in body:
                self._void.update(hash(path) for path in body["void"])
            elif "file" in body:
                self._part(body)
            elif "parcel" in body:
                self._parcel(body, tell)
        parts = [part for part in self._parts.values() if self._is_there(part)]
        self._parts = {part["file"][0]: part for part in parts}
        tell({"parts": parts}, b"")
        self._clear("")

    def _parcel(self, body: dict[str, Any], tell: Tell) -> None:
        entries, digests = [], []
        for entry, digest in Journal.proven(body):
            key = hash(entry.path)
            if key in self._kept or key in self._void or not self._matches(entry):
                continue
            self._kept.add(key)
            entries.append(entry)
            digests.append(digest)
        if entries:
            blob = pack_entries(entries)
            tell({"held": body["parcel"], "list": len(blob)}, blob + b"".join(digests))

    def _matches(self, entry: Entry) -> bool:
        """Whether the staging tree still holds what was proven, by its size and time."""
        try:
            folder, name = self._staging.parent(entry.path)
            found = entry_of(folder, name, entry.path)
        except OSError:
            return False
        kind = FILE if entry.kind == TWIN else entry.kind
        if found is None or found.kind != kind:
            return False
        if entry.kind == FILE:
            return (found.size, found.mtime_ns) == (entry.size, entry.mtime_ns)
        return entry.kind in (FOLDER, TWIN) or found.link == entry.link

    def _part(self, body: dict[str, Any]) -> None:
        key = body["file"]
        if hash(key[0]) in self._kept or hash(key[0]) in self._void:
            return
        part = self._parts.setdefault(key[0], {"file": key, "upto": 0, "digest": "", "slices": []})
        if part["file"] != key:
            return  # Of a file that has changed since.
        if "slice" in body:
            part["slices"].append([*body["slice"], body["blob"].hex()])
        elif body["upto"] > part["upto"]:
            part["upto"], part["digest"] = body["upto"], body["blob"].hex()

    def _is_there(self, part: dict[str, Any]) -> bool:
        path, size = part["file"][:2]
        try:
            folder, name = self._staging.parent(path)
            found = entry_of(folder, name, path)
        except OSError:
            return False
        least = size if part["slices"] else part["upto"]
        return found is not None and found.kind == FILE and found.size >= least

    def _clear(self, top: str) -> None:
        """Remove what nothing proves: it was under way when the attempt ended."""
        waiting, emptied = [top], []
        while waiting:
            above = waiting.pop()
            folder = self._staging.folder(above)
            for name in os.listdir(folder):
                path = f"{above}/{name}" if above else name
                folder = self._staging.folder(above)
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    waiting.append(path)
                    if hash(path) not in self._kept:
                        emptied.append(path)
                elif hash(path) not in self._kept and path not in self._parts:
                    remove_tree(folder, name)
        self._staging.forget()
        for path in reversed(emptied):
            folder, name = self._staging.parent(path)
            try:
                os.rmdir(name, dir_fd=folder)
            except OSError:
                continue  # Something in it is needed.
        self._staging.forget()
