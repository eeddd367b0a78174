"""The staging folder: where an attempt's data waits, and the fence around publishing.

At the top of the target folder, so that publishing is a rename:

    .ketter-<id>.part/      mode 0700
        gate                locked while anybody publishes, cleans or raises the fence
        fence               the number of the highest attempt so far
        made                JSON: the folders that were made to get here
        times               JSON: the target folder's time before this folder was made, and after
        a<attempt>.lock     locked by the live agents of that attempt
        a<attempt>.end      tells them to end: what is still on its way to them is not wanted
        a<attempt>-<label>.lock, .end
                            likewise for the agent of a helper: another worker of that attempt
        a<attempt>/         the tree as it came in
        journal             what of it was proven; see `journal`
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from contextlib import contextmanager, suppress
from typing import Iterator

from engine.agent.delivered import has_left
from engine.agent.journal import Journal
from engine.agent.tree import Tree, remove_tree
from engine.agent.wire import STAGING_PREFIX, STAGING_SUFFIX, AgentError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

#: What an attempt has to know that comes upon a staging folder.
_NEEDED = ("times", "fence", "made")
_GATE = "gate"
#: How often to begin again where others come and go at the same moment.
_TRIES = 100
#: Seconds to wait for another attempt to leave the gate.
PATIENCE = 30.0
#: Seconds to wait for the agent of a transfer that is being ended.
DYING_SECONDS = 5.0
#: Seconds to wait for a helper's agent: it may be having its data written to a slow disk.
SHUT_OUT_SECONDS = 15.0


class _Gone(AgentError):
    def __init__(self) -> None:
        super().__init__("REPLACED", "the staging folder is gone")


class Staging:
    """One attempt's place in the staging folder of a transfer."""

    def __init__(self, target: int, transfer_id: str, attempt: int, machine: str) -> None:
        _checked(transfer_id)
        self._target = target
        self._attempt = attempt
        self._machine = machine
        self.name = f"{STAGING_PREFIX}{transfer_id}{STAGING_SUFFIX}"
        self._fd = -1
        self._own_lock = -1
        self._label = ""
        self.tree: Tree | None = None
        self.journal: Journal | None = None

    def prepare(self, made: list[str], resume: bool = False) -> tuple[list[str], bool]:
        """Take the place: shut out lower attempts, and start empty.

        Or, with `resume`, with what the last attempt left, once it has ended.
        Returns the folders that were made for it, by us or by an attempt that
        died, and whether something was left. Where a dying agent removes the
        folder meanwhile, it is made anew.
        """
        for _ in range(_TRIES):
            try:
                return self._prepare(made, resume)
            except FileNotFoundError:
                if self._is_in_place():
                    raise
            except _Gone:
                time.sleep(0.05)  # Perhaps whoever removes it is not done.
            self._let_go()
            if not os.fstat(self._target).st_nlink:
                break
        raise AgentError("TARGET_BUSY", "somebody removes the target folder at this moment")

    def _prepare(self, made: list[str], resume: bool) -> tuple[list[str], bool]:
        try:
            before = os.fstat(self._target).st_mtime_ns
            os.mkdir(self.name, 0o700, dir_fd=self._target)
            times = [before, os.fstat(self._target).st_mtime_ns]
            _write(self._open(), "made", json.dumps(made))
            _write(self._fd, "times", json.dumps(times))
        except FileExistsError:
            self._open()
        self._lock_attempt(DYING_SECONDS if resume else 0.0)
        with self._gate():
            if self._fence() > self._attempt:
                raise AgentError("REPLACED", "a newer attempt of this transfer has started")
            _write(self._fd, "fence", str(self._attempt))
            left = self._take_over() if resume else False
            if resume and not left and self._has_delivered():
                # Nothing is written any more, whoever may still live; what is known stays.
                left = True
                os.mkdir(f"a{self._attempt}", 0o700, dir_fd=self._fd)
            mine = (f"a{self._attempt}.lock", f"a{self._attempt}" if left else "")
            for name in os.listdir(self._fd):
                if (name[:1] == "a" and name not in mine) or (name == "journal" and not left):
                    remove_tree(self._fd, name)
            if not left:
                os.mkdir(f"a{self._attempt}", 0o700, dir_fd=self._fd)
            made = self._made()
        self.attach()
        assert self.journal
        self.journal.repair()
        self.journal.start(self._attempt)
        return made, left

    def _is_in_place(self) -> bool:
        """Whether the folder that is open is the one that stands there."""
        return self._fd >= 0 and _leads_to(self._target, self.name, self._fd)

    def _let_go(self) -> None:
        for fd in (self._fd, self._own_lock):
            if fd >= 0:
                os.close(fd)
        self._fd = self._own_lock = -1

    def attach(self, label: str = "") -> None:
        """Use the place that another agent of the same attempt prepared.

        With a `label` as a helper's, which can be shut out alone (`shut_out`).
        """
        try:
            self._attach(label)
        except (OSError, AgentError):
            self._let_go()  # Who comes too early must not keep the place from who prepares it.
            raise

    def _attach(self, label: str) -> None:
        self._open()
        if self._own_lock < 0:
            self._own_lock = self._open_lock(str(self._attempt))
        if not _lock(self._own_lock, 0.0, fcntl.LOCK_SH):
            raise AgentError("TARGET_BUSY", "another run of this transfer is at work at the target")
        if label:
            self._label = _checked(label)
            fcntl.flock(self._open_lock(f"{self._attempt}-{label}"), fcntl.LOCK_SH)
            if self.is_over():
                raise AgentError("REPLACED", "this helper was shut out of the transfer")
        self.tree = Tree(os.open(f"a{self._attempt}", _FOLDER, dir_fd=self._fd))
        self.journal = Journal(self._fd, self._machine)

    @property
    def fd(self) -> int:
        """The staging folder itself."""
        return self._open()

    def is_over(self) -> bool:
        """Whether another agent wants our place: a slow line may go on feeding us for long."""
        whose = {str(self._attempt), f"{self._attempt}-{self._label}"}
        return any(_is_there(self._fd, f"a{name}.end") for name in whose)

    def shut_out(self, label: str) -> None:
        """Have a helper's agent end, and return when it can write no more.

        TARGET_BUSY if it does not end, say because its machine stands still.
        """
        whose = f"{self._attempt}-{_checked(label)}"
        self._end(whose)
        lock = self._open_lock(whose)
        try:
            if not _lock(lock, SHUT_OUT_SECONDS):
                raise AgentError("TARGET_BUSY", "a helper's agent at the target does not end")
        finally:
            os.close(lock)

    def _tell_to_end(self, last: int) -> None:
        """Have the agents of all attempts up to one end."""
        for name in os.listdir(self._fd):
            number, _, ending = name[1:].partition(".")
            if ending == "lock" and number.isdigit() and int(number) <= last:
                self._end(number)

    def _end(self, whose: str) -> None:
        os.close(os.open(f"a{whose}.end", _LOCK, 0o600, dir_fd=self._fd))

    def _take_over(self) -> bool:
        """Make the last attempt's tree ours; False if there is none, or it is still written to."""
        names = os.listdir(self._fd)
        numbers = [int(name[1:]) for name in names if name[:1] == "a" and name[1:].isdigit()]
        if not numbers or "journal" not in names:
            return False
        last = max(numbers)
        if last != self._attempt:
            lock = self._open_lock(str(last))
            self._tell_to_end(last)
            try:
                if not _lock(lock, DYING_SECONDS):
                    return False
                os.rename(f"a{last}", f"a{self._attempt}", src_dir_fd=self._fd, dst_dir_fd=self._fd)
            finally:
                os.close(lock)
        return True

    def _has_delivered(self) -> bool:
        """Whether the archive of the transfer has left the tree in which it came."""
        names = os.listdir(self._fd)
        if "journal" not in names:
            return False
        trees = [name for name in names if name[:1] == "a" and name[1:].isdigit()]

        def is_staged(name: str) -> bool:
            return any(_is_there(self._fd, f"{tree}/{name}") for tree in trees)

        journal = Journal(self._fd, self._machine)
        try:
            return has_left(journal, is_staged)
        finally:
            journal.close()

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Hold the gate; REPLACED if a newer attempt was here."""
        with self._gate():
            if self._fence() != self._attempt:
                raise AgentError("REPLACED", "a newer attempt of this transfer has started")
            yield

    def remove(self) -> list[str]:
        """Remove the staging folder if it is there and ours; return the folders made for it."""
        try:
            self._open()
        except FileNotFoundError:
            return []
        made: list[str] = []
        try:
            if self._own_lock < 0:
                self._tell_to_end(self._attempt)
                self._lock_attempt(DYING_SECONDS)
            if any(self._removed(made) for _ in range(_TRIES)):
                return made
        except (FileNotFoundError, _Gone):
            if self._is_in_place():
                raise
            return made  # Somebody else has removed it.
        raise AgentError("TARGET_BUSY", "somebody writes into the staging folder all the time")

    def _removed(self, made: list[str]) -> bool:
        """Remove the folder; False if somebody has made something in it meanwhile.

        Adds to `made` what was made for it. REPLACED if it is a newer attempt's by now.
        """
        with self._gate():
            if self._fence() > self._attempt:
                raise AgentError("REPLACED", "a newer attempt of this transfer has started")
            made += self._made()
            times = json.loads(_read(self._fd, "times") or "[]")
            if self.tree:
                self.tree.forget()
            # What may take long comes first: the next attempt needs the rest if we are killed.
            for name in (*({*os.listdir(self._fd)} - {*_NEEDED, _GATE}), *_NEEDED):
                remove_tree(self._fd, name)
            found = os.fstat(self._target)
            # Who waits for the gate sees that it is gone; who comes later makes a new one.
            os.unlink(_GATE, dir_fd=self._fd)
            try:
                os.rmdir(self.name, dir_fd=self._target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return False
            if found.st_mtime_ns in times[1:]:
                # Nothing but this folder came and went: that need not show.
                with suppress(OSError):
                    os.utime(self._target, ns=(found.st_atime_ns, times[0]))
        return True

    def _open(self) -> int:
        if self._fd < 0:
            self._fd = os.open(self.name, _FOLDER, dir_fd=self._target)
        return self._fd

    def _lock_attempt(self, patience: float) -> None:
        """Make sure that no other agent works under our number: not a second run of a command."""
        self._own_lock = self._open_lock(str(self._attempt))
        if not _lock(self._own_lock, patience):
            raise AgentError("TARGET_BUSY", "another run of this transfer is at work at the target")

    def _open_lock(self, whose: str) -> int:
        return os.open(f"a{whose}.lock", _LOCK, 0o600, dir_fd=self._fd)

    def _made(self) -> list[str]:
        made: list[str] = json.loads(_read(self._fd, "made") or "[]")
        return made

    def _fence(self) -> int:
        return int(_read(self._fd, "fence") or "0")

    @contextmanager
    def _gate(self) -> Iterator[None]:
        try:
            fd = os.open(_GATE, _LOCK, 0o600, dir_fd=self._fd)
        except FileNotFoundError:
            # The folder was removed while we had it open: somebody else ended this transfer.
            raise _Gone from None
        try:
            if not _lock(fd, PATIENCE):
                raise AgentError("TARGET_BUSY", "another attempt is publishing at the target")
            if not _leads_to(self._fd, _GATE, fd):
                raise _Gone
            yield
        finally:
            os.close(fd)


def _checked(name: str) -> str:
    """A name that is part of a file's, if it is one."""
    if not name or not all(c.isalnum() or c == "-" for c in name):
        raise AgentError("BAD_REQUEST", "an id holds other than letters and digits")
    return name


def _lock(fd: int, patience: float, how: int = fcntl.LOCK_EX) -> bool:
    """Lock a file against other agents; False if one holds it for so many seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
        time.sleep(0.05)


def _is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def _leads_to(folder: int, name: str, fd: int) -> bool:
    """Whether that name still is what is open."""
    try:
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))


def _write(folder: int, name: str, text: str) -> None:
    fd = os.open(
        name + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600, dir_fd=folder
    )
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)
    os.rename(name + ".new", name, src_dir_fd=folder, dst_dir_fd=folder)


def _read(folder: int, name: str) -> str:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return ""
    try:
        return os.read(fd, 1 << 20).decode("ascii")
    finally:
        os.close(fd)
