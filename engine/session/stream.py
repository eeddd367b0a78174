"""Stream: a sender, a receiver, and the pipe between them."""

from __future__ import annotations

import contextlib
import fcntl
from typing import Any

from engine import errors
from engine.connect.agent_process import AgentProcess
from engine.connect.inbox import Inbox
from engine.protocol.commands import EXPECT, RECEIVE, RELAY, Command
from engine.types import Endpoint

_PIPE_BYTES = 1 << 20


class Stream:
    """A sender and a receiver, joined by a pipe that the worker's Python never reads.

    Until the first parcel is sent, the worker writes to the receiver itself. From then on until
    all parcels have arrived, only the sender writes to that pipe; `order` makes it relay the
    worker's commands.
    """

    def __init__(
        self, inbox: Inbox, source: Endpoint, target: Endpoint, sibling: Stream | None = None
    ) -> None:
        #: By command, the orders without a reply from the receiver yet.
        self._orders: dict[str, int] = {}
        self.target: AgentProcess = AgentProcess(
            inbox, target, sibling=sibling.target if sibling else None
        )
        self.source: AgentProcess = AgentProcess(
            inbox, source, self.target.child.stdin, sibling.source if sibling else None
        )
        self.target.child.is_disturbed = lambda: self.source.listener.is_shared
        for agent in (self.target, self.source):
            # Room for a whole program, so that the worker need not wait for a starting agent.
            # Linux only; elsewhere the pipe is smaller.
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(agent.child.stdin, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @property
    def has_orders(self) -> bool:
        """True while the receiver owes a reply: until it comes only the sender writes to it."""
        return any(self._orders.values())

    def send_programs(self) -> None:
        """Send both agents their programs."""
        self.target.send_program()
        self.source.send_program()

    def order(self, command: Command[Any], blob: bytes = b"", **arguments: Any) -> None:
        """Send the receiver a command between parcels; its reply comes through the inbox."""
        self._orders[command.op] = self._orders.get(command.op, 0) + 1
        # After its announcement, a parcel comes.
        self.target.listener.pulse.give(command, *([RECEIVE] if command is EXPECT else []))
        self.source.send(RELAY, self.target.sealed(command, blob, **arguments))

    def answered(self, op: str) -> None:
        """Count the receiver's reply to an order; raises AgentFailed if no order waits for one."""
        if not self._orders.get(op):
            raise errors.AgentFailed(
                f"protocol error at {self.target.place}: unexpected reply to {op}"
            )
        self._orders[op] -= 1

    def close(self) -> None:
        """Close both agents' inputs; the worker waits for no more replies."""
        self.source.close()
        self.target.close()
