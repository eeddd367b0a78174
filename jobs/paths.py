"""The places that a job reads from and writes to: allowed paths, and overlaps of two places.

These checks look at the text of paths alone. The engine checks again on the host,
where it can follow symlinks.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, NamedTuple

from django.utils.translation import gettext as _

from jobs.errors import Problem
from jobs.text import is_storable

if TYPE_CHECKING:
    from portals.models import Portal

MAX_PATH = 4096


def tidy(path: str) -> str:
    """Return the shortest form of a path. A trailing `/` stays: it means "a folder"."""
    if not path or path.startswith("/"):
        return path
    parts = [part for part in path.split("/") if part not in {"", "."}]
    return "/".join(parts) + ("/" if parts and path.endswith("/") else "")


def path_problem(path: str) -> Problem | None:
    """Return why a path below a portal's root cannot be used; None if it can."""
    if not is_storable(path):
        return Problem("BAD_PATH", _("A path must be valid text without NUL characters."))
    if len(path) > MAX_PATH:
        return Problem("BAD_PATH", _("A path can have at most %d characters.") % MAX_PATH)
    if path.startswith("/"):
        message = _("The path is relative to the portal's root folder: remove the leading slash.")
        return Problem("PATH_OUTSIDE_ROOT", message)
    if ".." in path.split("/"):
        message = _(
            "The path must not contain “..”: it would lead out of the portal's root folder."
        )
        return Problem("PATH_OUTSIDE_ROOT", message)
    return None


class Place(NamedTuple):
    """A path on a host. Paths of two portals may be the same place."""

    host: tuple[str, str, int]
    path: str

    @classmethod
    def of(cls, kind: str, host: str, port: int, root: str, path: str) -> Place:
        """Return the place of a path below a root folder on a host."""
        full = posixpath.normpath("/" + posixpath.join(root.strip("/"), path))
        return cls((kind, host.lower(), port if host else 0), full)


def place_of(portal: Portal, path: str) -> Place:
    """Return the place of a path below a portal's root, by the portal as it is now."""
    host, port = (portal.host, portal.port) if portal.host else (portal.machine, 0)
    return Place.of(portal.kind, host, port, portal.root_path, path)


def overlaps(one: Place, other: Place) -> bool:
    """Whether two places are the same, or one is inside the other."""
    if one.host != other.host:
        return False
    return one.path == other.path or _inside(one.path, other.path) or _inside(other.path, one.path)


def overlap_problem(source: Place, target: Place) -> Problem | None:
    """Return why two places cannot be source and target of one job; None if they can."""
    if not overlaps(source, target):
        return None
    if source.path == target.path:
        message = _("Source and target are the same place.")
    elif _inside(target.path, source.path):
        message = _("The target is inside the source.")
    else:
        message = _("The source is inside the target.")
    return Problem("TARGET_OVERLAPS_SOURCE", message)


def _inside(inner: str, outer: str) -> bool:
    return inner.startswith(outer.rstrip("/") + "/")
