"""Jobs in the admin: what operators launch with, and what viewers can see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from jobs.models import Job
from jobs.services import job_cancel, job_create
from jobs.states import Status
from portals.models import Portal
from tests.jobs.helpers import LIMITS, page_of
from tests.rig.jobs_events import event_add

LIST, ADD = "/admin/jobs/job/", "/admin/jobs/job/add/"


def test_an_operator_launches_a_job_and_lands_on_its_page(
    at_admin: Callable[..., Client], oscar: User, form: dict[str, Any]
) -> None:
    client = at_admin(oscar)
    assert b"Launch" in client.get(ADD).content
    answer = client.post(ADD, form)
    job = Job.objects.get()
    assert answer.status_code == 302
    assert answer["Location"] == page_of(job)
    assert (job.requested_by, job.include, job.streams) == (oscar, ["*.mov", "*.wav"], 2)
    assert [event.code for event in job.events.all()] == ["CREATED"]


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"source_path": "../etc"}, "source_path", "lead out"),
        ({"target_path": "/etc"}, "target_path", "leading slash"),
        ({"streams": 33}, "streams", "between 0 and 32"),
        ({"mode": "teleport"}, "mode", "valid choice"),
        ({"source_portal": ""}, "source_portal", "required"),
        ({"exclude": "x" * 2000}, "exclude", "1 to 1024"),
        ({"priority": 1001}, "priority", "between -1000 and 1000"),
        ({"bandwidth_limit": -1}, "bandwidth_limit", "between 0 and"),
        ({"max_tries": 0}, "max_tries", "between 1 and 1000"),
        ({"start_at_0": "soon", "start_at_1": ""}, "start_at", "valid date"),
    ],
)
def test_the_launch_form_shows_each_error_at_its_field(
    change: dict[str, Any],
    field: str,
    words: str,
    at_admin: Callable[..., Client],
    oscar: User,
    form: dict[str, Any],
) -> None:
    answer = at_admin(oscar).post(ADD, {**form, **change})
    assert answer.status_code == 200
    errors = answer.context["adminform"].form.errors
    assert list(errors) == [field]
    assert words in errors[field][0]
    assert not Job.objects.exists()


def test_the_launch_form_refuses_a_target_inside_the_source(
    at_admin: Callable[..., Client], oscar: User, form: dict[str, Any], lab: Portal
) -> None:
    form |= {"target_portal": lab.pk, "target_path": "day1/copy"}
    errors = at_admin(oscar).post(ADD, form).context["adminform"].form.errors
    assert errors == {"target_path": ["The target is inside the source."]}


def test_the_launch_form_offers_and_accepts_only_active_portals(
    at_admin: Callable[..., Client], oscar: User, form: dict[str, Any], lab: Portal
) -> None:
    Portal.objects.filter(pk=lab.pk).update(state="disabled")
    client = at_admin(oscar)
    choices = client.get(ADD).context["adminform"].form.fields["source_portal"].queryset
    assert [portal.name for portal in choices] == ["srvtrf"]
    assert "source_portal" in client.post(ADD, form).context["adminform"].form.errors


def test_the_launch_form_creates_a_job_with_the_limits_entered(
    at_admin: Callable[..., Client], oscar: User, form: dict[str, Any]
) -> None:
    assert at_admin(oscar).post(ADD, {**form, **LIMITS}).status_code == 302
    job = Job.objects.get()
    assert {name: getattr(job, name) for name in LIMITS} == LIMITS
    assert job.status == Status.QUEUED


def test_the_launch_form_creates_a_scheduled_job_and_a_draft(
    at_admin: Callable[..., Client], oscar: User, form: dict[str, Any]
) -> None:
    client = at_admin(oscar)
    at = {"start_at_0": "2040-02-03", "start_at_1": "04:05:06"}
    for more, status in (
        (at, Status.SCHEDULED),
        ({"draft": "on"}, Status.DRAFT),
        ({**at, "draft": "on"}, Status.DRAFT),
    ):
        assert client.post(ADD, {**form, **more}).status_code == 302
        job = Job.objects.latest("created_at")
        assert job.status == status
        when = job.next_run_at and f"{job.next_run_at:%Y-%m-%d %H:%M:%S}"
        assert when == ("2040-02-03 04:05:06" if "start_at_0" in more else None)


def test_the_launch_form_refuses_a_busy_target_if_the_setting_is_refuse(
    at_admin: Callable[..., Client], oscar: User, form: dict[str, Any], settings: Any,
    order: dict[str, Any],
) -> None:  # fmt: skip
    settings.KETTER_BUSY_TARGET = "refuse"
    other, client = job_create(by=oscar, **order), at_admin(oscar)
    errors = client.post(ADD, form).context["adminform"].form.errors
    assert str(other) in errors["target_path"][0]
    assert client.post(ADD, {**form, "draft": "on"}).status_code == 302
    job_cancel(other, by=oscar)
    assert client.post(ADD, form).status_code == 302


def test_the_admin_list_shows_progress_and_refreshes_only_live_jobs(
    at_admin: Callable[..., Client], vera: User, job_in: Callable[..., Job]
) -> None:
    live = job_in(Status.RUNNING, bytes_total=1000, bytes_done=420)
    ended = job_in(Status.DONE)
    client = at_admin(vera)
    page = client.get(LIST).content.decode()
    assert "42 %" in page
    assert f"/admin/jobs/job/live/?ids={live.pk}," in page
    cells = client.get("/admin/jobs/job/live/", {"ids": f"{live.pk},{ended.pk},{uuid4()},x,"})
    text = cells.content.decode()
    assert f'id="job-progress-{live.pk}" hx-swap-oob="true"' in text
    assert f"ids={live.pk},&quot;" not in text
    assert 'hx-trigger="every 2s"' in text
    Job.objects.filter(pk=live.pk).update(status="done")
    text = client.get("/admin/jobs/job/live/", {"ids": str(live.pk)}).content.decode()
    assert "hx-trigger" not in text
    assert f'id="job-state-{live.pk}"' in text


@pytest.mark.parametrize(
    "query", ["?q=from", "?q=zzz", "?status__exact=done", "?mode__exact=move", "?o=-7"]
)
def test_the_admin_list_of_jobs_can_be_searched_filtered_and_sorted(
    query: str, at_admin: Callable[..., Client], vera: User, job_in: Callable[..., Job]
) -> None:
    job_in(Status.DONE)
    assert at_admin(vera).get(LIST + query).status_code == 200


def test_the_admin_list_takes_at_most_12_queries_for_1_job_and_for_20(
    at_admin: Callable[..., Client],
    alice: User,
    job_in: Callable[..., Job],
    django_assert_max_num_queries: Any,
) -> None:
    client = at_admin(alice)
    for rows in (1, 20):
        while Job.objects.count() < rows:
            job_in(Status.RUNNING)
        with django_assert_max_num_queries(12):
            client.get(LIST)


def test_the_admin_page_of_a_job_shows_its_events_and_refreshes_until_it_ends(
    at_admin: Callable[..., Client], vera: User, job_in: Callable[..., Job]
) -> None:
    job = job_in(Status.RUNNING, phase="transfer")
    event_add(job, code="SLOW", message="The line is <slow>.", level="warning")
    client = at_admin(vera)
    page = client.get(page_of(job)).content.decode()
    assert "The line is &lt;slow&gt;." in page
    assert 'hx-trigger="every 2s"' in page
    live = client.get(f"/admin/jobs/job/{job.pk}/live/").content.decode()
    assert "SLOW" in live
    assert "<html" not in live
    Job.objects.filter(pk=job.pk).update(status="done")
    assert "hx-trigger" not in client.get(f"/admin/jobs/job/{job.pk}/live/").content.decode()


@pytest.mark.parametrize(
    ("asked", "badge"), [("pause_requested_at", "pausing"), ("cancel_requested_at", "cancelling")]
)
def test_the_admin_page_of_a_job_shows_that_it_is_pausing_or_cancelling(
    asked: str, badge: str, at_admin: Callable[..., Client], vera: User, job_in: Callable[..., Job]
) -> None:
    job = job_in(Status.RUNNING, **{asked: timezone.now()})
    assert badge in at_admin(vera).get(page_of(job)).content.decode()


def test_the_admin_page_of_a_job_shows_its_next_try_and_what_it_waits_for(
    at_admin: Callable[..., Client], vera: User, job_in: Callable[..., Job]
) -> None:
    client = at_admin(vera)
    page = client.get(page_of(job_in(Status.RETRY_WAIT, attempt=1, tries=3))).content.decode()
    assert "Next try at" in page
    assert "failure 3 of 50 in a row" in page
    assert "Starts at" in client.get(page_of(job_in(Status.SCHEDULED))).content.decode()
    waits = job_in(Status.QUEUED, waits_for="Waits for job 1234.")
    assert "Waits for job 1234." in client.get(page_of(waits)).content.decode()
    assert "Waits for job 1234." in client.get(LIST).content.decode()


@pytest.mark.parametrize("status", list(Status))
def test_the_admin_pages_of_jobs_load_nothing_from_another_server(
    status: Status, at_admin: Callable[..., Client], alice: User, job_in: Callable[..., Job]
) -> None:
    job, client = job_in(status), at_admin(alice)
    for url in (LIST, ADD, page_of(job)):
        page = client.get(url).content.decode()
        for mark in ('src="http', 'src="//', 'rel="stylesheet" href="http', "@import"):
            assert mark not in page


def test_the_admin_lets_no_user_edit_or_delete_a_job(
    at_admin: Callable[..., Client], alice: User, job_in: Callable[..., Job]
) -> None:
    job, client = job_in(Status.DONE), at_admin(alice)
    assert client.post(page_of(job), {"mode": "move"}).status_code == 403
    assert client.post(f"/admin/jobs/job/{job.pk}/delete/", {"post": "yes"}).status_code == 403
    assert Job.objects.get().mode == "copy"


def test_the_admin_redirects_anonymous_users_who_request_live_updates(
    client: Client, job_in: Callable[..., Job]
) -> None:
    job = job_in(Status.RUNNING)
    for url in (f"/admin/jobs/job/{job.pk}/live/", "/admin/jobs/job/live/"):
        assert client.get(url).status_code == 302
