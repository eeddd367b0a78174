"""Finding files at the target that cannot be replaced, before anything is published."""

from __future__ import annotations

import os
import stat
import struct
import sys

from engine.agent.tree import Tree
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import AgentError, show
from engine.agent.write_access import FOWNER, is_capable

if TYPE_CHECKING:
    from typing import Any

#: For statx(2): the flags, the mask, the buffer's size; bits of `stx_attributes` that forbid it.
_NO_FOLLOW, _UID, _ROOM = 0x100, 0x8, 256
_IMMUTABLE, _APPEND = 0x10, 0x20
#: At byte 8 of its result: these bits, the number of names, the owner.
_HEAD = struct.Struct("=QII")
#: The same bits of `st_flags` on macOS and the BSDs: as a user and as the system sets them.
_FLAGS_IMMUTABLE, _FLAGS_APPEND = 0x20002, 0x40004


class ImmutableFiles:
    """Refuses the files that must not be replaced, with the reason."""

    def __init__(self, target: Tree) -> None:
        self._target = target
        #: The last folder: its path, why nothing in it can be replaced ("" if it can), and true
        #: if only the owner of a file in it can replace that file.
        self._folder: tuple[str, str, bool] | None = None
        self._statx: Any = None
        if sys.platform == "linux":
            import ctypes  # Not at the top: it costs every start some milliseconds.

            self._room = ctypes.create_string_buffer(_ROOM)
            self._statx = getattr(ctypes.CDLL(None), "statx", None)

    def refuse(self, path: str) -> None:
        """Raise PERMISSION_DENIED if a rename cannot replace the file at that path."""
        folder, name = self._target.parent(path)
        above = path.rpartition("/")[0]
        if self._folder is None or self._folder[0] != above:
            self._folder = (above, *self._inspect_folder(folder))
        _, why, sticky = self._folder
        uid, immutable, append = self._inspect(folder, name)
        if immutable or append:
            why = "it is immutable" if immutable else "it may only be appended to"
        elif sticky and uid not in (-1, os.geteuid()):
            why = "it is another user's, in a folder where only owners replace (sticky)"
        if why:
            raise AgentError(
                "PERMISSION_DENIED", f"{show(path)} cannot be replaced at the target: {why}"
            )

    def _inspect_folder(self, folder: int) -> tuple[str, bool]:
        found = os.fstat(folder)
        _, _, append = self._inspect(folder, ".")
        sticky = bool(found.st_mode & stat.S_ISVTX) and found.st_uid != os.geteuid()
        return (
            "its folder may only be appended to" if append else "",
            sticky and not is_capable(FOWNER),
        )

    def _inspect(self, folder: int, name: str) -> tuple[int, bool, bool]:
        """The owner of a name (-1: not known); true if immutable; true if append-only."""
        if self._statx is not None:
            if self._statx(folder, os.fsencode(name), _NO_FOLLOW, _UID, self._room):
                return -1, False, False
            flags, _, uid = _HEAD.unpack_from(self._room, 8)
            return uid, bool(flags & _IMMUTABLE), bool(flags & _APPEND)
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        flags = getattr(found, "st_flags", 0)
        return found.st_uid, bool(flags & _FLAGS_IMMUTABLE), bool(flags & _FLAGS_APPEND)
