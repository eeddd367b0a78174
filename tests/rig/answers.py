"""The worker's end of an agent that says whatever it is given to say."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

from engine import errors
from engine import hub as hubs
from engine.hub import Hub, Message
from engine.links import Link
from engine.types import Endpoint
from tests.rig.hostile import ending

#: All keys that the worker waits for, in whatever phase.
KEYS = ("hello", "done", "entries", "failures", "held", "parts", "progress")


class Parrot(Link):
    """A link whose agent has said these bytes and is gone."""

    def __init__(self, hub: Hub, said: bytes) -> None:
        self._said = said
        #: What its reading thread died of.
        self.died_of: Exception | None = None
        super().__init__(hub, Endpoint("/"))

    def _start(self, stdin: int, stdout: int | None) -> Any:
        return SimpleNamespace(
            stderr=io.BufferedReader(io.BytesIO(self._said)),
            returncode=0,
            pid=0,
            wait=lambda timeout=None: 0,
        )

    def _read(self) -> None:
        try:
            super()._read()
        except Exception as bug:  # noqa: BLE001 - told to whoever listens, not to the log
            self.died_of = bug
            self._hub.put(self, None)


def listen(said: bytes, most: int = 1000) -> list[Message]:
    """The messages that the worker takes from such an agent, to the error that ends them."""
    hub = Hub(lambda: None)
    patience, hubs.CAUSE_SECONDS = hubs.CAUSE_SECONDS, 0.0
    taken: list[Message] = []
    try:
        link = Parrot(hub, said)
        while len(taken) < most:
            try:
                taken.append(hub.wait_for(link, *KEYS))
            except errors.EngineError:
                break
        if link.died_of is not None:
            raise link.died_of
    finally:
        hubs.CAUSE_SECONDS = patience
        hub.close()
    return taken


def heard(said: bytes) -> str:
    """How listening to such an agent ends, see `ending`."""
    return ending(lambda: listen(said))
