"""Where a job reads and writes: which paths are allowed and which pairs overlap.

The engine checks again on the host, where symlinks can be seen; what is
refused here is what anybody can see from the words alone.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from django.utils.translation import gettext as _

from jobs.errors import Problem
from jobs.text import is_storable

if TYPE_CHECKING:
    from portals.models import Portal

MAX_PATH = 4096


def tidy(path: str) -> str:
    """The same path in its shortest words; a trailing `/` keeps its meaning of "a folder"."""
    if not path or path.startswith("/"):
        return path
    parts = [part for part in path.split("/") if part not in {"", "."}]
    return "/".join(parts) + ("/" if parts and path.endswith("/") else "")


def path_problem(path: str) -> Problem | None:
    """Why a path below a portal's root cannot be used, if so."""
    if not is_storable(path):
        return Problem("BAD_PATH", _("A path must be valid text without NUL characters."))
    if len(path) > MAX_PATH:
        return Problem("BAD_PATH", _("A path can have at most %d characters.") % MAX_PATH)
    if path.startswith("/"):
        message = _("The path is relative to the portal's root: leave out the leading slash.")
        return Problem("PATH_OUTSIDE_ROOT", message)
    if ".." in path.split("/"):
        message = _("The path may not contain “..”: it would lead out of the portal's root.")
        return Problem("PATH_OUTSIDE_ROOT", message)
    return None


def overlap_problem(source: tuple[Portal, str], target: tuple[Portal, str]) -> Problem | None:
    """Why two places cannot be source and target of one job, if so."""
    if _host(source[0]) != _host(target[0]):
        return None
    here, there = _absolute(*source), _absolute(*target)
    if here == there:
        message = _("Source and target are the same place.")
    elif _inside(there, here):
        message = _("The target lies inside the source.")
    elif _inside(here, there):
        message = _("The source lies inside the target.")
    else:
        return None
    return Problem("TARGET_OVERLAPS_SOURCE", message)


def _host(portal: Portal) -> tuple[str, str, int]:
    return (portal.kind, portal.host.lower(), portal.port if portal.host else 0)


def _absolute(portal: Portal, path: str) -> str:
    return posixpath.normpath("/" + posixpath.join(portal.root_path.strip("/"), path))


def _inside(inner: str, outer: str) -> bool:
    return inner.startswith(outer.rstrip("/") + "/")
