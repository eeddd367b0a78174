"""The kinds of portals: what each has and needs. docs/development.md has the recipe for a new one.

How the engine reaches a kind, with its secrets, is in `portals.endpoints`, which has a row per
kind, too.
"""

from __future__ import annotations

from typing import NamedTuple

from django.db import models
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


class PortalKind(models.TextChoices):
    """How Ketter reaches a portal."""

    LOCAL = "local", _("this machine")
    SSH = "ssh", _("a host behind SSH")


class Kind(NamedTuple):
    """What a kind of portal has.

    `fields` are columns of the portal that only this kind may fill, `required` those of them that
    it must. `shown` are further fields that the page shows for this kind only. `is_here`: the root
    is a folder of a machine with workers: of the one that the portal names, and of no other.
    """

    fields: tuple[str, ...] = ()
    required: dict[str, Promise] = {}
    shown: tuple[str, ...] = ()
    has_host_key: bool = False
    is_here: bool = False


KINDS: dict[str, Kind] = {
    PortalKind.LOCAL: Kind(fields=("machine",), is_here=True),
    PortalKind.SSH: Kind(
        fields=("host", "username", "credential", "host_key"),
        required={"host": _("A portal behind SSH needs a host.")},
        shown=("port", "fingerprint"),
        has_host_key=True,
    ),
}


def fields_of_others(kind: str) -> tuple[str, ...]:
    """Return the columns that portals of this kind leave empty: they belong to other kinds."""
    own = KINDS[kind].fields
    found = (name for each in KINDS.values() for name in each.fields if name not in own)
    return tuple(dict.fromkeys(found))
