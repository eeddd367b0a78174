"""Puts the entries that were proven into place in the target tree."""

from __future__ import annotations

import os

from engine.agent.target.compare import compare_one, second_names
from engine.agent.target.publish.free_names import FreeNames
from engine.agent.target.publish.had_before import FoldersBefore
from engine.agent.target.publish.immutable import ImmutableFiles
from engine.agent.target.publish.opened_folders import OpenedFolders
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
    from typing import Iterator


class Publisher:
    """Moves a staging tree into the target tree by renames.

    `opened` opens folders of the target that are this user's and lock this user out. `before`
    gets the folders that the target has.
    """

    def __init__(
        self,
        staging: Tree,
        target: Tree,
        policy: str,
        opened: OpenedFolders,
        before: FoldersBefore,
    ) -> None:
        self._staging = staging
        self._target = target
        self._opened = opened
        self._before = before
        self._entered: list[str] = []
        self._free = FreeNames()
        self._policy = policy
        self._both = policy == "keep-both"

    def publish(self, files: int) -> None:
        """Put everything into place; find what forbids it before the first rename.

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
                    fixed.refuse(entry.path)
            self._before.note(self._entered)
            self._opened.open()
            self._place("")
        finally:
            # Renames may have moved folders of either tree away under their descriptors.
            self._staging.forget()
            self._target.forget()

    def _place(self, top: str) -> None:
        """Rename all entries below a folder of the staging tree into the target tree."""
        for entry, state in self._ready(top):
            if state == ABSENT:
                self._rename_to_free(entry)
            elif self._both:
                self._rename_to_second(entry)
            elif not self._is_placed(entry):
                self._rename(entry.path)

    def _ready(self, top: str = "", admit: bool = False) -> Iterator[tuple[Entry, str]]:
        """Yield the entries to rename, each with the state of its place, as in `compare`.

        Enters a folder that the target has, too. With `admit`, has each folder that is renamed
        into opened later. Raises TARGET_EXISTS or PERMISSION_DENIED if an entry cannot be placed.
        """
        waiting = [top]
        while waiting:
            above = waiting.pop()
            admitted = not admit or self._opened.enter(above)
            for name in sorted(list_names(self._staging.folder(above))):
                entry, state = self._state(f"{above}/{name}" if above else name)
                if entry.kind == FOLDER and state == SAME:
                    waiting.append(entry.path)
                    if admit:
                        self._entered.append(entry.path)
                elif state == ABSENT or self._allowed(entry, state):
                    if not admitted:
                        self._opened.admit(above)
                        admitted = True
                    yield entry, state
                else:
                    raise AgentError(
                        "TARGET_EXISTS", f"{show(entry.path)} is in the way at the target"
                    )

    def _state(self, path: str) -> tuple[Entry, str]:
        folder, name = self._staging.parent(path)
        entry = entry_of(folder, name, path)
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
        return state == SAME and self._is_placed(entry, keep=True)

    def _is_placed(self, entry: Entry, keep: bool = False) -> bool:
        """True if the place has this very file: an agent died between its two names.

        Removes the name in the staging tree then, but for `keep`.
        """
        folder, name = self._staging.parent(entry.path)
        there, its_name = self._target.parent(entry.path)
        ours = os.stat(name, dir_fd=folder, follow_symlinks=False)
        theirs = os.stat(its_name, dir_fd=there, follow_symlinks=False)
        same = ours.st_nlink > 1 and os.path.samestat(ours, theirs)
        if same and not keep:
            os.unlink(name, dir_fd=folder)
        return same

    def _rename_to_free(self, entry: Entry) -> None:
        """Rename an entry whose place was free; what has appeared there is treated by the policy.

        Raises TARGET_EXISTS if the policy forbids to replace it.
        """
        try:
            self._rename(entry.path, entry.path, free=entry.kind)
        except FileExistsError:
            self._target.forget()
            _, state = self._state(entry.path)
            if entry.kind == FOLDER and state == SAME:
                self._before.add(entry.path)
                self._place(entry.path)
            elif entry.kind != FOLDER and self._both:
                self._rename_to_second(entry)
            elif self._allowed(entry, state):
                self._rename(entry.path)
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
                self._rename(entry.path, path, free=entry.kind)
                return
            except FileExistsError:
                continue
        raise AgentError(
            "TARGET_EXISTS",
            f"{show(entry.path)} is at the target under all names up to (999): remove some",
        )

    def _rename(self, source: str, target: str = "", free: str = "") -> None:
        """Rename an entry; `free` is its kind if it may replace nothing (FileExistsError)."""
        target = target or source
        try:
            from_folder, from_name = self._staging.parent(source)
            to_folder, to_name = self._target.parent(target)
            if free:
                self._free.rename(free, from_name, from_folder, to_name, to_folder)
            else:
                os.rename(from_name, to_name, src_dir_fd=from_folder, dst_dir_fd=to_folder)
        except OSError as error:
            if free and isinstance(error, FileExistsError):
                raise
            raise explain(error, target) from error


def count_files(tree: Tree) -> int:
    """Count the entries of a tree that are not folders."""
    count, waiting = 0, [""]
    while waiting:
        above = waiting.pop()
        with scan_folder(tree.folder(above)) as listing:
            for item in listing:
                if item.is_dir(follow_symlinks=False):
                    waiting.append(f"{above}/{item.name}" if above else item.name)
                else:
                    count += 1
    return count
