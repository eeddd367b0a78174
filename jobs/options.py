"""The options of a transfer as columns of a job, each of the name that it has in the engine.

`engine.types.OPTIONS` declares them; `tests/jobs/test_options.py` compares both.
docs/development.md has the recipe for a new one.
"""

from __future__ import annotations

from typing import TypedDict

from django.db import models
from django.utils.translation import gettext_lazy as _

from engine.types import OPTIONS
from jobs.choices import JobConflict, JobHardLinks, JobStrategy, JobSymlinks, JobVerify


class JobOptions(TypedDict, total=False):
    """The options as arguments of `jobs.services.job_create`."""

    strategy: str
    verify: str
    on_conflict: str
    checksum: bool
    symlinks: str
    hard_links: str
    xattrs: bool
    special_bits: bool
    preallocate: bool
    streams: int


class TransferOptions(models.Model):
    """A row with the options of a transfer.

    A column has a database default: a web server of an earlier version writes rows without it.
    """

    strategy = models.CharField(
        _("strategy"), max_length=16, choices=JobStrategy, default=JobStrategy.AUTO
    )
    verify = models.CharField(
        _("verification"), max_length=16, choices=JobVerify, blank=True, default=JobVerify.DEFAULT
    )
    on_conflict = models.CharField(
        _("on conflict"), max_length=16, choices=JobConflict, default=JobConflict.FAIL
    )
    checksum = models.BooleanField(
        _("compare content"),
        default=False,
        db_default=False,
        help_text=_("Compare files of one size by their content, not by their time."),
    )
    symlinks = models.CharField(
        _("symbolic links"),
        max_length=8,
        choices=JobSymlinks,
        default=JobSymlinks.KEEP,
        db_default=JobSymlinks.KEEP,
    )
    hard_links = models.CharField(
        _("hard links"),
        max_length=8,
        choices=JobHardLinks,
        default=JobHardLinks.COPY,
        db_default=JobHardLinks.COPY,
    )
    xattrs = models.BooleanField(
        _("attributes"),
        default=False,
        db_default=False,
        help_text=_("Also transfer extended attributes and access lists (ACLs)."),
    )
    special_bits = models.BooleanField(
        _("special mode bits"),
        default=False,
        db_default=False,
        help_text=_("Also transfer the setuid, setgid and sticky bits."),
    )
    preallocate = models.BooleanField(
        _("reserve space"),
        default=False,
        db_default=False,
        help_text=_("Reserve the disk space of files of 1 MiB and more before they are written."),
    )
    streams = models.PositiveSmallIntegerField(
        _("streams"),
        default=0,
        help_text=_(
            "Parallel streams of data; 0 lets Ketter choose by the round-trip time and "
            "the number of processors."
        ),
    )
    #: The version of the options that a worker must know to run this job.
    options_version = models.PositiveSmallIntegerField(default=1, db_default=1, editable=False)

    class Meta:
        abstract = True

    def needed_version(self) -> int:
        """Return the first version of the options that knows all that differ from their default."""
        return max(
            (
                option.since
                for option in OPTIONS
                if option.value_of(getattr(self, option.name)) != option.default
            ),
            default=1,
        )
