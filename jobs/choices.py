"""What a parcel can be, with names for people."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class ParcelKind(models.TextChoices):
    """`engine.types.ParcelKind`, with names for people."""

    ZIP = "zip", _("zip")
    FILE = "file", _("file")
    RANGE = "range", _("slices of a file")
    ARCHIVE = "archive", _("part of an archive")


class ParcelState(models.TextChoices):
    """`engine.types.ParcelState`, with names for people."""

    PENDING = "pending", _("pending")
    SENDING = "sending", _("sending")
    VERIFIED = "verified", _("verified")
    PUBLISHED = "published", _("published")
    SOURCE_REMOVED = "source_removed", _("source removed")
    FAILED = "failed", _("failed")


class LeaseState(models.TextChoices):
    """How far a lent parcel has come: on offer, with a helper, carried, or come back undone."""

    OFFERED = "offered", _("offered")
    TAKEN = "taken", _("taken")
    DONE = "done", _("done")
    RETURNED = "returned", _("returned")
