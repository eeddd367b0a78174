"""Opening folders of the target for publishing, and the note of their modes."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from contextlib import contextmanager, suppress

from engine.agent.inodes import number_of
from engine.agent.target.ownership import open_plain
from engine.agent.tree import Tree
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import AgentError, explain, show
from engine.agent.write_access import CHANGE, may, may_open, set_mode, writable

if TYPE_CHECKING:
    from typing import Iterable, Iterator

_NOTE = "opened"


def make_readable(tree: Tree) -> None:
    """Open the tree's own folder for reading, if this user owns it and may only pass through it."""
    if fcntl.fcntl(tree.fd, fcntl.F_GETFL) & getattr(os, "O_PATH", 0):
        with writable(tree.fd, os.R_OK | CHANGE):
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree.fd)
        tree.close()
        tree.fd = fd
        tree.forget()


@contextmanager
def readable(folder: int, keeps: bool = False) -> Iterator[int]:
    """A readable descriptor of this user's folder that only lets pass.

    The caller gives the folder a new mode; with `keeps` it gets its own back.
    """
    mode = stat.S_IMODE(os.fstat(folder).st_mode)
    set_mode(folder, mode | stat.S_IRWXU)
    try:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        try:
            yield fd
        finally:
            os.close(fd)
    except BaseException:
        set_mode(folder, mode)
        raise
    if keeps:
        set_mode(folder, mode)


class OpenedFolders:
    """The folders of the target that are open while an agent publishes, by their paths."""

    def __init__(self, target: Tree, staging: int) -> None:
        self._target, self._staging = target, staging
        self._waiting: dict[str, int] = {}
        #: The numbers of their inodes: another folder may have taken a name meanwhile.
        self._numbers: dict[str, int] = {}
        self._has_noted = False
        #: Their own modes; a folder that gets another mode is taken out.
        self.modes: dict[str, int] = {}
        #: The folders that could not be opened.
        self.refused: dict[str, AgentError] = {}
        #: The folders that could not be put back, as path, code, sentence.
        self.problems: list[list[str]] = []

    def __enter__(self) -> OpenedFolders:
        return self

    def __exit__(self, *_: object) -> None:
        self._put_back()

    def enter(self, path: str) -> bool:
        """Make sure that a folder can be listed; true if names may come and go in it."""
        folder = self._target.folder(path)
        if may(folder):
            return True
        if not may(folder, os.X_OK):
            self.admit(path)
            self.open()
            if path in self.refused:
                raise self.refused.pop(path)
        return path in self.modes

    def admit(self, path: str) -> None:
        """Have the next `open` open a folder; raises PERMISSION_DENIED if that is impossible."""
        folder = self._target.folder(path)
        found = os.fstat(folder)
        if not may_open(found):
            raise _refused(path)
        self._waiting[path] = stat.S_IMODE(found.st_mode)
        self._numbers[path] = number_of(found, folder, ".")

    def open(self) -> None:
        """Open the admitted folders, once their modes are on the disk."""
        if not self._waiting:
            return
        self._has_noted = True
        _note(self._staging, ((*pair, self._numbers[pair[0]]) for pair in self._waiting.items()))
        while self._waiting:
            path = next(iter(self._waiting))
            mode = self._waiting.pop(path)
            folder = self._target.folder(path)
            try:
                if self._numbers[path] not in (0, os.fstat(folder).st_ino):
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                set_mode(folder, mode | stat.S_IRWXU)
            except OSError:  # It is immutable, say.
                self.refused[path] = _refused(path)
                continue
            self.modes[path] = mode
            if not may(folder):
                self.refused[path] = _refused(path)

    def _put_back(self) -> None:
        """Give the folders their modes back, except one that got another mode meanwhile."""
        if self._has_noted:
            noted = [(path, mode, self._numbers[path]) for path, mode in self.modes.items()]
            self.problems = _put_all_back(self._target, noted)
            with suppress(FileNotFoundError):
                os.unlink(_NOTE, dir_fd=self._staging)
            self._has_noted = False


def put_back(target: int, staging: int) -> None:
    """Give folders their modes back that a killed attempt has opened."""
    noted = list({path: (path, mode, number) for path, mode, number in _noted(staging)}.values())
    if noted:
        tree = Tree(os.dup(target))
        try:
            _put_all_back(tree, noted)
        finally:
            tree.close()
        os.unlink(_NOTE, dir_fd=staging)


def _put_all_back(target: Tree, noted: list[tuple[str, int, int]]) -> list[list[str]]:
    problems = []
    target.forget()
    for path, mode, number in reversed(noted):  # A folder comes after what is in it.
        try:
            folder = target.folder(path)
            found = os.fstat(folder)
            is_that = number in (0, found.st_ino)
            if is_that and stat.S_IMODE(found.st_mode) == mode | stat.S_IRWXU:
                set_mode(folder, mode)
        except (FileNotFoundError, NotADirectoryError, AgentError):
            continue  # The folder is gone, or something else is in its place.
        except OSError as error:
            problem = explain(error, path or ".")
            problems.append([path or ".", problem.code, str(problem)])
    return problems


def _note(staging: int, folders: Iterable[tuple[str, int, int]]) -> None:
    """Write paths, modes and numbers to the note in the staging folder, and it to the disk."""
    text = "".join(json.dumps(folder) + "\n" for folder in folders).encode("ascii")
    fd = open_plain(staging, _NOTE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        if os.write(fd, text) != len(text):
            raise AgentError(
                "NO_SPACE",
                "the note of the folders that are opened for publishing, in the staging folder, "
                "could not be written as a whole",
            )
        os.fsync(fd)
    finally:
        os.close(fd)
    with suppress(OSError):  # Not every file system can sync a folder.
        os.fsync(staging)


def _noted(staging: int) -> Iterator[tuple[str, int, int]]:
    """Yield the lines of the note, as far as it is whole; an older version wrote no numbers."""
    try:
        fd = open_plain(staging, _NOTE, os.O_RDONLY)
    except FileNotFoundError:
        return
    with open(fd, "rb") as lines:
        for line in lines:
            try:
                path, mode, number = [*json.loads(line), 0][:3]
                os.fsencode(path)
            except (ValueError, TypeError, RecursionError):
                continue  # The line was cut off: then none of its folders was opened yet.
            if isinstance(path, str) and isinstance(mode, int) and isinstance(number, int):
                yield path, mode & 0o7777, number


def _refused(path: str) -> AgentError:
    sentence = (
        f"{show(path or '.')}: the user of this agent may not put anything into this folder at the "
        "target"
    )
    return AgentError("PERMISSION_DENIED", sentence)
