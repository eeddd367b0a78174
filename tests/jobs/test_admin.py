"""Jobs in the admin: what operators launch with, and what viewers can see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from jobs.models import Job
from jobs.services import job_cancel
from jobs.states import Status
from portals.models import Portal
from tests.jobs.conftest import event_add

LIST, ADD = "/admin/jobs/job/", "/admin/jobs/job/add/"


@pytest.fixture
def at_admin(client: Client) -> Callable[[User], Client]:
    """A browser in which a user is logged in."""

    def make(user: User) -> Client:
        client.force_login(user)
        return client

    return make


@pytest.fixture
def form(lab: Portal, srvtrf: Portal) -> dict[str, Any]:
    """The launch form, filled in."""
    return {
        "mode": "copy",
        "source_portal": lab.pk,
        "source_path": "day1",
        "target_portal": srvtrf.pk,
        "target_path": "in/day1",
        "strategy": "auto",
        "verify": "",
        "on_conflict": "fail",
        "include": "*.mov\n\n *.wav ",
        "exclude": "",
        "streams": 2,
        "bandwidth_limit": 0,
        "priority": 0,
        "max_tries": 50,
    }


def page_of(job: Job) -> str:
    return reverse("admin:jobs_job_change", args=[job.pk])


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
    ],
)
def test_it_shows_what_is_wrong_at_the_field(
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


def test_it_refuses_a_target_inside_the_source(
    at_admin: Callable[..., Client], oscar: User, form: dict[str, Any], lab: Portal
) -> None:
    form |= {"target_portal": lab.pk, "target_path": "day1/copy"}
    errors = at_admin(oscar).post(ADD, form).context["adminform"].form.errors
    assert errors == {"target_path": ["The target lies inside the source."]}


def test_it_offers_active_portals_only(
    at_admin: Callable[..., Client], oscar: User, form: dict[str, Any], lab: Portal
) -> None:
    Portal.objects.filter(pk=lab.pk).update(state="disabled")
    client = at_admin(oscar)
    choices = client.get(ADD).context["adminform"].form.fields["source_portal"].queryset
    assert [portal.name for portal in choices] == ["srvtrf"]
    assert "source_portal" in client.post(ADD, form).context["adminform"].form.errors


def test_the_list_shows_progress_and_refreshes_live_jobs(
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
def test_the_list_can_be_searched_and_filtered(
    query: str, at_admin: Callable[..., Client], vera: User, job_in: Callable[..., Job]
) -> None:
    job_in(Status.DONE)
    assert at_admin(vera).get(LIST + query).status_code == 200


def test_the_list_takes_as_many_queries_for_twenty_jobs_as_for_one(
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


def test_the_page_of_a_job_shows_its_trail_and_follows_it(
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


@pytest.mark.parametrize("status", list(Status))
def test_no_page_of_a_job_asks_another_server(
    status: Status, at_admin: Callable[..., Client], alice: User, job_in: Callable[..., Job]
) -> None:
    job, client = job_in(status), at_admin(alice)
    for url in (LIST, ADD, page_of(job)):
        page = client.get(url).content.decode()
        for mark in ('src="http', 'src="//', 'rel="stylesheet" href="http', "@import"):
            assert mark not in page


def test_an_operator_cancels_and_relaunches_from_the_page(
    at_admin: Callable[..., Client], oscar: User, job_in: Callable[..., Job]
) -> None:
    job, client = job_in(Status.QUEUED), at_admin(oscar)
    assert f"/admin/jobs/job/{job.pk}/cancel/" in client.get(page_of(job)).content.decode()
    client.post(f"/admin/jobs/job/{job.pk}/cancel/")
    job.refresh_from_db()
    assert job.status == Status.CANCELLED
    answer = client.post(f"/admin/jobs/job/{job.pk}/relaunch/")
    new = Job.objects.get(relaunched_from=job)
    assert answer["Location"] == page_of(new)


def test_an_operator_cancels_and_relaunches_several(
    at_admin: Callable[..., Client], oscar: User, job_in: Callable[..., Job]
) -> None:
    waiting, done = job_in(Status.QUEUED), job_in(Status.DONE)
    client = at_admin(oscar)
    chosen = {"_selected_action": [str(waiting.pk), str(done.pk)]}
    page = client.post(LIST, {"action": "cancel_selected", **chosen}, follow=True).content.decode()
    assert "1 job is being cancelled." in page
    assert "nothing left to cancel" in page
    client.post(LIST, {"action": "relaunch_selected", **chosen})
    assert Job.objects.filter(relaunched_from__in=[waiting, done]).count() == 2


def test_a_button_changes_nothing_when_only_looked_at(
    at_admin: Callable[..., Client], oscar: User, job_in: Callable[..., Job]
) -> None:
    job, client = job_in(Status.QUEUED), at_admin(oscar)
    assert client.get(f"/admin/jobs/job/{job.pk}/cancel/").status_code == 405
    assert Job.objects.get().status == Status.QUEUED


def test_a_viewer_looks_and_does_no_more(
    at_admin: Callable[..., Client], vera: User, oscar: User, job_in: Callable[..., Job]
) -> None:
    job, client = job_in(Status.QUEUED), at_admin(vera)
    page = client.get(page_of(job)).content.decode()
    assert "/cancel/" not in page
    assert client.get(ADD).status_code == 403
    assert client.post(f"/admin/jobs/job/{job.pk}/cancel/").status_code == 403
    job_cancel(job, by=oscar)
    assert "/relaunch/" not in client.get(page_of(job)).content.decode()
    assert client.post(f"/admin/jobs/job/{job.pk}/relaunch/").status_code == 403
    chosen = {"action": "relaunch_selected", "_selected_action": [str(job.pk)]}
    client.post(LIST, chosen)
    assert Job.objects.count() == 1


def test_nobody_edits_or_deletes_a_job(
    at_admin: Callable[..., Client], alice: User, job_in: Callable[..., Job]
) -> None:
    job, client = job_in(Status.DONE), at_admin(alice)
    assert client.post(page_of(job), {"mode": "move"}).status_code == 403
    assert client.post(f"/admin/jobs/job/{job.pk}/delete/", {"post": "yes"}).status_code == 403
    assert Job.objects.get().mode == "copy"


def test_strangers_see_no_live_parts(client: Client, job_in: Callable[..., Job]) -> None:
    job = job_in(Status.RUNNING)
    for url in (f"/admin/jobs/job/{job.pk}/live/", "/admin/jobs/job/live/"):
        assert client.get(url).status_code == 302
