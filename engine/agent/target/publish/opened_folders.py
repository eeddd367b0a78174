"""Opening folders of the target for publishing, and the note of their modes."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from contextlib import contextmanager, suppress

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
        found = os.fstat(self._target.folder(path))
        if not may_open(found):
            raise _refused(path)
        self._waiting[path] = stat.S_IMODE(found.st_mode)

    def open(self) -> None:
        """Open the admitted folders, once their modes are on the disk."""
        if not self._waiting:
            return
        self._has_noted = True
        _note(self._staging, self._waiting.items())
        while self._waiting:
            path = next(iter(self._waiting))
            mode = self._waiting.pop(path)
            folder = self._target.folder(path)
            try:
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
            self.problems = _put_all_back(self._target, self.modes)
            with suppress(FileNotFoundError):
                os.unlink(_NOTE, dir_fd=self._staging)
            self._has_noted = False


def put_back(target: int, staging: int) -> None:
    """Give folders their modes back that a killed attempt has opened."""
    modes = dict(_noted(staging))
    if modes:
        tree = Tree(os.dup(target))
        try:
            _put_all_back(tree, modes)
        finally:
            tree.close()
        os.unlink(_NOTE, dir_fd=staging)


def _put_all_back(target: Tree, modes: dict[str, int]) -> list[list[str]]:
    problems = []
    target.forget()
    for path, mode in reversed(list(modes.items())):  # A folder comes after what is in it.
        try:
            folder = target.folder(path)
            found = os.fstat(folder)
            if stat.S_IMODE(found.st_mode) == mode | stat.S_IRWXU:
                set_mode(folder, mode)
        except (FileNotFoundError, NotADirectoryError, AgentError):
            continue  # The folder is gone, or something else is in its place.
        except OSError as error:
            problem = explain(error, path or ".")
            problems.append([path or ".", problem.code, str(problem)])
    return problems


def _note(staging: int, modes: Iterable[tuple[str, int]]) -> None:
    """Write modes to the note in the staging folder, and the note to the disk."""
    text = "".join(json.dumps(pair) + "\n" for pair in modes).encode("ascii")
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


def _noted(staging: int) -> Iterator[tuple[str, int]]:
    """Yield the modes of the note, as far as it is whole."""
    try:
        fd = open_plain(staging, _NOTE, os.O_RDONLY)
    except FileNotFoundError:
        return
    with open(fd, "rb") as lines:
        for line in lines:
            try:
                path, mode = json.loads(line)
                os.fsencode(path)
            except (ValueError, TypeError, RecursionError):
                continue  # The line was cut off: then none of its folders was opened yet.
            if isinstance(path, str) and isinstance(mode, int):
                yield path, mode & 0o7777


def _refused(path: str) -> AgentError:
    sentence = (
        f"{show(path or '.')}: the user of this agent may not put anything into this folder at the "
        "target"
    )
    return AgentError("PERMISSION_DENIED", sentence)
