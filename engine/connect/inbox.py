"""Inbox: receives the messages of all agents in one thread, and ends all agents."""

from __future__ import annotations

import math
import signal
import time
from _queue import Empty, SimpleQueue  # The module `queue` around them takes long to import.
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine import errors
from engine.connect.child import CHECK_SECONDS
from engine.connect.endings import (
    ENDING_SECONDS,
    ORDERLY,
    blame_rank,
    cause_of_death,
    error_of,
    stalled,
    terminate,
)
from engine.connect.listener import Patience
from engine.protocol.messages import Failed, Lost, Message

if TYPE_CHECKING:
    from engine.connect.agent_process import AgentProcess

#: Seconds between two checks, beyond which the worker itself was stopped and no agent was silent.
ASLEEP_SECONDS = 10.0
#: Seconds to wait for the cause when an agent has ended: another agent may report it.
CAUSE_SECONDS = 0.5
#: The same if no end that is known can be the cause: a busy machine is late with ssh's.
LATE_CAUSE_SECONDS = 5.0


class Inbox:
    """Receives the messages of all agents, in the caller's thread.

    `checkpoint` is called every quarter of a second while the caller waits; it may raise.
    Agents that do not get on are given up as `patience` says.
    """

    def __init__(self, checkpoint: Callable[[], None], patience: Patience | None = None) -> None:
        self._checkpoint = checkpoint
        self._patience = patience or Patience.usual()
        #: Bytes that the source has announced: a step may take longer by the time to read them.
        self.announced = 0
        self._arrived: SimpleQueue[tuple[AgentProcess, Message | None]] = SimpleQueue()
        #: Messages for later; never an error or an end, which are raised when they arrive.
        self._kept: deque[tuple[AgentProcess, Message]] = deque()
        self._checked = 0.0
        self.agents: list[AgentProcess] = []

    def put(self, agent: AgentProcess, message: Message | None) -> None:
        """Add an agent's message, or None for its end; the reading threads call this."""
        self._arrived.put((agent, message))

    def next(self) -> tuple[AgentProcess, Message]:
        """Return the next message of any agent.

        Raises the error that ended an agent, and errors of the checkpoint.
        """
        item = self.next_within(math.inf)
        assert item is not None  # An infinite time does not pass.
        return item

    def next_within(self, seconds: float) -> tuple[AgentProcess, Message] | None:
        """Return the next message of any agent, or None after `seconds`; raises as `next` does."""
        until = time.monotonic() + seconds
        if self._kept:
            agent, message = self._kept.popleft()
        elif (arrived := self._wait(until)) is not None:
            agent, message = self._unless_ended(*arrived)
        else:
            return None
        agent.listener.taken()
        return agent, message

    def wait_for(self, agent: AgentProcess, *kinds: type[Any]) -> Any:
        """Return one agent's next message of the given kinds, and drop its messages before that.

        Other agents' messages are kept.
        """
        for item in [item for item in self._kept if item[0] is agent]:
            self._kept.remove(item)
            agent.listener.taken()
            if isinstance(item[1], kinds):
                return item[1]
        while True:
            arrived = self._wait(math.inf)
            assert arrived is not None
            other, message = self._unless_ended(*arrived)
            if other is not agent:
                self._kept.append((other, message))
                continue
            agent.listener.taken()
            if isinstance(message, kinds):
                return message

    def check(self) -> None:
        """If it is due, call the checkpoint, look for silent agents, and after their files."""
        now = time.monotonic()
        if now - self._checked < CHECK_SECONDS:
            return
        if now - self._checked > ASLEEP_SECONDS:
            for agent in self.agents:
                agent.listener.pulse.message()
        self._checked = now
        for agent in self.agents:
            agent.access.look_after()
        self._checkpoint()
        for agent, error in stalled(self.agents, now, self._patience, self.announced):
            agent.child.send_signal(signal.SIGTERM)  # It would not end by itself.
            if not agent.optional:
                raise error
            self._arrived.put((agent, Lost(error, reported=False)))
            agent.close()

    def close(self, done: bool = False) -> None:
        """End all agents at the same time, and wait for them.

        With `done`, sources and ssh processes are ended at once: a goodbye takes a round trip.
        """
        for agent in self.agents:
            agent.close()
            if done:
                terminate(agent)
        for how in (None, signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + ENDING_SECONDS
            for agent in self.agents:
                agent.child.send_signal(how)
            ended = [agent.child.has_ended(until) for agent in self.agents]
            if all(ended):
                break
        until = time.monotonic() + ENDING_SECONDS
        for agent in self.agents:
            agent.dispose(until)
        self.agents.clear()

    def _wait(self, until: float) -> tuple[AgentProcess, Message | None] | None:
        """Return what arrives next; None if nothing does until `until` (monotonic clock)."""
        while True:
            self.check()
            try:
                return self._arrived.get(timeout=CHECK_SECONDS)
            except Empty:
                if time.monotonic() >= until:
                    return None

    def _unless_ended(
        self, agent: AgentProcess, message: Message | None
    ) -> tuple[AgentProcess, Message]:
        """Return a message; raises the agent's error if it failed or ended, unless optional."""
        if message is not None and not isinstance(message, Failed):
            return agent, message
        if message is not None:
            error = error_of(agent, message.failure)
        elif agent.optional:  # Other agents' messages are left alone: they are still needed.
            error = cause_of_death(agent, self._patience)
        else:
            error = self._cause(agent)
        if agent.optional:
            return agent, Lost(error, reported=message is not None)
        raise error

    def _cause(self, agent: AgentProcess) -> errors.EngineError:
        """Return why an agent ended: another agent's end or error may be the cause."""
        ended = [agent]
        began = time.monotonic()
        while (waited := time.monotonic() - began) < CAUSE_SECONDS or (
            waited < LATE_CAUSE_SECONDS and not self._is_explained(ended)
        ):
            self._checkpoint()
            try:
                other, message = self._arrived.get(timeout=CAUSE_SECONDS / 4)
            except Empty:
                continue
            if message is None:
                ended.append(other)
            elif isinstance(message, Failed):
                error = error_of(other, message.failure)
                if not (other.optional and error.retry == errors.PERMANENT):
                    return error
                # A further stream that starts too late finds no staging folder: not the cause.
                self._kept.append((other, Lost(error, reported=True)))
            else:
                self._kept.append((other, message))
        return cause_of_death(min(ended, key=blame_rank), self._patience)

    def _is_explained(self, ended: list[AgentProcess]) -> bool:
        """False if all that ended did so in order: then another one did not, and is late."""
        return len(ended) == len(self.agents) or any(blame_rank(agent) < ORDERLY for agent in ended)
