"""Pausing, resuming, retrying and the ways to launch, through `/api/jobs/` and the admin."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from rest_framework.test import APIClient

from jobs.models import Job
from jobs.services import job_cancel, job_create
from jobs.states import PAUSABLE, STARTABLE, Status
from portals.models import Portal

JOBS, ADD, LIST = "/api/jobs/", "/admin/jobs/job/add/", "/admin/jobs/job/"
JobIn = Callable[..., Job]
Api = Callable[..., APIClient]
LIMITS = {"priority": 7, "bandwidth_limit": 5_000_000, "max_tries": 3, "streams": 2}


@pytest.fixture
def body(lab: Portal, srvtrf: Portal) -> dict[str, Any]:
    """The least that a launch through the API needs."""
    return {
        "source_portal": "lab",
        "source_path": "day1",
        "target_portal": "srvtrf",
        "target_path": "in/day1",
    }


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
        **LIMITS,
    }


@pytest.fixture
def at_admin(client: Client) -> Callable[[User], Client]:
    """A browser in which a user is logged in."""

    def make(user: User) -> Client:
        client.force_login(user)
        return client

    return make


def page_of(job: Job) -> str:
    return reverse("admin:jobs_job_change", args=[job.pk])


# --- The API ------------------------------------------------------------------


@pytest.mark.parametrize("status", list(Status))
def test_the_api_pauses_and_resumes_what_can_be(
    status: Status, api: Api, oscar: User, job_in: JobIn
) -> None:
    client = api(oscar)
    for verb, can, code in (
        ("pause", PAUSABLE, "NOT_PAUSABLE"),
        ("resume", STARTABLE, "NOT_STARTABLE"),
    ):
        job = job_in(status)
        answer = client.post(f"{JOBS}{job.pk}/{verb}/")
        said = answer.json()
        if status in can:
            assert answer.status_code == 202
            assert said["status"] == Job.objects.get(pk=job.pk).status
        else:
            assert (answer.status_code, said["code"]) == (409, code)
            assert Job.objects.get(pk=job.pk).status == status


def test_the_api_shows_that_a_pause_was_asked_for(api: Api, oscar: User, job_in: JobIn) -> None:
    said = api(oscar).post(f"{JOBS}{job_in(Status.RUNNING).pk}/pause/").json()
    assert said["status"] == "running"
    assert said["pause_requested_at"]


def test_the_api_retries_what_failed(api: Api, oscar: User, job_in: JobIn) -> None:
    job = job_in(Status.PARTIAL)
    answer = api(oscar).post(f"{JOBS}{job.pk}/retry-failed/")
    assert (answer.status_code, answer.json()["relaunched_from"]) == (201, str(job.pk))
    answer = api(oscar).post(f"{JOBS}{job_in(Status.DONE).pk}/retry-failed/")
    assert (answer.status_code, answer.json()["code"]) == (409, "JOB_NOT_PARTIAL")


@pytest.mark.parametrize("verb", ["pause", "resume", "retry-failed"])
def test_the_api_lets_viewers_and_strangers_change_nothing(
    verb: str, api: Api, vera: User, job_in: JobIn
) -> None:
    job = job_in({"pause": Status.RUNNING, "resume": Status.PAUSED}.get(verb, Status.PARTIAL))
    for user, code in ((vera, 403), (None, 401)):
        assert api(user).post(f"{JOBS}{job.pk}/{verb}/").status_code == code
    assert Job.objects.get().status == job.status
    assert not job.events.exists()


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "relaunch", "retry-failed"])
def test_the_api_changes_nothing_when_only_looked_at(
    verb: str, api: Api, oscar: User, job_in: JobIn
) -> None:
    assert api(oscar).get(f"{JOBS}{job_in(Status.PAUSED).pk}/{verb}/").status_code == 405


def test_the_api_launches_with_limits(api: Api, oscar: User, body: dict[str, Any]) -> None:
    said = api(oscar).post(JOBS, {**body, **LIMITS}, "json").json()
    assert {name: said[name] for name in LIMITS} == LIMITS
    job = Job.objects.get()
    assert {name: getattr(job, name) for name in LIMITS} == LIMITS


def test_the_api_schedules_and_drafts(api: Api, oscar: User, body: dict[str, Any]) -> None:
    client, when = api(oscar), timezone.now() + timedelta(days=1)
    at = client.post(JOBS, {**body, "start_at": when.isoformat()}, "json").json()
    assert (at["status"], at["queued_at"]) == ("scheduled", None)
    assert Job.objects.get(pk=at["id"]).next_run_at == when
    draft = client.post(JOBS, {**body, "draft": True}, "json").json()
    assert (draft["status"], draft["next_run_at"]) == ("draft", None)
    both = client.post(JOBS, {**body, "draft": True, "start_at": when.isoformat()}, "json").json()
    assert both["status"] == "draft"
    started = client.post(f"{JOBS}{both['id']}/resume/").json()
    assert started["status"] == "scheduled"
    assert started["next_run_at"] == at["next_run_at"]


@pytest.mark.parametrize(
    "change",
    [
        {"priority": 1001},
        {"priority": "high"},
        {"bandwidth_limit": -1},
        {"bandwidth_limit": 1 << 60},
        {"max_tries": 0},
        {"max_tries": 1001},
        {"start_at": "tomorrow"},
        {"draft": "perhaps"},
    ],
)
def test_the_api_refuses_limits_that_are_none(
    change: dict[str, Any], api: Api, oscar: User, body: dict[str, Any]
) -> None:
    answer = api(oscar).post(JOBS, {**body, **change}, "json")
    assert answer.status_code == 400
    assert list(answer.json()["extra"]["fields"]) == list(change)
    assert not Job.objects.exists()


def test_the_api_refuses_a_busy_target_where_that_is_wanted(
    api: Api, oscar: User, body: dict[str, Any], settings: Any
) -> None:
    settings.KETTER_BUSY_TARGET = "refuse"
    client = api(oscar)
    client.post(JOBS, body, "json")
    answer = client.post(JOBS, body, "json")
    assert (answer.status_code, answer.json()["code"]) == (400, "TARGET_BUSY")


def test_the_api_says_what_a_job_waits_for_and_until_when(
    api: Api, vera: User, job_in: JobIn
) -> None:
    when = timezone.now() + timedelta(minutes=5)
    waits = job_in(Status.QUEUED, waits_for="Waits for job 1234.")
    again = job_in(Status.RETRY_WAIT, next_run_at=when, tries=3, error_code="CONNECTION_LOST")
    client = api(vera)
    assert client.get(f"{JOBS}{waits.pk}/").json()["waits_for"] == "Waits for job 1234."
    said = client.get(f"{JOBS}{again.pk}/").json()
    assert (said["tries"], said["max_tries"], said["error_code"]) == (3, 50, "CONNECTION_LOST")
    assert said["next_run_at"].startswith(when.isoformat()[:19])


# --- The admin ------------------------------------------------------------------


def test_an_operator_pauses_and_resumes_from_the_page(
    at_admin: Callable[..., Client], oscar: User, job_in: JobIn
) -> None:
    job, client = job_in(Status.QUEUED, attempt=1), at_admin(oscar)
    for verb, status in (("pause", Status.PAUSED), ("resume", Status.QUEUED)):
        assert f"/{job.pk}/{verb}/" in client.get(page_of(job)).content.decode()
        answer = client.post(f"{LIST}{job.pk}/{verb}/")
        assert answer["Location"] == page_of(job)
        assert Job.objects.get(pk=job.pk).status == status


def test_an_operator_retries_what_failed_from_the_page(
    at_admin: Callable[..., Client], oscar: User, job_in: JobIn
) -> None:
    job, client = job_in(Status.PARTIAL), at_admin(oscar)
    assert "Retry what failed" in client.get(page_of(job)).content.decode()
    answer = client.post(f"{LIST}{job.pk}/retry_failed/")
    assert answer["Location"] == page_of(Job.objects.get(relaunched_from=job))


@pytest.mark.parametrize("status", list(Status))
def test_the_page_offers_what_can_be_done_and_nothing_else(
    status: Status, at_admin: Callable[..., Client], oscar: User, job_in: JobIn
) -> None:
    job = job_in(status)
    page = at_admin(oscar).get(page_of(job)).content.decode()
    offered = {
        "pause": status in PAUSABLE,
        "resume": status in STARTABLE,
        "cancel": job.is_live,
        "relaunch": not job.is_live,
        "retry_failed": status is Status.PARTIAL,
    }
    assert {verb: f"/{job.pk}/{verb}/" in page for verb in offered} == offered


@pytest.mark.parametrize(
    ("asked", "badge"), [("pause_requested_at", "pausing"), ("cancel_requested_at", "cancelling")]
)
def test_the_page_shows_that_a_job_is_about_to_stop(
    asked: str, badge: str, at_admin: Callable[..., Client], vera: User, job_in: JobIn
) -> None:
    job = job_in(Status.RUNNING, **{asked: timezone.now()})
    assert badge in at_admin(vera).get(page_of(job)).content.decode()


def test_the_page_says_when_it_tries_again_and_what_it_waits_for(
    at_admin: Callable[..., Client], vera: User, job_in: JobIn
) -> None:
    client = at_admin(vera)
    page = client.get(page_of(job_in(Status.RETRY_WAIT, attempt=1, tries=3))).content.decode()
    assert "Next try at" in page
    assert "failure 3 of 50 in a row" in page
    assert "Starts at" in client.get(page_of(job_in(Status.SCHEDULED))).content.decode()
    waits = job_in(Status.QUEUED, waits_for="Waits for job 1234.")
    assert "Waits for job 1234." in client.get(page_of(waits)).content.decode()
    assert "Waits for job 1234." in client.get(LIST).content.decode()


def test_an_operator_pauses_and_resumes_several(
    at_admin: Callable[..., Client], oscar: User, job_in: JobIn
) -> None:
    queued, ended, draft = job_in(Status.QUEUED), job_in(Status.DONE), job_in(Status.DRAFT)
    client = at_admin(oscar)
    chosen = {"_selected_action": [str(job.pk) for job in (queued, ended, draft)]}
    page = client.post(LIST, {"action": "pause_selected", **chosen}, follow=True).content.decode()
    assert "1 job is being paused." in page
    page = client.post(LIST, {"action": "resume_selected", **chosen}, follow=True).content.decode()
    assert "2 jobs go on." in page
    assert "does not wait for anybody" in page
    assert set(Job.objects.values_list("status", flat=True)) == {"queued", "done"}


def test_a_viewer_neither_sees_nor_reaches_the_buttons(
    at_admin: Callable[..., Client], vera: User, job_in: JobIn
) -> None:
    client = at_admin(vera)
    for status, verb in (
        (Status.RUNNING, "pause"),
        (Status.PAUSED, "resume"),
        (Status.PARTIAL, "retry_failed"),
    ):
        job = job_in(status)
        assert f"/{verb}/" not in client.get(page_of(job)).content.decode()
        assert client.post(f"{LIST}{job.pk}/{verb}/").status_code == 403
        client.post(LIST, {"action": f"{verb}_selected", "_selected_action": [str(job.pk)]})
        job.refresh_from_db()
        assert (job.status, job.pause_requested_at) == (status, None)
    assert Job.objects.count() == 3


def test_the_form_launches_with_limits(
    at_admin: Callable[..., Client], oscar: User, form: dict[str, Any]
) -> None:
    assert at_admin(oscar).post(ADD, form).status_code == 302
    job = Job.objects.get()
    assert {name: getattr(job, name) for name in LIMITS} == LIMITS
    assert job.status == Status.QUEUED


def test_the_form_schedules_and_drafts(
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


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"priority": 1001}, "priority"),
        ({"bandwidth_limit": -1}, "bandwidth_limit"),
        ({"max_tries": 0}, "max_tries"),
        ({"start_at_0": "soon", "start_at_1": ""}, "start_at"),
    ],
)
def test_the_form_refuses_limits_that_are_none(
    change: dict[str, Any],
    field: str,
    at_admin: Callable[..., Client],
    oscar: User,
    form: dict[str, Any],
) -> None:
    answer = at_admin(oscar).post(ADD, {**form, **change})
    assert list(answer.context["adminform"].form.errors) == [field]
    assert not Job.objects.exists()


def test_the_form_refuses_a_busy_target_where_that_is_wanted(
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


def test_the_page_says_why_a_draft_cannot_be_started(
    at_admin: Callable[..., Client], oscar: User, order: dict[str, Any], settings: Any
) -> None:
    settings.KETTER_BUSY_TARGET = "refuse"
    draft = job_create(by=oscar, draft=True, **order)
    other = job_create(by=oscar, **order)
    page = at_admin(oscar).post(f"{LIST}{draft.pk}/resume/", follow=True).content.decode()
    assert f"Job {other} writes to the same place" in page


def test_a_portal_that_jobs_name_cannot_be_deleted(api: Api, alice: User, job_in: JobIn) -> None:
    job = job_in(Status.RUNNING)
    answer = api(alice).delete(f"/api/portals/{job.target_portal.name}/")
    if answer.status_code == 404:
        answer = api(alice).delete(f"/api/portals/{job.target_portal_id}/")
    assert (answer.status_code, answer.json()["code"]) == (409, "PORTAL_IN_USE")
    assert Portal.objects.filter(pk=job.target_portal_id).exists()
