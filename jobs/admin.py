"""Jobs in the admin: users launch, watch, pause, resume, cancel and relaunch them, no more."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import RangeDateTimeFilter
from unfold.decorators import display

from jobs.errors import JobError
from jobs.forms import JobForm
from jobs.models import Job
from jobs.requesting_user import requesting_user
from jobs.services import (
    job_cancel,
    job_create,
    job_pause,
    job_relaunch,
    job_resume,
    job_retry_failed,
)
from jobs.validation import ORDER_FIELDS

#: Events on the page of a job, at most; the API has all of them.
EVENTS_SHOWN = 200
#: Jobs that one request refreshes, at most; a list page has fewer.
ROWS_REFRESHED = 200

#: The buttons on the page of a job: the service that each calls, and the permission it needs.
VERBS: dict[str, tuple[Callable[..., Job], str]] = {
    "cancel": (job_cancel, "jobs.change_job"),
    "pause": (job_pause, "jobs.change_job"),
    "resume": (job_resume, "jobs.change_job"),
    "relaunch": (job_relaunch, "jobs.add_job"),
    "retry_failed": (job_retry_failed, "jobs.add_job"),
}


@admin.register(Job)
class JobAdmin(ModelAdmin):
    """Jobs: a launch form, and a list and a page that refresh themselves while jobs are live."""

    form = JobForm
    add_form_template = "admin/jobs/job/launch.html"
    change_form_outer_before_template = "admin/jobs/job/live.html"
    list_before_template = "admin/jobs/job/list_live.html"
    list_display = ("name", "route", "state", "progress", "rate", "requested_by", "age")
    list_filter = (
        "status",
        "mode",
        "source_portal",
        "target_portal",
        ("created_at", RangeDateTimeFilter),
    )
    list_filter_submit = True
    list_select_related = ("source_portal", "target_portal", "requested_by")
    list_per_page = 50
    show_full_result_count = False
    search_fields = (
        "id",
        "source_path",
        "target_path",
        "source_portal__name",
        "target_portal__name",
        "requested_by__username",
        "error_code",
    )
    fieldsets: ClassVar = (
        (None, {"fields": ("mode",)}),
        (_("From"), {"fields": (("source_portal", "source_path"),)}),
        (_("To"), {"fields": (("target_portal", "target_path"),)}),
        (
            _("Method"),
            {
                "fields": (
                    ("strategy", "verify"),
                    ("on_conflict", "streams"),
                    ("symlinks", "hard_links"),
                    ("checksum", "xattrs", "special_bits", "preallocate"),
                )
            },
        ),
        (
            _("Schedule and limits"),
            {"fields": (("priority", "max_tries"), ("bandwidth_limit", "start_at"), "draft")},
        ),
        (_("Files"), {"fields": (("include", "exclude"),)}),
    )
    actions = ("cancel_selected", "pause_selected", "resume_selected", "relaunch_selected")

    # Permissions: operators launch and stop jobs; no user edits or deletes one.

    def has_change_permission(self, request: HttpRequest, obj: Job | None = None) -> bool:
        """Never: a job is a record of a request."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Job | None = None) -> bool:
        """Never: jobs are the record of all transfers."""
        return False

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Whether the user may cancel, pause and resume jobs."""
        return request.user.has_perm("jobs.change_job")

    # Launching

    def save_model(self, request: HttpRequest, obj: Job, form: JobForm, change: bool) -> None:
        """Launch the job that the form describes."""
        fields = {name: getattr(obj, name) for name in ORDER_FIELDS}
        when = {name: form.cleaned_data[name] for name in ("start_at", "draft")}
        job = job_create(by=requesting_user(request), **fields, **when)
        obj.__dict__.update(job.__dict__)

    def response_add(
        self, request: HttpRequest, obj: Job, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the page of the new job."""
        messages.success(request, gettext("Job %s was launched.") % obj)
        return HttpResponseRedirect(_page_of(obj))

    # The list

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        """Jobs without the plan, which can be large."""
        return super().get_queryset(request).defer("plan")

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """The list, with `live`: the live jobs on its page."""
        page = super().get_changelist_instance(request)
        page.live = [job for job in page.result_list if job.is_live]
        return page

    @display(description=_("job"), ordering="id")
    def name(self, job: Job) -> str:
        """The short id and the mode."""
        return f"{job} {job.get_mode_display()}"

    @display(description=_("from → to"))
    def route(self, job: Job) -> str:
        """Both ends, as scp writes them."""
        return _cell("route", job)

    @display(description=_("status"), ordering="status")
    def state(self, job: Job) -> str:
        """The status as a badge; refreshed while the job is live."""
        return _cell("state", job)

    @display(description=_("progress"))
    def progress(self, job: Job) -> str:
        """A bar, with percent and bytes; refreshed while the job is live."""
        return _cell("progress", job)

    @display(description=_("rate"))
    def rate(self, job: Job) -> str:
        """Bytes per second; refreshed while the job is live."""
        return _cell("rate", job)

    @display(description=_("launched"), ordering="created_at")
    def age(self, job: Job) -> str:
        """How long ago the job was launched."""
        return _cell("age", job)

    @admin.action(description=_("Cancel selected jobs"), permissions=["cancel"])
    def cancel_selected(self, request: HttpRequest, jobs: QuerySet[Job]) -> None:
        """Cancel several jobs; skip those that have ended."""
        done = _each(request, jobs, job_cancel)
        text = ngettext("%d job is being cancelled.", "%d jobs are being cancelled.", done)
        messages.info(request, text % done)

    @admin.action(description=_("Pause selected jobs"), permissions=["cancel"])
    def pause_selected(self, request: HttpRequest, jobs: QuerySet[Job]) -> None:
        """Pause several jobs; skip those that cannot be paused."""
        done = _each(request, jobs, job_pause)
        text = ngettext("%d job is being paused.", "%d jobs are being paused.", done)
        messages.info(request, text % done)

    @admin.action(description=_("Start or resume selected jobs"), permissions=["cancel"])
    def resume_selected(self, request: HttpRequest, jobs: QuerySet[Job]) -> None:
        """Start or resume several jobs; skip those that do not wait for that."""
        done = _each(request, jobs, job_resume)
        text = ngettext("%d job was started or resumed.", "%d jobs were started or resumed.", done)
        messages.info(request, text % done)

    @admin.action(description=_("Relaunch selected jobs"), permissions=["add"])
    def relaunch_selected(self, request: HttpRequest, jobs: QuerySet[Job]) -> None:
        """Launch several ended jobs again; skip live ones."""
        done = _each(request, jobs, job_relaunch)
        text = ngettext("%d job was relaunched.", "%d jobs were relaunched.", done)
        messages.info(request, text % done)

    # The page of one job

    def get_urls(self) -> list[URLPattern]:
        """The admin's URLs, and those of the parts that refresh themselves and of the buttons."""
        wrap = self.admin_site.admin_view
        return [
            path("live/", wrap(self.rows_view), name="jobs_job_rows"),
            path("<uuid:pk>/live/", wrap(self.live_view), name="jobs_job_live"),
            *(
                path(
                    f"<uuid:pk>/{verb}/",
                    wrap(require_POST(partial(self.verb_view, verb=verb))),
                    name=f"jobs_job_{verb}",
                )
                for verb in VERBS
            ),
            *super().get_urls(),
        ]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The job's page, with the part that refreshes itself."""
        job = self.get_object(request, object_id)
        live = self._live_context(request, job) if job else {}
        context = {**(extra_context or {}), **live}
        return super().change_view(request, object_id, form_url, context)

    def live_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """The part of a job's page that changes while the job is live."""
        self._must(self.has_view_permission(request))
        job = get_object_or_404(Job.objects.select_related(*self.list_select_related), pk=pk)
        return render(request, "admin/jobs/job/live.html", self._live_context(request, job))

    def rows_view(self, request: HttpRequest) -> HttpResponse:
        """The cells of a list page that change while jobs are live."""
        self._must(self.has_view_permission(request))
        asked = [_uuid(text) for text in request.GET.get("ids", "").split(",")[:ROWS_REFRESHED]]
        jobs = self.get_queryset(request).filter(pk__in=[pk for pk in asked if pk])
        context = {"jobs": jobs, "live": [job for job in jobs if job.is_live]}
        return render(request, "admin/jobs/job/rows.html", context)

    def verb_view(self, request: HttpRequest, pk: UUID, verb: str) -> HttpResponse:
        """Do what a button on a job's page says; show the page of that job, or of the new one."""
        act, permission = VERBS[verb]
        self._must(request.user.has_perm(permission))
        job = get_object_or_404(Job, pk=pk)
        try:
            job = act(job, by=requesting_user(request))
        except JobError as error:
            messages.warning(request, f"{job}: {error}")
        return HttpResponseRedirect(_page_of(job))

    def _live_context(self, request: HttpRequest, job: Job) -> dict[str, Any]:
        parcels = job.parcels.values("kind", "state").order_by("kind", "state")
        return {
            "job": job,
            "events": job.events.order_by("-seq")[:EVENTS_SHOWN],
            "parcels": parcels.annotate(count=Count("id"), files=Sum("files"), bytes=Sum("bytes")),
            "may_change": self.has_cancel_permission(request),
            "may_launch": self.has_add_permission(request),
        }

    @staticmethod
    def _must(allowed: bool) -> None:
        if not allowed:
            raise PermissionDenied


def _page_of(job: Job) -> str:
    return reverse("admin:jobs_job_change", args=[job.pk])


def _cell(name: str, job: Job) -> str:
    return render_to_string(f"admin/jobs/job/cell_{name}.html", {"job": job})


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _each(request: HttpRequest, jobs: Any, act: Callable[..., Job]) -> int:
    """Call a service for several jobs, show each refusal, and return the number of the others."""
    done = 0
    for job in jobs:
        try:
            act(job, by=requesting_user(request))
            done += 1
        except JobError as error:
            messages.warning(request, f"{job}: {error}")
    return done
