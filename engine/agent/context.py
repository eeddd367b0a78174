"""What all commands of an agent share: its `Charge`, the open folder, the messages it sends."""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import suppress

from engine.agent.inodes import keeps, watch
from engine.agent.tree import Tree, open_real, resolve
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import JSON, AgentError, EndOfStream, encode, show, write_all

if TYPE_CHECKING:
    from typing import Any, Callable

#: Seconds between two reports of progress.
PROGRESS_SECONDS = 0.3


class Charge:
    """The place below one root, and the transfer, that an agent is for.

    The first commands name them. `check` refuses a later command that names another root, place
    or transfer, whichever host sent it. A single file's agents also work in the file's folder.
    A source's agent removes only if it was opened for that.
    """

    def __init__(self, role: str) -> None:
        self._is_source = role == "source"
        self._fixing = ("open", "stage") if self._is_source else ("stage",)
        self._is_found = False
        #: True if the place was opened to be moved; None before it was opened.
        self._removes: bool | None = None
        self._root: str | None = None
        self._first = self._real = ""
        self._places: set[str] = set()
        self._transfers: set[str | None] = set()
        self._attempt = 0

    def check(self, op: str, command: dict[str, Any]) -> None:
        """Raise AGENT_FAILED if a command names another place or transfer than the first ones.

        Also if it removes what was opened for a copy.
        """
        if "root" in command:
            self._check_place(
                op, command["root"], command["path"].rstrip("/"), command.get("real_root", "")
            )
        elif "real_root" in command:
            raise AgentError("AGENT_FAILED", f"the command {op} has no root, and a real path of it")
        if "transfer_id" in command:
            self._check_transfer(command)
        if op == "open":
            self._removes = self._removes is not False and command.get("removes", False)
        elif op.startswith("remove") and not self._removes:
            raise AgentError("AGENT_FAILED", "this agent's place was not opened to be removed from")

    def _check_transfer(self, command: dict[str, Any]) -> None:
        """Check a transfer's id: it may also be the spare id that came with the first one."""
        transfer, attempt = command["transfer_id"], command["attempt"]
        if not self._transfers:
            self._transfers, self._attempt = {transfer, command.get("spare_id")}, attempt
        names = {transfer, command.get("spare_id") or transfer}
        if not names <= self._transfers or attempt != self._attempt:
            raise AgentError(
                "AGENT_FAILED",
                f"this agent is for attempt {self._attempt} of a transfer, and the command for "
                f"another transfer, or for attempt {attempt!r:.20}",
            )

    def found(self, below_root: str | None, kind: str = "") -> None:
        """Accept the place's real path, too, once it was inspected: symlinks may lead to it.

        A source that is a folder is opened itself, so the one above it is not accepted any more.
        """
        if below_root is None or self._is_found:
            return
        self._is_found = True
        if self._is_source and kind == "folder":
            self._places = {self._first, below_root}
        else:
            self._places |= {below_root, os.path.dirname(below_root)}

    def _check_place(self, op: str, root: str, path: str, real: str) -> None:
        if self._root is None:
            self._root, self._first, self._places = root, path, {path, os.path.dirname(path)}
        if self._real not in ("", real):
            raise AgentError(
                "AGENT_FAILED", f"this agent is for the root {show(self._real)}, not {show(real)}"
            )
        self._real = real
        if root != self._root or path not in self._places:
            asked, first = (
                show(os.path.join(*place)) for place in ((root, path), (self._root, self._first))
            )
            raise AgentError("AGENT_FAILED", f"this agent is for {first}, and not for {asked}")
        if op in self._fixing:
            self._places = {path}


