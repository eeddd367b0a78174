"""Receiving one archive as a file, for a receiver that wants it so."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Callable

from engine.agent.inlet import Inlet, Payload
from engine.agent.stage import make_folder
from engine.agent.tree import Tree, check_path
from engine.agent.wire import AgentError

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
#: The mode of the delivered file.
MODE = 0o644


class ArchiveFile:
    """The archive as it comes in, parcel after parcel."""

    def __init__(self, staging: Tree, path: str, progress: Callable[[int], None]) -> None:
        check_path(path)
        if "/" in path:
            make_folder(staging, path.rpartition("/")[0])
        folder, name = staging.parent(path)
        self._fd = os.open(name, _NEW, MODE, dir_fd=folder)
        self._progress = progress
        self._digest = hashlib.sha256()

    def receive(self, inlet: Inlet, head: dict[str, Any]) -> None:
        """Write the bytes of one parcel."""
        payload, came, told = Payload(inlet), 0, 0
        while True:
            part = payload.some(_CHUNK)
            if not part:
                break
            self._digest.update(part)
            came += len(part)
            while part:
                part = part[os.write(self._fd, part) :]
            if came - told >= _CHUNK:
                told = came
                self._progress(came)
        if "error" in payload.step():
            raise AgentError("BAD_ARCHIVE", "the archive ends in the middle")

    def close(self) -> str:
        """End the file; return the SHA-256 of what was written."""
        os.fchmod(self._fd, MODE)
        os.close(self._fd)
        return self._digest.hexdigest()
