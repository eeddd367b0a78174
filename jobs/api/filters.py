"""The filters of the list of jobs."""

from __future__ import annotations

from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from django_filters import (
    CharFilter,
    ChoiceFilter,
    FilterSet,
    IsoDateTimeFilter,
    MultipleChoiceFilter,
)

from jobs.choices import JobMode
from jobs.models import Job, JobQuerySet
from jobs.states import Status


class JobFilter(FilterSet):
    """Filters of `/api/jobs/`; `status` may be given several times."""

    status = MultipleChoiceFilter(choices=Status.choices)
    mode = ChoiceFilter(choices=JobMode.choices)
    portal = CharFilter(method="at_either_end", label=_("Portal at either end, by name"))
    source_portal = CharFilter("source_portal__name")
    target_portal = CharFilter("target_portal__name")
    requested_by = CharFilter("requested_by__username")
    created_after = IsoDateTimeFilter("created_at", "gte")
    created_before = IsoDateTimeFilter("created_at", "lt")

    class Meta:
        model = Job
        fields: tuple[str, ...] = ()

    def at_either_end(self, jobs: JobQuerySet, _name: str, portal: str) -> JobQuerySet:
        """Jobs that read from or write to a portal."""
        return jobs.filter(Q(source_portal__name=portal) | Q(target_portal__name=portal))
