"""Reporting what an earlier attempt left in the staging tree, as far as the journal proves it."""

from __future__ import annotations

import os
import stat

from engine.agent.target.journal import Journal
from engine.agent.target.staging.kept import KeptTimes
from engine.agent.tree import Tree, entry_of, list_names, remove_tree
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import FILE, FOLDER, HARD_LINK, Entry, pack_entries

if TYPE_CHECKING:
    from typing import Any, Callable

    #: Sends a message and its blob to the worker.
    Send = Callable[[dict[str, Any], bytes], None]

#: The most runs of slices, and files, in one message: the worker takes 4 MiB of JSON.
_RUNS, _FILES = 25_000, 20


class Survey:
    """One walk through a staging tree and its journal.

    Memory: some 70 bytes for each proven entry.
    """

    def __init__(self, staging: Tree, journal: Journal) -> None:
        self._staging, self._journal = staging, journal
        self._times = KeptTimes()
        self._kept: set[int] = set()
        self._void: set[int] = set()
        self._parts: dict[str, dict[str, Any]] = {}

    def take_up(self, send: Send) -> None:
        """Report all entries that are there and proven; remove all others.

        Sends `{"held": n}` for each parcel, with a blob of the list of entries and their digests
        (`list` is the list's size); then `{"parts": […]}`, as often as it takes, with the proven
        parts of files that are not whole: `file` (path, size, time, inode), and `upto`, or
        `slices` (place, size): those that follow one another are one.
        """
        places = [at for at, body in self._journal.records() if "durable" not in body]
        try:
            for at in reversed(places):  # A later record overrules an earlier one.
                self._take(self._journal.record(at), send)
        finally:
            self._times.close()
        parts = [part for part in self._parts.values() if self._is_there(part)]
        self._parts = {part["file"][0]: part for part in parts}
        self._send_parts(parts, send)
        self._clear("")

    def _take(self, body: dict[str, Any], send: Send) -> None:
        if "void" in body:
            self._void.update(hash(path) for path in body["void"])
        elif "file" in body:
            self._part(body)
        elif "parcel" in body:
            self._parcel(body, send)

    def _send_parts(self, parts: list[dict[str, Any]], send: Send) -> None:
        """Report the parts in messages of some megabytes at most."""
        batch: list[dict[str, Any]] = []
        runs = 0
        for part in parts:
            found = _joined(part["slices"])[:_RUNS]  # Others are sent again.
            if batch and (runs + len(found) > _RUNS or len(batch) == _FILES):
                send({"parts": batch}, b"")
                batch, runs = [], 0
            batch.append({"file": part["file"], "upto": part["upto"], "slices": found})
            runs += len(found)
        send({"parts": batch}, b"")

    def _parcel(self, body: dict[str, Any], send: Send) -> None:
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
            send({"held": body["parcel"], "list": len(blob)}, blob + b"".join(digests))

    def _matches(self, entry: Entry) -> bool:
        """True if the staging tree still holds a proven entry, by its size and time."""
        try:
            folder, name = self._staging.parent(entry.path)
            found = entry_of(folder, name, entry.path)
        except OSError:
            return False
        kind = FILE if entry.kind == HARD_LINK else entry.kind
        if found is None or found.kind != kind:
            return False
        if entry.kind == FILE:
            if found.size != entry.size or found.mtime_ns == entry.mtime_ns:
                return found.size == entry.size
            device = os.fstat(folder).st_dev
            fits = self._times.fits(folder, device, entry.mtime_ns, found.mtime_ns)
            return fits is not False  # Both ends read it again where it is not on record.
        return entry.kind in (FOLDER, HARD_LINK) or found.link == entry.link

    def _part(self, body: dict[str, Any]) -> None:
        key = body["file"]
        if hash(key[0]) in self._kept or hash(key[0]) in self._void:
            return
        part = self._parts.setdefault(key[0], {"file": key, "upto": 0, "slices": []})
        if part["file"] != key:
            return  # The file has changed since that record.
        if "slice" in body:
            part["slices"].append(body["slice"])
        elif body["upto"] > part["upto"]:
            part["upto"] = body["upto"]

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
        """Remove the entries that nothing proves: they were on their way as the attempt ended."""
        waiting, emptied = [top], []
        while waiting:
            above = waiting.pop()
            folder = self._staging.folder(above)
            for name in list_names(folder):
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
                continue  # It holds an entry that is needed.
        self._staging.forget()


def _joined(slices: list[list[int]]) -> list[list[int]]:
    """Join slices (place, size) that follow one another; each place counts once."""
    runs: list[list[int]] = []
    for at, size in sorted(slices):
        end = runs[-1][0] + runs[-1][1] if runs else -1
        if at == end:
            runs[-1][1] += size
        elif at > end:
            runs.append([at, size])
    return runs
