"""Walking a tree: what is there, in a steady order, without leaving it."""

from __future__ import annotations

import os
import stat
from itertools import islice
from typing import Any, Callable, Iterator, NamedTuple

from engine.agent.filters import Filter
from engine.agent.tree import OPEN_FILE, Tree, check_time, entry_from
from engine.agent.wire import (
    FILE,
    FOLDER,
    MAX_PATH,
    STAGING_PREFIX,
    TWIN,
    AgentError,
    Entry,
    explain,
    is_staging,
    show,
)

#: Names of one folder that are sorted at once: so many more would need memory without bound.
SORTED_NAMES = 100_000
#: Symlinks followed one into the other before that counts as a loop.
MOST_LINKS = 40


class Wanted(NamedTuple):
    """What a scan takes, and what it does about links and attributes."""

    filter: Filter
    symlinks: str = "keep"
    hard_links: str = "copy"
    xattrs: bool = False
    mode_bits: int = 0o777


class _Way:
    """A folder on the way down, and whether it has been told of yet.

    `real` is where it lies in the tree; another path than `path` below a followed link.
    """

    def __init__(
        self, path: str, real: str, ino: int, entry: Entry | None, above: _Way | None
    ) -> None:
        self.path, self.real, self.ino = path, real, ino
        self.entry, self.above = entry, above

    def tell(self, found: Callable[[Entry], None]) -> None:
        """Call `found` for it and the folders above it, once."""
        untold = []
        way: _Way | None = self
        while way is not None and way.entry is not None:
            untold.append(way.entry)
            way.entry, way = None, way.above
        for entry in reversed(untold):
            found(entry)

    def inodes(self) -> Iterator[int]:
        """The folders from this one up to the top, by their inodes."""
        way: _Way | None = self
        while way is not None:
            yield way.ino
            way = way.above


