"""The real path of a portal's root: recorded once, then changed by a person only.

A real path is bytes. The database holds a UTF-8 path as it is, and any other one as "hex:"
and its hexadecimal digits; a real path begins with a slash, so the two cannot be confused.
"""

from __future__ import annotations

import os
from typing import Any

import engine
from portals.machines import machine_now
from portals.models import Portal

_HEX = "hex:"
#: Characters of a path in texts for people, at most; a path may have 32 thousand.
MOST_SHOWN = 1000


def kept(real: str) -> str:
    """A real path, as the engine has it, in the form that the database holds."""
    raw = os.fsencode(real)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return _HEX + raw.hex()


def real_path(text: str) -> str:
    """The path from which `kept` makes the text. Raises ValueError if there is none."""
    real = os.fsdecode(bytes.fromhex(text[len(_HEX) :])) if text.startswith(_HEX) else text
    if text and (not real.startswith("/") or "\0" in real or kept(real) != text):
        raise ValueError("a real path is absolute")
    return real


def shown(text: str) -> str:
    """The path in a text of `kept`, for a person: escaped where unprintable, MOST_SHOWN at most."""
    return engine.display_path(real_path(text))[:MOST_SHOWN] if text else ""


def stamp(portal: Portal) -> str:
    """The time at which a person last confirmed the root, in ISO format; empty if never."""
    return portal.root_confirmed_at.isoformat() if portal.root_confirmed_at else ""


def root_now(portal: Portal, frozen: dict[str, Any]) -> str:
    """The recorded root that counts for a job that began with `frozen`.

    That is the one it began with, unless a person has confirmed another one since.
    """
    begun = str(frozen.get("real_root", ""))
    if any(getattr(portal, name) != frozen[name] for name in ROOT):
        return begun
    if machine_now(portal, frozen) != portal.machine:
        return begun
    confirmed = stamp(portal)
    if not begun or (confirmed and confirmed != frozen.get("root_confirmed", "")):
        return portal.real_root
    return begun


#: The fields that identify a root: which folder of which host. A change of one voids the record.
ROOT = ("kind", "host", "port", "root_path")
