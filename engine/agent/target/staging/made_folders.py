"""The folders that were made to get to the target folder: a note of them, and their removal."""

from __future__ import annotations

import json
import os
import stat

from engine.agent.inodes import number_of
from engine.agent.target.ownership import not_ours, read_note, write_note
from engine.agent.tree import open_real
from engine.agent.typed import TYPE_CHECKING, NamedTuple
from engine.agent.wire import AgentError

if TYPE_CHECKING:
    from typing import Any

_NAME = "made"
#: Stands for the staging folder itself, in which the note lies: no transfer makes that path.
_OWN = "/"


class Made(NamedTuple):
    """A folder that was made: its real path, the number of its inode (0: not kept), its owner.

    The owner is -1 in a note of an older version, which has paths only.
    """

    path: str
    number: int = 0
    user: int = -1


def write(staging: int, folders: list[str]) -> None:
    """Note which folders were made just now, and what identifies them."""
    made = []
    for path in folders:
        try:
            fd, _ = open_real(path)
        except AgentError:
            continue  # Another program has removed it.
        try:
            found = os.fstat(fd)
            number = number_of(found, fd, ".")
        finally:
            os.close(fd)
        if _has_owner_of(staging, found):  # Otherwise another user has put it there meanwhile.
            made.append(f"{number}:{found.st_uid}:{path}")
    if made:
        own = os.fstat(staging)
        made.append(f"{number_of(own, staging, '.')}:{own.st_uid}:{_OWN}")
    write_note(staging, _NAME, json.dumps(made))


def _has_owner_of(staging: int, found: os.stat_result) -> bool:
    """True if a folder has the owner of the staging folder, as one has that this user made."""
    return found.st_uid == os.fstat(staging).st_uid


def read(staging: int) -> list[Made]:
    """Read the folders that were noted; raises STAGING_NOT_OURS if the note makes no sense.

    If the staging folder has another number by now than it noted of itself, the file system keeps
    none, whatever it promises, and those of the others mean nothing.
    """
    made = [_made(item) for item in read_list(staging, _NAME, str)]
    keeps = all(one.number == os.fstat(staging).st_ino for one in made if one.path == _OWN)
    folders = [one for one in made if one.path != _OWN]
    return folders if keeps else [one._replace(number=0) for one in folders]


def _made(item: str) -> Made:
    number, _, rest = item.partition(":")
    user, _, path = rest.partition(":")
    if item[:1] != "/" and number.isdecimal() and user.isdecimal() and path[:1] == "/":
        return Made(path, int(number[:20]), int(user[:20]))
    return Made(item)


def read_list(staging: int, name: str, kind: type) -> list[Any]:
    """Read a note that is a list of values of one kind; [] if there is none."""
    try:
        found = json.loads(read_note(staging, name) or "[]")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(type(item) is kind for item in found):
        raise not_ours(name, "in the staging folder is no note of Ketter's")
    return found


def remove(folders: list[Made], real: str) -> None:
    """Remove folders that were made, the innermost first, as long as they are empty.

    Removes only folders on the way to the target folder `real`, whatever the note says, and none
    that was put in the place of the one that was made. It goes by descriptors and follows no
    symlink; an empty folder that appears between the look and the removal is removed.
    """
    for folder in reversed(folders):
        if not f"{real}/".startswith(f"{folder.path}/") or not folder.path.startswith("/"):
            continue
        above, _, name = folder.path.rpartition("/")
        try:
            fd, _ = open_real(above or "/")
        except AgentError:
            return  # The folder is gone, or another one is in its place.
        try:
            if not _is_that(folder, fd, name):
                return
            os.rmdir(name, dir_fd=fd)
        except OSError:
            return  # The folder is in use by now.
        finally:
            os.close(fd)


def _is_that(folder: Made, above: int, name: str) -> bool:
    """True if the name leads to the folder that was made, as far as its file system keeps it."""
    found = os.stat(name, dir_fd=above, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode) or folder.user not in (-1, found.st_uid):
        return False
    return folder.number in (0, number_of(found, above, name))
