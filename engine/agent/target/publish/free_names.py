"""Renames an entry to a name that is free, and never replaces what has appeared there meanwhile.

Three ways, the first that the file system takes: rename with a flag (Linux: RENAME_NOREPLACE of
renameat2, 3.15; macOS: RENAME_EXCL of renameatx_np); a second name, then the first is removed; a
look, then a rename. Only the last leaves a moment in which another program's entry is lost.
"""

from __future__ import annotations

import errno
import os

from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import FOLDER

if TYPE_CHECKING:
    from typing import Any

#: The flag of both systems' calls by the call's name.
_CALLS = {"renameat2": 1, "renameatx_np": 4}
#: Errors by which a system or a file system refuses a way as such.
_NEVER_HERE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
#: Errors that may mean the same (FAT has no links, a container's filter no such call), or may be
#: about this one entry: then the last way has the same error.
_PERHAPS = (errno.EPERM, errno.EMLINK, errno.EXDEV)


class FreeNames:
    """Renames entries of a staging tree into the target tree."""

    def __init__(self) -> None:
        self._ways = [self._rename_exclusively, self._link, self._look]
        self._call: Any = None

    def rename(self, kind: str, name: str, folder: int, new_name: str, new_folder: int) -> None:
        """Rename an entry of a kind; raises FileExistsError if the new name is not free."""
        for way in list(self._ways):
            try:
                way(kind, name, folder, new_name, new_folder)
                return
            except OSError as error:
                if way == self._look or error.errno not in (*_NEVER_HERE, *_PERHAPS):
                    raise
                if error.errno in _NEVER_HERE:
                    self._ways.remove(way)

    def _rename_exclusively(
        self, kind: str, name: str, folder: int, new_name: str, new_folder: int
    ) -> None:
        import ctypes  # Not at the top: it costs every start some milliseconds.

        if self._call is None:
            library = ctypes.CDLL(None, use_errno=True)
            found = [call for call in _CALLS if hasattr(library, call)]
            if not found:
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
            self._call = getattr(library, found[0])
            self._flag = _CALLS[found[0]]
        old, new = os.fsencode(name), os.fsencode(new_name)
        if self._call(folder, old, new_folder, new, self._flag):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), new_name)

    def _link(self, kind: str, name: str, folder: int, new_name: str, new_folder: int) -> None:
        if kind == FOLDER:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), name)
        os.link(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder, follow_symlinks=False)
        os.unlink(name, dir_fd=folder)

    def _look(self, kind: str, name: str, folder: int, new_name: str, new_folder: int) -> None:
        try:
            os.stat(new_name, dir_fd=new_folder, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder)
            return
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), new_name)