class Context:
    """The state that an agent keeps from one command to the next."""

    def __init__(self) -> None:
        self._sending = threading.Lock()
        self._last_report = 0.0
        self._read = 0
        self._tree: Tree | None = None
        #: Reads a command while another one is carried out; set by the agent.
        self.listen: Callable[[], None] = lambda: None
        #: Called by another thread: true while payload waits for the receiver to take it.
        self.waits: Callable[[], bool] = lambda: False
        #: Called by another thread: true if another agent asks this one to end.
        self.is_over: Callable[[], bool] = lambda: False
        self._sibling = 0
        #: Folders of a target, by path, at which another file system begins; and what is called
        #: with each that is found.
        self.mounts: list[str] = []
        self.on_mount: Callable[[str], None] = lambda path: None
        #: The root's real path: on record, or as it was at the first use.
        self.real_root = ""

    def send(self, body: dict[str, Any], blob: bytes = b"") -> None:
        """Send one message to the worker."""
        with self._sending:
            write_all(2, encode(JSON, body, blob))

    def watch_sibling(self, sibling: int) -> None:
        """Watch the agent whose SSH connection this one shares (a process id; 0 for none).

        If that agent ends, ssh does not report it: the connection stays open for this one.
        """
        self._sibling = sibling

    def sibling_lives(self) -> bool:
        """True if the watched agent still runs, or none is watched."""
        return not self._sibling or self._lives(self._sibling)

    def end_if_alone(self) -> None:
        """Raise EndOfStream if the worker is gone; see `controller_gone`."""
        if self.controller_gone():
            raise EndOfStream

    @staticmethod
    def controller_gone() -> bool:
        """True if the worker has closed stdin, even if unread commands remain.

        That is so if this agent stood still meanwhile: others have taken over, and may be done.
        """
        commands = select.poll()
        commands.register(0, select.POLLIN)
        return any(event & select.POLLHUP for _, event in commands.poll(0))

    @staticmethod
    def _lives(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True  # Another user's process: the number is in use.
        return True

    def progress(self, done: int, parcel: int = 0) -> None:
        """Report the bytes done of a parcel, if PROGRESS_SECONDS have passed."""
        now = time.monotonic()
        if now - self._last_report >= PROGRESS_SECONDS:
            self._last_report = now
            self.send({"progress": done, "parcel": parcel})

    def read(self, size: int) -> None:
        """Count bytes that were read to be hashed, and report them."""
        self._read += size
        self.progress(self._read)

    def place(self, root: str, path: str) -> str:
        """The real path of a place below the root; the root's real path is kept from first use."""
        if not self.real_root:
            self.real_root = os.path.realpath(root)
        return resolve(root, path, self.real_root)

    def open(self, root: str, path: str, make: bool) -> list[str]:
        """Open a folder as the tree of the next commands; return the folders made for it."""
        real = self.place(root, path)
        fd, made = open_real(real, make)
        if self._tree:
            self._tree.close()
        self._tree = Tree(fd, real)
        watch(fd)
        return made

    def check_in_place(self) -> None:
        """Raise ROOT_MOVED if the open folder is no longer at its path.

        Another user may own the folder above it. What is moved away meanwhile has not arrived.
        """
        found, there = os.fstat(self.tree.fd), None
        if not keeps(found.st_dev, self.tree.fd, "."):
            return  # Then nothing shows whether it is the same folder.
        with suppress(AgentError):
            fd, _ = open_real(self.real)
            there = os.fstat(fd)
            os.close(fd)
        if there is None or not os.path.samestat(found, there):
            raise AgentError(
                "ROOT_MOVED",
                f"the folder {show(self.real)} was moved away or replaced during the transfer: "
                "what has arrived is in the folder that was there when it began",
            )

    @property
    def real(self) -> str:
        """The real path of the open folder; "" if none is open."""
        return self._tree.real if self._tree else ""

    @property
    def tree(self) -> Tree:
        """The open folder; raises AGENT_FAILED if none is open."""
        if self._tree is None:
            raise AgentError(
                "AGENT_FAILED", "protocol error: a command came that needs an open folder"
            )
        return self._tree
