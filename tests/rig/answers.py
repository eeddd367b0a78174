"""The worker's end of an agent that says whatever it is given to say."""

from __future__ import annotations

import io
import threading
from types import SimpleNamespace
from typing import BinaryIO, get_args

from engine import errors
from engine.connect import inbox as inbox_module
from engine.connect.agent_process import AgentProcess
from engine.connect.inbox import Inbox
from engine.protocol.messages import Message
from engine.types import Endpoint
from tests.rig.hostile import ending

#: All messages that the worker waits for, in whatever phase.
KINDS = get_args(Message)


class Parrot(AgentProcess):
    """An agent that has said these bytes and is gone."""

    def __init__(self, inbox: Inbox, said: bytes) -> None:
        self._said = said
        #: What its reading thread died of.
        self.died_of: Exception | None = None
        super().__init__(inbox, Endpoint("/"))

    @property
    def stream(self) -> BinaryIO:
        """What it says."""
        return io.BufferedReader(io.BytesIO(self._said))

    def _start(self, stdout: int | None) -> None:
        self.child.process = SimpleNamespace(  # type: ignore[assignment]
            returncode=0, pid=0, wait=lambda timeout=None: 0
        )
        run = self.listener.run

        def noted() -> None:
            try:
                run()
            except Exception as bug:  # noqa: BLE001 - told to whoever listens, not to the log
                self.died_of = bug
                self._inbox.put(self, None)

        self.listener.thread = threading.Thread(target=noted, daemon=True)
        self.listener.start(self.stream)


def listen(said: bytes, most: int = 1000) -> list[Message]:
    """The messages that the worker takes from such an agent, to the error that ends them."""
    inbox = Inbox(lambda: None)
    patience = inbox_module.CAUSE_SECONDS, inbox_module.LATE_CAUSE_SECONDS
    inbox_module.CAUSE_SECONDS = inbox_module.LATE_CAUSE_SECONDS = 0.0
    taken: list[Message] = []
    try:
        link = Parrot(inbox, said)
        while len(taken) < most:
            try:
                taken.append(inbox.wait_for(link, *KINDS))
            except errors.EngineError:
                break
        if link.died_of is not None:
            raise link.died_of
    finally:
        inbox_module.CAUSE_SECONDS, inbox_module.LATE_CAUSE_SECONDS = patience
        inbox.close()
    return taken


def heard(said: bytes) -> str:
    """How listening to such an agent ends, see `ending`."""
    return ending(lambda: listen(said))
