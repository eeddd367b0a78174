"""Puts the entries that were proven into place in the target tree."""

from __future__ import annotations

import errno
import os
from itertools import chain

from engine.agent.target.compare import compare_one, second_names
from engine.agent.target.publish.free_names import FreeNames
from engine.agent.target.publish.had_before import FoldersBefore
from engine.agent.target.publish.immutable import ImmutableFiles
from engine.agent.target.publish.opened_folders import OpenedFolders
from engine.agent.target.publish.refused import Refused
from engine.agent.tree import Tree, entry_of, list_names, scan_folder
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import (
    ABSENT,
    FOLDER,
    OLDER,
    OTHER_KIND,
    SAME,
    AgentError,
    Entry,
    explain,
    show,
)

if TYPE_CHECKING:
    from typing import Callable, Iterator

    from engine.agent.target.publish.across import Across


class Publisher:
    """Moves a staging tree into the target tree by renames.

    `opened` opens folders of the target that are this user's and lock this user out. `before`
    gets the folders that the target has. `across` begins to copy to other file systems. `refused`
    has what could not take its place afterwards, `seconds` the second names of keep-both.
    """

    def __init__(
        self,
        staging: Tree,
        target: Tree,
        policy: str,
        opened: OpenedFolders,
        before: FoldersBefore,
        across: Callable[[], Across],
    ) -> None:
        self._staging = staging
        self._target = target
        self._opened = opened
        self._before = before
        self._entered: list[str] = []
        self._begin_across = across
        self._across: Across | None = None
        self.refused = Refused()
        self.seconds: dict[str, str] = {}
        self._free = FreeNames()
        self._policy = policy
        self._both = policy == "keep-both"

    def publish(self, files: int) -> None:
        """Put into place what can be; find what forbids all of it before the first rename.

        The staging tree must hold exactly `files` files and links, as many as were proven,
        whatever happened to the tree since.
        """
        try:
            found = count_files(self._staging)
            if found != files:
                raise AgentError(
                    "CHECKSUM_MISMATCH",
                    f"{files} files were proven, but {found} are in the staging folder",
                )
            fixed = ImmutableFiles(self._target)
            for entry, state in self._ready(admit=True):
                if state != ABSENT and not self._both:
                    with self.refused.noting(entry.path):
                        fixed.refuse(entry.path)
            self._before.note(self._entered, self._target)
            self._opened.open()
            for path, reason in self._opened.refused.items():
                self.refused.close(path, reason)
            self._place("")
            if self._across:
                self._across.flush()
            self._name_what_is_left()
        finally:
            # Renames may have moved folders of either tree away under their descriptors.
            self._staging.forget()
            self._target.forget()
            self._before.placed.close()

    def _name_what_is_left(self) -> None:
        """Refuse each file that is still in the staging tree: only what is not there is published.

        Whatever other users did to the target meanwhile, a source must not lose it.
        """
        if not self.refused and not self._staging.grafts:
            return
        self._staging.forget()
        for path in chain(left_files(self._staging), left_elsewhere(self._staging)):
            if self.refused.reason(path) is None:
                sentence = f"{show(path)} did not take its place: its folder changed meanwhile"
                self.refused.add(path, AgentError("PERMISSION_DENIED", sentence))

    def _place(self, top: str) -> None:
        """Move all entries below a folder of the staging tree into the target tree."""
        for entry, state in self._ready(top):
            with self.refused.noting(entry.path):
                if state == ABSENT:
                    self._rename_to_free(entry)
                elif self._both:
                    self._rename_to_second(entry)
                elif not is_placed(self._staging, self._target, entry):
                    self._rename(entry, entry.path)

    def _ready(self, top: str = "", admit: bool = False) -> Iterator[tuple[Entry, str]]:
        """Yield the entries to rename, each with the state of its place, as in `compare`.

        Enters a folder that the target has, too. With `admit`, has each folder that is renamed
        into opened later. Leaves out what is refused, and adds to it. Raises TARGET_EXISTS if an
        entry is in the way.
        """
        waiting = [top]
        while waiting:
            above = waiting.pop()
            admitted, names = self._enter(above, admit)
            for name in names:
                found = self._look(f"{above}/{name}" if above else name)
                if found is None:
                    continue
                entry, state = found
                if entry.kind == FOLDER and state == SAME:
                    waiting.append(entry.path)
                    if admit:
                        self._entered.append(entry.path)
                        self.refused.enter(entry.path)
                    continue
                if state != ABSENT and not self._allowed(entry, state):
                    raise AgentError(
                        "TARGET_EXISTS", f"{show(entry.path)} is in the way at the target"
                    )
                admitted = admitted or self._admit(above)
                if self.refused.is_closed(above):
                    self.refused.leave(entry.path)
                else:
                    yield entry, state

    def _enter(self, above: str, admit: bool) -> tuple[bool, list[str]]:
        """True if names may come and go in a folder of the target; what the staging tree has."""
        with self.refused.noting(above):
            may_change = not admit or self._opened.enter(above)
            return may_change, sorted(list_names(self._staging.folder(above)))
        return True, []

    def _admit(self, above: str) -> bool:
        """Have a folder opened later; close it if that is impossible."""
        try:
            self._opened.admit(above)
        except AgentError as error:
            self.refused.close(above, error)
        return True

    def _look(self, path: str) -> tuple[Entry, str] | None:
        """An entry of the staging tree, with the state of its place; None if it is refused."""
        with self.refused.noting(path):
            return None if self.refused.is_single(path) else self._state(path)
        return None

    def _state(self, path: str) -> tuple[Entry, str]:
        try:
            folder, name = self._staging.parent(path)
            entry = entry_of(folder, name, path)
        except OSError as error:
            raise explain(error, path) from error
        if entry is None:
            raise AgentError(
                "AGENT_FAILED", f"{show(path)} in the staging folder is no file, folder or symlink"
            )
        return entry, compare_one(self._target, entry, path)

    def _allowed(self, entry: Entry, state: str) -> bool:
        if entry.kind == FOLDER:
            return False
        if self._policy == "overwrite":
            return state != OTHER_KIND
        if self._both or (self._policy == "overwrite-older" and state == OLDER):
            return True
        return state == SAME and is_placed(self._staging, self._target, entry, keep=True)

    def _rename_to_free(self, entry: Entry) -> None:
        """Rename an entry whose place was free; what has appeared there is treated by the policy.

        Raises TARGET_EXISTS if the policy forbids to replace it.
        """
        try:
            self._rename(entry, entry.path, free=True)
        except FileExistsError:
            self._target.forget()
            _, state = self._state(entry.path)
            if entry.kind == FOLDER and state == SAME:
                self._before.add(entry.path)
                self._before.placed.forget(entry.path)
                self._place(entry.path)
            elif entry.kind != FOLDER and self._both:
                self._rename_to_second(entry)
            elif self._allowed(entry, state):
                self._rename(entry, entry.path)
            else:
                raise AgentError(
                    "TARGET_EXISTS",
                    f"{show(entry.path)} has appeared at the target meanwhile; it stays as it is",
                ) from None

    def _rename_to_second(self, entry: Entry) -> None:
        """Rename an entry to the first second name that is free."""
        for path in second_names(entry.path):
            if compare_one(self._target, entry, path) != ABSENT:
                continue
            try:
                self._rename(entry, path, free=True)
                self.seconds[entry.path] = path
                return
            except FileExistsError:
                continue
        raise AgentError(
            "TARGET_EXISTS",
            f"{show(entry.path)} is at the target under all names up to (999): remove some",
        )

    def _rename(self, entry: Entry, place: str, free: bool = False) -> None:
        """Rename an entry; with `free` it may replace nothing (FileExistsError)."""
        try:
            if entry.kind == FOLDER:
                self._before.placed.note(place, entry.ino, self._target)
            from_folder, from_name = self._staging.parent(entry.path)
            to_folder, to_name = self._target.parent(place)
            try:
                if entry.kind == FOLDER and leads_elsewhere(self._staging, entry.path):
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
                self._move(entry.kind, free, from_name, from_folder, to_name, to_folder)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._copy(entry, place, free)
        except OSError as error:
            if free and isinstance(error, FileExistsError):
                raise
            raise explain(error, place) from error

    def _move(
        self, kind: str, free: bool, name: str, folder: int, new_name: str, new_folder: int
    ) -> None:
        if free:
            self._free.rename(kind, name, folder, new_name, new_folder)
        else:
            os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder)

    def _copy(self, entry: Entry, place: str, free: bool) -> None:
        """Put an entry into a folder on another file system; a folder is made, then filled."""
        folder, name = self._target.parent(place)
        if entry.kind == FOLDER:
            os.mkdir(name, 0o700, dir_fd=folder)
            number = os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino
            self._before.placed.note(place, number, self._target)
            self._place(entry.path)
            return
        if self._across is None:
            self._across = self._begin_across()
        copy, beside = self._across.copy(self._staging, entry.path, self._target, place)
        try:
            self._move(entry.kind, free, copy, beside, name, folder)
        except BaseException:
            self._across.discard(beside)
            raise
        above, staged = self._staging.parent(entry.path)
        os.unlink(staged, dir_fd=above)


