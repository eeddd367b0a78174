"""The launch form of the admin."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.utils.translation import gettext_lazy as _
from unfold.widgets import (
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextareaWidget,
    UnfoldBooleanSwitchWidget,
)

from jobs.models import Job
from jobs.validation import ORDER_FIELDS, busy_problem, problems_of, shorten_paths
from portals.models import Portal, PortalState


class PatternsField(forms.CharField):
    """A list of glob patterns, one per line."""

    widget = UnfoldAdminTextareaWidget({"rows": 2})

    def prepare_value(self, value: Any) -> Any:
        """Return the list as lines."""
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> list[str]:  # type: ignore[override]
        """Return the lines as a list, without the empty ones."""
        lines = value if isinstance(value, list) else (value or "").splitlines()
        return [line.strip() for line in lines if line.strip()]


class JobForm(forms.ModelForm):
    """The fields that a user fills in to launch a job; shows an error at each wrong one."""

    include = PatternsField(
        label=_("Only these files"),
        required=False,
        help_text=_("Patterns such as *.mov, one per line; empty means all files."),
    )
    exclude = PatternsField(
        label=_("Not these files"),
        required=False,
        help_text=_("Patterns such as .DS_Store, one per line."),
    )

    start_at = forms.SplitDateTimeField(
        label=_("Start at"),
        required=False,
        widget=UnfoldAdminSplitDateTimeWidget,
        help_text=_("Start at this time; empty means as soon as a worker is free."),
    )
    draft = forms.BooleanField(
        label=_("Save as a draft"),
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text=_("The job waits until a user starts it."),
    )

    class Meta:
        model = Job
        fields: ClassVar = list(ORDER_FIELDS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for side in ("source_portal", "target_portal"):
            field = self.fields.get(side)  # A read-only page of a job has no fields.
            if isinstance(field, forms.ModelChoiceField):
                field.queryset = Portal.objects.filter(state=PortalState.ACTIVE)

    def clean(self) -> dict[str, Any]:
        """Validate as the API does; add each error to its field."""
        values = super().clean() or self.cleaned_data
        if {"source_portal", "target_portal", "source_path", "target_path"} <= values.keys():
            job = Job(**{name: values[name] for name in ORDER_FIELDS if name in values})
            shorten_paths(job)
            problems = problems_of(job)
            if not problems and not values.get("draft") and (busy := busy_problem(job)):
                problems["target_path"] = busy
            for name, problem in problems.items():
                if name in values:
                    self.add_error(name, forms.ValidationError(problem.message, problem.code))
        return values
