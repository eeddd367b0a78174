"""AgentProcess: the worker's end of one agent; sends it commands and returns its replies."""

from __future__ import annotations

import time
from typing import Any

from engine import errors
from engine.agent import wire
from engine.connect import bundle
from engine.connect.access import Access, access_to
from engine.connect.child import Child
from engine.connect.inbox import Inbox
from engine.connect.listener import Listener
from engine.protocol.commands import (
    DISCARD,
    EXPECT,
    LEAVE,
    RATE,
    RELAY,
    Command,
    Reply,
)
from engine.protocol.fields import Failure
from engine.protocol.messages import Done, Failed, Hello
from engine.types import Endpoint

#: Commands whose replies the worker does not wait for: they may come late.
_NOT_AWAITED = {command.op for command in (RATE, RELAY, EXPECT, DISCARD, LEAVE)}
#: Stands in for the last message of an agent if another one, on the same connection, misses it.
_KILLED = Failed(Failure("CONNECTION_LOST", "the agent at the far end was killed"))


class AgentProcess:
    """One agent: a process on this machine, or behind an OpenSSH client.

    `sibling` is another agent on the same host, whose connection this one may share.
    """

    def __init__(
        self,
        inbox: Inbox,
        endpoint: Endpoint,
        stdout: int | None = None,
        sibling: AgentProcess | None = None,
    ) -> None:
        self._inbox, self._sibling = inbox, sibling
        self._token = bundle.new_token()
        self._seal = wire.Seal(self._token)
        self.access: Access = access_to(endpoint, sibling.access if sibling else None)
        #: The agent's process id at its host; 0 until it has introduced itself.
        self.pid = 0
        #: True if the transfer goes on when the agent ends; its end is then the message `Lost`.
        self.optional = False
        #: True for a target's agent, False for a source's.
        self.is_target = stdout is None
        #: Seconds from the last `request` to its reply.
        self.answered_in = 0.0
        #: True once the agent has introduced itself.
        self.greeted = False
        self.child = Child(inbox.check)
        self.listener = Listener(
            self.place, lambda message: inbox.put(self, message), self._sibling_died
        )
        # Before the start: if that raises, `Inbox.close` ends this agent, too.
        inbox.agents.append(self)
        self._start(stdout)

    @property
    def place(self) -> str:
        """The host's name for people."""
        return self.access.place

    @property
    def shared_with(self) -> int:
        """Process id of the agent whose connection this one shares; 0 if it has its own."""
        return self._sibling.pid if self._sibling and self.access.is_shared else 0

    def send_program(self) -> None:
        """Send the agent its key and program.

        Not part of the start, so that other agents start meanwhile. The sender may already write
        into a receiver's pipe, but it has no key.
        """
        program = bundle.program(here=not self.access.is_remote, of_target=self.is_target)
        if self.access.is_remote:
            self.child.write(bundle.FIRST_LINE)
        self.child.write_at_once(bundle.sealed(program, self._token))

    def greet(self) -> Hello:
        """Wait until the agent has introduced itself, then let it trust this worker."""
        hello: Hello = self._inbox.wait_for(self, Hello)
        self.pid = hello.pid
        self.welcome()
        return hello

    def welcome(self) -> None:
        """Send an agent that has introduced itself the token, so that it trusts this worker.

        A plus sign after it: from now on all that is for the agent comes in pieces.
        """
        self.greeted = True
        self.access.after_login()
        is_shared = self.child.is_disturbed()
        self.child.write(self._token.encode("ascii") + (b"+" if is_shared else b"\n"))
        self.child.is_shared = is_shared

    def sealed(self, command: Command[Any], blob: bytes = b"", **arguments: Any) -> bytes:
        """Return a command's sealed frame; the agent takes frames only in the order of sealing."""
        return self._seal.frame({"op": command.op, **arguments}, blob)

    def send(self, command: Command[Any], blob: bytes = b"", **arguments: Any) -> None:
        """Send a command; its reply comes through the inbox."""
        self.listener.pulse.give(command)
        self.child.write(self.sealed(command, blob, **arguments))

    def request(self, command: Command[Reply], blob: bytes = b"", **arguments: Any) -> Reply:
        """Send a command and wait for its reply."""
        began = time.monotonic()
        self.send(command, blob, **arguments)
        reply = self.reply(command)
        self.answered_in = time.monotonic() - began
        return reply

    def reply(self, command: Command[Reply]) -> Reply:
        """Wait for the reply to a command that was sent earlier."""
        while True:
            done: Done = self._inbox.wait_for(self, Done)
            if done.op == command.op:
                reply: Reply = done.reply
                return reply
            if done.op not in _NOT_AWAITED:
                raise errors.AgentFailed(
                    f"protocol error at {self.place}: reply to {done.op}, expected {command.op}"
                )

    def close(self) -> None:
        """Close the agent's input; the agent then ends by itself."""
        self.listener.close()
        self.child.close_input()

    def dispose(self, until: float) -> None:
        """Remove the agent's thread, stream and files from the worker's machine.

        It waits for the thread until `until` (monotonic clock) at most.
        """
        self.listener.dispose(until)
        self.access.dispose()

    def _start(self, stdout: int | None) -> None:
        line, env = self.access.command(self._token)
        try:
            stream = self.child.start(line, env, stdout)
        except (FileNotFoundError, PermissionError) as error:
            raise errors.AgentFailed(f"{error.filename} cannot be started: {error}") from error
        assert self.child.process
        self.access.started(self.child.process.pid)
        self.listener.start(stream)

    def _sibling_died(self) -> None:
        if self._sibling:
            self._inbox.put(self._sibling, _KILLED)