def left_elsewhere(tree: Tree) -> Iterator[str]:
    """Yield the same for its parts on other file systems, also if no walk meets them any more."""
    for path in tree.grafts.paths() if tree.grafts else ():
        part = Tree(tree.grafts.open(path))
        try:
            for inner in left_files(part):
                yield f"{path}/{inner}"
        finally:
            part.close()


def leads_elsewhere(staging: Tree, path: str) -> bool:
    """True if a part of a folder waits on another file system: one rename does not move that."""
    return bool(staging.grafts and staging.grafts.are_below(path))


def is_placed(staging: Tree, target: Tree, entry: Entry, keep: bool = False) -> bool:
    """True if the place has this very file: an agent died between its two names.

    Removes the name in the staging tree then, but for `keep`.
    """
    folder, name = staging.parent(entry.path)
    there, its_name = target.parent(entry.path)
    ours = os.stat(name, dir_fd=folder, follow_symlinks=False)
    theirs = os.stat(its_name, dir_fd=there, follow_symlinks=False)
    same = ours.st_nlink > 1 and os.path.samestat(ours, theirs)
    if same and not keep:
        os.unlink(name, dir_fd=folder)
    return same


def count_files(tree: Tree) -> int:
    """Count the entries of a tree that are not folders."""
    return sum(1 for _ in left_files(tree))


def left_files(tree: Tree) -> Iterator[str]:
    """Yield the paths of a tree's entries that are not folders."""
    waiting = [""]
    while waiting:
        above = waiting.pop()
        with scan_folder(tree.folder(above)) as listing:
            for item in listing:
                path = f"{above}/{item.name}" if above else item.name
                if item.is_dir(follow_symlinks=False):
                    waiting.append(path)
                else:
                    yield path
