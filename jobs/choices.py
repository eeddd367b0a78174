"""The values that a column of a job, a parcel or a lease may hold, with names for people."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class JobMode(models.TextChoices):
    """`engine.types.Mode`, with names for people."""

    COPY = "copy", _("copy")
    MOVE = "move", _("move")


class JobStrategy(models.TextChoices):
    """`engine.types.Strategy`, with names for people."""

    AUTO = "auto", _("automatic")
    ZIP = "zip", _("pack everything")
    FILES = "files", _("file by file")
    ARCHIVE = "archive", _("deliver one archive")


class JobVerify(models.TextChoices):
    """`engine.types.Verify`, with names for people; empty means the mode's default."""

    DEFAULT = "", _("by mode: stream for a copy, read back for a move")
    STREAM = "stream", _("stream: compare the digests of both ends")
    READBACK = "readback", _("read back: also read the target's disk again")


class JobConflict(models.TextChoices):
    """`engine.types.OnConflict`, with names for people."""

    FAIL = "fail", _("fail")
    SKIP = "skip", _("skip")
    OVERWRITE = "overwrite", _("overwrite")
    OVERWRITE_OLDER = "overwrite-older", _("overwrite older files")
    KEEP_BOTH = "keep-both", _("keep both")


class JobSymlinks(models.TextChoices):
    """`engine.types.Symlinks`, with names for people."""

    KEEP = "keep", _("keep as links")
    SKIP = "skip", _("leave out")
    FOLLOW = "follow", _("copy the files that they lead to")


class JobHardLinks(models.TextChoices):
    """`engine.types.HardLinks`, with names for people."""

    COPY = "copy", _("a file of its own for each name")
    KEEP = "keep", _("keep as links")


#: The columns of a job that hold one of a list of values which a user chooses from.
CHOICES: dict[str, type[models.TextChoices]] = {
    "mode": JobMode,
    "strategy": JobStrategy,
    "verify": JobVerify,
    "on_conflict": JobConflict,
    "symlinks": JobSymlinks,
    "hard_links": JobHardLinks,
}


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
    """The state of a lent parcel: offered, taken by a helper, done, or returned unfinished."""

    OFFERED = "offered", _("offered")
    TAKEN = "taken", _("taken")
    DONE = "done", _("done")
    RETURNED = "returned", _("returned")
