"""What all commands of an agent share: the folder that is open, and the way to speak."""

from __future__ import annotations

import os
import select
import threading
import time
from typing import Any, Callable

from engine.agent.tree import Tree, open_real, resolve
from engine.agent.wire import JSON, AgentError, encode, write_all

#: Seconds between two reports of progress.
PROGRESS_SECONDS = 0.3


class Desk:
    """The state that is left from one command to the next, whatever the commands are."""

    def __init__(self) -> None:
        self._speaking = threading.Lock()
        self._last_report = 0.0
        self._read = 0
        self._tree: Tree | None = None
        #: Takes in a command while another one is at work; set by the agent.
        self.listen: Callable[[], None] = lambda: None
        #: Says, from another thread, whether what this agent is at is not wanted any more.
        self.is_over: Callable[[], bool] = lambda: False
        self._beside = 0

    def say(self, body: dict[str, Any], blob: bytes = b"") -> None:
        """Send one answer."""
        with self._speaking:
            write_all(2, encode(JSON, body, blob))

    def watch(self, beside: int) -> None:
        """Have an eye on the agent whose connection we share (a process; 0 for none).

        Of its end ssh would say nothing: the connection stays, for us.
        """
        self._beside = beside

    def all_live(self) -> bool:
        """Whether the agent lives that we have an eye on."""
        return not self._beside or self._lives(self._beside)

    @staticmethod
    def is_forsaken() -> bool:
        """Whether whoever gave us commands has gone, though some of them wait to be read.

        So it is where we stood still meanwhile: others have taken over, and may be done.
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
            return True  # Another user's: it has changed hands.
        return True

    def progress(self, done: int, parcel: int = 0) -> None:
        """Report how many bytes of a parcel are done, if it is time for that."""
        now = time.monotonic()
        if now - self._last_report >= PROGRESS_SECONDS:
            self._last_report = now
            self.say({"progress": done, "parcel": parcel})

    def read(self, size: int) -> None:
        """So many more bytes were read to be hashed."""
        self._read += size
        self.progress(self._read)

    def open(self, root: str, path: str, make: bool) -> list[str]:
        """Open a folder as the tree of the commands that follow; return the folders made for it."""
        real = resolve(root, path)
        fd, made = open_real(real, make)
        if self._tree:
            self._tree.close()
        self._tree = Tree(fd, real)
        return made

    @property
    def real(self) -> str:
        """The path of the folder that is open."""
        return self._tree.real if self._tree else ""

    @property
    def tree(self) -> Tree:
        """The folder that is open."""
        if self._tree is None:
            raise AgentError("AGENT_FAILED", "no folder is open")
        return self._tree