class Scanner:
    """One walk through a tree.

    `found` is called for every entry, a folder before what is in it, all names
    of a folder together and in byte order (a folder of more than SORTED_NAMES
    names in several sorted runs). What cannot be read or carried goes to
    `failed` as path, code, sentence.
    """

    def __init__(
        self,
        tree: Tree,
        wanted: Wanted,
        found: Callable[[Entry], None],
        failed: Callable[[str, str, str], None],
    ) -> None:
        self._tree, self._wanted = tree, wanted
        self._found, self._failed = found, failed
        self._takes = wanted.filter.takes
        self._first_names: dict[tuple[int, int], str] = {}
        #: Files that have more names than one inside the tree, and links that were left out.
        self.hard_links = 0
        self.links_skipped = 0

    def top(self) -> Entry:
        """The entry of the tree's own folder; its path is "."."""
        info = os.fstat(self._tree.fd)
        mode = info.st_mode & self._wanted.mode_bits
        entry = Entry(".", FOLDER, 0, check_time(info.st_mtime_ns, "."), mode, info.st_ino)
        if not self._wanted.xattrs:
            return entry
        from engine.agent import xattrs

        return entry._replace(meta=xattrs.read(self._tree.fd))

    def scan(self) -> None:
        """Walk the whole tree; raises only where its top cannot be read."""
        waiting = [_Way("", "", os.fstat(self._tree.fd).st_ino, None, None)]
        while waiting:
            here = waiting.pop()
            below: list[_Way] = []
            try:
                folder = self._tree.folder(here.real)
                with os.scandir(folder) as listing:
                    while True:
                        items = sorted(islice(listing, SORTED_NAMES), key=_by_bytes)
                        if not items:
                            break
                        self._folder(here, items, below)
            except OSError as error:
                if not here.path:
                    raise explain(error, ".") from error
                self._report(here.path, error)
            waiting.extend(reversed(below))

    def _carried(self, path: str, name: str) -> bool:
        """Whether a name can be carried at all; it is reported if it cannot."""
        if len(path) > MAX_PATH:
            self._failed(path, "NAME_TOO_LONG", f"{show(path[:100])}… is too long a path")
        elif is_staging(name):
            self._failed(path, "NAME_RESERVED", f"{show(path)} has a name of Ketter's own")
        else:
            return True
        return False

    def _folder(self, here: _Way, items: list[os.DirEntry[str]], below: list[_Way]) -> None:
        prefix = here.path + "/" if here.path else ""
        takes, found, bits = self._takes, self._found, self._wanted.mode_bits
        plain = not self._wanted.xattrs and here.real == here.path
        for item in items:
            path = prefix + item.name
            try:
                info = item.stat(follow_symlinks=False)
                mode = info.st_mode
                odd = len(path) > MAX_PATH or item.name.startswith(STAGING_PREFIX)
                if odd and not stat.S_ISDIR(mode) and not self._carried(path, item.name):
                    continue
                if not (plain and stat.S_ISREG(mode) and info.st_nlink == 1):
                    self._special(here, item.name, info, path, below)
                elif takes(path, False):  # By far the most entries, so with no further call.
                    if here.entry is not None:
                        here.tell(found)
                    times = check_time(info.st_mtime_ns, path)
                    found(Entry(path, FILE, info.st_size, times, mode & bits, info.st_ino))
            except OSError as error:
                self._report(path, error)
            except AgentError as error:
                self._failed(path, error.code, str(error))

    def _special(
        self, here: _Way, name: str, info: os.stat_result, path: str, below: list[_Way]
    ) -> None:
        """Folders, links, files with several names, and what is not carried."""
        real = f"{here.real}/{name}" if here.real else name
        if stat.S_ISLNK(info.st_mode) and self._wanted.symlinks != "keep":
            if not self._takes(path, False):
                return
            if self._wanted.symlinks == "skip":
                self.links_skipped += 1
                return
            real, info = self._follow(here, path, real)
        entry = entry_from(info, *self._tree.parent(real), path) if real else None
        if entry is None:
            if self._takes(path, False):
                sentence = f"{show(path)} is a device, pipe or socket"
                self._failed(path, "KIND_NOT_CARRIED", sentence)
            return
        check_time(entry.mtime_ns, path)
        entry = entry._replace(mode=entry.mode & self._wanted.mode_bits)
        if entry.kind == FOLDER:
            self._enter(here, name, self._with_attributes(entry, real), real, below)
        elif self._takes(path, False):
            if entry.kind == FILE and info.st_nlink > 1:
                entry = self._twin(entry, info)
            if entry.kind == FILE:
                link = real if real != path else ""
                entry = self._with_attributes(entry._replace(link=link), real)
            here.tell(self._found)
            self._found(entry)

    def _enter(self, here: _Way, name: str, entry: Entry, real: str, below: list[_Way]) -> None:
        if is_staging(name) or len(entry.path) > MAX_PATH:
            return
        taken = self._takes(entry.path, True)
        if not taken and not self._wanted.filter.enters(entry.path):
            return
        if real != entry.path:
            entry = entry._replace(link=real)
        way = _Way(entry.path, real, entry.ino, entry, here)
        below.append(way)
        if taken and self._wanted.filter.carries_folders:
            way.tell(self._found)

    def _twin(self, entry: Entry, info: os.stat_result) -> Entry:
        """A further name of a file that was found already, if such names are to be kept."""
        first = self._first_names.setdefault((info.st_dev, info.st_ino), entry.path)
        if first == entry.path:
            return entry
        self.hard_links += 1
        if self._wanted.hard_links != "keep":
            return entry
        return entry._replace(kind=TWIN, link=first)

    def _with_attributes(self, entry: Entry, real: str) -> Entry:
        if not self._wanted.xattrs:
            return entry
        from engine.agent import xattrs  # Compiled on the host only where it is asked for.

        folder, name = self._tree.parent(real)
        fd = os.open(name, OPEN_FILE, dir_fd=folder)
        try:
            return entry._replace(meta=xattrs.read(fd))
        finally:
            os.close(fd)

    def _follow(self, here: _Way, path: str, real: str) -> tuple[str, os.stat_result]:
        """Where a symlink leads to, if that is inside the tree and no folder it lies in itself."""
        end = self._tree.follow(real, MOST_LINKS)
        if not end:
            sentence = f"{show(path)} leads out of the tree, to its top, or to nothing"
            raise AgentError("LINK_NOT_FOLLOWED", sentence)
        folder, name = self._tree.parent(end)
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode) and info.st_ino in here.inodes():
            raise AgentError("LINK_NOT_FOLLOWED", f"{show(path)} leads to a folder it lies in")
        return end, info

    def _report(self, path: str, error: OSError) -> None:
        problem: AgentError = explain(error, path)
        self._failed(path, problem.code, str(problem))


def _by_bytes(item: Any) -> bytes:
    return os.fsencode(item.name)
