"""SshFiles: the private folder of one ssh process; `sweep` removes those of killed workers."""

from __future__ import annotations

import contextlib
import fcntl
import os

#: Bytes that are kept of what ssh says, and that are read of it, at most.
LOG_BYTES = 64 << 10
_PREFIX = "ketter-ssh-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SshFiles:
    """A folder that only this user can read, for as long as the ssh process needs it."""

    def __init__(self) -> None:
        # Leftovers must not stop this process; a worker's own sweep reports those that stay.
        with contextlib.suppress(OSError):
            sweep()
        self.folder, self._fd = _own_folder()
        self.log = os.path.join(self.folder, "log")
        self.socket = os.path.join(self.folder, "mux")

    def remove(self) -> None:
        """Remove the folder with all secrets in it."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):  # If an ending ssh writes there, a sweep removes it.
            _remove_folder(self._fd, self.folder)
        os.close(self._fd)
        self._fd = -1

    def trim_log(self) -> None:
        """Empty the log if it is long: a host can have ssh complain of it without end.

        ssh appends to it, so that what comes next is at its beginning.
        """
        with contextlib.suppress(OSError):
            if os.stat(self.log).st_size > LOG_BYTES:
                os.truncate(self.log, 0)

    def remove_secrets(self) -> None:
        """Remove the secrets once the connection is established; the log stays."""
        for name in ("key", "password"):
            path = os.path.join(self.folder, name)
            if os.path.exists(path):
                os.unlink(path)

    def write(self, name: str, text: str) -> str:
        """Write a file of that name, and return its path."""
        path = os.path.join(self.folder, name)
        # Whole or not at all: ssh's helper may read it meanwhile.
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "w") as file:
            file.write(text)
        os.rename(f"{path}.new", path)
        return path


def _temporary_folder() -> str:
    """Return the folder for temporary files, as `tempfile` does, which takes long to import."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        if os.path.isdir(os.environ.get(name, "")):
            return os.path.abspath(os.environ[name])
    return "/tmp"  # noqa: S108 - a private folder is made in it


def _own_folder() -> tuple[str, int]:
    """Make a private folder; return its path, and its descriptor, which holds a lock on it.

    The lock shows other workers that this process still uses the folder; on a file system where
    folders cannot be locked, nothing is swept. If another worker sweeps the folder before it is
    locked, this function makes a new one.
    """
    while True:
        folder = os.path.join(_temporary_folder(), f"{_PREFIX}{os.urandom(8).hex()}")
        os.mkdir(folder, 0o700)
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(folder, _FOLDER)
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_at(fd, folder):
                return folder, fd
            os.close(fd)


def _is_at(fd: int, path: str) -> bool:
    """True if the path still leads to the open folder."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove_folder(fd: int, folder: str) -> None:
    """Remove an open private folder of this user, with the files in it."""
    for name in os.listdir(fd):
        os.unlink(name, dir_fd=fd)
    os.rmdir(folder)


def sweep() -> None:
    """Remove the private folders of workers that were killed.

    It removes only this user's: where all users may write, others may plant a folder of such a
    name. Raises the first OSError after all folders were tried; the next sweep tries again.
    """
    with os.scandir(_temporary_folder()) as listing:
        folders = [item.path for item in listing if item.name.startswith(_PREFIX)]
    failed: list[OSError] = []
    for folder in folders:
        try:
            fd = os.open(folder, _FOLDER)
        except OSError:
            continue  # Not a folder, another user's, or gone.
        try:
            if os.fstat(fd).st_uid == os.geteuid():
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(fd, folder):
                    _remove_folder(fd, folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # Its worker still runs, and may be removing it itself.
        except OSError as error:
            failed.append(error)
        finally:
            os.close(fd)
    if failed:
        raise failed[0]
