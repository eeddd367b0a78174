"""Clearing away what killed attempts of a transfer left at the target."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from engine import errors
from engine.hub import Hub
from engine.links import Link
from engine.types import Request


@errors.on_this_machine()
def discard(request: Request, alive: Callable[[], None] = lambda: None) -> None:
    """Remove the transfer's staging folder at the target, and folders made for it that are empty.

    Nothing that was published is touched. `alive` is called several times a second: a
    million files take minutes. Raises an EngineError where the target cannot be reached,
    `Replaced` if a higher attempt is at work, and what `alive` raises.
    """
    root, path = request.target.root, request.target.path.rstrip("/")
    hub = Hub(alive)
    try:
        link = Link(hub, request.target)
        link.send_program()
        link.greet()
        # A single file is staged beside its name, a folder inside itself.
        for place in dict.fromkeys((path, posixpath.dirname(path))):
            if link.ask("look", root=root, path=place)["kind"] == "folder":
                link.ask("open", root=root, path=place)
                link.ask(
                    "clean", transfer_id=request.transfer_id, attempt=request.attempt, undo=True
                )
    finally:
        hub.close()
