"""The staging folder: where an attempt's data waits, and the fence around publishing.

It lies at the top of the target folder, so that publishing is a rename:

    .ketter-<id>.part/      mode 0700
        .ketter-<id>.part/  the mark: the folder was made with this name, see `staging.names`
        gate                locked while an agent publishes, cleans or raises the fence
        fence               the number of the highest attempt so far
        made                JSON: the folders that were made to get here, each as
                            inode:owner:path
        times               JSON: the target folder's time before this folder was made, and after
        a<attempt>.lock     locked by the live agents of that attempt
        a<attempt>.end      asks them to end: nothing wants what is still on its way to them
        a<attempt>-<label>.lock, .end
                            the same for the agent of a helper, another worker of that attempt
        a<attempt>/         the tree as it came in
        journal             which parts of the tree were proven; see `journal`
        grafts              parts of the tree on other file systems; see `staging.grafts`
        opened, had, placed, copies
                            what publishing has begun with; see `publish.opened_folders`,
                            `publish.had_before`, `publish.across`

An agent uses only a folder that Ketter made; `ownership` decides that. Where the file system
keeps no owners, only the name decides: the worker has it on record and no other user can guess
it, or (`spare_id`) no earlier run had it, and this run begins with an empty folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress

from engine.agent import write_access
from engine.agent.target.journal import Journal
from engine.agent.target.locks import (
    busy,
    is_known,
    is_there,
    lock,
    open_lock,
    release,
    request_end,
)
from engine.agent.target.ownership import not_ours, write_note
from engine.agent.target.publish import opened_folders
from engine.agent.target.publish.delivered_archive import was_published
from engine.agent.target.staging import made_folders
from engine.agent.target.staging.made_folders import Made
from engine.agent.target.staging.names import checked, mark, remove_earlier
from engine.agent.target.staging.place import GATE, StagingGone, StagingPlace
from engine.agent.tree import Tree, close_all, list_names, remove_tree
from engine.agent.wire import AgentError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: Notes that the next attempt reads in a staging folder that it finds.
_NEEDED = ("times", "fence", "made")
#: Begins of names under which FUSE and NFS keep a removed file that a program has open.
_HIDDEN = (".fuse_hidden", ".nfs")
#: Tries to make or remove the folder while other agents do so at the same moment.
_TRIES = 100
#: Seconds to wait for the agents of a transfer that is being ended.
DYING_SECONDS = 5.0
#: The same where the folder is removed: a person may be waiting for it.
LEAVING_SECONDS = 3.0
#: Seconds to wait for a helper's agent: a slow disk may still be writing its data.
FENCE_OUT_SECONDS = 15.0
#: Seconds to wait until other agents have closed their files and the folder can be removed.
REMOVE_SECONDS = 8.0


class Staging(StagingPlace):
    """One attempt's place in the staging folder of a transfer: it is taken, used and removed."""

    def prepare(self, made: list[str], resume: bool = False) -> tuple[list[Made], bool]:
        """Take the place: fence out lower attempts, and start with an empty tree.

        With `resume`, start with the tree of the last attempt, once its agents have ended.
        Returns the folders that were made for the staging folder, by this attempt or by one that
        died, and True if the last attempt left something. If an agent that is ending removes the
        folder meanwhile, this one makes it again.
        """
        for _ in range(_TRIES):
            try:
                return self._prepare(made, resume)
            except FileNotFoundError:
                if self._is_in_place():
                    raise
            except StagingGone:
                time.sleep(0.05)  # The agent that removes the folder may not have finished.
            self._let_go()
            if not os.fstat(self._target).st_nlink:
                break
        raise AgentError("TARGET_BUSY", "another program removes the target folder at this moment")

    def _prepare(self, made: list[str], resume: bool) -> tuple[list[Made], bool]:
        self._enter(made)
        self._lock_attempt(DYING_SECONDS if resume else 0.0)
        with self._gate():
            if self._fence() > self._attempt:
                raise AgentError("REPLACED", "a newer attempt of this transfer has started")
            write_note(self._fd, "fence", str(self._attempt))
            opened_folders.put_back(self._target, self._fd)
            self._clear_copies()
            resume = resume and self._was_marked
            left = self._take_over() if resume else False
            if resume and not left and self._has_delivered():
                # No agent writes any more, even one that still lives; the records stay.
                left = True
                os.mkdir(f"a{self._attempt}", 0o700, dir_fd=self._fd)
            close_all(self.clear_grafts(but_keep=left))
            mine = (f"a{self._attempt}.lock", f"a{self._attempt}" if left else "")
            for name in list_names(self._fd):
                if (name[:1] == "a" and name not in mine) or (name == "journal" and not left):
                    remove_tree(self._fd, name)
            if not left:
                os.mkdir(f"a{self._attempt}", 0o700, dir_fd=self._fd)
            folders = made_folders.read(self._fd)
        self.attach()
        assert self.journal
        self.journal.repair()
        self.journal.start(self._attempt)
        return folders, left

    def _clear_copies(self) -> None:
        """Remove what an agent that was killed had copied beside its place."""
        if is_there(self._fd, "copies"):
            from engine.agent.target.publish.across import clear_copies  # It is seldom needed.

            clear_copies(self._target, self._fd)

    def clear_grafts(self, but_keep: bool = False) -> list[int]:
        """Remove what waits on other file systems; with `but_keep`, only what is gone there.

        Returns descriptors of the folders there, to be flushed.
        """
        if not is_there(self._fd, "grafts"):
            return []
        from engine.agent.target.staging import grafts  # Few targets have some.

        if but_keep:
            grafts.keep(self._target, self._fd)
            return []
        if self.tree and self.tree.grafts:
            self.tree.forget()
            self.tree.grafts.close()
            self.tree.grafts = None
        return grafts.clear(self._target, self._fd)

    def _enter(self, made: list[str]) -> None:
        """Open the folder; make it if it does not exist."""
        try:
            before = os.fstat(self._target).st_mtime_ns
            with write_access.writable(self._target):
                os.mkdir(self.name, 0o700, dir_fd=self._target)
            is_new = True
        except FileExistsError:
            is_new = False
        self._open()
        if is_new and not self.keeps_owners and list_names(self._fd):
            raise not_ours(self.name, "was empty when it was made, and is not any more")
        if not self.keeps_owners and self._spare_id not in ("", self.transfer_id):
            self._let_go()
            with write_access.writable(self._target):
                if is_new:
                    os.rmdir(self.name, dir_fd=self._target)
                remove_earlier(self._target, self.transfer_id)
            self.transfer_id = self._spare_id
            self._enter(made)
            return
        if is_new:
            made_folders.write(self._fd, made)
            times = [before, os.fstat(self._target).st_mtime_ns]
            write_note(self._fd, "times", str(times))
        mark(self._fd, self.name)

    def attach(self, label: str = "") -> None:
        """Use the place that another agent of the same attempt prepared.

        With a `label`, as the agent of a helper, which `fence_out` can end alone.
        """
        try:
            self._attach(label)
        except (OSError, AgentError):
            self._let_go()  # An agent that comes too early must not hold the lock against it.
            raise

    def _attach(self, label: str) -> None:
        self._open()
        whose = str(self._attempt)
        if whose not in self._locks:
            self._locks[whose] = open_lock(self._fd, whose)
        if not lock(self._locks[whose], 0.0, fcntl.LOCK_SH):
            raise busy()
        if label:
            self._label = checked(label)
            fd = self._locks[f"{whose}-{label}"] = open_lock(self._fd, f"{whose}-{label}")
            lock(fd, FENCE_OUT_SECONDS, fcntl.LOCK_SH)
            if self.is_over():
                raise AgentError("REPLACED", "this helper was shut out of the transfer")
        self.tree = Tree(self._open_tree())
        if is_there(self._fd, "grafts"):
            from engine.agent.target.staging import grafts  # Few targets have some.

            grafts.attach(self._target, self._fd, self.tree)
        self.journal = Journal(self._fd, self._machine)

    def _open_tree(self) -> int:
        name = f"a{self._attempt}"
        fd = os.open(name, _FOLDER, dir_fd=self._fd)
        if os.fstat(fd).st_dev != os.fstat(self._fd).st_dev:
            os.close(fd)
            raise not_ours(name, "in the staging folder lies on another file system")
        return fd

    def leave(self) -> None:
        """Close all files, so that the folder can be removed where open files would keep it."""
        if self.tree:
            self.tree.close()
        if self.journal:
            self.journal.close()
        self.tree = self.journal = None
        self._unlock()

    def fence_out(self, label: str) -> None:
        """End a helper's agent; return when it can write no more.

        Raises TARGET_BUSY if it does not end, say because its machine stands still.
        """
        whose = f"{self._attempt}-{checked(label)}"
        request_end(self._fd, whose)
        fd = open_lock(self._fd, whose)
        try:
            if not lock(fd, FENCE_OUT_SECONDS):
                raise AgentError(
                    "TARGET_BUSY",
                    f"the agent of helper {label} at the target does not end within "
                    f"{FENCE_OUT_SECONDS:.0f} s",
                )
        finally:
            release(fd)

    def _take_over(self) -> bool:
        """Give the last attempt's tree this one's name; False if there is none, or it is in use."""
        names = list_names(self._fd)
        numbers = [int(name[1:]) for name in names if name[:1] == "a" and name[1:].isdigit()]
        if not numbers or "journal" not in names:
            return False
        last = max(numbers)
        if last != self._attempt:
            fd = open_lock(self._fd, str(last))
            self._request_end(last)
            try:
                if not lock(fd, DYING_SECONDS) or not is_known(fd):
                    return False
                os.rename(f"a{last}", f"a{self._attempt}", src_dir_fd=self._fd, dst_dir_fd=self._fd)
            finally:
                release(fd)
        return True

    def _has_delivered(self) -> bool:
        """True if the archive of the transfer was moved out of the tree in which it came."""
        names = list_names(self._fd)
        if "journal" not in names:
            return False
        trees = [name for name in names if name[:1] == "a" and name[1:].isdigit()]

        def is_staged(name: str) -> bool:
            return any(is_there(self._fd, f"{tree}/{name}") for tree in trees)

        journal = Journal(self._fd, self._machine)
        try:
            return was_published(journal, is_staged)
        finally:
            journal.close()

    def remove(self) -> list[Made]:
        """Remove the staging folder if Ketter made one here; return the folders made for it."""
        try:
            self._open()
        except FileNotFoundError:
            return []
        made: list[Made] = []
        try:
            if not self._locks:
                self._request_end(self._attempt)
                self._lock_attempt(LEAVING_SECONDS)
            for _ in range(_TRIES):
                if self._removed(made):
                    return made
                # Another agent came meanwhile; the folder is its own if it has this number, too.
                self._lock_attempt(0.0)
        except (FileNotFoundError, StagingGone):
            if self._is_in_place():
                raise
            return made  # Another agent has removed it.
        raise AgentError("TARGET_BUSY", f"other agents use the staging folder {self.name}")

    def _removed(self, made: list[Made]) -> bool:
        """Remove the folder; False if something is still in it.

        Adds to `made` the folders that were made for it. Raises REPLACED if the folder is a newer
        attempt's by now.
        """
        with self._gate():
            if self._fence() > self._attempt:
                raise AgentError("REPLACED", "a newer attempt of this transfer has started")
            made += made_folders.read(self._fd)
            opened_folders.put_back(self._target, self._fd)
            self._clear_copies()
            close_all(self.clear_grafts())
            times = made_folders.read_list(self._fd, "times", int)
            if self.tree:
                self.tree.forget()
            # Slow removals come first: the next attempt needs the rest if this agent is killed.
            first = {*list_names(self._fd)} - {*_NEEDED, self.name, GATE}
            for name in (*first, self.name, *_NEEDED):
                if not name.startswith(_HIDDEN):  # It goes when the last agent has closed it.
                    remove_tree(self._fd, name)
            # Some file systems only hide open files when they are removed, which keeps the folder.
            self.leave()
            found = os.fstat(self._target)
            # An agent that waits for the gate sees that it is gone; a later one makes a new one.
            os.unlink(GATE, dir_fd=self._fd)
        if not self._remove_empty():
            return False
        if found.st_mtime_ns in times[1:]:
            # Only the staging folder came and went: restore the time from before.
            with suppress(OSError):
                os.utime(self._target, ns=(write_access.accessed(found), times[0]))
        return True

    def _remove_empty(self) -> bool:
        """Remove the folder once other agents have closed their files; False if one is in use.

        Raises TARGET_BUSY if they do not close them within REMOVE_SECONDS.
        """
        until = time.monotonic() + REMOVE_SECONDS
        while True:
            if not self._is_in_place():
                raise StagingGone  # Removed, or moved away: what has its name now is not ours.
            try:
                with write_access.writable(self._target):
                    os.rmdir(self.name, dir_fd=self._target)
                return True
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            names = list_names(self._fd)
            if not all(name.startswith(_HIDDEN) for name in names):
                return False
            if time.monotonic() > until:
                raise AgentError(
                    "TARGET_BUSY",
                    f"the staging folder {self.name} cannot be removed: another program has files "
                    f"in it open ({', '.join(names[:3])})",
                )
            time.sleep(0.02)
