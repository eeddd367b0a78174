"""Walking a tree: lists its entries, in a steady order, without leaving it."""

from __future__ import annotations

import errno
import os
import stat
from itertools import islice

from engine.agent.inodes import keeps, number_of
from engine.agent.source.filters import Filter
from engine.agent.tree import (
    HOLES_FROM,
    OPEN_FILE,
    Tree,
    check_time,
    entry_from,
    holes_of,
    scan_folder,
)
from engine.agent.typed import TYPE_CHECKING, NamedTuple
from engine.agent.wire import (
    FILE,
    FOLDER,
    HARD_LINK,
    MAX_PATH,
    STAGING_PREFIX,
    AgentError,
    Entry,
    explain,
    is_staging,
    show,
)
from engine.agent.write_access import mode_of, recover

if TYPE_CHECKING:
    from typing import Any, Callable, Iterator

#: The most names of one folder that are sorted at once: memory must have a bound.
SORTED_NAMES = 100_000
#: The most symlinks that are followed one into the other: more count as a loop.
MOST_LINKS = 40
#: Characters of a path that is too long, as far as it is reported.
_SHOWN = 1000


class Wanted(NamedTuple):
    """The entries that a scan takes, and its treatment of links and attributes."""

    filter: Filter
    symlinks: str = "keep"
    hard_links: str = "copy"
    xattrs: bool = False
    mode_bits: int = 0o777


class _Branch:
    """A folder of the walk, and its parents; `entry` is None once it was reported.

    `real` is the folder's path in the tree; below a followed link it differs from `path`.
    """

    def __init__(self, path: str, real: str, entry: Entry | None, above: _Branch | None) -> None:
        self.path, self.real = path, real
        self.entry, self.above = entry, above

    def report(self, found: Callable[[Entry], None]) -> None:
        """Call `found` once for the folder and for each folder above it."""
        pending = []
        branch: _Branch | None = self
        while branch is not None and branch.entry is not None:
            pending.append(branch.entry)
            branch.entry, branch = None, branch.above
        for entry in reversed(pending):
            found(entry)

    def places(self) -> Iterator[str]:
        """The paths in the tree of this folder and the folders above it, up to the top."""
        branch: _Branch | None = self
        while branch is not None:
            yield branch.real
            branch = branch.above


