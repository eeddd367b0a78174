"""Removes what killed attempts of a transfer left at the target."""

from __future__ import annotations

import math
import posixpath
import time
from collections.abc import Callable
from typing import Any

from engine import errors
from engine.connect.agent_process import AgentProcess
from engine.connect.endings import step_of
from engine.connect.inbox import Inbox
from engine.connect.listener import HELLO_SECONDS, SILENCE_SECONDS, Patience
from engine.protocol.commands import CLEAN, OPEN
from engine.session.places import inspect, named
from engine.types import Endpoint, Request

#: Seconds for which a host may show no sign of work while it removes a staging folder.
STANDSTILL_SECONDS = 60.0
#: The same if a person waits for the end; and seconds that the host has to let the worker in.
HASTE_SECONDS, HASTE_HELLO_SECONDS = 2.0, 3.0
#: Seconds after which the removal ends, however it gets on: a million files take minutes.
MOST_SECONDS = 3600.0
#: The same if a person waits: a host may show work that it does not do. Each entry that was staged
#: adds its time, at so many a second.
HASTE_MOST_SECONDS, REMOVED_A_SECOND = 3.7, 200


def patience(hasty: bool) -> Patience:
    """Return how long to wait for a host that removes a staging folder."""
    if hasty:
        hello, still = HASTE_HELLO_SECONDS, HASTE_SECONDS
        return Patience(hello, hello, still, still, MOST_SECONDS)
    return Patience(
        HELLO_SECONDS, SILENCE_SECONDS, STANDSTILL_SECONDS, STANDSTILL_SECONDS, MOST_SECONDS
    )


@errors.on_this_machine()
def discard(
    request: Request,
    alive: Callable[[], None] = lambda: None,
    *,
    hasty: bool = False,
    staged: int = 0,
    within: float = HASTE_MOST_SECONDS,
) -> None:
    """Remove the transfer's staging folder at the target, and empty folders made for it.

    It touches nothing that was published. `alive` is called several times a second: a
    million files take minutes. With `hasty`, it gives up a host that shows no sign of work for
    HASTE_SECONDS, or does not let the worker in for HASTE_HELLO_SECONDS; and any host after
    `within` seconds and the time to remove `staged` entries. Raises an EngineError if the target
    cannot be reached, `Replaced` if a higher attempt is at work, and what `alive` raises.
    """
    target, path = request.target, request.target.path.rstrip("/")
    deadline = _Deadline(alive, hasty, staged, within)
    inbox = Inbox(deadline.check, patience(hasty))
    try:
        agent = deadline.agent = AgentProcess(inbox, target)
        agent.send_program()
        agent.greet()
        # A single file is staged beside its name, a folder inside itself.
        for place in dict.fromkeys((path, posixpath.dirname(path))):
            if inspect(agent, target, place).kind == "folder":
                agent.request(OPEN, **named(target, place))
                agent.request(
                    CLEAN, transfer_id=request.transfer_id, attempt=request.attempt, undo=True
                )
    finally:
        inbox.close(done=hasty)


@errors.on_this_machine()
def clean(
    folder: Endpoint,
    names: dict[str, Any],
    attempt: int,
    alive: Callable[[], None],
    *,
    hasty: bool = False,
    staged: int = 0,
    within: float = HASTE_MOST_SECONDS,
) -> None:
    """Remove the staging folder in `folder` with a new agent, after the others have ended.

    `hasty`, `staged`, `within` and errors as in `discard`.
    """
    deadline = _Deadline(alive, hasty, staged, within)
    inbox = Inbox(deadline.check, patience(hasty))
    try:
        agent = deadline.agent = AgentProcess(inbox, folder)
        agent.send_program()
        agent.greet()
        agent.request(OPEN, **named(folder, folder.path))
        agent.request(CLEAN, **names, attempt=attempt, undo=True)
    except errors.EngineError as error:
        if error.code != "VANISHED":  # Without a target folder there is no staging folder.
            raise
    finally:
        inbox.close(done=hasty)


class _Deadline:
    """Calls `alive`; if `hasty`, it also raises Stalled once the time for a removal is over."""

    def __init__(self, alive: Callable[[], None], hasty: bool, staged: int, within: float) -> None:
        self._alive = alive
        seconds = min(MOST_SECONDS, within + staged / REMOVED_A_SECOND) if hasty else math.inf
        self._until = time.monotonic() + seconds
        #: Who removes; None before it is started.
        self.agent: AgentProcess | None = None

    def check(self) -> None:
        self._alive()
        now = time.monotonic()
        if now > self._until and self.agent:
            step = step_of(self.agent, now)
            raise errors.Stalled(f"{self.agent.place} has not removed it in time{step}")
