"""Jobs and events as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.db.models import Field
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from engine.types import OPTIONS, Option
from jobs.choices import CHOICES, JobMode
from jobs.models import Job, JobEvent
from jobs.text import is_storable
from jobs.validation import ORDER_FIELDS, RANGES
from portals.models import Portal


class PortalField(serializers.SlugRelatedField):
    """A portal, addressed by its name."""

    default_error_messages: ClassVar = {
        "does_not_exist": _("There is no portal named “{value}”."),
    }

    def __init__(self) -> None:
        super().__init__(slug_field="name", queryset=Portal.objects.all())

    def to_internal_value(self, data: Any) -> Portal:
        """Return the portal of that name; refuse unstorable text before the database does."""
        if isinstance(data, str) and not is_storable(data):
            self.fail("invalid")
        return super().to_internal_value(data)


class NameField(serializers.SlugRelatedField):
    """The name of a row, for reading only."""

    def __init__(self, slug_field: str) -> None:
        super().__init__(slug_field=slug_field, read_only=True)


class PatternsField(serializers.ListField):
    """A list of glob patterns."""

    child = serializers.CharField(trim_whitespace=False)


def _whole_number(name: str, *, default: int = 0) -> serializers.IntegerField:
    least, most = RANGES[name]
    return serializers.IntegerField(default=default, min_value=least, max_value=most)


def _option_field(option: Option) -> serializers.Field:
    column = Job._meta.get_field(option.name)
    assert isinstance(column, Field)
    words: dict[str, Any] = {"default": column.get_default(), "help_text": column.help_text}
    if option.name in CHOICES:
        return serializers.ChoiceField(
            CHOICES[option.name].choices, allow_blank=column.blank, **words
        )
    if issubclass(option.kind, bool):
        return serializers.BooleanField(**words)
    least, most = RANGES[option.name]
    return serializers.IntegerField(min_value=least, max_value=most, **words)


class JobOrderSerializer(serializers.Serializer):
    """The body of a launch request; `jobs.services.job_create` validates it further."""

    source_portal = PortalField()
    source_path = serializers.CharField(default="", allow_blank=True, trim_whitespace=False)
    target_portal = PortalField()
    target_path = serializers.CharField(default="", allow_blank=True, trim_whitespace=False)
    mode = serializers.ChoiceField(JobMode.choices, default=JobMode.COPY)
    include = PatternsField(default=list)
    exclude = PatternsField(default=list)
    bandwidth_limit = _whole_number("bandwidth_limit")
    priority = _whole_number("priority")
    max_tries = _whole_number("max_tries", default=50)
    start_at = serializers.DateTimeField(
        default=None, allow_null=True, help_text=_("Start at this time.")
    )
    draft = serializers.BooleanField(
        default=False, help_text=_("Wait until a user starts the job.")
    )

    def get_fields(self) -> dict[str, serializers.Field]:
        """Add a field for each option of a transfer, as the job's column describes it."""
        return {**super().get_fields(), **{each.name: _option_field(each) for each in OPTIONS}}

    def to_internal_value(self, data: Any) -> Any:
        """Refuse unknown fields: to ignore a misspelt `exlude` would send, or move, all files."""
        unknown = sorted(set(data) - set(self.fields)) if isinstance(data, Mapping) else []
        if unknown:
            sentence = _("Unknown field; a job has: %s.") % ", ".join(self.fields)
            raise serializers.ValidationError({name: [sentence] for name in unknown})
        return super().to_internal_value(data)


class JobSerializer(serializers.ModelSerializer):
    """A job in a list: its request, state, progress and rate."""

    source_portal = NameField("name")
    target_portal = NameField("name")
    requested_by = NameField("username")
    rate = serializers.SerializerMethodField(help_text=_("Bytes per second of the latest attempt."))
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
        """Return whole bytes per second."""
        return round(job.rate)


class JobDetailSerializer(JobSerializer):
    """A single job: also with the engine's plan."""

    class Meta(JobSerializer.Meta):
        fields: ClassVar = [*JobSerializer.Meta.fields, "plan"]
        read_only_fields: ClassVar = fields


class JobEventSerializer(serializers.ModelSerializer):
    """One event of a job."""

    class Meta:
        model = JobEvent
        fields: ClassVar = [
            "seq", "at", "level", "code", "phase", "attempt", "message", "data",
        ]  # fmt: skip


class EventsQuerySerializer(serializers.Serializer):
    """The events to send: those after a number, at most `limit`."""

    after = serializers.IntegerField(default=0, min_value=0, max_value=2**31 - 1)
    limit = serializers.IntegerField(default=100, min_value=1, max_value=1000)


class EventsPageSerializer(serializers.Serializer):
    """Events in order, and the number to send as `after` to get the next ones."""

    results = JobEventSerializer(many=True)
    after = serializers.IntegerField()
    more = serializers.BooleanField(help_text=_("Whether more events are there already."))
    is_live = serializers.BooleanField(help_text=_("Whether the job can still get new events."))
