"""Where the answers of all agents arrive, in one thread, and how all of them are ended."""

from __future__ import annotations

import math
import signal
import time
from _queue import Empty, SimpleQueue  # The module `queue` around them takes long to import.
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine import errors

if TYPE_CHECKING:
    from engine.links import Link

Message = dict[str, Any]

#: Seconds between two calls of the checkpoint.
CHECK_SECONDS = 0.25
#: Seconds between two checks after which we were stopped ourselves, and no agent was silent.
ASLEEP_SECONDS = 10.0
#: Seconds to hear of the cause when a link has ended: its other end may know more.
CAUSE_SECONDS = 0.5
#: Seconds the agents get to end by themselves, and again after each signal.
ENDING_SECONDS = 1.0


class Hub:
    """The one place where the answers of all agents arrive, in the caller's thread.

    `checkpoint` is called every quarter of a second while waiting and may raise.
    """

    def __init__(self, checkpoint: Callable[[], None]) -> None:
        self._checkpoint = checkpoint
        self._arrived: SimpleQueue[tuple[Link, Message | None]] = SimpleQueue()
        #: Never an error and never an end: those are raised when they arrive.
        self._kept: deque[tuple[Link, Message]] = deque()
        self._checked = 0.0
        self.links: list[Link] = []

    def put(self, link: Link, message: Message | None) -> None:
        """Hand in an answer, or None for a link's end; called by the reading threads."""
        self._arrived.put((link, message))

    def next(self) -> tuple[Link, Message]:
        """The next answer of any link; raises what a link died of or the checkpoint raised."""
        item = self.next_within(math.inf)
        assert item is not None  # Nobody waits that long.
        return item

    def next_within(self, seconds: float) -> tuple[Link, Message] | None:
        """Likewise, but None if no answer comes in that time."""
        until = time.monotonic() + seconds
        if self._kept:
            link, message = self._kept.popleft()
        elif (arrived := self._wait(until)) is not None:
            link, message = self._alive(*arrived)
        else:
            return None
        return link, link.taken(message)

    def wait_for(self, link: Link, *keys: str) -> Message:
        """The next answer of one link that has one of the keys; others' answers are kept."""
        for item in [item for item in self._kept if item[0] is link]:
            self._kept.remove(item)
            link.taken(item[1])
            if any(key in item[1] for key in keys):
                return item[1]
        while True:
            arrived = self._wait(math.inf)
            assert arrived is not None
            other, message = self._alive(*arrived)
            if other is not link:
                self._kept.append((other, message))
                continue
            link.taken(message)
            if any(key in message for key in keys):
                return message

    def check(self) -> None:
        """Call the checkpoint if it is due, and look for silent links."""
        now = time.monotonic()
        if now - self._checked < CHECK_SECONDS:
            return
        if now - self._checked > ASLEEP_SECONDS:
            for link in self.links:
                link.forgive()
        self._checked = now
        self._checkpoint()
        for link in self.links:
            try:
                link.check_silence(now)
            except errors.EngineError as error:
                if not link.dispensable:
                    raise
                self._arrived.put((link, {"lost": error, "said": False}))
                link.hang_up()

    def close(self, done: bool = False) -> None:
        """End every agent, all at the same time, and wait for them.

        With `done` no source and no ssh is waited for: a goodbye takes a round trip.
        """
        for link in self.links:
            link.hang_up()
            if done:
                link.cut_short()
        for how in (None, signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + ENDING_SECONDS
            for link in self.links:
                link.send_signal(how)
            ended = [link.has_ended(until) for link in self.links]
            if all(ended):
                break
        for link in self.links:
            link.forget()
        self.links.clear()

    def _wait(self, until: float) -> tuple[Link, Message | None] | None:
        """What arrives next; None if nothing has by that moment of the monotonic clock."""
        while True:
            self.check()
            try:
                return self._arrived.get(timeout=CHECK_SECONDS)
            except Empty:
                if time.monotonic() >= until:
                    return None

    def _alive(self, link: Link, message: Message | None) -> tuple[Link, Message]:
        if message is not None and "error" not in message:
            return link, message
        if message is not None:
            error = link.said(*message["error"])
        elif link.dispensable:  # Others have their own ends, and their answers are still to come.
            error = link.cause_of_death()
        else:
            error = self._cause(link)
        if link.dispensable:
            return link, {"lost": error, "said": message is not None}
        raise error

    def _cause(self, link: Link) -> errors.EngineError:
        """Why a link ended: its end may be the consequence of another's."""
        ended = [link]
        until = time.monotonic() + CAUSE_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                other, message = self._arrived.get(timeout=left)
            except Empty:
                break
            if message is None:
                ended.append(other)
            elif "error" in message:
                error = other.said(*message["error"])
                if not (other.dispensable and error.retry == errors.PERMANENT):
                    return error
                # A stream that comes too late finds nothing there: that is no cause.
                self._kept.append((other, {"lost": error, "said": True}))
            else:
                self._kept.append((other, message))
        return min(ended, key=lambda other: other.innocence()).cause_of_death()
