"""Aim: the places that a transfer reads and writes: a folder, one file, or one archive."""

from __future__ import annotations

import posixpath

from engine import errors
from engine.agent.wire import FILE, Entry, pack_entries, unpack_entries
from engine.protocol.replies import InspectReply
from engine.types import Request


class Aim:
    """The folders in which a transfer works at both ends, below each end's root.

    `single` is set if the source is one file: its entry, and its name at the target.
    `archive_name` is the name of the one file that the strategy `archive` delivers.
    """

    def __init__(self, request: Request) -> None:
        self.source_path = request.source.path
        self.target_path = request.target.path.rstrip("/")
        self.single: tuple[Entry, str] | None = None
        self.archive_name = ""
        #: Bytes of the one file that take no room.
        self.holes = 0

    def at_file(self, request: Request, source: InspectReply, target: InspectReply) -> None:
        """Aim at one file: it gets the target's name, or goes into the target's folder.

        Raises BadRequest if the source's root is a file, or if the target names no place.
        """
        folder, name = posixpath.split(source.below_root)
        if not name:
            raise errors.BadRequest("the source's root is a file; it must be a folder")
        entry = Entry(name, FILE, 0, 0, 0, 0)
        self.source_path = folder
        if request.target.path.endswith("/") or target.kind == "folder":
            self.single = (entry, posixpath.basename(request.source.path.rstrip("/")))
        elif self.target_path:
            self.target_path, last = posixpath.split(self.target_path)
            self.single = (entry, last)
        else:
            raise errors.BadRequest("the source is a file: the target must be a name or a folder")

    def at_archive(self, request: Request, source: InspectReply, target: InspectReply) -> None:
        """Aim at one archive: the target's path is its name if it ends in .zip, else its folder."""
        base = posixpath.basename(source.real) or "archive"
        path = request.target.path
        self.target_path = path.rstrip("/")
        if target.kind == "folder" or not path.endswith(".zip"):
            self.archive_name = f"{base}.zip"
        else:
            self.target_path, self.archive_name = posixpath.split(self.target_path)

    def at_target(self, entry: Entry) -> Entry:
        """Return an entry of the source under its name at the target."""
        return entry._replace(path=self.single[1]) if self.single else entry

    def at_source(self, entry: Entry) -> Entry:
        """Return an entry of the target under its name at the source."""
        return entry._replace(path=self.single[0].path) if self.single else entry

    def list_at_target(self, blob: bytes) -> bytes:
        """Return a packed list with a single file's name at the target; else the same object."""
        if not self.single or self.single[0].path == self.single[1]:
            return blob
        return pack_entries(map(self.at_target, unpack_entries(blob)))

    def overlaps(self, source: InspectReply, target: InspectReply) -> bool:
        """True if both ends, on one machine, are one place or lie inside each other."""
        above_source, above_target = source.ancestor_ids, target.ancestor_ids
        if not self.single:
            return above_source[0] in above_target or above_target[0] in above_source
        entry, name = self.single
        same_folder = len(above_source) > 1 and above_source[1] == above_target[0]
        return above_source[0] == above_target[0] or (same_folder and entry.path == name)
