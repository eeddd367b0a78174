"""Jobs and events as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from jobs.models import Job, JobConflict, JobEvent, JobMode, JobStrategy, JobVerify
from jobs.orders import ORDER_FIELDS, RANGES
from jobs.text import is_storable
from portals.models import Portal


class PortalField(serializers.SlugRelatedField):
    """A portal, addressed by its name."""

    default_error_messages: ClassVar = {
        "does_not_exist": _("There is no portal named “{value}”."),
    }

    def __init__(self) -> None:
        super().__init__(slug_field="name", queryset=Portal.objects.all())

    def to_internal_value(self, data: Any) -> Portal:
        """The portal of that name; what cannot be a name is not asked of the database."""
        if isinstance(data, str) and not is_storable(data):
            self.fail("invalid")
        return super().to_internal_value(data)


class NameField(serializers.SlugRelatedField):
    """What a row is known by among people, for reading only."""

    def __init__(self, slug_field: str) -> None:
        super().__init__(slug_field=slug_field, read_only=True)


class PatternsField(serializers.ListField):
    """A list of glob patterns."""

    child = serializers.CharField(trim_whitespace=False)


def _whole_number(name: str, *, default: int = 0) -> serializers.IntegerField:
    least, most = RANGES[name]
    return serializers.IntegerField(default=default, min_value=least, max_value=most)


class JobOrderSerializer(serializers.Serializer):
    """What a launcher sends; `jobs.services.job_create` decides whether it can be done."""

    source_portal = PortalField()
    source_path = serializers.CharField(default="", allow_blank=True, trim_whitespace=False)
    target_portal = PortalField()
    target_path = serializers.CharField(default="", allow_blank=True, trim_whitespace=False)
    mode = serializers.ChoiceField(JobMode.choices, default=JobMode.COPY)
    strategy = serializers.ChoiceField(JobStrategy.choices, default=JobStrategy.AUTO)
    verify = serializers.ChoiceField(JobVerify.choices, default="", allow_blank=True)
    on_conflict = serializers.ChoiceField(JobConflict.choices, default=JobConflict.FAIL)
    include = PatternsField(default=list)
    exclude = PatternsField(default=list)
    streams = _whole_number("streams")
    bandwidth_limit = _whole_number("bandwidth_limit")
    priority = _whole_number("priority")
    max_tries = _whole_number("max_tries", default=50)
    start_at = serializers.DateTimeField(
        default=None, allow_null=True, help_text=_("Wait for this moment.")
    )
    draft = serializers.BooleanField(default=False, help_text=_("Wait until somebody starts it."))

    def to_internal_value(self, data: Any) -> Any:
        """Refuse what is misspelt: with `exlude` passed over, all would be sent, or moved."""
        unknown = sorted(set(data) - set(self.fields)) if isinstance(data, Mapping) else []
        if unknown:
            sentence = _("A job has no such field; it has %s.") % ", ".join(self.fields)
            raise serializers.ValidationError({name: [sentence] for name in unknown})
        return super().to_internal_value(data)


class JobSerializer(serializers.ModelSerializer):
    """A job as lists show it: what was asked, how it stands, how fast it goes."""

    source_portal = NameField("name")
    target_portal = NameField("name")
    requested_by = NameField("username")
    rate = serializers.SerializerMethodField(help_text="Bytes per second of the latest attempt.")
    percent = serializers.IntegerField(read_only=True)
    is_live = serializers.BooleanField(read_only=True)

    class Meta:
        model = Job
        fields: ClassVar = [
            "id",
            *ORDER_FIELDS,
            "status",
            "is_live",
            "phase",
            "percent",
            "rate",
            "files_total",
            "files_done",
            "files_skipped",
            "files_failed",
            "bytes_total",
            "bytes_done",
            "attempt",
            "tries",
            "next_run_at",
            "waits_for",
            "worker",
            "heartbeat_at",
            "pause_requested_at",
            "cancel_requested_at",
            "error_code",
            "error_message",
            "requested_by",
            "relaunched_from",
            "created_at",
            "queued_at",
            "started_at",
            "finished_at",
        ]
        read_only_fields: ClassVar = fields

    def get_rate(self, job: Job) -> int:
        """Whole bytes per second."""
        return round(job.rate)


class JobDetailSerializer(JobSerializer):
    """A job alone: also the plan the engine made."""

    class Meta(JobSerializer.Meta):
        fields: ClassVar = [*JobSerializer.Meta.fields, "plan"]
        read_only_fields: ClassVar = fields


class JobEventSerializer(serializers.ModelSerializer):
    """One line of a job's trail."""

    class Meta:
        model = JobEvent
        fields: ClassVar = [
            "seq", "at", "level", "code", "phase", "attempt", "message", "data",
        ]  # fmt: skip


class EventsQuerySerializer(serializers.Serializer):
    """Which events to send: those after a number, at most so many."""

    after = serializers.IntegerField(default=0, min_value=0, max_value=2**31 - 1)
    limit = serializers.IntegerField(default=100, min_value=1, max_value=1000)


class EventsPageSerializer(serializers.Serializer):
    """Events in order, and the number to pass as `after` to get the next ones."""

    results = JobEventSerializer(many=True)
    after = serializers.IntegerField()
    more = serializers.BooleanField(help_text="Whether more events are there already.")
    is_live = serializers.BooleanField(help_text="Whether the job can still get new events.")
