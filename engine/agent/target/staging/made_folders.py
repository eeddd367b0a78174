"""The folders that were made to get to the target folder: a note of them, and their removal."""

from __future__ import annotations

import json
import os

from engine.agent.target.ownership import not_ours, read_note, write_note
from engine.agent.tree import open_real
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import AgentError

if TYPE_CHECKING:
    from typing import Any

_NAME = "made"


def write(staging: int, folders: list[str]) -> None:
    """Note which folders were made."""
    write_note(staging, _NAME, json.dumps(folders))


def read(staging: int) -> list[str]:
    """Read the folders that were noted; raises STAGING_NOT_OURS if the note makes no sense."""
    return read_list(staging, _NAME, str)


def read_list(staging: int, name: str, kind: type) -> list[Any]:
    """Read a note that is a list of values of one kind; [] if there is none."""
    try:
        found = json.loads(read_note(staging, name) or "[]")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(type(item) is kind for item in found):
        raise not_ours(name, "in the staging folder is no note of Ketter's")
    return found


def remove(folders: list[str], real: str) -> None:
    """Remove folders that were made, the innermost first, as long as they are empty.

    Removes only folders on the way to the target folder `real`, whatever the note says. It goes
    by descriptors and follows no symlink.
    """
    for folder in reversed(folders):
        if not f"{real}/".startswith(f"{folder}/") or not folder.startswith("/"):
            continue
        above, _, name = folder.rpartition("/")
        try:
            fd, _ = open_real(above or "/")
        except AgentError:
            return  # The folder is gone, or another one is in its place.
        try:
            os.rmdir(name, dir_fd=fd)
        except OSError:
            return  # The folder is in use by now.
        finally:
            os.close(fd)