class Scanner:
    """One walk through a tree.

    Calls `found` for every entry: a folder before its entries, all names of a folder together and
    in byte order (a folder of more than SORTED_NAMES names in several sorted runs). Calls `failed`
    with path, code and sentence of an entry that cannot be read or carried.
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
        #: Devices that are known to keep the numbers of inodes.
        self._kept: set[int] = set()
        #: Further names of files inside the tree; symlinks that were left out.
        self.hard_links = 0
        self.links_skipped = 0
        #: Names of files with several names, if nothing shows which names are one file's.
        self.links_unknown = 0
        #: Bytes of files with one name that take no room.
        self.holes = 0

    def top(self) -> Entry:
        """The entry of the tree's own folder; its path is "."."""
        info = os.fstat(self._tree.fd)
        mode = mode_of(info) & self._wanted.mode_bits
        number = self._number(info, self._tree.fd, ".")
        entry = Entry(".", FOLDER, 0, check_time(info.st_mtime_ns, "."), mode, number)
        if not self._wanted.xattrs:
            return entry
        from engine.agent import xattrs

        return entry._replace(meta=xattrs.read(self._tree.fd))

    def scan(self) -> None:
        """Walk the whole tree; raises an error only if its top cannot be read."""
        waiting = [_Branch("", "", None, None)]
        while waiting:
            here = waiting.pop()
            below: list[_Branch] = []
            try:
                folder = self._tree.folder(here.real)
                recover(folder)
                with scan_folder(folder) as listing:
                    while True:
                        items = sorted(islice(listing, SORTED_NAMES), key=_by_bytes)
                        if not items:
                            break
                        self._folder(here, items, below)
            except OSError as error:
                if error.errno == errno.EBADF:  # The folder may only be passed through.
                    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                if not here.path:
                    raise explain(error, ".") from error
                self._report(here.path, error)
            waiting.extend(reversed(below))

    def _carried(self, path: str, name: str) -> bool:
        """True if a name can be carried; otherwise reports it as failed."""
        if len(path) > MAX_PATH:
            # Cut: no message names a path that is longer than any that is carried.
            self._failed(path[:_SHOWN], "NAME_TOO_LONG", f"{show(path[:100])}… is too long a path")
        elif is_staging(name):
            self._failed(path, "NAME_RESERVED", f"{show(path)} has a name that Ketter reserves")
        else:
            return True
        return False

    def _folder(self, here: _Branch, items: list[os.DirEntry[str]], below: list[_Branch]) -> None:
        prefix = here.path + "/" if here.path else ""
        takes, found, bits, kept = self._takes, self._found, self._wanted.mode_bits, self._kept
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
                elif takes(path, False):  # Nearly all entries come here, so with no further call.
                    if here.entry is not None:
                        here.report(found)
                    times = check_time(info.st_mtime_ns, path)
                    number = info.st_ino
                    if info.st_dev not in kept:
                        number = self._number(info, self._tree.folder(here.real), item.name)
                    if info.st_size >= HOLES_FROM:
                        self.holes += holes_of(info)
                    found(Entry(path, FILE, info.st_size, times, mode & bits, number))
            except OSError as error:
                self._report(path, error)
            except AgentError as error:
                self._failed(path, error.code, str(error))

    def _special(
        self, here: _Branch, name: str, info: os.stat_result, path: str, below: list[_Branch]
    ) -> None:
        """Take a folder, link, or file with several names; refuse an entry that is not carried."""
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
                sentence = f"{show(path)} is a device, pipe or socket, which cannot be carried"
                self._failed(path, "KIND_NOT_CARRIED", sentence)
            return
        check_time(entry.mtime_ns, path)
        number = self._number(info, *self._tree.parent(real))
        entry = entry._replace(mode=entry.mode & self._wanted.mode_bits, ino=number)
        if entry.kind == FOLDER:
            entry = entry._replace(mode=mode_of(info) & self._wanted.mode_bits)
            self._enter(here, name, self._with_attributes(entry, real), real, below)
        elif self._takes(path, False):
            if entry.kind == FILE and info.st_nlink > 1:
                entry = self._hard_link(entry, info)
            if entry.kind == FILE:
                link = real if real != path else ""
                entry = self._with_attributes(entry._replace(link=link), real)
            self.holes += holes_of(info) if entry.kind == FILE else 0
            here.report(self._found)
            self._found(entry)

    def _enter(
        self, here: _Branch, name: str, entry: Entry, real: str, below: list[_Branch]
    ) -> None:
        taken = self._takes(entry.path, True)
        if is_staging(name) or (not taken and not self._wanted.filter.enters(entry.path)):
            return
        if not self._carried(entry.path, name):
            return
        if real != entry.path:
            entry = entry._replace(link=real)
        branch = _Branch(entry.path, real, entry, here)
        below.append(branch)
        if taken and self._wanted.filter.carries_folders:
            branch.report(self._found)

    def _hard_link(self, entry: Entry, info: os.stat_result) -> Entry:
        """Make an entry a HARD_LINK if it names a file that was found, and links are kept."""
        if info.st_dev not in self._kept:  # Two files may have shown one number by now.
            self.links_unknown += 1
            return entry
        first = self._first_names.setdefault((info.st_dev, info.st_ino), entry.path)
        if first == entry.path:
            return entry
        self.hard_links += 1
        if self._wanted.hard_links != "keep":
            return entry
        return entry._replace(kind=HARD_LINK, link=first)

    def _number(self, info: os.stat_result, folder: int, name: str) -> int:
        """The number that identifies a name's file, see `number_of`."""
        if keeps(info.st_dev, folder, name):
            self._kept.add(info.st_dev)
        return number_of(info, folder, name)

    def _with_attributes(self, entry: Entry, real: str) -> Entry:
        if not self._wanted.xattrs:
            return entry
        from engine.agent import xattrs  # The host compiles it only for a transfer that asks.

        folder, name = self._tree.parent(real)
        fd = os.open(name, OPEN_FILE, dir_fd=folder)
        try:
            return entry._replace(meta=xattrs.read(fd))
        finally:
            os.close(fd)

    def _follow(self, here: _Branch, path: str, real: str) -> tuple[str, os.stat_result]:
        """Follow a symlink; raises LINK_NOT_FOLLOWED unless its end is inside, and not above it."""
        end = self._tree.follow(real, MOST_LINKS)
        if not end:
            sentence = f"{show(path)} leads out of the tree, to its top, or to nothing"
            raise AgentError("LINK_NOT_FOLLOWED", sentence)
        folder, name = self._tree.parent(end)
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode) and end in here.places():
            raise AgentError("LINK_NOT_FOLLOWED", f"{show(path)} leads to a folder it lies in")
        return end, info

    def _report(self, path: str, error: OSError) -> None:
        problem: AgentError = explain(error, path)
        self._failed(path, problem.code, str(problem))


def _by_bytes(item: Any) -> bytes:
    return os.fsencode(item.name)
