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
from jobs.orders import ORDER_FIELDS, busy_problem, problems_of, tidy_order
from portals.models import Portal, PortalState


class PatternsField(forms.CharField):
    """A list of glob patterns, one a line."""

    widget = UnfoldAdminTextareaWidget({"rows": 2})

    def prepare_value(self, value: Any) -> Any:
        """The list as lines."""
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> list[str]:  # type: ignore[override]
        """The lines as a list, empty ones left out."""
        lines = value if isinstance(value, list) else (value or "").splitlines()
        return [line.strip() for line in lines if line.strip()]


class JobForm(forms.ModelForm):
    """What a person decides when launching a job, refused field by field where it cannot be."""

    include = PatternsField(
        label=_("Only these"), required=False, help_text=_("Patterns such as *.mov, one a line.")
    )
    exclude = PatternsField(
        label=_("Leave out"), required=False, help_text=_("Patterns such as .DS_Store, one a line.")
    )

    start_at = forms.SplitDateTimeField(
        label=_("Start at"),
        required=False,
        widget=UnfoldAdminSplitDateTimeWidget,
        help_text=_("Wait for this moment; empty to start when it is its turn."),
    )
    draft = forms.BooleanField(
        label=_("Only draft it"),
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text=_("It waits until somebody starts it."),
    )

    class Meta:
        model = Job
        fields: ClassVar = list(ORDER_FIELDS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for side in ("source_portal", "target_portal"):
            field = self.fields.get(side)  # A page that only shows a job has no fields.
            if isinstance(field, forms.ModelChoiceField):
                field.queryset = Portal.objects.filter(state=PortalState.ACTIVE)

    def clean(self) -> dict[str, Any]:
        """Ask the same judge as the API does; what it finds goes to the field it is about."""
        values = super().clean() or self.cleaned_data
        if {"source_portal", "target_portal", "source_path", "target_path"} <= values.keys():
            order = Job(**{name: values[name] for name in ORDER_FIELDS if name in values})
            tidy_order(order)
            problems = problems_of(order)
            if not problems and not values.get("draft") and (busy := busy_problem(order)):
                problems["target_path"] = busy
            for name, problem in problems.items():
                if name in values:
                    self.add_error(name, forms.ValidationError(problem.message, problem.code))
        return values
