"""Receiving the one archive of the strategy `archive` into one file."""

from __future__ import annotations

import hashlib
import os

from engine.agent.reader import FrameReader, Payload
from engine.agent.target.staged_files import NEW_FILE, check_name, give_mode, make_folder
from engine.agent.tree import Tree
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import AgentError

if TYPE_CHECKING:
    from typing import Any, Callable

_CHUNK = 1 << 20
#: The mode of the delivered file.
MODE = 0o644


class ArchiveFile:
    """The archive as it comes in, parcel after parcel."""

    def __init__(self, staging: Tree, path: str, progress: Callable[[int], None]) -> None:
        check_name(path)
        if "/" in path:
            make_folder(staging, path.rpartition("/")[0])
        folder, name = staging.parent(path)
        self._fd = os.open(name, NEW_FILE, MODE, dir_fd=folder)
        self._progress = progress
        self._digest = hashlib.sha256()

    def receive(self, reader: FrameReader, head: dict[str, Any]) -> None:
        """Write the bytes of one parcel; raises BAD_ARCHIVE if the sender gave up on it."""
        payload, came, reported = Payload(reader), 0, 0
        while True:
            part = payload.some(_CHUNK)
            if not part:
                break
            self._digest.update(part)
            came += len(part)
            while part:
                part = part[os.write(self._fd, part) :]
            if came - reported >= _CHUNK:
                reported = came
                self._progress(came)
        if "error" in payload.step():
            raise AgentError("BAD_ARCHIVE", "the archive ends in the middle")

    def close(self) -> str:
        """End the file; return the SHA-256 of the bytes that were written."""
        give_mode(self._fd, MODE)
        os.close(self._fd)
        return self._digest.hexdigest()
