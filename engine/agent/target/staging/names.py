"""Names of staging folders: the one of a transfer, and the spare ones that its runs may have.

Where no owners are kept, a command makes its folder under a spare name: each run uses another
one, which no other user can foresee. A run never uses the folder of an earlier run there, since
any user may have written to it.

Each folder holds its mark: an empty folder of the same name, with a mode that no transfer gives
unasked. No transfer delivers such a name. So an agent does not take a folder that was delivered,
or that is another transfer's, for a staging folder, even if a user gives it such a name.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress

from engine.agent.target.locks import busy, is_there, lock, release
from engine.agent.target.ownership import not_ours, open_plain, open_private
from engine.agent.tree import list_names, remove_open
from engine.agent.wire import STAGING_PREFIX, AgentError, is_staging, show, staging_name

#: The mode of a mark, and the bits of it that a folder does not inherit from its parent.
_MARK, _OWN_BITS = 0o1700, 0o5777
#: Names in a folder that an agent is removing (`_LEFT`). Versions without marks had those of
#: `_EARLIER`, a fence among them.
_FENCE = "fence"
_LEFT = re.compile(
    r"gate|(fence|made|times)(\.new)?|a\d+(-[\w-]+)?\.(lock|end)|\.(nfs|fuse_hidden).*"
)
_EARLIER = re.compile(rf"{_LEFT.pattern}|journal|a\d+")


def checked(name: str) -> str:
    """Return a text that becomes part of a file's name; raises BAD_REQUEST if it must not."""
    if not name or not all(c.isalnum() or c == "-" for c in name):
        raise AgentError(
            "BAD_REQUEST", f"the id {show(name[:100])} holds other than letters and digits"
        )
    return name


def name_of(transfer_id: str) -> str:
    """The name of a transfer's staging folder; raises BAD_REQUEST for an id that is none."""
    return staging_name(checked(transfer_id))


def mark(folder: int, name: str) -> None:
    """Mark an open folder as the staging folder of that name."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=folder)
        with suppress(OSError):  # Where a file system keeps no modes, `is_marked` needs none.
            os.chmod(name, _MARK, dir_fd=folder)


def is_marked(folder: int, name: str, keeps_owners: bool) -> bool:
    """True if an open folder is marked as the staging folder of that name.

    Raises STAGING_NOT_OURS if it is not marked and holds a name that no version of Ketter puts
    there: then it is another folder that was given this name, and its content must stay.
    """
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        names = list_names(folder)
        known = _EARLIER if _FENCE in names else _LEFT
        if not all(map(known.fullmatch, names)):
            raise not_ours(name, "is another folder that was given this name") from None
        return False
    is_plain = stat.S_ISDIR(found.st_mode) and found.st_mode & _OWN_BITS == _MARK
    return not keeps_owners or (is_plain and found.st_uid == os.geteuid())


def remove_earlier(target: int, transfer_id: str) -> None:
    """Remove what earlier runs of a transfer left; raises TARGET_BUSY if one is still at work."""
    begin = f"{STAGING_PREFIX}{transfer_id}-"
    for name in list_names(target):
        if name.startswith(begin) and is_staging(name):
            with suppress(OSError):  # A folder that cannot be removed does no harm: none uses it.
                _remove_left(target, name)


def _remove_left(target: int, name: str) -> None:
    """Remove a folder that is marked as a run's; raises TARGET_BUSY if an agent has a lock in it.

    It removes what it has looked at: another folder may get the name meanwhile, and stays.
    """
    folder, _ = open_private(target, name)
    try:
        if not is_there(folder, name):
            return
        for inner in list_names(folder):
            if inner.endswith(".lock"):
                fd = open_plain(folder, inner, os.O_RDWR)
                try:
                    if not lock(fd, 0.0):
                        raise busy()
                finally:
                    release(fd)
        remove_open(target, name, folder)
    finally:
        os.close(folder)
