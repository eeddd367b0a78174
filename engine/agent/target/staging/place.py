"""The place of one attempt in a staging folder: its descriptor, its locks, the gate.

`staging.folder` lists what a staging folder holds.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from engine.agent.target.journal import Journal
from engine.agent.target.locks import (
    LOCK_FILE,
    busy,
    is_there,
    leads_to,
    lock,
    open_lock,
    release,
    request_end,
)
from engine.agent.target.ownership import not_ours, open_plain, open_private, read_note
from engine.agent.target.staging.names import checked, is_marked, name_of
from engine.agent.tree import Tree, list_names
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import AgentError

if TYPE_CHECKING:
    from typing import Iterator

GATE = "gate"
#: The most digits of an attempt's number.
_DIGITS = 18
#: Seconds to wait for another attempt to leave the gate.
PATIENCE = 30.0


class StagingGone(AgentError):
    """Another agent removed the staging folder while this agent had it open."""

    def __init__(self) -> None:
        super().__init__("REPLACED", "the staging folder is gone")


class StagingPlace:
    """One attempt's place in the staging folder of a transfer; the folder need not exist yet."""

    def __init__(
        self, target: int, transfer_id: str, attempt: int, machine: str, spare_id: str = ""
    ) -> None:
        self._target = target
        self._attempt = attempt
        self._machine = machine
        #: The id in the folder's name.
        self.transfer_id = checked(transfer_id)
        self._spare_id = spare_id
        self._fd = -1
        #: The lock files that are open, by whose they are: the attempt's ("2"), a helper's
        #: ("2-label"). By their locks other agents see that this one is alive.
        self._locks: dict[str, int] = {}
        self._label = ""
        #: True if the file system keeps the owner and the mode of a file.
        self.keeps_owners = True
        #: True if the open folder was marked, so that its journal is a staging folder's.
        self._was_marked = False
        self.tree: Tree | None = None
        self.journal: Journal | None = None

    @property
    def name(self) -> str:
        """The name of the folder."""
        return name_of(self.transfer_id)

    def is_used(self) -> bool:
        """True if a folder of this name exists that a run of this transfer may have made.

        Where no owners are kept and there is a spare id, only a folder of that id is a run's.
        """
        try:
            self._open()
        except FileNotFoundError:
            return False
        return self.keeps_owners or self._spare_id in ("", self.transfer_id)

    def _is_in_place(self) -> bool:
        """True if the folder's name still leads to the open folder."""
        return self._fd >= 0 and leads_to(self._target, self.name, self._fd)

    def _let_go(self) -> None:
        """Close the folder and the locks."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._unlock()

    def _unlock(self) -> None:
        while self._locks:
            release(self._locks.popitem()[1])

    @property
    def fd(self) -> int:
        """The descriptor of the staging folder."""
        return self._open()

    def is_over(self) -> bool:
        """True if another agent wants this place: a slow line may feed this agent for long."""
        whose = {str(self._attempt), f"{self._attempt}-{self._label}"}
        return any(is_there(self._fd, f"a{name}.end") for name in whose)

    def _request_end(self, last: int) -> None:
        """Ask the agents of all attempts up to number `last` to end."""
        for name in list_names(self._fd):
            number, _, ending = name[1:].partition(".")
            if ending == "lock" and number.isdigit() and int(number) <= last:
                request_end(self._fd, number)

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Hold the gate; raises REPLACED if a newer attempt has raised the fence."""
        with self._gate():
            self.refuse_replaced()
            yield

    def refuse_replaced(self) -> None:
        """Raise REPLACED if a newer attempt has raised the fence."""
        if self._fence() != self._attempt:
            raise AgentError("REPLACED", "a newer attempt of this transfer has started")

    def _open(self) -> int:
        if self._fd < 0:
            self._fd, self.keeps_owners = open_private(self._target, self.name)
            try:
                self._was_marked = is_marked(self._fd, self.name, self.keeps_owners)
            except BaseException:
                self._let_go()
                raise
        return self._fd

    def _lock_attempt(self, patience: float) -> None:
        """Make sure that no other agent works under this number, as a second run would."""
        whose = str(self._attempt)
        fd = self._locks[whose] = open_lock(self._fd, whose)
        if not lock(fd, patience):
            raise busy()
        if not leads_to(self._fd, f"a{whose}.lock", fd):
            raise StagingGone  # The agent that had the lock is removing the folder.

    def _fence(self) -> int:
        text = read_note(self._fd, "fence") or "0"
        if not text.isdecimal() or len(text) > _DIGITS:
            raise not_ours("fence", "in the staging folder holds no number")
        return int(text)

    @contextmanager
    def _gate(self) -> Iterator[None]:
        try:
            fd = open_plain(self._fd, GATE, LOCK_FILE)
        except FileNotFoundError:
            # Another agent has ended this transfer and removed the open folder.
            raise StagingGone from None
        try:
            if not lock(fd, PATIENCE):
                raise AgentError(
                    "TARGET_BUSY",
                    "another attempt of this transfer has been publishing or cleaning up at the "
                    f"target for {PATIENCE:.0f} s",
                )
            if not leads_to(self._fd, GATE, fd):
                raise StagingGone
            yield
        finally:
            release(fd)
