"""Jobs, their parcels, leases and events: columns, constraints and indexes.

`jobs.services` writes what users ask for, `jobs.queueing` (transitions, attempts, leases) what
workers and the reaper do, `jobs.events` the events; `jobs.retention` deletes old jobs.
"""

from __future__ import annotations

import secrets
import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from engine.types import Phase
from jobs.choices import (
    JobMode,
    LeaseState,
    ParcelKind,
    ParcelState,
)
from jobs.options import TransferOptions
from jobs.states import LIVE, PAUSABLE, STARTABLE, Status
from portals.models import Portal

#: `jobs.states.TIMED` as text and in the order that the migrations have.
_TIMED = [Status.SCHEDULED.value, Status.RETRY_WAIT.value]


class JobQuerySet(models.QuerySet["Job"]):
    """Named reads over jobs."""

    def at_portal(self, portal: Portal) -> JobQuerySet:
        """Jobs that read from or write to a portal."""
        return self.filter(Q(source_portal=portal) | Q(target_portal=portal))

    def live(self) -> JobQuerySet:
        """Jobs that have not ended."""
        return self.filter(status__in=LIVE)


def new_staging_key() -> str:
    """Return the part of a staging folder's name that no other user can guess."""
    return secrets.token_hex(8)


class Job(TransferOptions):
    """One requested transfer. Only `jobs.queueing.transitions.job_move` writes `status`."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    mode = models.CharField(_("mode"), max_length=8, choices=JobMode, default=JobMode.COPY)
    source_portal = models.ForeignKey(
        Portal, models.PROTECT, related_name="jobs_from", verbose_name=_("source portal")
    )
    source_path = models.CharField(
        _("source path"),
        max_length=4096,
        blank=True,
        default="",
        help_text=_("Path below the portal's root folder; empty means the root folder itself."),
    )
    target_portal = models.ForeignKey(
        Portal, models.PROTECT, related_name="jobs_to", verbose_name=_("target portal")
    )
    target_path = models.CharField(
        _("target path"),
        max_length=4096,
        blank=True,
        default="",
        help_text=_("Ketter puts the contents of the source folder into this folder."),
    )
    include = models.JSONField(_("include"), default=list, blank=True)
    exclude = models.JSONField(_("exclude"), default=list, blank=True)
    bandwidth_limit = models.BigIntegerField(
        _("bandwidth limit"),
        default=0,
        help_text=_(
            "Bytes per second, all streams together; 0 means that only the portals' limits apply."
        ),
    )
    priority = models.SmallIntegerField(
        _("priority"),
        default=0,
        help_text=_("Jobs with a higher number start first; equal ones start oldest first."),
    )
    max_tries = models.PositiveSmallIntegerField(
        _("tries"),
        default=50,
        help_text=_(
            "Ketter tries again after a failure that may pass by itself. After this many failures "
            "in a row without progress the job needs attention."
        ),
    )

    status = models.CharField(
        _("status"), max_length=16, choices=Status, default=Status.QUEUED, editable=False
    )
    #: Empty in rows that a web server of an older version wrote: they stage under the job's id.
    staging_key = models.CharField(
        max_length=16, default=new_staging_key, db_default="", editable=False
    )
    phase = models.CharField(_("phase"), max_length=16, blank=True, default="", editable=False)
    files_total = models.BigIntegerField(_("files"), default=0, editable=False)
    files_done = models.BigIntegerField(_("files done"), default=0, editable=False)
    files_skipped = models.BigIntegerField(_("files skipped"), default=0, editable=False)
    files_failed = models.BigIntegerField(_("files failed"), default=0, editable=False)
    bytes_total = models.BigIntegerField(_("bytes"), default=0, editable=False)
    bytes_done = models.BigIntegerField(_("bytes done"), default=0, editable=False)
    plan = models.JSONField(_("plan"), null=True, blank=True, editable=False)
    frozen = models.JSONField(
        _("portals as they were when the job started"), null=True, blank=True, editable=False
    )

    attempt = models.PositiveIntegerField(_("attempt"), default=0, editable=False)
    worker = models.CharField(_("worker"), max_length=255, blank=True, default="", editable=False)
    lease_until = models.DateTimeField(_("lease until"), null=True, blank=True, editable=False)
    heartbeat_at = models.DateTimeField(_("heartbeat"), null=True, blank=True, editable=False)
    tries = models.PositiveIntegerField(_("failures in a row"), default=0, editable=False)
    losses = models.PositiveIntegerField(_("lost workers in a row"), default=0, editable=False)
    #: Until when a worker clears away what a cancelled job has left, and how many took it up since.
    clearing_until = models.DateTimeField(null=True, blank=True, editable=False)
    clearings = models.PositiveSmallIntegerField(default=0, db_default=0, editable=False)
    next_run_at = models.DateTimeField(_("next run"), null=True, blank=True, editable=False)
    waits_for = models.TextField(_("waits for"), blank=True, default="", editable=False)
    pause_requested_at = models.DateTimeField(
        _("pause requested"), null=True, blank=True, editable=False
    )
    cancel_requested_at = models.DateTimeField(
        _("cancel requested"), null=True, blank=True, editable=False
    )

    error_code = models.CharField(
        _("error code"), max_length=64, blank=True, default="", editable=False
    )
    error_message = models.TextField(_("error"), blank=True, default="", editable=False)

    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        related_name="jobs",
        verbose_name=_("requested by"),
        editable=False,
    )
    idempotency_key = models.CharField(
        _("idempotency key"), max_length=128, blank=True, default="", editable=False
    )
    relaunched_from = models.ForeignKey(
        "self",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="relaunches",
        verbose_name=_("relaunched from"),
        editable=False,
    )
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)
    queued_at = models.DateTimeField(_("queued"), null=True, blank=True, editable=False)
    started_at = models.DateTimeField(_("started"), null=True, blank=True, editable=False)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True, editable=False)

    objects = JobQuerySet.as_manager()

    class Meta:
        db_table = "jobs"
        ordering: ClassVar = ["-created_at"]
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        constraints: ClassVar = [
            models.CheckConstraint(name="job_status_known", condition=Q(status__in=Status.values)),
            models.CheckConstraint(name="job_mode_known", condition=Q(mode__in=JobMode.values)),
            models.CheckConstraint(
                name="job_phase_known", condition=Q(phase__in=["", *(p.value for p in Phase)])
            ),
            models.CheckConstraint(
                name="job_places_differ",
                condition=~Q(source_portal=F("target_portal"), source_path=F("target_path")),
            ),
            models.CheckConstraint(
                name="job_running_has_lease",
                condition=~Q(status=Status.RUNNING.value) | Q(lease_until__isnull=False),
            ),
            models.CheckConstraint(
                name="job_streams_range", condition=Q(streams__gte=0) & Q(streams__lte=32)
            ),
            models.CheckConstraint(
                name="job_timed_has_time",
                condition=~Q(status__in=_TIMED) | Q(next_run_at__isnull=False),
            ),
            models.CheckConstraint(
                name="job_bandwidth_not_negative", condition=Q(bandwidth_limit__gte=0)
            ),
            models.UniqueConstraint(
                name="job_idempotency_key_once_per_user",
                fields=["requested_by", "idempotency_key"],
                condition=~Q(idempotency_key=""),
            ),
        ]
        indexes: ClassVar = [
            # The reaper asks every few seconds: which leases have expired?
            models.Index(
                fields=["lease_until"], name="job_leases", condition=Q(status=Status.RUNNING.value)
            ),
            # It asks, too: which clean-ups after a cancelled job's end have lost their worker?
            models.Index(
                fields=["clearing_until"],
                name="job_clearing",
                condition=Q(clearing_until__isnull=False),
            ),
            # The reaper asks: which jobs have been queued for a while?
            models.Index(
                fields=["queued_at"], name="job_waiting", condition=Q(status=Status.QUEUED.value)
            ),
            # A worker that claims a job asks: which queued job starts next?
            models.Index(
                fields=["cancel_requested_at", "-priority", "created_at", "id"],
                name="job_turn",
                condition=Q(status=Status.QUEUED.value),
            ),
            # The reaper asks: which scheduled or retrying jobs are due?
            models.Index(
                fields=["next_run_at"],
                name="job_timed",
                condition=Q(status__in=_TIMED),
            ),
            # The admin list and the API list: newest first, often by status.
            models.Index(fields=["status", "-created_at"], name="job_by_status"),
            models.Index(fields=["-created_at"], name="job_newest"),
        ]

    def __str__(self) -> str:
        return str(self.id)[:8]

    @property
    def is_live(self) -> bool:
        """Whether this job has not ended."""
        return self.status in LIVE

    @property
    def is_startable(self) -> bool:
        """Whether a user may start or resume this job."""
        return self.status in STARTABLE

    @property
    def is_pausable(self) -> bool:
        """Whether a user may pause this job."""
        asked = self.cancel_requested_at or self.pause_requested_at
        return self.status in PAUSABLE and not asked

    @property
    def seconds(self) -> float:
        """Seconds from the start of the latest attempt to its end, or to its last heartbeat."""
        until = self.finished_at or self.heartbeat_at
        if self.started_at is None or until is None:
            return 0.0
        return max(0.0, (until - self.started_at).total_seconds())

    @property
    def rate(self) -> float:
        """Bytes per second of the latest attempt."""
        return self.bytes_done / self.seconds if self.seconds else 0.0

    @property
    def percent(self) -> int:
        """Percent of the bytes, or of the files if there are no bytes; 100 only for a DONE job."""
        if self.status == Status.DONE:
            return 100
        done, total = self.bytes_done, self.bytes_total
        if not total:
            done, total = self.files_done, self.files_total
        return min(99, 100 * done // total) if total else 0


class JobParcel(models.Model):
    """One unit of packing and proof of an attempt of a job, with its manifest.

    The parcels that an earlier attempt proved stay on record: they may be published already.
    """

    job = models.ForeignKey(Job, models.CASCADE, related_name="parcels")
    number = models.PositiveIntegerField(_("number"))
    kind = models.CharField(_("kind"), max_length=8, choices=ParcelKind)
    files = models.BigIntegerField(_("files"))
    bytes = models.BigIntegerField(_("bytes"))
    state = models.CharField(_("state"), max_length=16, choices=ParcelState)
    digest = models.CharField(_("SHA-256 of the manifest"), max_length=64, blank=True, default="")
    manifest = models.BinaryField(null=True, blank=True, editable=False)
    attempt = models.PositiveIntegerField(_("attempt"))

    class Meta:
        db_table = "job_parcels"
        ordering: ClassVar = ["attempt", "number"]
        verbose_name = _("parcel")
        verbose_name_plural = _("parcels")
        constraints: ClassVar = [
            models.UniqueConstraint(
                name="parcel_number_once_per_attempt", fields=["job", "attempt", "number"]
            ),
            models.CheckConstraint(
                name="parcel_state_known", condition=Q(state__in=ParcelState.values)
            ),
            models.CheckConstraint(
                name="parcel_kind_known", condition=Q(kind__in=ParcelKind.values)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.job_id}/{self.number}"


class ParcelLease(models.Model):
    """A parcel of a running job that is offered to helpers or carried by one.

    See `jobs.queueing.parcel_leases`.
    """

    job = models.ForeignKey(Job, models.CASCADE, related_name="leases")
    attempt = models.PositiveIntegerField()
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=8, choices=LeaseState, default=LeaseState.OFFERED)
    created_at = models.DateTimeField(default=timezone.now)
    #: The parcel and its destination as JSON, without the entries.
    loan = models.TextField(db_column="errand")
    entries = models.BinaryField()
    most = models.PositiveIntegerField()
    worker = models.CharField(max_length=255, blank=True, default="")
    label = models.CharField(max_length=32, blank=True, default="")
    lease_until = models.DateTimeField(null=True, blank=True)
    moved = models.BigIntegerField(default=0)
    #: The helper's report, failures among it, as ASCII JSON: file names may be unstorable text.
    result = models.TextField(blank=True, default="", db_column="outcome")
    proven = models.BinaryField(null=True)
    digests = models.BinaryField(null=True)

    class Meta:
        db_table = "parcel_leases"
        constraints: ClassVar = [
            models.UniqueConstraint(name="lease_once", fields=["job", "attempt", "number"]),
            models.CheckConstraint(
                name="lease_state_known", condition=Q(state__in=LeaseState.values)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.job_id}/{self.number} {self.state}"


class EventLevel(models.TextChoices):
    """The severity of an event."""

    INFO = "info", _("info")
    WARNING = "warning", _("warning")
    ERROR = "error", _("error")


class JobEvent(models.Model):
    """One event of a job. Append-only; `seq` has no gaps, so a poller can resume."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="events")
    seq = models.PositiveIntegerField(_("number"))
    at = models.DateTimeField(_("at"), default=timezone.now)
    level = models.CharField(_("level"), max_length=8, choices=EventLevel)
    code = models.CharField(_("code"), max_length=64)
    phase = models.CharField(_("phase"), max_length=16, blank=True, default="")
    attempt = models.PositiveIntegerField(_("attempt"))
    message = models.TextField(_("message"))
    data = models.JSONField(_("data"), default=dict, blank=True)

    class Meta:
        db_table = "job_events"
        ordering: ClassVar = ["seq"]
        verbose_name = _("event")
        verbose_name_plural = _("events")
        constraints: ClassVar = [
            # Also the cursor's index: events of a job after seq N.
            models.UniqueConstraint(name="event_seq_once_per_job", fields=["job", "seq"]),
            models.CheckConstraint(
                name="event_level_known", condition=Q(level__in=EventLevel.values)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.job_id}#{self.seq} {self.code}"
